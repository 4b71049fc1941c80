"""Agent attention: a few pooled queries read from all tokens, and every token reads from them.

Han et al., "Agent Attention: On the Integration of Softmax and Linear Attention", ECCV 2024.
https://arxiv.org/abs/2312.08874
Work N for a fixed number of agents.
Departs from the paper: nothing with `position=bilinear` on grids, where each score has a bias of a coarse map, a row
and a column, as in the released code; without it, the default, nothing is bound to the size. On sequences agents are
means of stretches, the convolution runs along them, and there is no position bias.
"""

from typing import Literal

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens

COARSE = 7  # side of the coarse bias map, as in the released code


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    side: PositiveInt = 7
    """agents on each axis of the site: their square on a grid"""
    convolution: bool = True
    """whether a depthwise convolution of the values over 3 tokens on each axis is added"""
    position: Literal["none", "bilinear"] = "none"
    """no position bias, or a learned one between agents and places, bound to the grid's size"""


@register(
    "agent",
    Config,
    fits=("sequence", "grid"),
    order="N",
    reach="global",
    bound_to_shape=lambda _, config: config.position == "bilinear",
)
class Agent(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="agent")
        axes = len(site.shape)
        if config.position == "bilinear" and axes == 1:
            raise ValueError("agent.position bilinear is for grids; this site is a sequence, so choose none.")
        self.heads, self.sides = config.heads, tuple(min(config.side, side) for side in site.shape)
        self.pool = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d}[axes]
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        self.local = None
        if config.convolution:
            kind = {1: nn.Conv1d, 2: nn.Conv2d}[axes]
            self.local = kind(site.channels, site.channels, 3, padding=1, groups=site.channels)
        agents = self.sides[0] * self.sides[-1] if axes == 2 else self.sides[0]
        places = config.position == "bilinear"
        self.gather_bias, self.spread_bias = (
            Bias(config.heads, agents, site.shape) if places else None for _ in range(2)
        )

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = self.q(x), self.k(x), self.v(x)
        agents = self.pool(q.movedim(-1, 1), self.sides).movedim(1, -1)
        local = 0.0 if self.local is None else self.local(v.movedim(-1, 1)).movedim(1, -1)
        q, k, v, agents = (rearrange(t, "b ... (h d) -> b h (...) d", h=self.heads) for t in (q, k, v, agents))
        gathered = F.scaled_dot_product_attention(agents, k, v, attn_mask=bias(self.gather_bias, q.dtype))
        spread = bias(self.spread_bias, q.dtype)
        y = F.scaled_dot_product_attention(q, agents, gathered, attn_mask=None if spread is None else spread.mT)
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape) + local)


class Bias(nn.Module):
    """A bias for each head, agent and place of the grid [heads, agents, N]: a finer coarse map, a row, a column."""

    coarse: Tensor
    row: Tensor
    column: Tensor

    def __init__(self, heads: int, agents: int, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape
        sizes = {"coarse": (COARSE, COARSE), "row": (shape[0], 1), "column": (1, shape[-1])}
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(heads, agents, *size)))
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)

    def forward(self) -> Tensor:
        fine = F.interpolate(self.coarse, size=self.shape, mode="bilinear")
        return (fine + self.row + self.column).flatten(2)


def bias(module: Bias | None, dtype: torch.dtype) -> Tensor | None:
    return None if module is None else module().to(dtype).unsqueeze(0)
