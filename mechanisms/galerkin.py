"""Galerkin attention: products without softmax, of keys and values first, so that the work is linear.

Cao, "Choose a Transformer: Fourier or Galerkin", NeurIPS 2021, equations 6 and 9. https://arxiv.org/abs/2105.14995
Work N for the Galerkin type, q (k^T v) / N with norms on k and v; N^2 for the Fourier type, (q k^T) v / (N sqrt d) with
norms on q and k.
Departs from the paper: no dropout (the released code drops half of the mixing matrix even in evaluation); coordinates
reach it through the backbone instead of being joined to every head; weights start as everywhere here, not near the
identity.
"""

from typing import Literal

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import nn

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    kind: Literal["galerkin", "fourier"] = "galerkin"
    """which product comes first: keys with values, or queries with keys"""
    norm: bool = True
    """whether each head's two factors of its kind pass a layer norm of their own"""


NORMED = {"galerkin": "kv", "fourier": "qk"}


@register(
    "galerkin",
    Config,
    fits=("sequence", "grid"),
    order="N",
    order_of=lambda _, config: "N" if config.kind == "galerkin" else "N^2",
    reach="global",
)
class Galerkin(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        width = head_channels(site, config.heads, of="galerkin")
        self.heads, self.galerkin = config.heads, config.kind == "galerkin"
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        normed = NORMED[config.kind] if config.norm else ""
        self.norms = nn.ModuleDict({name: HeadNorm(config.heads, width) for name in normed})

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (
            self.normed(name, rearrange(project(x), "b ... (h d) -> b h (...) d", h=self.heads))
            for name, project in (("q", self.q), ("k", self.k), ("v", self.v))
        )
        v = v / v.shape[2]
        y = q @ (k.mT @ v) if self.galerkin else (q / q.shape[3] ** 0.5 @ k.mT) @ v
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape))

    def normed(self, name: str, tokens: torch.Tensor) -> torch.Tensor:
        return self.norms[name](tokens) if name in self.norms else tokens


class HeadNorm(nn.Module):
    """A layer norm over the channels of a head [b, h, n, d], with weights for each head."""

    def __init__(self, heads: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.weight = nn.Parameter(torch.ones(heads, 1, width))
        self.bias = nn.Parameter(torch.zeros(heads, 1, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.norm(tokens) * self.weight + self.bias
