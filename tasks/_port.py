"""What a task asks of a model: what goes in and comes out at each point of which grid."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Port:
    """A model for this port maps [B, *shape, inputs] to [B, *shape, outputs], floating point both, unless it says more.

    inputs: numbers given at every point.
    outputs: numbers asked for at every point.
    shape: the grid of points, (N,) for a sequence or (H, W) for an image or a field.
    causal: whether the answer at point i may use only points 0 to i; sequences only.
    symbols: every point holds one of `inputs` symbols instead of numbers: what goes in is [B, *shape], int64.
    once: one answer is asked of the whole example: what comes out is [B, outputs].
    places: the numbers at every point tell where it lies, so that a model need not add it.
    """

    inputs: int
    outputs: int
    shape: tuple[int, ...]
    causal: bool = False
    symbols: bool = False
    once: bool = False
    places: bool = False

    def blank(self, batch: int, device: str | torch.device | None = None) -> Tensor:
        """An input of the right shape and type whose values mean nothing; zeros where they are symbols."""
        if self.symbols:
            return torch.zeros(batch, *self.shape, dtype=torch.long, device=device)
        return torch.empty(batch, *self.shape, self.inputs, device=device)

    def refuse(self, *, of: str, grid_only: bool = False) -> None:
        """For models that serve fields of numbers alone. Raises ValueError for a port that asks more."""
        if grid_only and len(self.shape) != 2:
            raise ValueError(f"{of} serves grids (H, W); this task's shape is {self.shape}.")
        for word, what in (("symbols", "gives symbols"), ("once", "asks for one answer an example")):
            if getattr(self, word):
                raise ValueError(f"{of} serves fields, numbers in and out at every point; this task {what}.")
