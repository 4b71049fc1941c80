"""Gated linear attention written out: every pair's weight, decayed by all gates between the two tokens."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from attnbench.oracles._dense import project
from mechanisms import Site

CASES = [
    Case(at(size, causal=True), {"heads": heads, **knobs})
    for size, heads, knobs in (
        (1, 2, {}),
        (7, 3, {"output": "plain", "rank": 2}),
        (17, 2, {"temperature": 1}),
        (37, 2, {"output": "plain", "temperature": 2}),
        (50, 1, {"rank": 1}),
        (67, 6, {"temperature": 3, "output": "plain"}),
    )
]


def oracle(site: Site, config: Any) -> Oracle:  # noqa: ARG001 - all slow forms are asked alike
    def slow(weights: Weights, tokens: Tensor) -> Tensor:
        middle = tokens @ weights["forget.0.weight"].T
        gates = torch.sigmoid(project(weights, "forget.1", middle)) ** (1 / config.temperature)
        q, k, v = (project(weights, name, tokens) for name in ("q", "k", "v"))
        size, outputs = tokens.shape[-1] // config.heads, []
        for head in range(config.heads):
            mine = slice(head * size, (head + 1) * size)
            outputs.append(normed(weights, summed(q[:, mine], k[:, mine], v[:, mine], gates[:, mine])))
        y = torch.cat(outputs, -1)
        if "gate.weight" in weights:
            opened = project(weights, "gate", tokens)
            y = y * opened / (1 + torch.exp(-opened))
        return project(weights, "out", y)

    return slow


def summed(q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
    """One head, [N, d]: walks back from each query, and lets every gate that is passed dim what lies behind it."""
    rows = []
    for i in range(len(q)):
        row, left = torch.zeros_like(v[0]), torch.ones_like(gates[0])
        for j in range(i, -1, -1):
            row = row + (q[i] * left * k[j]).sum() / sqrt(q.shape[1]) * v[j]
            left = left * gates[j]
        rows.append(row)
    return torch.stack(rows)


def normed(weights: Weights, rows: Tensor) -> Tensor:
    """Divided by the root of the mean square and 1e-5, times a learned weight, where the layer has a norm."""
    if "norm.weight" not in weights:
        return rows
    return rows / torch.sqrt((rows * rows).mean(-1, keepdim=True) + 1e-5) * weights["norm.weight"]
