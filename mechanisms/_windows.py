"""Softmax attention inside the windows of a grid, side by side or overlapping, from projected tokens."""

from math import log, prod, sqrt

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from mechanisms._precise import least
from mechanisms._window_kernel import attend_windows
from mechanisms._window_offsets import attend_offsets
from mechanisms._window_overlap import attend_overlapping

HOTTEST = log(100)  # largest logarithm of Swin V2's factor on cosines
CALL = 2**15  # windows in one call of fused attention: kernels on CUDA take fewer than 65,536 in a batch
MOST = 64  # tokens in a window up to which a CPU takes many windows at once
BY_OFFSET = 9  # tokens in a window up to which it goes offset by offset, where windows begin at every token


def attend_cut(
    qkv: Tensor, *, heads: int, bias: Tensor | None = None, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Attention within windows that are cut already: queries, keys and values [windows, M, 3C] to [windows, M, C].

    bias [heads, M, M] is added to the scores, and so is mask [P, M, M], its i % P-th to those of window i. scale is
    1 / sqrt(d) unless given.
    """
    assert mask is None or not (len(qkv) % len(mask) or mask.requires_grad), "masks repeat, and learn nothing"
    qkv = qkv.unflatten(-1, (3, heads, -1))
    scale = 1 / sqrt(qkv.shape[-1]) if scale is None else scale
    if at_once(qkv, qkv.shape[1]):
        return attend_windows(qkv, bias, mask, scale)[0].flatten(2)
    return fused(qkv, bias=bias, mask=mask, scale=scale).flatten(2)


def cosines(qkv: Tensor, logit_scale: Tensor) -> Tensor:
    """Swin V2's queries and keys [..., 3C] of length 1, queries times a factor a head, so that products are cosines.

    logit_scale [heads, 1, 1]: logarithm of the factor, of which at most HOTTEST counts.
    """
    qkv = qkv.unflatten(-1, (3, len(logit_scale), -1))
    one_over = (
        torch.linalg.vector_norm(qkv[..., :2, :, :], dim=-1, keepdim=True).clamp(min=least(qkv.dtype)).reciprocal()
    )
    q, k = one_over.unbind(-3)
    factor = logit_scale.clamp(max=HOTTEST).exp().to(q.dtype).flatten(1)  # [heads, 1]
    return (qkv * torch.stack([q * factor, k, torch.ones_like(k)], -3)).flatten(-3)  # v as it is: one pass for all


def at_once(qkv: Tensor, tokens: int) -> bool:
    """Whether the operator for many small windows takes them. On the meta device it stands for what any device does."""
    return qkv.device.type in ("cpu", "meta") and tokens <= MOST


def fused(qkv: Tensor, *, bias: Tensor | None, mask: Tensor | None, scale: float) -> Tensor:
    """From [windows, M, 3, heads, d] to [windows, M, heads, d] on torch's fused attention: the plain form."""
    q, k, v = qkv.transpose(1, 3).unbind(2)
    bias, mask = (None if t is None else t.to(q.dtype) for t in (bias, mask))
    if mask is None:
        parts = zip(*(t.split(CALL) for t in (q, k, v)), strict=True)
        found = [F.scaled_dot_product_attention(*part, attn_mask=bias, scale=scale) for part in parts]
        return (found[0] if len(found) == 1 else torch.cat(found)).transpose(1, 2)
    walls = mask.unsqueeze(1) if bias is None else mask.unsqueeze(1) + bias
    walls = walls.expand(-1, q.shape[1], -1, -1).flatten(0, 1)
    beside = (t.reshape(-1, len(walls), *t.shape[2:]) for t in (q, k, v))  # heads beside windows: masks have no batch
    y = F.scaled_dot_product_attention(*beside, attn_mask=walls, scale=scale)
    return y.reshape(q.shape).transpose(1, 2)


def tiled(qkv: Tensor, *, heads: int, window: tuple[int, ...]) -> Tensor:
    """Attention within windows side by side: qkv [B, *grid, 3C] to [B, *grid, C]; the window divides the grid."""
    if len(window) == 1:
        return tiled(qkv.unsqueeze(1), heads=heads, window=(1, *window)).squeeze(1)
    rows, columns = (side // size for side, size in zip(qkv.shape[1:3], window, strict=True))
    m, n = window
    y = attend_cut(rearrange(qkv, "b (i m) (j n) c -> (b i j) (m n) c", m=m, n=n), heads=heads)
    return rearrange(y, "(b i j) (m n) c -> b (i m) (j n) c", i=rows, j=columns, m=m)


def overlapping(qkv: Tensor, *, heads: int, window: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Attention within overlapping windows; a token's output is the mean over the windows that hold it."""
    if len(window) == 1:
        grid = qkv.unsqueeze(1)
        return overlapping(grid, heads=heads, window=(1, *window), stride=(1, *stride)).squeeze(1)
    if at_once(qkv, prod(window)):
        qkv = qkv.unflatten(-1, (3, heads, -1))
        scale = qkv.shape[-1] ** -0.5
        if everywhere(stride) and prod(window) <= BY_OFFSET:
            y, _ = attend_offsets(qkv, list(window), scale)
        else:
            y, _ = attend_overlapping(qkv, list(window), list(stride), scale)
        return y.flatten(3) / times(qkv, window, stride).unsqueeze(-1)
    cut = qkv.unfold(1, window[0], stride[0]).unfold(2, window[1], stride[1])
    y = attend_cut(rearrange(cut, "b i j c m n -> (b i j) (m n) c"), heads=heads)
    columns = rearrange(y, "(b p) m c -> b (c m) p", b=len(qkv))
    y = F.fold(columns, output_size=qkv.shape[1:3], kernel_size=window, stride=stride).movedim(1, -1)
    return y / times(qkv, window, stride).unsqueeze(-1)


def everywhere(stride: tuple[int, ...]) -> bool:
    """Whether a window begins at every token."""
    return all(step == 1 for step in stride)


def times(grid: Tensor, window: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """How many windows hold each token of a grid [B, H, W, ...], as [H, W]."""
    rows, columns = (
        along(side, size, step, grid.device) for side, size, step in zip(grid.shape[1:3], window, stride, strict=True)
    )
    return (rows.unsqueeze(1) * columns).to(grid)


def along(side: int, window: int, stride: int, device: torch.device) -> Tensor:
    """The same on one axis."""
    place = torch.arange(side, device=device)
    first, last = (place - window + stride) // stride, place // stride
    return last.clamp(max=(side - window) // stride) - first.clamp(min=0) + 1
