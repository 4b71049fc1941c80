"""Tokens to compare attention on: white noise, smooth random fields, and what a trained model really attends over."""

from typing import Literal

import torch
from torch import Tensor

from mechanisms import Site

Kind = Literal["random", "smooth", "trained"]


def white(site: Site, *, examples: int, seed: int) -> Tensor:
    """Independent standard normal numbers [examples, *shape, C] in float64."""
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(examples, *site.shape, site.channels, generator=chance, dtype=torch.float64)


def smooth(site: Site, *, length: float, examples: int, seed: int) -> Tensor:
    """Gaussian random fields [examples, *shape, C] in float64, one for each channel, with mean 0 and variance 1.

    length: correlation length l, as a share of the longest side: tokens at distance r correlate by exp(-r^2 / 2 l^2).
    White noise is filtered on a torus so much larger than the grid that its two ends do not feel each other.
    Raises ValueError unless the length is above 0 and at most 1.
    """
    if not 0 < length <= 1:
        raise ValueError(f"the length of smooth inputs is a share of the side, above 0 and at most 1; got {length}.")
    tokens = length * max(site.shape)
    sides = [side + int(8 * tokens) + 1 for side in site.shape]
    chance = torch.Generator().manual_seed(seed)
    noise = torch.randn(examples, site.channels, *sides, generator=chance, dtype=torch.float64)
    axes = tuple(range(2, 2 + len(sides)))
    for axis, side in zip(axes, sides, strict=True):
        away = torch.arange(side, dtype=torch.float64)
        away = torch.minimum(away, side - away)
        kernel = torch.exp(-((away / tokens) ** 2))  # whose product with itself, summed, is the correlation
        kernel = kernel / kernel.norm()
        wave = torch.fft.fft(kernel).view([-1 if at == axis else 1 for at in range(noise.ndim)])
        noise = torch.fft.ifft(torch.fft.fft(noise, dim=axis) * wave, dim=axis).real
    cut = noise[(slice(None), slice(None), *(slice(side) for side in site.shape))]
    return cut.movedim(1, -1).contiguous()
