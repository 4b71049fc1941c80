"""MANO: window attention on the grid and on ever coarser copies of it, whose outputs are brought back and summed.

Colagrande et al., "MANO: Multipole Attention Neural Operator", 2025, section 3.2. https://arxiv.org/abs/2507.02748
Work N: with a sampling rate of 2, all coarser levels together cost less than a third of the finest.
Level 0 is the grid itself, higher levels are coarser; out = sum over m of up^m(attend(down^m(x))), one set of
projections and one pair of samplers for all levels.
Departs from the paper: tokens are normed by the backbone once, not again inside every level; projections come before
overlapping windows are cut out, which gives the same numbers for less work; the projections of q, k and v have biases,
like those of every mechanism here. `combine=published` sums as the released code does, not as the paper's formula.
"""

from typing import Any, Literal

import torch
from einops import rearrange
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    window: PositiveInt = 2
    """side of a window in tokens, the same at every level"""
    stride: PositiveInt | None = None
    """step from window to window in tokens; the window's side if not given, less lets windows overlap"""
    levels: PositiveInt = 3
    """number of grids, the finest included; 1 is window attention"""
    rate: int = Field(default=2, ge=2)
    """sampling factor between neighbouring levels, on each axis"""
    downsample: Literal["conv", "average"] = "conv"
    """how rate x rate tokens become one: a learned convolution or their mean"""
    upsample: Literal["transposed", "nearest"] = "transposed"
    """how one token becomes rate x rate again: a learned transposed convolution or copies"""
    combine: Literal["sum", "published"] = "sum"
    """how levels are summed: all alike, or with the released code's factor 1 / (j + 1) at its j-th step up"""

    @model_validator(mode="before")
    @classmethod
    def windows_touch_by_default(cls, knobs: Any) -> Any:
        if isinstance(knobs, dict) and knobs.get("stride") is None:
            return {**knobs, "stride": knobs.get("window", cls.model_fields["window"].default)}
        return knobs

    @model_validator(mode="after")
    def windows_leave_no_gaps(self) -> "Config":
        if self.stride and self.stride > self.window:
            raise ValueError(
                f"stride {self.stride} is more than window {self.window}: nobody would see the tokens between windows."
            )
        return self

    def idle(self) -> set[str]:
        if self.levels == 1:
            return {"downsample", "upsample", "rate", "combine"}
        return {"combine"} if self.levels == 2 else set()  # with two levels both rules are the same sum


def convolution(site: Site, config: Config) -> nn.Module:
    return nn.Conv2d(site.channels, site.channels, config.rate, config.rate, bias=False)


def transposed(site: Site, config: Config) -> nn.Module:
    return nn.ConvTranspose2d(site.channels, site.channels, config.rate, config.rate, bias=False)


def average(_: Site, config: Config) -> nn.Module:
    return nn.AvgPool2d(config.rate, config.rate)


def nearest(_: Site, config: Config) -> nn.Module:
    return nn.Upsample(scale_factor=config.rate, mode="nearest")


DOWN = {"conv": convolution, "average": average}
UP = {"transposed": transposed, "nearest": nearest}


@register("mano", Config, fits=("grid",), order="N")
class Mano(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="mano")
        refuse_misfit(site, config)
        self.heads, self.window, self.stride = config.heads, config.window, config.stride or config.window
        self.levels, self.rate, self.published = config.levels, config.rate, config.combine == "published"
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        self.down = self.up = None
        if config.levels > 1:
            self.down, self.up = DOWN[config.downsample](site, config), UP[config.upsample](site, config)

    def forward(self, x: Tokens) -> Tokens:
        grids = [x]
        for _ in range(self.levels - 1):
            grids.append(channels_first(self.down, grids[-1]))
        y = self.attend(grids.pop())
        for j, grid in enumerate(reversed(grids)):
            raised = channels_first(self.up, y)
            y = self.attend(grid) + (raised / (j + 1) if self.published else raised)
        return y

    def attend(self, x: Tokens) -> Tokens:
        """Softmax attention inside windows; where windows overlap, a token's outputs are averaged."""
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.out(self.overlapping(q, k, v) if self.stride < self.window else self.tiled(q, k, v))

    def tiled(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        windows = "b (i m) (j n) (h d) -> (b i j) h (m n) d"
        rows, columns = (side // self.window for side in q.shape[1:3])
        sides = {"h": self.heads, "m": self.window, "n": self.window}
        q, k, v = (rearrange(t, windows, **sides) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        return rearrange(y, "(b i j) h (m n) d -> b (i m) (j n) (h d)", i=rows, j=columns, m=self.window)

    def overlapping(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, size = len(q), q.shape[1:3]
        cut = (t.unfold(1, self.window, self.stride).unfold(2, self.window, self.stride) for t in (q, k, v))
        q, k, v = (rearrange(t, "b i j (h d) m n -> (b i j) h (m n) d", h=self.heads) for t in cut)
        y = F.scaled_dot_product_attention(q, k, v)
        columns = rearrange(y, "(b p) h (m n) d -> b (h d m n) p", b=batch, m=self.window)
        sides = {"output_size": size, "kernel_size": self.window, "stride": self.stride}
        times = F.fold(torch.ones_like(columns[:1, : self.window**2]), **sides)  # windows over each token [1, 1, H, W]
        return (F.fold(columns, **sides) / times).movedim(1, -1)


def channels_first(module: nn.Module | None, x: Tokens) -> Tokens:
    """A convolution or pooling, which want [B, C, H, W], applied to tokens [B, H, W, C]."""
    assert module is not None
    return module(x.movedim(-1, 1)).movedim(1, -1)


def refuse_misfit(site: Site, config: Config) -> None:
    """Raises ValueError unless windows cover the grid of every level exactly."""
    stride, (height, width) = config.stride or config.window, site.shape
    for level in range(config.levels):
        scale = config.rate**level
        where = f"mano: level {level} of a {height} x {width} grid at rate {config.rate}"
        if height % scale or width % scale:
            raise ValueError(f"{where} has no whole number of tokens; {fits(level, config)}.")
        rows, columns = height // scale, width // scale
        if min(rows, columns) < config.window:
            raise ValueError(f"{where} is {rows} x {columns}, less than window {config.window}; {fits(level, config)}.")
        if (rows - config.window) % stride or (columns - config.window) % stride:
            raise ValueError(
                f"{where} is {rows} x {columns}, which windows of side {config.window} at stride {stride} "
                f"do not cover; {fits(level, config)}."
            )


def fits(level: int, config: Config) -> str:
    return f"levels is {config.levels}, at most {level} fit" if level else "choose another window or stride"
