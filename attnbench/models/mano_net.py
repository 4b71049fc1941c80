"""The published network of MANO: multipole attention in blocks of its own, a whole model, no mechanism inside.

Colagrande et al., "MANO: Multipole Attention Neural Operator", 2025. https://arxiv.org/abs/2507.02748
As the released code has it: tokens are normed twice, inside the attention and nowhere before it; no bias on queries,
keys and values; level sums with a factor 1 / (j + 1) at the j-th step up; a tanh in the head.
Departs from it: the default number of levels counts whole grids that windows cover, instead of rounding a logarithm;
sizes at which windows leave tokens out are refused, where the code divides zero by zero; no dropout.
"""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from attnbench.models._registry import register
from mechanisms._layout import layout
from mechanisms._levels import DOWN, UP, Windows, most, refuse_misfit
from tasks import Port


class Config(Windows):
    channels: PositiveInt = 64
    """width of every token"""
    heads: PositiveInt = 4
    """number of heads"""
    head_channels: PositiveInt = 16
    """channels of one head; all heads together may be wider or narrower than a token"""
    mlp: PositiveInt = 64
    """width of the hidden layer of a block's MLP"""
    depth: PositiveInt = 4
    """number of blocks"""
    rate: int = Field(default=2, ge=2)
    """sampling factor between neighbouring levels, on each axis"""
    levels: int = Field(default=0, ge=0)
    """number of grids, the finest included; 0 takes the most that the task's grid permits"""
    sampling: Literal["conv", "average"] = "conv"
    """a learned convolution down and a learned transposed one up, or means down and copies up"""
    head: Literal["full", "halved"] = "full"
    """whether the head's hidden layer has all channels or half of them"""

    @model_validator(mode="after")
    def halves_are_whole(self) -> "Config":
        if self.head == "halved" and self.channels % 2:
            raise ValueError(f"a halved head needs an even number of channels; got {self.channels}.")
        return self

    def idle(self) -> set[str]:
        return {"rate", "sampling"} if self.levels == 1 else set()


@register("mano_net", Config, socket=False)
class ManoNet(nn.Module):
    """From inputs [B, H, W, inputs] to outputs [B, H, W, outputs]. Raises ValueError for shapes that do not fit."""

    def __init__(self, port: Port, config: Config):
        super().__init__()
        port.refuse(of="mano_net", grid_only=True)
        levels = config.levels or max(1, most(port.shape, config.rate, config))
        refuse_misfit(port.shape, levels, config.rate, config, of="mano_net")
        width = config.channels // 2 if config.head == "halved" else config.channels
        self.lift = nn.Linear(port.inputs, config.channels)
        self.blocks = nn.Sequential(*(Block(port.shape, config, levels) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.channels)
        self.head = nn.Sequential(nn.Linear(config.channels, width), nn.Tanh(), nn.Linear(width, port.outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.lift(x))))


class Block(nn.Module):
    def __init__(self, shape: tuple[int, ...], config: Config, levels: int):
        super().__init__()
        self.attention = Multipole(shape, config, levels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(config.channels),
            nn.Linear(config.channels, config.mlp),
            nn.GELU(),
            nn.Linear(config.mlp, config.channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class Multipole(nn.Module):
    """One window attention, norms included, on the grid and its coarser copies; `out` is left out where a single head
    is as wide as a token."""

    def __init__(self, shape: tuple[int, ...], config: Config, levels: int):
        super().__init__()
        self.heads, self.levels = config.heads, levels
        self.layout = layout(shape, config, levels=levels, rate=config.rate)
        channels, inner = config.channels, config.heads * config.head_channels
        self.norms = nn.Sequential(nn.LayerNorm(channels), nn.LayerNorm(channels))
        self.qkv = nn.Linear(channels, 3 * inner, bias=False)
        alone = config.heads == 1 and inner == channels
        self.out = nn.Identity() if alone else nn.Linear(inner, channels)
        if levels > 1:
            down, up = {"conv": ("conv", "transposed"), "average": ("average", "nearest")}[config.sampling]
            self.down, self.up = DOWN[down](channels, 2, config.rate), UP[up](channels, 2, config.rate)

    def forward(self, x: Tensor) -> Tensor:
        grids = [self.layout.into(x)]
        for _ in range(self.levels - 1):
            grids.append(self.layout.resample(self.down, grids[-1]))
        y = self.attend(grids.pop())
        for j, grid in enumerate(reversed(grids)):
            y = self.attend(grid) + self.layout.resample(self.up, y) / (j + 1)
        return self.layout.back(y)

    def attend(self, x: Tensor) -> Tensor:
        return self.out(self.layout.attend(self.qkv(self.norms(x)), heads=self.heads))
