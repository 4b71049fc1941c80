"""Rows of bare mechanisms that nobody measured: planted curves of time and memory, with noise and a crossover."""

from math import sqrt
from typing import Any

import numpy as np
import pandas as pd

from attnbench.reports.rows import table

SIDES = (16, 32, 64, 96, 128)
TIMES = {  # milliseconds a + b N^p; full and linear are equal at 2,000 tokens
    "full": (0.0, 5e-7, 2.0),
    "linear": (0.0, 1e-3, 1.0),
    "mano": (0.4, 2e-3, 1.0),
    "identity": (0.002, 0.0, 1.0),
}
ORDERS = {"full": "N^2", "linear": "N", "mano": "N", "identity": "0"}
CROSSING = 2000
Row = dict[str, Any]


def made(*, rounds: int = 3, noise: float = 0.02, sides: tuple[int, ...] = SIDES, seed: int = 0) -> list[Row]:
    """A row for every mechanism, pass, side and round."""
    random = np.random.default_rng(seed)
    return [
        one(name, way, side, number, float(np.exp(random.normal(0, noise))))
        for name in TIMES
        for way in ("forward", "both")
        for side in sides
        for number in range(rounds)
    ]


def one(name: str, way: str, side: int, number: int, factor: float) -> Row:
    """One process: both passes cost three times as much as forward alone."""
    a, b, p = TIMES[name]
    n, times = side * side, 3 if way == "both" else 1
    ms = factor * times * (a + b * n**p)
    flops, moved = times * (8 * n * 64 * 64 + (4 * n * n * 64 if name == "full" else 0)), times * 2 * n * 64 * 4
    asked = {"id": f"{name}-{way}-{side}-{number}", "kind": "efficiency", "status": "ok", "variant": name}
    asked |= {"label": f"{name}, {side}x{side}, {way}, round {number}", "mechanism": name, "model": None, "task": None}
    asked |= {"device": "cpu", "dtype": "float32", "threads": 0, "pass": way, "batch": 1, "round": number}
    asked |= {"site.channels": 64, "site.shape": f"{side}x{side}", "site.tokens": n, "site.causal": False}
    cost = {"step_ms": ms, "step_ms_low": 0.99 * ms, "step_ms_high": 1.01 * ms, "repeats": 50, "noisy": False}
    cost |= {"foreign_cpu": 0.01}
    cost |= {"memory_mib": times * (n * 1e-3 if name != "full" else n * n * 1e-6), "order": ORDERS[name]}
    cost |= {"step_flops": flops, "bytes": moved, "peak_gflops": 1e3, "peak_gbps": 1e2, "limit": "compute"}
    if name == "identity":
        cost |= {"memory_mib": 0.0, "step_flops": 0.0, "bytes": 0, "limit": None}
    else:
        cost |= {"peak_share": flops / 1e12 / (ms / 1e3) / 10, "peak_gflops": 1e4 / sqrt(n)}
    where = {"host.device": "a processor", "code.fingerprint": "0a", "code.entries": f"0b{name}"}
    return asked | {f"cost.{word}": value for word, value in cost.items()} | where


def gone(row: Row, status: str) -> Row:
    """The same cell without an end: what was counted before stays."""
    kept = ("cost.step_flops", "cost.order", "cost.matmul_flops")
    return {word: value for word, value in row.items() if not word.startswith("cost.") or word in kept} | {
        "status": status
    }


def frame(rows: list[Row]) -> pd.DataFrame:
    return table(rows)
