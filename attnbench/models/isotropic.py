"""The common backbone: one width and one grid throughout, pre-norm blocks.

Each block adds mechanism(norm(x)) and then mlp(norm(x)), as in Xiong et al., "On Layer Normalization in the Transformer
Architecture", 2020. https://arxiv.org/abs/2002.04745
Points become tokens one by one, or in patches of patch x patch by a linear map; another linear map gives each of them
back its answer. Symbols become rows of a table that starts with variance 1: rows much smaller than the sines of places
are hardly learned to be told apart. One answer an example is read from the mean of all tokens.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import Tensor, nn

from attnbench.models._registry import register
from mechanisms import Build, Knobs, Site
from tasks import Port


class Config(Knobs):
    neutral: ClassVar[Mapping[str, Any]] = {"patch": 1, "position": "auto"}

    channels: PositiveInt = 64
    """width of every token"""
    depth: PositiveInt = 4
    """number of blocks"""
    mlp_ratio: PositiveInt = 2
    """width of the hidden layer of a block's MLP, in channels"""
    patch: PositiveInt = 1
    """side of a patch in points: patch^2 points of a grid, or patch points of a sequence, are one token"""
    position: Literal["auto", "none", "sinusoidal", "learned"] = "auto"
    """what tells a token where it lies: nothing, sines or learned numbers; auto is sines unless the task tells it"""


@register("isotropic", Config, socket=True)
class Isotropic(nn.Module):
    """From inputs [B, *shape, inputs], or symbols [B, *shape], to outputs [B, *shape, outputs], or [B, outputs].

    Raises ValueError where patches do not divide the grid, and where they would mix points that causality parts.
    """

    places: Tensor | None

    def __init__(self, port: Port, config: Config, build: Build):
        super().__init__()
        refuse_patches(port, config.patch)
        self.port, self.patch = port, config.patch
        shape, points = tuple(side // config.patch for side in port.shape), config.patch ** len(port.shape)
        self.lift = lift(port, points, config.channels)
        self.learned = None
        kind = config.position if config.position != "auto" else "none" if port.places else "sinusoidal"
        waves = sinusoids(shape, config.channels) if kind == "sinusoidal" else None
        self.register_buffer("places", waves, persistent=False)
        if kind == "learned":
            self.learned = nn.Parameter(torch.empty(*shape, config.channels))
            nn.init.trunc_normal_(self.learned, std=0.02)
        self.blocks = nn.Sequential(
            *(
                Block(Site(channels=config.channels, shape=shape, causal=port.causal, block=block), config, build)
                for block in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(config.channels)
        self.head = nn.Linear(config.channels, port.outputs if port.once else points * port.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x if self.patch == 1 else merged(x, self.patch))
        for where in (self.places, self.learned):
            x = x if where is None else x + where
        y = self.norm(self.blocks(x))
        if self.port.once:
            return self.head(y.flatten(1, -2).mean(1))
        return self.head(y) if self.patch == 1 else split(self.head(y), self.patch)


class Block(nn.Module):
    def __init__(self, site: Site, config: Config, build: Build):
        super().__init__()
        self.norm = nn.LayerNorm(site.channels)
        self.mechanism = build(site)
        self.mlp = nn.Sequential(
            nn.LayerNorm(site.channels),
            nn.Linear(site.channels, config.mlp_ratio * site.channels),
            nn.GELU(),
            nn.Linear(config.mlp_ratio * site.channels, site.channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mechanism(self.norm(x))
        return x + self.mlp(x)


def refuse_patches(port: Port, patch: int) -> None:
    if patch > 1 and (port.causal or port.symbols):
        why = "would see its own later points" if port.causal else "holds symbols, which no linear map merges"
        raise ValueError(f"isotropic.patch is 1 where a patch {why}; got {patch}.")
    if any(side % patch for side in port.shape):
        raise ValueError(f"isotropic.patch must divide the task's shape {port.shape}; got {patch}.")


def lift(port: Port, points: int, channels: int) -> nn.Module:
    """From what a token's points hold to its channels."""
    if port.symbols:
        return nn.Embedding(port.inputs, channels)
    return nn.Linear(points * port.inputs, channels)


def merged(x: Tensor, patch: int) -> Tensor:
    """The points of a patch [B, *shape, inputs] side by side."""
    if x.ndim == 3:
        return rearrange(x, "b (i p) c -> b i (p c)", p=patch)
    return rearrange(x, "b (i p) (j q) c -> b i j (p q c)", p=patch, q=patch)


def split(y: Tensor, patch: int) -> Tensor:
    """And back."""
    if y.ndim == 3:
        return rearrange(y, "b i (p c) -> b (i p) c", p=patch)
    return rearrange(y, "b i j (p q c) -> b (i p) (j q) c", p=patch, q=patch)


def sinusoids(shape: tuple[int, ...], channels: int) -> Tensor:
    """Sines and cosines of a token's place at wavelengths from 2 pi to 20,000 pi [*shape, channels].

    Vaswani et al., "Attention Is All You Need", 2017, section 3.5. Every axis has an equal part of the channels; what
    is left of a division stays 0.
    """
    found = torch.zeros(*shape, channels)
    half = channels // (2 * len(shape))
    speeds = 10_000.0 ** (-torch.arange(half) / max(half, 1))
    for axis, side in enumerate(shape):
        angles = torch.arange(side).unsqueeze(1) * speeds
        waves = torch.cat([angles.sin(), angles.cos()], 1)  # [side, 2 half]
        waves = waves.reshape([side if a == axis else 1 for a in range(len(shape))] + [2 * half])
        found[..., 2 * half * axis : 2 * half * (axis + 1)] = waves
    return found
