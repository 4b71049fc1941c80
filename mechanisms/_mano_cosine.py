"""Swin V2's attention inside touching windows: cosines of queries and keys, and a learned bias for each relative place.

Liu et al., "Swin Transformer V2", CVPR 2022, section 3.3. https://arxiv.org/abs/2111.09883
"""

from math import log

import torch
from einops import rearrange
from torch import Tensor, nn

from mechanisms._project import project
from mechanisms._site import Tokens
from mechanisms._windows import attend_cut, cosines


class CosineAttention(nn.Module):
    """Tokens [B, H, W, C] to the same; the window, a number of tokens on each axis, divides the grid."""

    offsets: Tensor
    place: Tensor

    def __init__(self, channels: int, heads: int, window: tuple[int, int]):
        super().__init__()
        self.heads, self.window = heads, window
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels, bias=False)
        self.v, self.out = (nn.Linear(channels, channels) for _ in range(2))
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), log(10)))
        self.position = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        self.register_buffer("offsets", offsets(window), persistent=False)
        self.register_buffer("place", relative_places(window), persistent=False)

    def forward(self, x: Tokens) -> Tokens:
        rows, columns = (side // size for side, size in zip(x.shape[1:3], self.window, strict=True))
        m, n = self.window
        qkv = project(rearrange(x, "b (i m) (j n) c -> (b i j) (m n) c", m=m, n=n), self.q, self.k, self.v)
        bias = self.bias().movedim(-1, 0).contiguous()
        y = self.out(attend_cut(cosines(qkv, self.logit_scale), heads=self.heads, bias=bias, scale=1.0))
        return rearrange(y, "(b i j) (m n) c -> b (i m) (j n) c", i=rows, j=columns, m=m)

    def bias(self) -> Tensor:
        """What is added to the scores of every pair of tokens in a window [M, M, heads]: offsets, from -8 to 8 and then
        on a logarithmic scale over 3, through an MLP."""
        farthest = self.offsets.amax(0).clamp(min=1)
        x = 8 * self.offsets.to(self.logit_scale.dtype) / farthest
        return 16 * self.position(x.sign() * (1 + x.abs()).log2() / 3).sigmoid()[self.place]


def offsets(window: tuple[int, int]) -> Tensor:
    """Every offset between two tokens of a window [(2 m - 1) (2 n - 1), 2]."""
    return torch.cartesian_prod(*(torch.arange(1 - side, side) for side in window)).reshape(-1, 2)


def relative_places(window: tuple[int, int]) -> Tensor:
    """For each pair of tokens in a window [M, M], query first, the row of the offsets that holds theirs."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in window), indexing="ij")
    down = rows.flatten()[:, None] - rows.flatten()[None] + window[0] - 1
    right = columns.flatten()[:, None] - columns.flatten()[None] + window[1] - 1
    return down * (2 * window[1] - 1) + right
