"""One softmax over keys that are read in parts: each part's mean, and the logarithm of the mass under it."""

import torch
from torch import Tensor


def merged(y: Tensor, mass: Tensor, other: Tensor, other_mass: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log mass of two parts together; y [..., d], mass [..., 1]. Of the first only, the mass may be -inf."""
    return torch.lerp(y, other, torch.sigmoid(other_mass - mass)), torch.logaddexp(mass, other_mass)
