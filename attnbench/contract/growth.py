"""How work, time and memory grow with the number of tokens, against the declared order.

Work is counted on the meta device. Time and memory are measured and fitted by a + b n^p, for a straight line through
logarithms takes a constant cost for a smaller exponent. A measured exponent is a failure only far above the declared
one: at small sizes caches and constant costs bend every curve.
"""

from collections.abc import Callable, Sequence
from math import isqrt, log2
from time import get_clock_info, perf_counter, thread_time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnbench.contract.slots import Finding, Slot, judged
from attnbench.flops import formulas
from attnbench.memory import MIB, allocated

GROWTH: dict[str, Callable[[float], float]] = {
    "0": lambda n: n,  # whatever touches every token
    "N": lambda n: n,
    "N log N": lambda n: n * log2(n),
    "N^1.5": lambda n: n**1.5,
    "N^2": lambda n: n**2,
}
COUNTED = [2**power for power in (10, 12, 14, 16)]
MEASURED = [2**power for power in (6, 8, 10, 12, 14)]
ABOVE, BELOW = 0.06, 0.25  # of a counted exponent at the largest sizes
CLEARLY = 0.5  # by which a measured exponent must lie above the declared one to be a failure
LONGEST_S, LARGEST_MIB = 0.2, 300.0  # of two passes, and next: beyond it no larger size is tried
ROUND_S = 0.08
FINE_S = 1e-4  # a clock of computing time coarser than this tells nothing of one pass


def clock() -> float:
    """Seconds that this thread computed, whatever else is at work here; of the wall where that clock is coarse.

    Not those of the process: threads that have nothing to do turn round and round for a while before they sleep.
    """
    return thread_time() if get_clock_info("thread_time").resolution < FINE_S else perf_counter()


def at(slot: Slot, tokens: int) -> Slot:
    side = isqrt(tokens)
    return slot.at((side, side) if slot.site.setting == "grid" else (tokens,))


def order(slot: Slot) -> Finding:
    declared, counts = slot.entry.order_at(slot.site, slot.config), {}
    for tokens in COUNTED:
        larger = at(slot, tokens)
        if larger.refusal() is None:
            counts[tokens] = work(larger)
    if len(counts) < 3:
        return Finding("not applicable", f"it serves only {len(counts)} of {', '.join(map(str, COUNTED))} tokens")
    if not any(counts.values()):
        return judged(
            declared in ("0", "N", "N log N"), f"no matrix product or FFT is counted; declared {declared}", 0.0
        )
    if declared == "0":
        return Finding("fail", "declared 0, but there are matrix products or FFTs", float(max(counts.values())))
    found, last = fit(list(counts), list(counts.values())), local(counts)
    wanted = local({tokens: GROWTH[declared](tokens) for tokens in counts})
    good = wanted - BELOW <= last <= wanted + ABOVE
    about = f"declared {declared}: exponent of counted work {found:.2f}; last step {last:.2f}, declared {wanted:.2f}"
    return judged(good, about, found)


def work(slot: Slot) -> int:
    """Of matrix products and FFTs in one pass over one example."""
    with torch.device("meta"):
        module = slot.build()
        counter = FlopCounterMode(display=False, custom_mapping=formulas())
        with torch.no_grad(), counter:
            module(torch.empty(1, *slot.site.shape, slot.site.channels))
    return counter.get_total_flops()


def time(slot: Slot) -> Finding:
    return measured(slot, milliseconds, "time")


def memory(slot: Slot) -> Finding:
    """Forward and backward together, for either may make a table of all pairs of tokens."""
    mebibytes_both(slot)  # the first look at memory in a process takes long, and would end the line for time
    return measured(slot, mebibytes_both, "memory, forward and backward")


def measured(slot: Slot, cost: Callable[[Slot], float], what: str, *, again: bool = False) -> Finding:
    declared, costs, stopped = slot.entry.order_at(slot.site, slot.config), {}, False
    for tokens in MEASURED:
        larger = at(slot, tokens)
        if larger.refusal() is not None:
            continue
        start = clock()
        costs[tokens] = cost(larger)
        seconds, largest = (clock() - start, costs[tokens]) if cost is mebibytes_both else once(larger)
        patience = 1 if len(costs) >= 3 else 10  # a busy machine must not leave too few sizes
        if stopped := seconds > patience * LONGEST_S or 16 * largest > LARGEST_MIB:
            break
    if len(costs) < 3 and stopped:
        spent = f"{', '.join(map(str, costs))} tokens spent the time or memory of this line"
        return Finding("not applicable", f"{spent}: too few sizes for an exponent")
    if len(costs) < 3:
        return Finding("not applicable", f"it serves only {len(costs)} of {', '.join(map(str, MEASURED))} tokens")
    found, last = fit(list(costs), list(costs.values())), local(costs)
    wanted = max(1.0, local({tokens: GROWTH[declared](tokens) for tokens in costs}))
    slower = min(found, last) > wanted + CLEARLY
    if slower and not again:  # a busy machine can bend a curve once
        return measured(slot, cost, what, again=True)
    sizes = f"{min(costs)} to {max(costs)} tokens"
    verdict = "clearly above" if slower else "in keeping with"
    grown = f"exponent {found:.2f} of {what} over {sizes}, last step {last:.2f}"
    about = f"{grown}; {verdict} the declared {declared}"
    return judged(not slower, about, found)


def once(slot: Slot) -> tuple[float, float]:
    """Seconds and MiB of one look at memory: four times the tokens might take sixteen times as much."""
    start = clock()
    memory = mebibytes(slot)
    return clock() - start, memory


def milliseconds(slot: Slot) -> float:
    """Of computing, the least of some passes after one that warms up: others on the machine only ever add."""
    module, x, times = slot.build(), slot.tokens(batch=1), []
    with torch.inference_mode():
        while len(times) < 5 or (sum(times) < ROUND_S and len(times) < 50):
            start = clock()
            module(x)
            times.append(clock() - start)
            if sum(times) > 4 * LONGEST_S:
                break
    return 1e3 * min(times[1:] or times)


def mebibytes_both(slot: Slot) -> float:
    """Peak of what the allocator gave out above what was there, over a forward and a backward pass."""
    module, x = slot.build(), slot.tokens(batch=1).requires_grad_()
    leaves = [x, *(weight for weight in module.parameters() if weight.requires_grad)]

    def step() -> None:
        y = module(x)
        if y.requires_grad:
            torch.autograd.grad(y.sum(), leaves, allow_unused=True)

    with torch.no_grad():
        module(x)
    return max(allocated(step), 1) / MIB


def mebibytes(slot: Slot) -> float:
    """The same, of a forward pass alone."""
    module, x = slot.build(), slot.tokens(batch=1)
    with torch.inference_mode():
        module(x)
        return max(allocated(lambda: module(x)), 1) / MIB


def local(costs: dict[int, float]) -> float:
    """Exponent between the two largest sizes."""
    small, large = sorted(costs)[-2:]
    return log2(max(costs[large], 1e-9) / max(costs[small], 1e-9)) / log2(large / small)


def fit(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent p of a + b n^p, a >= 0, by least squares on the logarithms.

    b drops out for given p and share a / (a + b n_0^p), so that a fine grid of these two finds the least.
    """
    n, target = np.array(sizes, float) / min(sizes), np.log(np.maximum(np.array(costs, float), 1e-12))
    exponents = np.linspace(0.0, 4.0, 401)[:, None, None]
    shares = np.concatenate([[0.0], 1 - np.geomspace(1.0, 1e-6, 120)])[None, :, None]
    shape = np.log(shares + (1 - shares) * n**exponents)
    residual = target - shape
    residual = residual - residual.mean(-1, keepdims=True)
    errors = (residual**2).sum(-1)
    best = np.argwhere(errors <= errors.min() * (1 + 1e-9) + 1e-12)
    return float(exponents[best[0][0], 0, 0])
