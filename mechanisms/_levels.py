"""What multipole attention does at its levels, on sequences and grids alike: windows that fit, sampling, merging."""

from collections.abc import Callable
from math import log, prod
from typing import Any, TypeVar

import torch
from einops import rearrange
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._knobs import Knobs
from mechanisms._site import Tokens
from mechanisms._windows import overlapping, tiled

Checked = TypeVar("Checked", bound="Windows")


class Windows(Knobs):
    """The knobs of windows that may overlap."""

    window: PositiveInt = 2
    """side of a window in tokens, the same at every level"""
    stride: PositiveInt | None = None
    """step from window to window in tokens; the window's side if not given, less lets windows overlap"""

    @model_validator(mode="before")
    @classmethod
    def windows_touch_by_default(cls, knobs: Any) -> Any:
        if isinstance(knobs, dict) and knobs.get("stride") is None:
            return {**knobs, "stride": knobs.get("window", cls.model_fields["window"].default)}
        return knobs

    @model_validator(mode="after")
    def windows_leave_no_gaps(self: Checked) -> Checked:
        if self.stride and self.stride > self.window:
            raise ValueError(
                f"stride {self.stride} is more than window {self.window}: nobody would see the tokens between windows."
            )
        return self

    @property
    def step(self) -> int:
        return self.stride or self.window


def misfit(shape: tuple[int, ...], level: int, rate: int, windows: Windows) -> str | None:
    """Why windows do not cover a level of this shape exactly, from the level on; None where they do."""
    whole = f"{shape[0]} x {shape[1]} grid" if shape[1:] else f"sequence of {shape[0]}"
    where = f"level {level} of a {whole} at rate {rate}"
    if any(side % rate**level for side in shape):
        return f"{where} has no whole number of tokens"
    sides = [side // rate**level for side in shape]
    size = " x ".join(map(str, sides))
    if min(sides) < windows.window:
        return f"{where} is {size}, less than window {windows.window}"
    if any((side - windows.window) % windows.step for side in sides):
        return f"{where} is {size}, which windows of side {windows.window} at stride {windows.step} do not cover"
    return None


def refuse_misfit(shape: tuple[int, ...], levels: int, rate: int, windows: Windows, *, of: str) -> None:
    """Raises ValueError unless windows cover every level exactly."""
    for level in range(levels):
        if why := misfit(shape, level, rate, windows):
            advice = f"levels is {levels}, at most {level} fit" if level else "choose another window or stride"
            raise ValueError(f"{of}: {why}; {advice}.")


def most(shape: tuple[int, ...], rate: int, windows: Windows) -> int:
    """How many levels windows cover exactly, counted down from the finest; 0 where not even that one fits."""
    level = 0
    while misfit(shape, level, rate, windows) is None:
        level += 1
    return level


CONVOLUTION: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d}
TRANSPOSED: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}
AVERAGE: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
DOWN: dict[str, Callable[[int, int, int], nn.Module]] = {  # from channels, number of axes and rate
    "conv": lambda channels, axes, rate: CONVOLUTION[axes](channels, channels, rate, rate, bias=False),
    "average": lambda _, axes, rate: AVERAGE[axes](rate, rate),
}
UP: dict[str, Callable[[int, int, int], nn.Module]] = {
    "transposed": lambda channels, axes, rate: TRANSPOSED[axes](channels, channels, rate, rate, bias=False),
    "nearest": lambda _channels, _axes, rate: nn.Upsample(scale_factor=rate, mode="nearest"),
}


def resample(module: nn.Module, x: Tokens) -> Tokens:
    """A convolution, pooling or copying, which want [B, C, *grid], applied to tokens [B, *grid, C]."""
    return module(x.movedim(-1, 1)).movedim(1, -1)


def one_or_each(make: Callable[[], nn.Module], count: int, *, each: bool) -> nn.Module:
    """One module for all levels, or a list of one for each."""
    return nn.ModuleList(make() for _ in range(count)) if each else make()


def at(module: nn.Module, level: int) -> nn.Module:
    """The module that serves a level."""
    return module[level] if isinstance(module, nn.ModuleList) else module


def attend(qkv: Tensor, *, heads: int, windows: Windows) -> Tensor:
    """Softmax attention inside windows from [B, *grid, 3C]; where windows overlap, a token's outputs are averaged."""
    window = (windows.window,) * (qkv.ndim - 2)
    if windows.step < windows.window:
        return overlapping(qkv, heads=heads, window=window, stride=(windows.step,) * (qkv.ndim - 2))
    return tiled(qkv, heads=heads, window=window)


def weighed(qkv: Tensor, *, heads: int, windows: Windows) -> tuple[Tensor, Tensor]:
    """The same [B, *grid, C], and each token's log-normaliser per head [B, *grid, heads], as a mean over its windows.

    Written out, because fused attention does not hand over its normaliser.
    """
    sides = tuple(qkv.shape[1:-1])
    for axis in range(1, qkv.ndim - 1):
        qkv = qkv.unfold(axis, windows.window, windows.step)
    pattern = "b i j (p h d) m n -> p b (i j) h (m n) d" if len(sides) == 2 else "b i (p h d) m -> p b i h m d"
    q, k, v = rearrange(qkv, pattern, p=3, h=heads)
    scores = q @ k.mT * q.shape[-1] ** -0.5
    mass = scores.logsumexp(-1, keepdim=True)
    y = torch.cat([scores.softmax(-1) @ v, mass.to(v.dtype)], -1)
    columns = rearrange(y, "b p h w d -> b (h d w) p")
    y = rearrange(mean_over_windows(columns, sides, windows), "b ... (h d) -> b ... h d", h=heads)
    return y[..., :-1].flatten(-2), y[..., -1]


def mean_over_windows(columns: Tensor, sides: tuple[int, ...], windows: Windows) -> Tensor:
    """From answers window by window [B, C * tokens in a window, windows] to each token's mean [B, *sides, C]."""
    window, stride = (windows.window,) * len(sides), (windows.step,) * len(sides)
    geometry: dict[str, Any] = {  # fold knows grids only: a sequence is a grid of one row
        "output_size": (1, *sides)[-2:],
        "kernel_size": (1, *window)[-2:],
        "stride": (1, *stride)[-2:],
    }
    times = F.fold(torch.ones_like(columns[:1, : prod(window)]), **geometry)  # windows over each token
    y = F.fold(columns, **geometry) / times
    return y.movedim(1, -1).reshape(len(y), *sides, y.shape[1])


def attend_whole(attention: nn.Module, x: Tokens, windows: Windows) -> Tokens:
    """An attention that takes tokens [B, H, W, C] and cuts them into touching windows itself, for any windows."""
    grid = x if x.ndim == 4 else x.unsqueeze(1)
    if windows.step == windows.window:
        return attention(grid).reshape(x.shape)
    for axis in range(3 - (x.ndim - 2), 3):
        grid = grid.unfold(axis, windows.window, windows.step)
    cut = grid if x.ndim == 4 else grid.unsqueeze(-2)
    y = attention(rearrange(cut, "b i j c m n -> (b i j) m n c"))
    columns = rearrange(y, "(b p) m n c -> b (c m n) p", b=len(x))
    return mean_over_windows(columns, tuple(x.shape[1:-1]), windows)


class Merge(nn.Module):
    """One softmax over levels: (fine, its mass) and (coarse, its mass) to their weighted mean and its mass."""

    def __init__(self, heads: int, axes: int, rate: int):
        super().__init__()
        self.heads, self.copies = heads, nn.Upsample(scale_factor=rate, mode="nearest")
        self.tokens = axes * log(rate)  # log of how many fine tokens a coarse one stands for

    def forward(self, fine: Tensor, mass: Tensor, raised: Tensor, coarse_mass: Tensor) -> tuple[Tensor, Tensor]:
        """fine, raised [B, *grid, C]; mass [B, *grid, heads]; coarse_mass [B, *coarse grid, heads]."""
        coarse_mass = resample(self.copies, coarse_mass) + self.tokens
        share = (coarse_mass - mass).sigmoid().repeat_interleave(fine.shape[-1] // self.heads, -1)
        return fine + share * (raised - fine), torch.logaddexp(mass, coarse_mass)
