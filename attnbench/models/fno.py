"""The Fourier neural operator of the package neuraloperator: a whole model, no mechanism inside.

Li et al., "Fourier Neural Operator for Parametric Partial Differential Equations", ICLR 2021.
https://arxiv.org/abs/2010.08895
Coordinates come from the task, as for every model, so the package's own position embedding is off.
"""

from typing import Any

from einops.layers.torch import Rearrange
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from attnbench.models._registry import register
from mechanisms import Knobs
from tasks import Port


class Config(Knobs):
    modes: PositiveInt = 12
    """Fourier modes kept on each axis, as the package counts them: positive and negative ones together"""
    channels: PositiveInt = 20
    """width of every layer"""
    depth: PositiveInt = 4
    """number of Fourier layers"""
    padding: float = Field(default=0.0, ge=0.0, le=1.0)
    """share of the side by which the domain is padded, for boundaries that are not periodic"""


@register("fno", Config, socket=False)
class Fno(nn.Module):
    """From inputs [B, H, W, inputs] to outputs [B, H, W, outputs]. Raises ValueError for other shapes."""

    def __init__(self, port: Port, config: Config):
        super().__init__()
        port.refuse(of="fno", grid_only=True)
        if config.modes > min(port.shape):
            raise ValueError(f"fno.modes is at most {min(port.shape)} on a grid {port.shape}; got {config.modes}.")
        from neuralop.models import FNO  # here, for its import takes seconds and no other model needs it

        optional: dict[str, Any] = {"positional_embedding": None, "domain_padding": config.padding or None}
        operator = FNO(
            n_modes=(config.modes, config.modes),
            in_channels=port.inputs,
            out_channels=port.outputs,
            hidden_channels=config.channels,
            n_layers=config.depth,
            **optional,
        )
        self.net = nn.Sequential(Rearrange("b h w c -> b c h w"), operator, Rearrange("b c h w -> b h w c"))
        self.register_state_dict_post_hook(drop_metadata)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def drop_metadata(_module: nn.Module, state: dict[str, Any], _prefix: str, _local: dict[str, Any]) -> None:
    """The package puts a dict of its arguments among the weights, which torch cannot load back into a larger model."""
    state.pop("_metadata", None)
