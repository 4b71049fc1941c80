"""MANO: window attention on the grid and on ever coarser copies of it, whose outputs are brought back and summed.

Colagrande et al., "MANO: Multipole Attention Neural Operator", 2025, section 3.2. https://arxiv.org/abs/2507.02748
Work N: with a sampling rate of 2, all coarser levels together cost less than a third of the finest on grids, and less
than the finest on sequences.
Level 0 is the grid itself, higher levels are coarser; out = sum over m of up^m(attend(down^m(x))), one set of
projections and one pair of samplers for all levels.
Departs from the paper: tokens are normed by the backbone once, not again inside every level; projections come before
overlapping windows are cut out, which gives the same numbers for less work; the projections of q, k and v have biases,
like those of every mechanism here. Its image variant puts levels on Swin V2's attention, `position=swin_v2`, here
without shifted windows. Sequences, weights of each level's own and three ways to combine levels are additions:
`published` sums as the released code does, with up(r) / (j + 1) at its j-th step up; `gate` gives each level a learned
factor, 1 at the start; `softmax` weighs levels by what their windows hold. There, y_m is level m's output before `out`
and n_m the log-normaliser of its softmax, both per head, averaged where windows overlap; from the coarsest level up
    a = sigmoid(copied(n_(m+1)) + log(tokens in a cell) - n_m),   y_m <- (1 - a) y_m + a up(y_(m+1)),
    n_m <- logaddexp(n_m, copied(n_(m+1)) + log(tokens in a cell)),
and `out`, always one for all levels, is applied to y_0. Where up is copying, this is one softmax over levels m of
n_m + log(tokens under a token of level m).
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from mechanisms._heads import head_channels
from mechanisms._layout import RowByRow, layout
from mechanisms._levels import DOWN, UP, Merge, Windows, at, attend_whole, one_or_each, refuse_misfit, weighed
from mechanisms._mano_cosine import CosineAttention
from mechanisms._project import project
from mechanisms._registry import Reach, register
from mechanisms._site import Site, Tokens

SMALL = 2**18  # numbers in the finest level up to which all levels go together


class Config(Windows):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    levels: PositiveInt = 3
    """number of grids, the finest included; 1 is window attention"""
    rate: int = Field(default=2, ge=2)
    """sampling factor between neighbouring levels, on each axis"""
    downsample: Literal["conv", "average"] = "conv"
    """how rate x rate tokens become one: a learned convolution or their mean"""
    upsample: Literal["transposed", "nearest"] = "transposed"
    """how one token becomes rate x rate again: a learned transposed convolution or copies"""
    combine: Literal["sum", "published", "gate", "softmax"] = "sum"
    """how levels are summed: all alike, as released (1 / (j + 1) at step j up), by learned factors, by one softmax"""
    samplers: Literal["shared", "per_level"] = "shared"
    """whether all steps between levels have one pair of samplers or each its own"""
    attention: Literal["shared", "per_level"] = "shared"
    """whether all levels have one set of projections or each its own"""
    position: Literal["plain", "swin_v2"] = "plain"
    """attention inside windows: dot products without positions, or Swin V2's cosines with a bias for relative places"""

    neutral: ClassVar = {"samplers": "shared", "attention": "shared", "position": "plain"}

    @model_validator(mode="after")
    def merging_needs_normalisers(self) -> "Config":
        if self.combine == "softmax" and self.position == "swin_v2" and self.levels > 1:
            raise ValueError("combine 'softmax' weighs levels by their dot products and needs position 'plain'.")
        return self

    def idle(self) -> set[str]:
        if self.levels == 1:
            return {"downsample", "upsample", "rate", "combine", "samplers", "attention"}
        idle = set()
        if self.levels == 2 and self.combine in ("sum", "published"):
            idle.add("combine")  # with two levels both rules are the same sum
        if self.levels == 2 or (self.downsample, self.upsample) == ("average", "nearest"):
            idle.add("samplers")
        return idle


def reach(site: Site, config: Any) -> Reach:
    """Global exactly where one window is the whole coarsest level: no other window holds the token in the corner."""
    if all(side == config.window * config.rate ** (config.levels - 1) for side in site.shape):
        return "global"
    return "token" if config.window == config.levels == 1 else "local"


@register("mano", Config, fits=("sequence", "grid"), order="N", reach=reach)
class Mano(nn.Module):
    gate: nn.Parameter | None

    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="mano")
        refuse_misfit(site.shape, config.levels, config.rate, config, of="mano")
        self.windows, self.heads, self.levels = config, config.heads, config.levels
        steps, axes, merged = config.levels - 1, len(site.shape), config.levels > 1 and config.combine == "softmax"

        def linear() -> nn.Module:
            return nn.Linear(site.channels, site.channels)

        def cosine() -> nn.Module:
            window = (1,) * (2 - axes) + (config.window,) * axes  # a sequence is a grid of one row
            return CosineAttention(site.channels, config.heads, (window[0], window[1]))

        own = bool(steps) and config.attention == "per_level"
        self.cosine = one_or_each(cosine, config.levels, each=own) if config.position == "swin_v2" else None
        if self.cosine is None:
            self.q, self.k, self.v = (one_or_each(linear, config.levels, each=own) for _ in range(3))
            self.out = one_or_each(linear, config.levels, each=own and not merged)
        own = steps > 1 and config.samplers == "per_level"
        if steps:
            place = site.channels, axes, config.rate
            self.down = one_or_each(lambda: DOWN[config.downsample](*place), steps, each=own)
            self.up = one_or_each(lambda: UP[config.upsample](*place), steps, each=own)
        self.published = config.combine == "published"
        self.gate = nn.Parameter(torch.ones(config.levels)) if steps and config.combine == "gate" else None
        self.merge = Merge(config.heads, axes, config.rate) if merged else None
        plain = merged or config.position == "swin_v2"
        self.layout = RowByRow(config) if plain else layout(site.shape, config, levels=config.levels, rate=config.rate)
        self.shared = config.position == "plain" and config.attention == "shared"

    def forward(self, x: Tokens) -> Tokens:
        grids = [self.layout.into(x)]
        for m in range(self.levels - 1):
            grids.append(self.layout.resample(at(self.down, m), grids[-1]))
        y = self.summed(grids) if self.merge is None else self.out(self.merged(grids, self.merge))
        return self.layout.back(y)

    def summed(self, grids: list[Tensor]) -> Tensor:
        """From the coarsest level up: what it attends to, and what comes from below."""
        *finer, y = self.attended(grids)
        for m in reversed(range(self.levels - 1)):
            raised = self.layout.resample(at(self.up, m), y)
            y = finer[m] + (raised / (self.levels - 1 - m) if self.published else raised)
        return y

    def attended(self, grids: list[Tensor]) -> list[Tensor]:
        """Every level's own answer. Levels with the same weights in the same layout go together, the finest alone where
        it is large: the others are at most as many tokens, so that copying them costs little."""
        first = 0 if grids[0].numel() <= SMALL else 1
        if self.shared and self.layout.flat and len(grids) > first + 1:
            y = self.attend(torch.cat(grids[first:], 1), first).split([grid.shape[1] for grid in grids[first:]], 1)
            found = [*(self.attend(grid, 0) for grid in grids[:first]), *y]
        else:
            found = [self.attend(grid, m) for m, grid in enumerate(grids)]
        return found if self.gate is None else [gate * y for gate, y in zip(self.gate, found, strict=True)]

    def attend(self, x: Tensor, level: int) -> Tensor:
        if self.cosine is not None:
            return attend_whole(at(self.cosine, level), x, self.windows)
        return at(self.out, level)(self.layout.attend(self.projected(x, level), heads=self.heads))

    def merged(self, grids: list[Tensor], merge: Merge) -> Tensor:
        """From the coarsest level up: the weighted mean of a level's answer and what comes from below."""
        y, mass = self.weighed(grids[-1], self.levels - 1)
        for m in reversed(range(self.levels - 1)):
            y, mass = merge(*self.weighed(grids[m], m), self.layout.resample(at(self.up, m), y), mass)
        return y

    def weighed(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return weighed(self.projected(x, level), heads=self.heads, windows=self.windows)

    def projected(self, x: Tensor, level: int) -> Tensor:
        """Queries, keys and values [..., 3C]."""
        return project(x, at(self.q, level), at(self.k, level), at(self.v, level))
