"""Agent attention written out: agents as means of lists of queries, then two softmaxes, one query at a time."""

from itertools import product
from math import ceil, floor, prod
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from attnbench.oracles._dense import project, softmax_average
from mechanisms import Site

CASES = [
    Case(at(9), {"heads": 2, "side": 3}),
    Case(at(3), {"heads": 1}),
    Case(at(8), {"heads": 3, "side": 3, "convolution": False}),
    Case(at(4, 5), {"heads": 2, "side": 2}),
    Case(at(3, 4), {"heads": 2, "side": 2, "position": "bilinear"}),
    Case(at(8, 3), {"heads": 1, "side": 2, "position": "bilinear", "convolution": False}),
]


def pooled(tokens: Tensor, shape: tuple[int, ...], parts: int) -> list[Tensor]:
    """The mean of the tokens in each of the parts of every axis, parts overlapping where they do not divide it."""
    counts = [min(parts, side) for side in shape]
    spans = [
        [range(floor(i * side / count), ceil((i + 1) * side / count)) for i in range(count)]
        for side, count in zip(shape, counts, strict=True)
    ]
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    means = []
    for cell in product(*spans):
        members = [sum(a * step for a, step in zip(place, strides, strict=True)) for place in product(*cell)]
        means.append(tokens[members].sum(0) / len(members))
    return means


def near(weights: Weights, tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The depthwise convolution over 3 tokens on each axis, zeros outside: [N, C] -> [N, C]."""
    places = list(product(*map(range, shape)))
    kernel, rows = weights["local.weight"], []
    for here in places:
        total = weights["local.bias"]
        for there in product(*([-1, 0, 1] for _ in shape)):
            place = tuple(a + b for a, b in zip(here, there, strict=True))
            if place in places:
                total = total + kernel[(slice(None), 0, *(b + 1 for b in there))] * tokens[places.index(place)]
        rows.append(total)
    return torch.stack(rows)


def share(coarse: int, side: int, place: int) -> list[tuple[int, float]]:
    """Which two cells of a coarse axis a place lies between, and how much of each it takes."""
    where = max(0.0, (place + 0.5) * coarse / side - 0.5)
    low = min(int(where), coarse - 1)
    high = min(low + 1, coarse - 1)
    return [(low, 1 - (where - low)), (high, where - low)]


def bias(weights: Weights, name: str, head: int, agent: int, place: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """What is added to the score between an agent and a place; nothing without position bias."""
    if f"{name}.coarse" not in weights:
        return 0.0
    row, column = place
    coarse = weights[f"{name}.coarse"][head, agent]
    total = weights[f"{name}.row"][head, agent, row, 0] + weights[f"{name}.column"][head, agent, 0, column]
    for a, much in share(len(coarse), shape[0], row):
        for b, more in share(len(coarse), shape[1], column):
            total = total + much * more * coarse[a, b]
    return total


def oracle(site: Site, config: Any) -> Oracle:
    places = list(product(*map(range, site.shape)))

    def attend(weights: Weights, sample: Tensor) -> Tensor:
        tokens = sample.reshape(site.tokens, -1)
        q, k, v = (project(weights, name, tokens) for name in "qkv")
        size, heads = site.channels // config.heads, []
        for head in range(config.heads):
            mine = slice(head * size, (head + 1) * size)
            agents = torch.stack(pooled(q[:, mine], site.shape, config.side))

            def table(name: str, head: int = head, count: int = len(agents)) -> Tensor:
                rows = [[bias(weights, name, head, a, place, site.shape) for place in places] for a in range(count)]
                return torch.stack([torch.stack([torch.as_tensor(one, dtype=q.dtype) for one in row]) for row in rows])

            towards, back = table("gather_bias"), table("spread_bias")
            read = torch.stack(
                [softmax_average(agent, k[:, mine], v[:, mine], towards[a]) for a, agent in enumerate(agents)]
            )
            heads.append(
                torch.stack([softmax_average(one, agents, read, back[:, i]) for i, one in enumerate(q[:, mine])])
            )
        y = torch.cat(heads, -1)
        y = y + near(weights, v, site.shape) if config.convolution else y
        return project(weights, "out", y).reshape(sample.shape)

    return attend
