"""Attention in windows written out, for tests of the CPU's operators, and what these are compared in."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from mechanisms import _window_kernel as kernel
from mechanisms import _window_offsets as offsets
from mechanisms import _window_overlap as overlap
from tests.exact import drawn, same

WINDOWS = 12
PERIODS = [None, 1, 2, 3, WINDOWS]  # None is no mask
OVERLAPS = [  # window, stride and grid; windows leave tokens of the last grid out
    ((2, 2), (1, 1), (5, 7)),
    ((2, 2), (2, 2), (4, 6)),
    ((3, 3), (2, 2), (7, 5)),
    ((3, 2), (1, 2), (5, 6)),
    ((4, 4), (3, 3), (7, 10)),
    ((4, 4), (2, 2), (6, 8)),
    ((1, 3), (1, 2), (3, 7)),
    ((3, 3), (2, 1), (6, 5)),
]
EVERYWHERE = [
    ((2, 2), (5, 7)),
    ((2, 2), (2, 3)),
    ((3, 3), (3, 3)),
    ((1, 3), (2, 7)),
    ((3, 2), (6, 5)),
    ((1, 1), (2, 3)),
]
BY_OFFSET = pytest.mark.parametrize(("window", "shape"), EVERYWHERE, ids=str)  # windows that begin at every token
OVERLAP = pytest.mark.parametrize(("window", "stride", "shape"), OVERLAPS, ids=str)
COVERING = pytest.mark.parametrize(("window", "stride", "shape"), OVERLAPS[:-1], ids=str)
Sides = tuple[int, ...]


def limit(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    """Sets how many numbers of queries go at once."""
    monkeypatch.setattr(kernel, "AT_ONCE", numbers)
    monkeypatch.setattr(overlap, "AT_ONCE", numbers)
    monkeypatch.setattr(offsets, "AT_ONCE", numbers)


def dense(qkv: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *, scale: float = 0.8) -> Tensor:
    """Attention of windows [W, M, 3, heads, d] with all scores at once."""
    q, k, v = qkv.unbind(2)
    scores = scale * torch.einsum("wmhd,wnhd->wmnh", q, k)
    if bias is not None:
        scores = scores + torch.einsum("hmn->mnh", bias)
    if mask is not None:
        scores = scores + torch.stack([mask[i % len(mask)] for i in range(len(qkv))]).unsqueeze(-1)
    mass = (scores - scores.amax(2, keepdim=True)).exp()
    return torch.einsum("wmnh,wnhd->wmhd", mass / mass.sum(2, keepdim=True), v)


def attend(qkv: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *, scale: float = 0.8) -> Tensor:
    return kernel.attend_windows(qkv, bias, mask, scale)[0]


def corners(sides: Sides, window: Sides, stride: Sides) -> Iterator[Sides]:
    axes = zip(sides, window, stride, strict=True)
    return product(*(range(0, side - size + 1, step) for side, size, step in axes))


def one_by_one(qkv: Tensor, window: Sides, stride: Sides, scale: float = 0.8) -> Tensor:
    """The sum over overlapping windows of [B, H, W, 3, heads, d], one window after the other."""
    y = qkv.new_zeros(*qkv.shape[:3], *qkv.shape[4:])
    for top, left in corners(tuple(qkv.shape[1:3]), window, stride):
        here = (slice(None), slice(top, top + window[0]), slice(left, left + window[1]))
        y[here] += dense(qkv[here].flatten(1, 2), scale=scale).unflatten(1, window)
    return y


def attend_overlapping(qkv: Tensor, window: Sides, stride: Sides, scale: float = 0.8) -> Tensor:
    return overlap.attend_overlapping(qkv, list(window), list(stride), scale)[0]


def attend_offsets(qkv: Tensor, window: Sides, scale: float = 0.8) -> Tensor:
    return offsets.attend_offsets(qkv, list(window), scale)[0]


def walls(period: int | None, tokens: int) -> Tensor | None:
    """Masks [P, M, M] of which a third is -inf, but never from a token to itself."""
    if period is None:
        return None
    mask = drawn(period, tokens, tokens, seed=5)
    return mask.masked_fill((mask > 0.4) & ~torch.eye(tokens, dtype=torch.bool), -torch.inf)


def outcome(function: Callable[..., Tensor], *leaves: Tensor | None, rounded: Any = torch.float64) -> list[Tensor]:
    """What a function of the leaves gives, and the gradients of a sum of it, with weights rounded so, to each."""
    held = [None if leaf is None else leaf.detach().requires_grad_() for leaf in leaves]
    y = function(*held)
    weights = drawn(*y.shape, seed=9).to(rounded).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [leaf for leaf in held if leaf is not None])]


def agree(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def within(found: list[Tensor], exact: list[Tensor], dtype: torch.dtype, roundings: float = 1) -> None:
    """Asserts a dtype, and that it cost no more than so many roundings of the result, beside float32's own."""
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == dtype
        bound = roundings * torch.finfo(dtype).eps / 2 * other.abs() * 1.01 + 4e-6
        assert bool(((one.double() - other).abs() <= bound).all())
