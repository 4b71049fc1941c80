"""Softmax attention inside the windows of a grid, side by side or overlapping, from projected tokens."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def tiled(q: Tensor, k: Tensor, v: Tensor, *, heads: int, window: tuple[int, ...]) -> Tensor:
    """Attention within windows side by side: q, k, v [B, *grid, C] to the same; the window divides the grid."""
    if len(window) == 1:
        q, k, v = (t.unsqueeze(1) for t in (q, k, v))
        return tiled(q, k, v, heads=heads, window=(1, *window)).squeeze(1)
    pattern = "b (i m) (j n) (h d) -> (b i j) h (m n) d"
    rows, columns = (side // size for side, size in zip(q.shape[1:3], window, strict=True))
    sides = {"h": heads, "m": window[0], "n": window[1]}
    q, k, v = (rearrange(t, pattern, **sides) for t in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v)
    return rearrange(y, "(b i j) h (m n) d -> b (i m) (j n) (h d)", i=rows, j=columns, m=window[0])


def overlapping(
    q: Tensor, k: Tensor, v: Tensor, *, heads: int, window: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """Attention within overlapping windows; a token's output is the mean over the windows that hold it."""
    if len(window) == 1:
        q, k, v = (t.unsqueeze(1) for t in (q, k, v))
        return overlapping(q, k, v, heads=heads, window=(1, *window), stride=(1, *stride)).squeeze(1)
    batch, size = len(q), q.shape[1:3]
    cut = (t.unfold(1, window[0], stride[0]).unfold(2, window[1], stride[1]) for t in (q, k, v))
    q, k, v = (rearrange(t, "b i j (h d) m n -> (b i j) h (m n) d", h=heads) for t in cut)
    y = F.scaled_dot_product_attention(q, k, v)
    columns = rearrange(y, "(b p) h (m n) d -> b (h d m n) p", b=batch, m=window[0])
    sides = {"output_size": size, "kernel_size": window, "stride": stride}
    times = F.fold(torch.ones_like(columns[:1, : window[0] * window[1]]), **sides)  # windows over each token
    return (F.fold(columns, **sides) / times).movedim(1, -1)
