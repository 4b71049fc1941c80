"""DeltaNet as a recurrence: read what a key holds, write the difference to its new value, answer the query."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from attnbench.oracles._dense import project
from mechanisms import Site

CASES = [
    Case(at(n, causal=True), {"heads": heads}) for n, heads in ((1, 2), (7, 3), (37, 2), (64, 2), (65, 6), (131, 1))
]


def silu(x: Tensor) -> Tensor:
    """x times the logistic function of x."""
    return x / (1 + torch.exp(-x))


def oracle(site: Site, config: Any) -> Oracle:  # noqa: ARG001 - all slow forms are asked alike
    def slow(weights: Weights, tokens: Tensor) -> Tensor:
        q, k, v = (silu(project(weights, name, tokens)) for name in ("q", "k", "v"))
        beta = 1 / (1 + torch.exp(-project(weights, "beta", tokens)))
        size, outputs = tokens.shape[-1] // config.heads, []
        for head in range(config.heads):
            mine = slice(head * size, (head + 1) * size)
            rows = recurrence(q[:, mine], k[:, mine], v[:, mine], beta[:, head])
            rows = rows / torch.sqrt((rows * rows).mean(-1, keepdim=True) + 1e-5)
            outputs.append(rows * weights["norm.weight"])
        return project(weights, "out", torch.cat(outputs, -1))

    return slow


def recurrence(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """One head, [N, d]; the state [d, d] has a column for each channel of the keys, as in the paper."""
    state, rows = torch.zeros(v.shape[1], k.shape[1], dtype=k.dtype), []
    for i in range(len(q)):
        key, query = k[i] / torch.sqrt(k[i] @ k[i]), q[i] / torch.sqrt(q[i] @ q[i])
        erased = state @ (torch.eye(len(key), dtype=k.dtype) - beta[i] * torch.outer(key, key))
        state = erased + beta[i] * torch.outer(v[i], key)
        rows.append(state @ query / sqrt(len(query)))
    return torch.stack(rows)
