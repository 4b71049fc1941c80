"""Pooled queries of fast multipole attention: parts of one softmax, each with the logarithm of its normaliser."""

import torch
from torch import Tensor


def asked(q: Tensor, k: Tensor, v: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What queries [..., n, d] read from keys [..., m, d], log weights [..., 1 or n, m] added to the scaled scores.

    Outputs [..., n, d] and the logarithms of their normalisers [..., n].
    """
    scores = (q / q.shape[-1] ** 0.5) @ k.mT + weight.to(q.dtype)
    mass = scores.logsumexp(-1)
    return (scores - mass.unsqueeze(-1)).exp() @ v, mass


def merged(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """One softmax out of two parts, each its outputs [..., d] and log normalisers [...]."""
    mass = torch.logaddexp(one[1], other[1])
    y = sum((part - mass).exp().unsqueeze(-1) * y for y, part in (one, other))
    assert isinstance(y, Tensor)
    return y, mass


def rows_of_tokens(*, side: int, axes: int, cell: int, wide: int, parts: int) -> Tensor:
    """For every token, the row of summaries of the cell of that width that stands for it [finest cells, tokens of one].

    Rows are counted cell by cell, parts^axes in each.
    """
    place = torch.arange(side)
    group, part = place // wide, place % wide // (wide // parts)
    if axes == 1:
        return (group * parts + part).reshape(-1, cell)
    groups = group.unsqueeze(1) * (side // wide) + group
    row = groups * parts**2 + part.unsqueeze(1) * parts + part  # [side, side]
    return row.unflatten(0, (-1, cell)).unflatten(2, (-1, cell)).transpose(1, 2).flatten(2, 3).flatten(0, 1)


def rows_of_rows(fine: Tensor, coarse: Tensor) -> Tensor:
    """For every row of a level, the row of the next coarser one that its tokens have; from both of all tokens."""
    found = torch.zeros_like(fine).flatten()
    return found.scatter_(0, fine.flatten(), coarse.flatten())
