"""Neighbourhood attention: every token attends to the window of tokens around it, which stays inside at the borders.

Hassani et al., "Neighborhood Attention Transformer", 2022, and, for dilation, "Dilated Neighborhood Attention
Transformer", 2022, https://arxiv.org/abs/2209.15001. https://arxiv.org/abs/2204.07143
Work N w^a for windows of w tokens on each of a axes.
With a dilation of s, tokens attend within the s^a grids that each hold every s-th token of an axis. At a border the
window is moved inside, so that every query sees equally many keys; only causal windows, which end at the query, are cut
off.
Departs from the paper: the bias for relative places is off unless `position` asks for it; neighbours are gathered where
the authors have kernels of their own; causal windows are those of the authors' NATTEN.
"""

from typing import Any, Literal

import torch
from einops import rearrange
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import Reach, register
from mechanisms._site import Site, Tokens


class Windows(Knobs):
    """What the authors' kernels know as well."""

    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    window: int = Field(default=7, ge=1)
    """tokens of a window on each axis; odd, so that the query stands in its middle"""
    dilation: PositiveInt = 1
    """tokens from one neighbour to the next; window x dilation is at most the side of the grid"""

    @field_validator("window")
    @classmethod
    def odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError("odd")
        return window

    def idle(self) -> set[str]:
        return {"dilation"} if self.window == 1 else set()


class Config(Windows):
    position: Literal["none", "relative"] = "none"
    """nothing, or a learned bias for each relative place of query and key"""

    def idle(self) -> set[str]:
        return {"dilation", "position"} if self.window == 1 else set()


def reach(site: Site, config: Any) -> Reach:
    if all(side == config.window for side in site.shape):
        return "global"
    return "token" if config.window == 1 else "local"


@register("neighborhood", Config, fits=("sequence", "causal", "grid"), order="N", reach=reach)
class Neighborhood(nn.Module):
    neighbours: Tensor
    absent: Tensor | None
    place: Tensor

    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="neighborhood")
        refuse_small(site, config, of="neighborhood")
        self.heads = config.heads
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        axes = [axis(side, config, causal=site.causal) for side in site.shape]
        steps = [found - torch.arange(len(found)).unsqueeze(1) for found in axes]
        places = [step // config.dilation + config.window - 1 for step in steps]
        self.register_buffer(
            "neighbours", crossed([found.clamp(min=0) for found in axes], site.shape), persistent=False
        )
        self.register_buffer("absent", axes[0] < 0 if site.causal else None, persistent=False)
        self.bias = None
        if config.position == "relative" and config.window > 1:
            offsets = 2 * config.window - 1
            self.bias = nn.Parameter(torch.empty(offsets ** len(axes), config.heads))
            nn.init.trunc_normal_(self.bias, std=0.02)
            table = [place.clamp(min=0) for place in places]
            self.register_buffer("place", crossed(table, (offsets,) * len(axes)), persistent=False)

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b ... (h d) -> b h (...) d", h=self.heads) for p in (self.q, self.k, self.v))
        k, v = k[:, :, self.neighbours], v[:, :, self.neighbours]
        scores = torch.einsum("bhnd,bhnmd->bhnm", q * q.shape[-1] ** -0.5, k)
        if self.bias is not None:
            scores = scores + rearrange(self.bias[self.place], "n m h -> h n m")
        if self.absent is not None:
            scores = scores.masked_fill(self.absent, -torch.inf)
        y = torch.einsum("bhnm,bhnmd->bhnd", scores.softmax(-1), v)
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape))


def refuse_small(site: Site, config: Windows, *, of: str) -> None:
    """Raises ValueError where a window does not fit on an axis."""
    if config.window > 1 and config.window * config.dilation > min(site.shape):
        shape = " x ".join(map(str, site.shape))
        raise ValueError(
            f"{of}.window x dilation must be at most the shortest side of its site, {shape}; "
            f"got {config.window} x {config.dilation}."
        )


def axis(side: int, config: Windows, *, causal: bool) -> Tensor:
    """The neighbours [side, window] of each place of an axis; below zero where a causal window is cut off."""
    here, window = torch.arange(side), torch.arange(config.window)
    rest, number = here % config.dilation, here // config.dilation
    if causal:
        first = number - config.window + 1
    else:
        ends = (side - 1 - rest) // config.dilation + 1 - config.window
        first = (number - config.window // 2).clamp(min=0).minimum(ends)
    return (first.unsqueeze(1) + window) * config.dilation + rest.unsqueeze(1)


def crossed(axes: list[Tensor], sides: tuple[int, ...]) -> Tensor:
    """Places on each axis [side, window] as places of the flattened grid [tokens, window^axes]."""
    if len(axes) == 1:
        return axes[0]
    rows, columns = axes
    grid = rows[:, None, :, None] * sides[1] + columns[None, :, None, :]
    return grid.flatten(2).flatten(0, 1)
