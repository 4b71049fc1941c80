"""Pooled attention: every token attends to a coarse copy of the tokens, averaged in blocks.

Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", 2022, section 3.2.
https://arxiv.org/abs/2106.13797
Work N^2 / r^d for blocks of side r on each of the d grid axes; N for a coarse copy of fixed size.
Departs from the paper: keys and values are plain averages, without the convolution, norm and activation that follow
pooling there in its linear form, so that an ablation of the blocks changes the blocks alone; blocks at the border may
be smaller.
"""

from typing import Literal

from einops import rearrange
from pydantic import PositiveInt
from torch import nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens

BLOCKS = {1: F.avg_pool1d, 2: F.avg_pool2d}
FIXED = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d}


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    coarse: Literal["blocks", "fixed"] = "blocks"
    """whether the coarse copy shrinks the grid by a factor, or has the same size on every grid"""
    block: PositiveInt = 2
    """side of an averaged block in tokens; 1 is full attention"""
    side: PositiveInt = 7
    """side of the coarse copy of fixed size, in tokens"""

    def idle(self) -> set[str]:
        return {"side"} if self.coarse == "blocks" else {"block"}


@register(
    "pooled",
    Config,
    fits=("sequence", "grid"),
    order="N^2",
    order_of=lambda _, config: "N^2" if config.coarse == "blocks" else "N",
    reach="global",
)
class Pooled(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="pooled")
        self.heads, axes = config.heads, len(site.shape)
        blocks = config.coarse == "blocks"
        self.average = BLOCKS[axes] if blocks else FIXED[axes]
        self.sides = tuple(min(config.block if blocks else config.side, side) for side in site.shape)
        self.rest = {"ceil_mode": True} if blocks else {}
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

    def forward(self, x: Tokens) -> Tokens:
        coarse = self.average(x.movedim(-1, 1), self.sides, **self.rest).movedim(1, -1)
        q, k, v = (
            rearrange(project(tokens), "b ... (h d) -> b h (...) d", h=self.heads)
            for project, tokens in ((self.q, x), (self.k, coarse), (self.v, coarse))
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape))
