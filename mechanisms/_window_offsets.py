"""Softmax attention inside windows that begin at every token, on a CPU: one operator that works offset by offset.

A token and another meet in several windows, at the same offset in each, and so with the same score: windows of 2 x 2
hold 16 pairs for every token, but only 9 offsets. Scores are made once an offset, and values are read once an offset,
with the sum of the weights that all windows give it. Nothing is held that is larger than the tokens but the softmax.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op, register_autograd
from torch.utils.flop_counter import register_flop_formula

from mechanisms._window_kernel import AT_ONCE, Rooms, into_scores

Index = tuple[int | slice, ...]
Stretch = tuple[slice, range]  # samples, and rows of their grids


@custom_op("attnbench::attend_offsets", mutates_args=(), device_types="cpu")
def attend_offsets(qkv: Tensor, window: list[int], scale: float) -> tuple[Tensor, Tensor]:
    """Projected tokens [B, H, W, 3, heads, d] to the sum of what each reads in its windows [B, H, W, heads, d].

    Beside it the softmax [places in a window, its tokens, B, H, W, heads], 0 where the grid has no such window. It and
    all arithmetic are in float32 at least.
    """
    softmax = made_softmax(qkv, window).zero_()
    q, k, v = qkv.to(softmax.dtype).unbind(3)
    y, rooms, sides = torch.zeros_like(q, memory_format=torch.contiguous_format), Rooms(softmax.dtype), qkv.shape[1:3]
    for stretch in stretches(qkv):
        scores = scored(rooms, q, k, stretch, window).mul_(scale)
        weights = rooms.room("weights", scores, *scores.shape).zero_()
        for into, part in places(stretch, sides, window):
            room = rooms.room("window", scores, *scores[part].shape).copy_(scores[part])
            softmax[into] = (one := torch.softmax(room.flatten(0, 1), 0))
            weights[part] += one.view_as(room)
        for offset, at, here, there in meetings(stretch, sides, window):
            y[here].addcmul_(weights[offset][at].unsqueeze(-1), v[there])
    return y.to(qkv.dtype), softmax


@custom_op("attnbench::attend_offsets_backward", mutates_args=(), device_types="cpu")
def attend_offsets_backward(dy: Tensor, qkv: Tensor, softmax: Tensor, window: list[int], scale: float) -> Tensor:
    """The gradient of qkv [B, H, W, 3, heads, d]."""
    dqkv, rooms, sides = softmax.new_zeros(qkv.shape), Rooms(softmax.dtype), qkv.shape[1:3]
    (q, k, v), (dq, dk, dv), g = qkv.to(softmax.dtype).unbind(3), dqkv.unbind(3), dy.to(softmax.dtype)
    for stretch in stretches(qkv):
        dweights = scored(rooms, g, v, stretch, window)
        weights = rooms.room("weights", dweights, *dweights.shape).zero_()
        dscores = rooms.room("dscores", dweights, *dweights.shape).zero_()
        for into, part in places(stretch, sides, window):
            room = rooms.room("window", dweights, *dweights[part].shape).copy_(dweights[part])
            one = softmax[into].contiguous()
            weights[part] += one.view_as(room)
            dscores[part] += into_scores(room.flatten(0, 1), one, 0).view_as(room)
        dscores.mul_(scale)
        for offset, at, here, there in meetings(stretch, sides, window):
            weight, dscore = (each[offset][at].unsqueeze(-1) for each in (weights, dscores))
            dq[here].addcmul_(dscore, k[there])
            dk[there].addcmul_(dscore, q[here])
            dv[there].addcmul_(weight, g[here])
    return dqkv.to(qkv.dtype)


@attend_offsets.register_fake
def _(qkv: Tensor, window: list[int], scale: float) -> tuple[Tensor, Tensor]:
    del scale
    return qkv.new_empty(*qkv.shape[:3], *qkv.shape[4:]), made_softmax(qkv, window)


@attend_offsets_backward.register_fake
def _(dy: Tensor, qkv: Tensor, softmax: Tensor, window: list[int], scale: float) -> Tensor:
    del dy, softmax, window, scale
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.rest = inputs[1:]
    ctx.mark_non_differentiable(output[1])


def gradients(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return attend_offsets_backward(dy, *ctx.saved_tensors, *ctx.rest), None, None


register_autograd(attend_offsets, gradients, setup_context=keep)


@register_flop_formula(torch.ops.attnbench.attend_offsets)
def _(qkv: Any, window: list[int], *_: Any, **__: Any) -> int:
    return 2 * 2 * pairs(qkv, window)


@register_flop_formula(torch.ops.attnbench.attend_offsets_backward)
def _(_dy: Any, qkv: Any, _softmax: Any, window: list[int], *_: Any, **__: Any) -> int:
    return 4 * 2 * pairs(qkv, window)


def pairs(shape: Any, window: list[int]) -> int:
    """Channels of all heads, times the pairs of tokens in all windows: of this nominal work less is done."""
    rows, columns = (side - size + 1 for side, size in zip(shape[1:3], window, strict=True))
    return shape[0] * rows * columns * (window[0] * window[1]) ** 2 * shape[4] * shape[5]


def made_softmax(qkv: Tensor, window: list[int]) -> Tensor:
    tokens = window[0] * window[1]
    shape = (tokens, tokens, *qkv.shape[:3], qkv.shape[4])
    return qkv.new_empty(shape, dtype=torch.promote_types(qkv.dtype, torch.float32))


def stretches(qkv: Tensor) -> Iterator[Stretch]:
    """Samples and rows to take at once, so that what is made of them stays in the cache."""
    batch, height = qkv.shape[:2]
    row = max(1, qkv.shape[2] * qkv.shape[4] * qkv.shape[5])
    samples, rows = max(1, AT_ONCE // (row * height)), max(1, AT_ONCE // row)
    for sample, first in product(range(0, batch, samples), range(0, height, rows)):
        yield slice(sample, min(sample + samples, batch)), range(first, min(first + rows, height))


def scored(rooms: Rooms, one: Tensor, other: Tensor, stretch: Stretch, window: list[int]) -> Tensor:
    """Products of tokens with those at every offset [2m-1, 2n-1, samples, rows, W, heads], where both are there."""
    samples, rows = stretch
    offsets = (2 * size - 1 for size in window)
    found = rooms.room("scores", one, *offsets, samples.stop - samples.start, len(rows), *one.shape[2:4])
    for offset, at, here, there in meetings(stretch, one.shape[1:3], window):
        torch.sum(rooms.product(one[here], other[there]), -1, out=found[offset][at])
    return found


def meetings(stretch: Stretch, sides: Any, window: list[int]) -> Iterator[tuple[Index, Index, Index, Index]]:
    """Every offset: which it is, the tokens in a stretch that have another there, the same in the grid, the others."""
    samples, rows = stretch
    for down, right in product(*(range(1 - size, size) for size in window)):
        top, bottom = max(rows.start, -down), min(rows.stop, sides[0] - down)
        first, last = max(0, -right), min(sides[1], sides[1] - right)
        if top < bottom and first < last:
            here, there = slice(first, last), slice(first + right, last + right)
            at = (slice(None), slice(top - rows.start, bottom - rows.start), here)
            offset = (down + window[0] - 1, right + window[1] - 1)
            yield offset, at, (samples, slice(top, bottom), here), (samples, slice(top + down, bottom + down), there)


def places(stretch: Stretch, sides: Any, window: list[int]) -> Iterator[tuple[Index, Index]]:
    """Every place of a token in a window: where its softmax stands, and where the scores for it stand."""
    samples, rows = stretch
    for number, place in enumerate(product(*map(range, window))):
        top, bottom = max(rows.start, place[0]), min(rows.stop, sides[0] - window[0] + place[0] + 1)
        here = slice(place[1], sides[1] - window[1] + place[1] + 1)
        if top < bottom:
            offsets = (slice(size - 1 - at, 2 * size - 1 - at) for size, at in zip(window, place, strict=True))
            part = (*offsets, slice(None), slice(top - rows.start, bottom - rows.start), here)
            yield (number, slice(None), samples, slice(top, bottom), here), part
