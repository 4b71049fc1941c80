"""Energy of a step by the driver's own counter; nothing where there is none, for power times time is no measurement.

NVML's counter moves every 10 to 100 ms, so steps are repeated for seconds.
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html, nvmlDeviceGetTotalEnergyConsumption
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from math import nan
from time import perf_counter
from typing import Any

import torch

WINDOW_S = 5.0
Joules = Callable[[], float]


def meter(device: str) -> tuple[Joules | None, str]:
    """What reads the joules that the device has taken so far; None and the reason where nothing tells."""
    if device != "cuda":
        return None, "only NVIDIA's driver counts energy"
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None, "there is no libnvidia-ml.so.1"
    handle = ctypes.c_void_p()
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
        return None, "NVML does not know the device"

    def joules() -> float:
        taken = ctypes.c_ulonglong()
        if code := library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(taken)):
            raise OSError(f"NVML answers {code} when it is asked for energy")
        return taken.value / 1e3

    with suppress(OSError):
        joules()
        return joules, ""
    return None, "the device has no counter of energy"


def energy(step: Callable[[], None], wait: Callable[[], None], device: str) -> dict[str, Any]:
    """energy_j: joules of one step; nan, and why, where nobody counts them."""
    read, why = meter(device)
    if read is None:
        return {"energy_j": nan, "energy_why": why}
    return {"energy_j": spent(step, wait, read), "energy_why": ""}


def spent(step: Callable[[], None], wait: Callable[[], None], read: Joules, window_s: float = WINDOW_S) -> float:
    """Joules of one step, over a window of steps with the device idle at both ends."""
    wait()
    before, start, steps = read(), perf_counter(), 0
    while perf_counter() - start < window_s:
        step()
        wait()
        steps += 1
    return (read() - before) / steps
