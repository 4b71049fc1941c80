"""Attention in its plainest form: one query at a time, a list of keys, one softmax."""

from collections.abc import Callable, Mapping
from math import sqrt

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Places = list[tuple[int, int]]  # (row, column) of every token, in the order of the flattened grid
OneHead = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # head, q, k, v, each [N, d] -> [N, d]


def project(weights: Weights, name: str, tokens: Tensor) -> Tensor:
    """The linear map `name` with its bias, on the last axis of tokens."""
    return tokens @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def softmax_average(query: Tensor, keys: Tensor, values: Tensor, extra: Tensor | None = None) -> Tensor:
    """What one query [d] reads from n keys [n, d] and values [n, e]; extra [n] is added to the scaled scores."""
    scores = keys @ query / sqrt(len(query))
    if extra is not None:
        scores = scores + extra
    weights = torch.exp(scores - scores.detach().max())
    return (weights / weights.sum()) @ values


def in_every_head(tokens: Tensor, weights: Weights, heads: int, one_head: OneHead) -> Tensor:
    """[N, C] -> [N, C]: projects, cuts the channels into heads, lets each head work alone, joins, projects."""
    size = tokens.shape[-1] // heads
    q, k, v = (project(weights, name, tokens) for name in ("q", "k", "v"))
    outputs = []
    for head in range(heads):
        mine = slice(head * size, (head + 1) * size)
        outputs.append(one_head(head, q[:, mine], k[:, mine], v[:, mine]))
    return project(weights, "out", torch.cat(outputs, dim=-1))


def full(sample: Tensor, weights: Weights, *, heads: int, causal: bool = False) -> Tensor:
    """Softmax attention of every token to every token, or only to those up to itself."""
    tokens = sample.reshape(-1, sample.shape[-1])

    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for i in range(len(q)):
            end = i + 1 if causal else len(k)
            rows.append(softmax_average(q[i], k[:end], v[:end]))
        return torch.stack(rows)

    return in_every_head(tokens, weights, heads, one_head).reshape(sample.shape)


def places_of(sample: Tensor) -> Places:
    """Where each token of a grid [H, W, C] stands, in flattened order."""
    return [(row, column) for row in range(sample.shape[0]) for column in range(sample.shape[1])]
