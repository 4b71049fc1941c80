"""What the machine can do at most: matrix products in a dtype, and moving bytes; measured in the process of each cell.

In each cell, and not once for a machine, so that the limit has the clock, threads and neighbours of the number that
stands beside it, and a row says all by itself. The best of several rounds is taken, for others only ever slow down.

Bytes are moved by a triad, a = b + s c, over about as many bytes as the step must move, so that what fits into a cache
is held against the cache. Williams et al., "Roofline", 2009. https://doi.org/10.1145/1498765.1498785
"""

from collections.abc import Callable
from time import perf_counter

import torch

SIDES = {"cpu": 1024, "cuda": 8192}  # of the matrices
LEAST, MOST = {"cpu": 2**18, "cuda": 2**24}, {"cpu": 2**27, "cuda": 2**31}  # bytes that a triad moves
ROUNDS, ROUND_S, CAP_S = 5, 0.02, 0.5
Wait = Callable[[], None]


def best_s(step: Callable[[], object], wait: Wait) -> float:
    """Seconds of a step in the best of several rounds."""
    step()
    spent, found, rounds, each = 0.0, float("inf"), 0, 1
    while rounds < ROUNDS or (spent < CAP_S and rounds < 10 * ROUNDS):
        wait()
        start = perf_counter()
        for _ in range(each):
            step()
        wait()
        took = perf_counter() - start
        found, spent, rounds = min(found, took / each), spent + took, rounds + 1
        each = max(each, round(ROUND_S / found))
        if rounds >= 2 and spent > 4 * CAP_S:
            break
    return found


def gflops(device: str, dtype: torch.dtype, wait: Wait, side: int | None = None) -> float:
    """Billions of operations in a second of a large matrix product."""
    side = side or SIDES[device]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    with torch.inference_mode():
        return 2 * side**3 / best_s(lambda: torch.mm(a, b, out=out), wait) / 1e9


def gbps(device: str, size: float, wait: Wait) -> float:
    """Billions of bytes in a second that a triad moves, of about `size` bytes in all."""
    count = int(min(max(size, LEAST[device]), MOST[device])) // 12
    a, b, c = (torch.ones(count, device=device) for _ in range(3))
    with torch.inference_mode():
        return 12 * count / best_s(lambda: torch.add(b, c, alpha=1.5, out=a), wait) / 1e9


def share(flops: float, moved: float, seconds: float, peaks: tuple[float, float]) -> tuple[float, str]:
    """The achieved share of the roofline's limit, and which limit that is: compute or memory.

    flops, moved: operations and bytes of a step. peaks: GFLOP/s and GB/s. Nan and nothing where neither is known.
    """
    compute_s, memory_s = flops / peaks[0] / 1e9, moved / peaks[1] / 1e9
    if not (flops == flops and moved == moved) or max(compute_s, memory_s) <= 0:
        return float("nan"), ""
    return max(compute_s, memory_s) / seconds, "compute" if compute_s >= memory_s else "memory"
