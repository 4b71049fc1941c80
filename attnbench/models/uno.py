"""The U-shaped neural operator of the package neuraloperator: a U-Net of Fourier layers, no mechanism inside.

Rahman et al., "U-NO: U-shaped Neural Operators", TMLR 2023. https://arxiv.org/abs/2204.11127
A layer at full size, `levels` that halve the grid and double the channels, as many that restore it, and a last one.
What goes down is kept and joined again where the grid is the same, as in Ronneberger et al., "U-Net", 2015.
https://arxiv.org/abs/1505.04597
Departs from the paper: sizes follow from three numbers instead of a table for each problem. Skips past the layers'
MLPs are linear, because the package's gates need equal widths. Coordinates come from the task, so the package's own
position embedding is off.
"""

import io
from contextlib import redirect_stdout
from typing import Any

from pydantic import PositiveInt, model_validator
from torch import nn

from attnbench.models._operators import Operator
from attnbench.models._registry import register
from mechanisms import Knobs
from tasks import Port


class Config(Knobs):
    modes: PositiveInt = 12
    """Fourier modes kept on each axis at full size, halved with every halving of the grid"""
    channels: PositiveInt = 16
    """width at full size, doubled with every halving of the grid"""
    levels: PositiveInt = 2
    """how often the grid is halved on the way down"""

    @model_validator(mode="after")
    def modes_are_halved(self) -> "Config":
        if self.modes % 2**self.levels:
            raise ValueError(
                f"modes must be a multiple of {2**self.levels}, for {self.levels} halvings; got {self.modes}."
            )
        return self


@register("uno", Config, socket=False)
class Uno(Operator):
    """From inputs [B, H, W, inputs] to outputs [B, H, W, outputs]. Raises ValueError for other shapes."""

    def __init__(self, port: Port, config: Config):
        def make() -> nn.Module:
            refuse_odd(port, config)
            from neuralop.models import UNO  # here, for its import takes seconds and no other model needs it

            optional = {"positional_embedding": None, "channel_mlp_skip": "linear"} | layers(config)
            with redirect_stdout(io.StringIO()):  # it prints its arguments
                return UNO(port.inputs, port.outputs, config.channels, **optional)

        super().__init__(port, config.modes, make, of="uno")


def refuse_odd(port: Port, config: Config) -> None:
    if any(side % 2**config.levels for side in port.shape):
        raise ValueError(f"uno.levels: a grid {port.shape} cannot be halved {config.levels} times.")


def layers(config: Config) -> dict[str, Any]:
    """What each layer has, from the first to the last; skips join layers whose inputs and outputs have one size."""
    down = range(1, config.levels + 1)
    levels = [0, *down, *reversed(range(config.levels)), 0]  # how often the grid is halved after each layer
    scalings = [1.0] + [0.5 for _ in down] + [2.0 for _ in down] + [1.0]
    coarser = [max(pair) for pair in zip([0, *levels], levels, strict=False)]  # of the grids before and after
    return {
        "n_layers": len(levels),
        "uno_out_channels": [config.channels << level for level in levels],
        "uno_scalings": [[scaling, scaling] for scaling in scalings],
        "uno_n_modes": [[config.modes >> level] * 2 for level in coarser],
        "horizontal_skips_map": {len(levels) - 1 - level: level for level in range(config.levels)},
    }
