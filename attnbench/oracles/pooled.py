"""Pooled attention written out: lists of tokens are averaged one by one, then each query reads the means."""

from itertools import product
from math import ceil, floor, prod
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from attnbench.oracles._dense import project, softmax_average
from mechanisms import Site

CASES = [
    Case(at(7), {"heads": 2}),
    Case(at(5), {"heads": 2, "block": 1}),
    Case(at(9), {"heads": 2, "block": 4}),
    Case(at(3), {"heads": 1, "block": 5}),
    Case(at(11), {"heads": 2, "coarse": "fixed", "side": 3}),
    Case(at(4, 6), {"heads": 2}),
    Case(at(5, 3), {"heads": 3, "block": 2}),
    Case(at(5, 7), {"heads": 2, "coarse": "fixed", "side": 3}),
    Case(at(2, 9), {"heads": 2, "coarse": "fixed", "side": 4}),
]


def spans(side: int, config: Any) -> list[range]:
    """The stretches of one axis that become one token each."""
    if config.coarse == "blocks":
        block = min(config.block, side)
        return [range(start, min(start + block, side)) for start in range(0, side, block)]
    parts = min(config.side, side)
    return [range(floor(i * side / parts), ceil((i + 1) * side / parts)) for i in range(parts)]


def oracle(site: Site, config: Any) -> Oracle:
    def attend(weights: Weights, sample: Tensor) -> Tensor:
        tokens = sample.reshape(site.tokens, -1)
        strides = [prod(site.shape[axis + 1 :]) for axis in range(len(site.shape))]
        means = []
        for cell in product(*(spans(side, config) for side in site.shape)):
            members = [sum(place * stride for place, stride in zip(at, strides, strict=True)) for at in product(*cell)]
            means.append(sum((tokens[i] for i in members), torch.zeros_like(tokens[0])) / len(members))
        coarse, size, heads = torch.stack(means), tokens.shape[1] // config.heads, []
        q, k, v = project(weights, "q", tokens), project(weights, "k", coarse), project(weights, "v", coarse)
        for head in range(config.heads):
            mine = slice(head * size, (head + 1) * size)
            heads.append(torch.stack([softmax_average(one, k[:, mine], v[:, mine]) for one in q[:, mine]]))
        return project(weights, "out", torch.cat(heads, -1)).reshape(sample.shape)

    return attend
