"""Peak memory of one step, in a pass of its own: what the allocator held above the start, and the process's own peak.

Reset before every pass, so that a peak never carries over from a larger one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20
Step = Callable[[], None]


def peaks(step: Step, device: str) -> dict[str, float]:
    """MiB by name. memory: peak of allocated tensors above those that lived before, the algorithm's own need.

    On CUDA also reserved: what the caching allocator took from the device. On a CPU also rss: growth of the process's
    resident peak, pages that the process held already excluded; absent where the kernel does not tell it.
    """
    step()  # allocations that happen once, such as workspaces and the optimiser's state, are not the step's
    return cuda_peaks(step) if device == "cuda" else cpu_peaks(step)


def cuda_peaks(step: Step) -> dict[str, float]:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return {
        "memory": (torch.cuda.max_memory_allocated() - before) / MIB,
        "reserved": torch.cuda.max_memory_reserved() / MIB,
    }


def cpu_peaks(step: Step) -> dict[str, float]:
    found = {"memory": allocated(step) / MIB}
    if (resident := resident_growth(step)) is not None:
        found["rss"] = resident / MIB
    return found


def allocated(step: Step) -> int:
    """Bytes: the largest sum of what the CPU allocator gave out minus what it took back, over the step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    assert record.profiler is not None
    assert record.profiler.kineto_results is not None
    events: list[Any] = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def resident_growth(step: Step) -> int | None:
    """Bytes by which the resident peak (VmHWM, reset through clear_refs) rises over the step; Linux only."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = status_bytes("VmRSS")
    step()
    return max(0, status_bytes("VmHWM") - before)


def status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    raise AssertionError(f"/proc/self/status has no {field}")
