"""The common backbone: one width and one grid throughout, pre-norm blocks, patches of one token.

Each block adds mechanism(norm(x)) and then mlp(norm(x)), as in Xiong et al., "On Layer Normalization in the Transformer
Architecture", 2020. https://arxiv.org/abs/2002.04745
Positions reach it only through what the task gives as inputs, such as coordinates, and through the mechanism itself.
"""

from pydantic import PositiveInt
from torch import Tensor, nn

from attnbench.models._registry import register
from mechanisms import Build, Knobs, Site
from tasks import Port


class Config(Knobs):
    channels: PositiveInt = 64
    """width of every token"""
    depth: PositiveInt = 4
    """number of blocks"""
    mlp_ratio: PositiveInt = 2
    """width of the hidden layer of a block's MLP, in channels"""


@register("isotropic", Config, socket=True)
class Isotropic(nn.Module):
    """From inputs [B, *shape, inputs] to outputs [B, *shape, outputs]."""

    def __init__(self, port: Port, config: Config, build: Build):
        super().__init__()
        self.lift = nn.Linear(port.inputs, config.channels)
        self.blocks = nn.Sequential(
            *(
                Block(Site(channels=config.channels, shape=port.shape, causal=port.causal, block=block), config, build)
                for block in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(config.channels)
        self.head = nn.Linear(config.channels, port.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.lift(x))))


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
