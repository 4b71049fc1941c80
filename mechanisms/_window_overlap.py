"""Softmax attention inside overlapping small windows on a CPU: one operator, which cuts windows out as it goes.

Windows that do not touch each other are taken together: with a stride of half a window's side, four sets of them cover
a grid. Nothing is held that is larger than the tokens but the softmax, which the gradient needs.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op, register_autograd
from torch.utils.flop_counter import register_flop_formula

from mechanisms._window_kernel import AT_ONCE, Rooms, made_softmax, read, traced

Cut = tuple[tuple[int, int], tuple[int, int]]  # first token and step of the windows of a set, on each axis


@custom_op("attnbench::attend_overlapping", mutates_args=(), device_types="cpu")
def attend_overlapping(qkv: Tensor, window: list[int], stride: list[int], scale: float) -> tuple[Tensor, Tensor]:
    """Projected tokens [B, H, W, 3, heads, d] to the sum of what each reads in its windows [B, H, W, heads, d].

    Beside it the softmax of all windows, laid out as that of `attend_windows`.
    """
    softmax = made_softmaxes(qkv, window, stride)
    y = softmax.new_zeros(*qkv.shape[:3], *qkv.shape[4:])  # sums are made in float32 at least
    rooms, start = Rooms(softmax.dtype), 0
    for here, there in stretches([qkv, y], window, stride):
        copy = rooms.copied(here, "here").view(-1, window[0] * window[1], *qkv.shape[3:])
        found = read(rooms, copy, softmax[start : start + len(copy)], scale)
        there += found.reshape(there.shape)
        start += len(copy)
    return y.to(qkv.dtype), softmax


@custom_op("attnbench::attend_overlapping_backward", mutates_args=(), device_types="cpu")
def attend_overlapping_backward(
    dy: Tensor, qkv: Tensor, softmax: Tensor, window: list[int], stride: list[int], scale: float
) -> Tensor:
    """The gradient of qkv [B, H, W, 3, heads, d]."""
    dqkv, rooms, start = softmax.new_zeros(qkv.shape), Rooms(softmax.dtype), 0
    for here, there, into in stretches([qkv, dy, dqkv], window, stride):
        copy = rooms.copied(here, "here").view(-1, window[0] * window[1], *qkv.shape[3:])
        g = rooms.copied(there, "there").view(*copy.shape[:2], *copy.shape[3:])
        found, made = rooms.room("found", copy, *copy.shape), softmax[start : start + len(copy)]
        for part, gradient in zip(found.unbind(2), traced(rooms, g, copy, made, scale), strict=True):
            part.copy_(gradient)
        into += found.view(into.shape)
        start += len(copy)
    return dqkv.to(qkv.dtype)


@attend_overlapping.register_fake
def _(qkv: Tensor, window: list[int], stride: list[int], scale: float) -> tuple[Tensor, Tensor]:
    del scale
    return qkv.new_empty(*qkv.shape[:3], *qkv.shape[4:]), made_softmaxes(qkv, window, stride)


@attend_overlapping_backward.register_fake
def _(dy: Tensor, qkv: Tensor, softmax: Tensor, window: list[int], stride: list[int], scale: float) -> Tensor:
    del dy, softmax, window, stride, scale
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.rest = inputs[1:]
    ctx.mark_non_differentiable(output[1])


def gradients(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return attend_overlapping_backward(dy, *ctx.saved_tensors, *ctx.rest), None, None, None


register_autograd(attend_overlapping, gradients, setup_context=keep)


@register_flop_formula(torch.ops.attnbench.attend_overlapping)
def _(qkv: Any, window: list[int], stride: list[int], *_: Any, **__: Any) -> int:
    return 2 * 2 * pairs(qkv, window, stride)


@register_flop_formula(torch.ops.attnbench.attend_overlapping_backward)
def _(_dy: Any, qkv: Any, _softmax: Any, window: list[int], stride: list[int], *_: Any, **__: Any) -> int:
    return 4 * 2 * pairs(qkv, window, stride)


def pairs(qkv: Any, window: list[int], stride: list[int]) -> int:
    """Channels of all heads, times the pairs of tokens in all windows."""
    return windows(qkv, window, stride) * (window[0] * window[1]) ** 2 * qkv[4] * qkv[5]


def windows(shape: Any, window: list[int], stride: list[int]) -> int:
    """How many windows lie on a batch of grids [B, H, W, ...]."""
    rows, columns = ((side - w) // s + 1 for side, w, s in zip(shape[1:3], window, stride, strict=True))
    return shape[0] * rows * columns


def made_softmaxes(qkv: Tensor, window: list[int], stride: list[int]) -> Tensor:
    tokens = window[0] * window[1]
    return made_softmax(qkv[:1, :1, 0].expand(windows(qkv.shape, window, stride), tokens, *qkv.shape[3:]), biased=False)


def stretches(grids: list[Tensor], window: list[int], stride: list[int]) -> Iterator[list[Tensor]]:
    """Views of every grid's windows [samples, rows, columns, *window, ...], as many as stay in the cache."""
    for cut in sets(grids[0].shape[1:3], window, stride):
        views = [windowed(grid, window, cut) for grid in grids]
        batch, rows, columns = views[0].shape[:3]
        channels = grids[0].shape[-2] * grids[0].shape[-1]
        size = max(1, AT_ONCE // (columns * window[0] * window[1] * channels))
        samples = max(1, size // rows)
        for sample, start in product(range(0, batch, samples), range(0, rows, size)):
            yield [view[sample : sample + samples, start : start + size] for view in views]


def sets(sides: Any, window: list[int], stride: list[int]) -> Iterator[Cut]:
    """Sets of windows of which none overlap, which together are all windows."""
    along = []
    for side, size, step in zip(sides, window, stride, strict=True):
        apart = -(-size // step)  # every so manieth window
        along.append([(first * step, apart * step) for first in range(apart) if first * step + size <= side])
    yield from product(*along)


def windowed(grid: Tensor, window: list[int], cut: Cut) -> Tensor:
    """A set's windows [B, rows, columns, *window, ...], a view of the grid [B, H, W, ...]."""
    (top, down), (left, right) = cut
    view = grid[:, top:, left:].unfold(1, window[0], down).unfold(2, window[1], right)
    return view.movedim((-2, -1), (3, 4))
