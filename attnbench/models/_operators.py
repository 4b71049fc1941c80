"""What whole models of the package neuraloperator share: its order of axes, and what it puts among the weights."""

from collections.abc import Callable
from typing import Any

from einops.layers.torch import Rearrange
from torch import Tensor, nn

from tasks import Port


class Operator(nn.Module):
    """From inputs [B, H, W, inputs] to outputs [B, H, W, outputs] by a model of the package, which has channels first.

    Raises ValueError for other ports, and for more modes than points.
    """

    def __init__(self, port: Port, modes: int, make: Callable[[], nn.Module], *, of: str):
        super().__init__()
        port.refuse(of=of, grid_only=True)
        if modes > min(port.shape):
            raise ValueError(f"{of}.modes is at most {min(port.shape)} on a grid {port.shape}; got {modes}.")
        self.net = nn.Sequential(Rearrange("b h w c -> b c h w"), make(), Rearrange("b c h w -> b h w c"))
        self.register_state_dict_post_hook(drop_metadata)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def drop_metadata(_module: nn.Module, state: dict[str, Any], _prefix: str, _local: dict[str, Any]) -> None:
    """The package puts a dict of its arguments among the weights, which torch cannot load back into a larger model."""
    state.pop("_metadata", None)
