"""What a task asks of a model: how many numbers go in and come out at each point of which grid."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Port:
    """A model for this port maps [B, *shape, inputs] to [B, *shape, outputs], floating point both.

    inputs: numbers given at every point.
    outputs: numbers asked for at every point.
    shape: the grid of points, (N,) for a sequence or (H, W) for an image or a field.
    causal: whether the answer at point i may use only points 0 to i; sequences only.
    """

    inputs: int
    outputs: int
    shape: tuple[int, ...]
    causal: bool = False
