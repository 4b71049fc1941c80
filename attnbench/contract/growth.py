"""How work, time and memory grow with the number of tokens, against the declared order.

Work is counted on the meta device. Time and memory are measured and fitted by a + b n^p, for a straight line through
logarithms takes a constant cost for a smaller exponent. A measured exponent is a failure only far above the declared
one: at small sizes caches and constant costs bend every curve.
"""

from collections.abc import Callable, Sequence
from math import isqrt, log2
from time import perf_counter

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
    return measured(slot, mebibytes, "memory")


def measured(slot: Slot, cost: Callable[[Slot], float], what: str, *, again: bool = False) -> Finding:
    declared, costs = slot.entry.order_at(slot.site, slot.config), {}
    for tokens in MEASURED:
        larger = at(slot, tokens)
        if larger.refusal() is not None:
            continue
        costs[tokens] = cost(larger)
        if too_large(larger):
            break
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


def too_large(slot: Slot) -> bool:
    """Whether four times the tokens might take sixteen times more than there is."""
    start = perf_counter()
    memory = mebibytes(slot)
    return perf_counter() - start > LONGEST_S or 16 * memory > LARGEST_MIB


def milliseconds(slot: Slot) -> float:
    """Least of some passes after two that warm up: others on the machine only ever add."""
    module, x, times = slot.build(), slot.tokens(batch=1), []
    with torch.inference_mode():
        while len(times) < 5 or (sum(times) < ROUND_S and len(times) < 50):
            start = perf_counter()
            module(x)
            times.append(perf_counter() - start)
            if sum(times) > 4 * LONGEST_S:
                break
    return 1e3 * min(times[1:] or times)


def mebibytes(slot: Slot) -> float:
    """Peak of what the allocator gave out above what was there."""
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
