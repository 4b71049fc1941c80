"""The tensorised Fourier neural operator of the package neuraloperator: a whole model, no mechanism inside.

Kossaifi et al., "Multi-Grid Tensorized Fourier Neural Operator for High-Resolution PDEs", TMLR 2024.
https://arxiv.org/abs/2310.00120
It is the Fourier operator whose spectral weights are Tucker factors, multiplied with the input one by one; there is
no multi-grid decomposition. Coordinates come from the task, so the package's own position embedding is off.
"""

from typing import Any

from pydantic import Field, PositiveInt
from torch import nn

from attnbench.models._operators import Operator
from attnbench.models._registry import register
from mechanisms import Knobs
from tasks import Port


class Config(Knobs):
    modes: PositiveInt = 12
    """Fourier modes kept on each axis, as the package counts them: positive and negative ones together"""
    channels: PositiveInt = 32
    """width of every layer"""
    depth: PositiveInt = 4
    """number of Fourier layers"""
    rank: float = Field(default=0.1, gt=0.0, le=1.0)
    """size of the factors: about this share of the weights that a Fourier layer has without them"""
    padding: float = Field(default=0.0, ge=0.0, le=1.0)
    """share of the side by which the domain is padded, for boundaries that are not periodic"""


@register("tfno", Config, socket=False)
class Tfno(Operator):
    """From inputs [B, H, W, inputs] to outputs [B, H, W, outputs]. Raises ValueError for other shapes."""

    def __init__(self, port: Port, config: Config):
        def make() -> nn.Module:
            from neuralop.models import TFNO  # here, for its import takes seconds and no other model needs it

            optional: dict[str, Any] = {"positional_embedding": None, "domain_padding": config.padding or None}
            return TFNO(
                n_modes=(config.modes, config.modes),
                in_channels=port.inputs,
                out_channels=port.outputs,
                hidden_channels=config.channels,
                n_layers=config.depth,
                rank=config.rank,
                **optional,
            )

        super().__init__(port, config.modes, make, of="tfno")
