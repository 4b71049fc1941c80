"""Sliding attention written out: for every query the list of the tokens it sees, one softmax."""

from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from attnbench.oracles._dense import in_every_head, softmax_average
from mechanisms import Site

CASES = [
    Case(at(size, causal=True), {"heads": 2, "window": window, "sinks": sinks})
    for size, window, sinks in (
        (1, 4, 1),
        (9, 1, 0),
        (9, 1, 2),
        (11, 3, 0),
        (40, 5, 2),
        (67, 33, 1),
        (70, 20, 25),
        (7, 9, 9),
    )
]


def seen(i: int, *, window: int, sinks: int) -> list[int]:
    """The last `window` tokens up to i itself, and of the first `sinks` those before them."""
    return [j for j in range(i + 1) if j > i - window or j < sinks]


def oracle(site: Site, config: Any) -> Oracle:  # noqa: ARG001 - all slow forms are asked alike
    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for i in range(len(q)):
            listed = seen(i, window=config.window, sinks=config.sinks)
            rows.append(softmax_average(q[i], k[listed], v[listed]))
        return torch.stack(rows)

    def slow(weights: Weights, sample: Tensor) -> Tensor:
        return in_every_head(sample, weights, config.heads, one_head)

    return slow
