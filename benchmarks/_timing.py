"""Times modules in turn, so that whatever else the machine does falls on all of them alike, and finds their peaks."""

import gc
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attnbench.host import Usage
from attnbench.measure import timed
from attnbench.memory import MIB, allocated, cuda_peaks
from benchmarks._groups import Group

ROUNDS, SECONDS = 7, 0.5  # least rounds, and least seconds times the number of modules
FEWEST, CAP_S = 3, 10.0  # rounds that do where all have taken this long, times the root of the number of modules
QUICK_MS = 500.0  # of a first step, below which a second one warms up too
Step = Callable[[], None]


def step(module: nn.Module, x: Tensor, *, gradients: bool) -> Step:
    """One forward pass without gradients, or forward and backward to inputs and weights."""

    def forward() -> None:
        with torch.inference_mode():
            module(x)

    def both() -> None:
        y = module(x.requires_grad_())
        y.backward(torch.ones_like(y))
        for held in (x, *module.parameters()):
            held.grad = None

    return both if gradients else forward


def run(group: Group, tokens: int, *, gradients: bool, skip: dict[str, str], device: str) -> dict[str, dict[str, Any]]:
    """By label: status, the milliseconds of every round, peak MiB. Labels in `skip` are not run: they say why."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    modules = {label: made.to(device, dtype).train() for label, made in group.make(tokens).items()}
    x = torch.randn(1, *group.shape(tokens), group.channels, device=device, dtype=dtype)
    if not gradients:
        hold_against(modules, x, {label: bound for label, bound in group.alike.items() if label not in skip}, skip)
    found: dict[str, dict[str, Any]] = {label: {"status": skip.get(label, "")} for label in modules}
    steps = {label: step(module, x, gradients=gradients) for label, module in modules.items() if label not in skip}
    before = Usage.now()
    times = in_turn(steps, found, device)
    foreign = before.foreign_until(Usage.now())
    for label, taken in times.items():
        found[label] |= {"status": "ok", "times": taken, "foreign_cpu": foreign}
        found[label]["mib"] = guarded(lambda label=label: peak(steps[label], device))
    return found


def peak(one: Step, device: str) -> float:
    """MiB of the peak of what the allocator gave out above what was there."""
    return cuda_peaks(one)["memory"] if device == "cuda" else allocated(one) / MIB


def hold_against(modules: dict[str, nn.Module], x: Tensor, alike: dict[str, float], skip: dict[str, str]) -> None:
    """Raises AssertionError where a module does not do what the first one does: then no time of it means anything."""
    if not alike or next(iter(modules)) in skip:
        return
    with torch.inference_mode():
        first = next(iter(modules.values()))(x)
        for label, bound in alike.items():
            bound = bound if x.dtype == torch.float32 else 0.05
            apart = float((modules[label](x) - first).abs().max() / first.abs().max())
            assert apart <= bound, f"{label} is {apart:.1e} away from what it is timed against"


def in_turn(steps: dict[str, Step], found: dict[str, dict[str, Any]], device: str) -> dict[str, list[float]]:
    """Milliseconds of every round of those that ran; those that did not fit into memory are noted in `found`."""
    times: dict[str, list[float]] = {}
    for label, one in steps.items():
        first = guarded(lambda one=one: timed(one, device))
        if first is None:
            found[label] = {"status": "out of memory"}
            continue
        times[label] = []
        if first < QUICK_MS:
            timed(one, device)
    spent = 0.0
    while times and not enough(times, spent):
        for label in times:
            times[label].append(timed(steps[label], device))
            spent += times[label][-1] / 1e3
    return times


def enough(times: dict[str, list[float]], spent: float) -> bool:
    rounds = len(next(iter(times.values())))
    if spent > CAP_S * len(times) ** 0.5:
        return rounds >= FEWEST
    return rounds >= ROUNDS and spent >= SECONDS * len(times)


def guarded(call: Callable[[], Any]) -> Any:
    """What the call returns; None where it runs out of memory."""
    try:
        return call()
    except (MemoryError, RuntimeError) as error:
        if not any(word in str(error) for word in ("alloc", "memory")):
            raise
        gc.collect()
        return None


def ratio(times: list[float], base: list[float]) -> tuple[float, float, float]:
    """Median and quartiles, over rounds, of the ratio of two that ran in turn."""
    pairs = [a / b for a, b in zip(times, base, strict=True)]
    q25, median, q75 = statistics.quantiles(pairs, n=4, method="inclusive")
    return median, q25, q75
