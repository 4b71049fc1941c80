"""Nystrom attention written out: segments as lists, three softmax matrices row by row, and powers of a product."""

from itertools import pairwise
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import project
from mechanisms import Site

CASES = [
    Case(at(1), {"heads": 2, "landmarks": 1}),
    Case(at(12), {"heads": 2, "landmarks": 4}),
    Case(at(11), {"heads": 2, "landmarks": 4}),
    Case(at(13), {"heads": 1, "landmarks": 5, "convolution": 3}),
    Case(at(2), {"heads": 2, "landmarks": 2, "convolution": 7}),
    Case(at(17), {"heads": 3, "landmarks": 3, "iterations": 2}),
    Case(at(3, 5), {"heads": 2, "landmarks": 4}),
    Case(at(4, 4), {"heads": 2, "landmarks": 4, "convolution": 5, "iterations": 1}),
    Case(at(5, 7), {"heads": 2}),
]


def segments(tokens: int, number: int) -> list[range]:
    """Neighbouring tokens, dealt out so that lengths differ by one at most and longer segments come first."""
    ends = [0]
    for i in range(number):
        ends.append(ends[-1] + tokens // number + (1 if i < tokens % number else 0))
    return [range(begin, end) for begin, end in pairwise(ends)]


def means(tokens: Tensor, number: int) -> Tensor:
    """The mean of each segment."""
    rows = [
        sum((tokens[i] for i in one), torch.zeros_like(tokens[0])) / len(one) for one in segments(len(tokens), number)
    ]
    return torch.stack(rows)


def softmax_rows(queries: Tensor, keys: Tensor) -> Tensor:
    """The softmax of the scaled scores of each query."""
    return torch.stack([torch.softmax(keys @ query / sqrt(len(query)), 0) for query in queries])


def approximate_inverse(matrix: Tensor, steps: int) -> Tensor:
    """Z <- (13 Z - 15 Z P + 7 Z P^2 - Z P^3) / 4 with P = A Z, from the transpose over two sums."""
    rows = torch.stack([row.sum() for row in matrix])
    columns = torch.stack([column.sum() for column in matrix.T])
    z = matrix.T / (rows.max() * columns.max())
    for _ in range(steps):
        p = matrix @ z
        z = (13 * z - 15 * z @ p + 7 * z @ p @ p - z @ p @ p @ p) / 4
    return z


def convolved(values: Tensor, filter: Tensor) -> Tensor:
    """Each token's sum of the values around it; nothing stands outside the sequence."""
    rows = []
    for i in range(len(values)):
        near = [(i + step - len(filter) // 2, weight) for step, weight in enumerate(filter)]
        inside = [weight * values[j] for j, weight in near if 0 <= j < len(values)]
        rows.append(sum(inside, torch.zeros_like(values[0])))
    return torch.stack(rows)


def oracle(site: Site, config: Any) -> Oracle:
    size = site.channels // config.heads

    def run(weights: Any, sample: Tensor) -> Tensor:
        tokens, answers = sample.reshape(-1, site.channels), []
        for head in range(config.heads):
            mine = slice(head * size, (head + 1) * size)
            q, k, v = (project(weights, name, tokens)[:, mine] for name in ("q", "k", "v"))
            few_q, few_k = means(q, config.landmarks), means(k, config.landmarks)
            inverse = approximate_inverse(softmax_rows(few_q, few_k), config.iterations)
            y = softmax_rows(q, few_k) @ inverse @ softmax_rows(few_q, k) @ v
            if config.convolution:
                y = y + convolved(v, weights["convolution.weight"][head, 0, :, 0])
            answers.append(y)
        return project(weights, "out", torch.cat(answers, 1)).reshape(sample.shape)

    return run
