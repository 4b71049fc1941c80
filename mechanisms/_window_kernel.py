"""Softmax attention inside many small windows on a CPU: one operator that takes a stretch of windows at a time.

Fused attention pays for every window and head anew, which drowns windows of few tokens. Here as many windows as stay in
the cache go through batched products together, or, up to FEW tokens a window, through products written out key by key.
The operator hands back the softmax too, which its gradient needs. Counters of work know it; compilers take it whole.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op, register_autograd
from torch.utils.flop_counter import register_flop_formula

FEW = 4  # tokens in a window up to which products key by key win over batched ones
AT_ONCE = 2**18  # numbers in the queries of a stretch, 1 MiB in float32: what is made of them stays in the cache


@custom_op("attnbench::attend_windows", mutates_args=(), device_types="cpu")
def attend_windows(qkv: Tensor, bias: Tensor | None, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Projected tokens [windows, M, 3, heads, d] to softmax(scale q k + bias + mask) v [windows, M, heads, d].

    bias [heads, M, M]; mask [P, M, M], of which window i takes the i % P-th. Beside it the softmax, [windows, heads, M,
    M], or [windows, M, M, heads, 1] where products are written out. It and all arithmetic are in float32 at least.
    """
    softmax = made_softmax(qkv, biased=bias is not None or mask is not None)
    y, rooms = made_answer(qkv), Rooms(softmax.dtype)
    for part, walls in stretches(qkv, mask):
        y[part] = read(rooms, qkv[part], softmax[part], scale, bias, walls)
    return y, softmax


@custom_op("attnbench::attend_windows_backward", mutates_args=(), device_types="cpu")
def attend_windows_backward(
    dy: Tensor, qkv: Tensor, softmax: Tensor, scale: float, biased: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of qkv [windows, M, 3, heads, d] and of the bias [heads, M, M], which is empty where there is none."""
    dqkv, dbias, rooms = made_gradient(qkv), made_bias(softmax, biased), Rooms(softmax.dtype)
    for part, _ in stretches(qkv, None):
        found = traced(rooms, dy[part], qkv[part], softmax[part], scale, dbias if biased else None)
        for into, gradient in zip(dqkv[part].unbind(2), found, strict=True):
            into.copy_(gradient)
    return dqkv, dbias


@attend_windows.register_fake
def _(qkv: Tensor, bias: Any, mask: Any, scale: float) -> tuple[Tensor, Tensor]:
    del scale
    return made_answer(qkv), made_softmax(qkv, biased=bias is not None or mask is not None)


@attend_windows_backward.register_fake
def _(dy: Tensor, qkv: Tensor, softmax: Tensor, scale: float, biased: bool) -> tuple[Tensor, Tensor]:
    del dy, scale
    return made_gradient(qkv), made_bias(softmax, biased)


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, bias, _, scale = inputs
    ctx.save_for_backward(qkv, output[1])
    ctx.bias, ctx.scale = None if bias is None else bias.dtype, scale
    ctx.mark_non_differentiable(output[1])


def gradients(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    dqkv, dbias = attend_windows_backward(dy, *ctx.saved_tensors, ctx.scale, ctx.bias is not None)
    return dqkv, None if ctx.bias is None else dbias.to(ctx.bias), None, None


register_autograd(attend_windows, gradients, setup_context=keep)


@register_flop_formula(torch.ops.attnbench.attend_windows)
def _(qkv: Any, *_: Any, **__: Any) -> int:
    windows, tokens, _, heads, width = qkv
    return 2 * 2 * windows * heads * tokens**2 * width


@register_flop_formula(torch.ops.attnbench.attend_windows_backward)
def _(_dy: Any, qkv: Any, *_: Any, **__: Any) -> int:
    windows, tokens, _, heads, width = qkv
    return 4 * 2 * windows * heads * tokens**2 * width


def stretches(qkv: Tensor, mask: Tensor | None) -> Iterator[tuple[slice, Tensor | None]]:
    """Windows to take at once, and their masks: some whole periods of masks, or a part of one."""
    windows, period = len(qkv), 1 if mask is None else len(mask)
    size = max(1, 3 * AT_ONCE // max(1, qkv[:1].numel()))
    if size >= period:
        size -= size % period
        yield from ((slice(start, min(start + size, windows)), mask) for start in range(0, windows, size))
        return
    assert mask is not None
    for start in range(0, windows, period):
        for first in range(0, period, size):
            last = min(first + size, period)
            yield slice(start + first, start + last), mask[first:last]


def made_answer(qkv: Tensor) -> Tensor:
    return qkv.new_empty(*qkv.shape[:2], *qkv.shape[3:])


def made_gradient(qkv: Tensor) -> Tensor:
    return qkv.new_empty(qkv.shape)


def made_softmax(qkv: Tensor, *, biased: bool) -> Tensor:
    windows, tokens, _, heads, _ = qkv.shape
    written_out = tokens <= FEW and not biased
    shape = (windows, tokens, tokens, heads, 1) if written_out else (windows, heads, tokens, tokens)
    return qkv.new_empty(shape, dtype=torch.promote_types(qkv.dtype, torch.float32))


def made_bias(softmax: Tensor, biased: bool) -> Tensor:
    return softmax.new_zeros(softmax.shape[1:] if biased else 0)


def read(
    rooms: "Rooms", qkv: Tensor, w: Tensor, scale: float, bias: Tensor | None = None, walls: Tensor | None = None
) -> Tensor:
    """What a stretch of windows [n, M, 3, heads, d] reads [n, M, heads, d]; fills in its softmax."""
    if w.ndim == 5:
        a, b, c = rooms.copied(qkv.movedim(2, 0), "qkv")
        scores = rooms.product(a.unsqueeze(2), b.unsqueeze(1)).sum(-1, keepdim=True).mul_(scale)
        torch.softmax(scores, 2, out=w)
        return rooms.product(w, c.unsqueeze(1)).sum(2)
    heads, w = qkv.shape[3], w.flatten(0, 1)
    a, b, c = rooms.by_head(qkv, "qkv")
    torch.softmax(added(rooms.products(a, b.mT, scale), heads, bias, walls), -1, out=w)
    return beside(rooms.products(w, c), heads)


def traced(
    rooms: "Rooms", dy: Tensor, qkv: Tensor, w: Tensor, scale: float, dbias: Tensor | None = None
) -> Iterator[Tensor]:
    """Gradients of a stretch's q, k and v, each to be used before the next is made; adds to that of the bias."""
    if w.ndim == 5:
        a, b, c = rooms.copied(qkv.movedim(2, 0), "qkv")
        g = rooms.copied(dy, "dy")
        dw = rooms.product(g.unsqueeze(2), c.unsqueeze(1)).sum(-1, keepdim=True)
        ds = into_scores(dw, w, 2).mul_(scale)
        yield rooms.product(ds, b.unsqueeze(1)).sum(2)
        yield rooms.product(ds, a.unsqueeze(2)).sum(1)
        yield rooms.product(w, g.unsqueeze(2)).sum(1)
        return
    heads, w = qkv.shape[3], w.flatten(0, 1)
    a, b, c = rooms.by_head(qkv, "qkv")
    (g,) = rooms.by_head(dy.unsqueeze(2), "dy")
    ds = into_scores(rooms.products(g, c.mT), w, -1)
    if dbias is not None:
        dbias += ds.view(-1, *dbias.shape).sum(0)
    yield beside(rooms.products(ds, b, scale), heads)
    yield beside(rooms.products(ds.mT, a, scale), heads)
    yield beside(rooms.products(w.mT, g), heads)


class Rooms:
    """Memory that is written again for every stretch: to ask for it anew each time costs more than the arithmetic."""

    def __init__(self, dtype: torch.dtype):
        self.dtype, self.held = dtype, dict[Any, Tensor]()

    def room(self, name: str, like: Tensor, *shape: int) -> Tensor:
        size = prod(shape)
        held = self.held.get(name)
        if held is None or len(held) < size:
            held = self.held[name] = like.new_empty(size, dtype=self.dtype)
        return held[:size].view(shape)

    def copied(self, tokens: Tensor, name: str) -> Tensor:
        return self.room(name, tokens, *tokens.shape).copy_(tokens)

    def by_head(self, tokens: Tensor, name: str) -> tuple[Tensor, ...]:
        """[windows, M, parts, heads, d] to each part [windows * heads, M, d], as batched products want it."""
        return self.copied(tokens.permute(2, 0, 3, 1, 4), name).flatten(1, 2).unbind(0)

    def product(self, one: Tensor, other: Tensor) -> Tensor:
        """one * other."""
        shape = torch.broadcast_shapes(one.shape, other.shape)
        return torch.mul(one, other, out=self.room("product", one, *shape))

    def products(self, one: Tensor, other: Tensor, factor: float = 1.0) -> Tensor:
        """factor one @ other, without a pass for the factor."""
        room = self.room("products", one, len(one), one.shape[1], other.shape[2])
        return torch.baddbmm(room, one, other, beta=0, alpha=factor, out=room)


def beside(rows: Tensor, heads: int) -> Tensor:
    """[windows * heads, M, d] to [windows, M, heads, d]."""
    return rows.unflatten(0, (-1, heads)).transpose(1, 2)


def added(scores: Tensor, heads: int, bias: Tensor | None, walls: Tensor | None) -> Tensor:
    """Scores [windows * heads, M, M] with a bias for each head and a mask for each of so many windows; in place."""
    if bias is not None:
        scores.view(-1, *bias.shape).add_(bias)
    if walls is not None:
        scores.view(-1, len(walls), heads, *walls.shape[1:]).add_(walls.unsqueeze(1))
    return scores


def into_scores(dw: Tensor, w: Tensor, axis: int) -> Tensor:
    """From the gradient of a softmax to that of what it was taken of."""
    return torch.ops.aten._softmax_backward_data(dw, w, axis, w.dtype)
