"""The place in a model that a mechanism fills: what the model fixes and no sweep may change."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Setting = Literal["sequence", "causal", "grid"]
Tokens = Float[Tensor, "batch *shape channels"]


@dataclass(frozen=True, kw_only=True)
class Site:
    """A slot for one mechanism.

    channels: width C of every token.
    shape: the token grid, (N,) for a sequence or (H, W) for an image.
    causal: whether token i sees only tokens 0 to i; sequences only.
    stage: number of the model's stage, from 1; an isotropic model has one.
    block: index of the block within the stage, from 0; alternations such as Swin's shift read it.

    Raises ValueError for a shape that is neither a sequence nor a grid, for a causal grid, and for empty sizes.
    """

    channels: int
    shape: tuple[int, ...]
    causal: bool = False
    stage: int = 1
    block: int = 0

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 2) or (self.causal and len(self.shape) == 2):
            raise ValueError(f"A site is a sequence (N,) or a grid (H, W), causal only as a sequence; got {self}.")
        if min(self.channels, *self.shape) < 1:
            raise ValueError(f"A site has at least one channel and one token on each axis; got {self}.")

    @property
    def setting(self) -> Setting:
        if len(self.shape) == 2:
            return "grid"
        return "causal" if self.causal else "sequence"

    @property
    def tokens(self) -> int:
        return prod(self.shape)
