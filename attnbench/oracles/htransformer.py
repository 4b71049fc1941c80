"""Hierarchical attention written out: for every pair of tokens, the level on which they meet, and the score there."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import in_every_head
from mechanisms import Site

CASES = [
    *(Case(at(4, causal=causal), {"heads": 2, "block": 4}) for causal in (False, True)),
    *(Case(at(8, causal=causal), {"heads": 2, "block": 4}) for causal in (False, True)),
    *(Case(at(16, causal=causal), {"heads": 2, "block": 2}) for causal in (False, True)),
    *(Case(at(24, causal=causal), {"heads": 3, "block": 6}) for causal in (False, True)),
    *(Case(at(32, causal=causal), {"heads": 1, "block": 4}) for causal in (False, True)),
    *(Case(at(32, causal=causal), {"heads": 2}) for causal in (False, True)),
]


def meeting(i: int, j: int, block: int) -> int:
    """The lowest level on which the blocks of two tokens are the same or neighbours."""
    level = 0
    while abs(i // (block << level) - j // (block << level)) > 1:
        level += 1
    return level


def group_mean(tokens: Tensor, i: int, level: int) -> Tensor:
    """The mean of the 2^level tokens that are one with token i on a level."""
    size = 1 << level
    return tokens[i // size * size : (i // size + 1) * size].mean(0)


def oracle(site: Site, config: Any) -> Oracle:
    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for i in range(len(q)):
            scores = []
            for j in range(i + 1 if site.causal else len(k)):
                level = meeting(i, j, config.block)
                query = q[i] if site.causal else group_mean(q, i, level)
                scores.append(torch.dot(query, group_mean(k, j, level)) / sqrt(len(query)))
            rows.append(torch.softmax(torch.stack(scores), 0) @ v[: len(scores)])
        return torch.stack(rows)

    return lambda weights, sample: in_every_head(sample, weights, config.heads, one_head)
