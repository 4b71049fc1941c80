"""The vision transformer of the package timm, with every block's attention taken out and a mechanism put in.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. https://arxiv.org/abs/2010.11929
Patches, learned positions, norms before each part, MLP and drop path are timm's. One answer an example is read from the
mean of all patches, normed after it; one at every point from each normed patch, by a linear map to its points.
Departs from the paper: there is no class token, which would have no place on the grid; without pretrained weights the
mechanism starts as it starts everywhere in this bench.
"""

import importlib
from typing import Any, Literal

from einops.layers.torch import Rearrange
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from attnbench.models._images import refuse
from attnbench.models._pretrained import Start, Started
from attnbench.models._registry import register
from attnbench.models._timm import timm
from mechanisms import Build, Site
from tasks import Port

SIZES = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12)}


class Config(Start):
    size: Literal["tiny", "small", "base", "custom"] = "tiny"
    """the sizes Ti, S and B, or that of channels and depth below"""
    channels: PositiveInt = 64
    """of size custom, width of every token"""
    depth: PositiveInt = 4
    """of size custom, number of blocks"""
    patch: PositiveInt = 16
    """side of a patch in points: patch^2 points are one token"""
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0)
    """chance with which the last block is left out in training, less for those before it"""

    def idle(self) -> set[str]:
        return set() if self.size == "custom" else {"channels", "depth"}

    @property
    def widths(self) -> tuple[int, int]:
        """Channels and number of blocks."""
        return (self.channels, self.depth) if self.size == "custom" else SIZES[self.size]


@register("vit", Config, socket=True)
class Vit(Started):
    """From images [B, H, W, inputs] to [B, outputs], or to [B, H, W, outputs]. Raises ValueError for other ports."""

    def __init__(self, port: Port, config: Config, build: Build):
        super().__init__()
        refuse(port, config.patch, of="vit")
        channels, _ = config.widths
        height, width = (side // config.patch for side in port.shape)
        self.first = Rearrange("b h w c -> b c h w")
        self.net = without_weights(port, config)
        for i, block in enumerate(self.net.blocks):
            site = Site(channels=channels, shape=(height, width), block=i)
            self.net.blocks[i] = Block(block, build(site), site.shape)
        self.head = nn.Identity()
        if not port.once:
            points = {"i": height, "p": config.patch, "q": config.patch}
            self.head = nn.Sequential(
                nn.Linear(channels, config.patch**2 * port.outputs),
                Rearrange("b (i j) (p q c) -> b (i p) (j q) c", **points),
            )
        self.start(config, "head", of="vit")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(self.first(x)))


class Block(nn.Module):
    """A block of timm's with another mechanism in it: tokens [B, N, C] stand on their grid while they are mixed."""

    def __init__(self, block: Any, mechanism: nn.Module, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape
        self.norm1, self.mechanism, self.ls1, self.drop_path1 = block.norm1, mechanism, block.ls1, block.drop_path1
        self.norm2, self.mlp, self.ls2, self.drop_path2 = block.norm2, block.mlp, block.ls2, block.drop_path2

    def forward(self, x: Tensor) -> Tensor:
        y = self.mechanism(self.norm1(x).unflatten(1, self.shape)).flatten(1, -2)
        x = x + self.drop_path1(self.ls1(y))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def without_weights(port: Port, config: Config) -> Any:
    """timm's model at this size; heads are those of the attention that is taken out."""
    timm()
    made = importlib.import_module("timm.models.vision_transformer").VisionTransformer
    channels, depth = config.widths
    return made(
        img_size=port.shape,
        patch_size=config.patch,
        in_chans=port.inputs,
        num_classes=port.outputs if port.once else 0,
        global_pool="avg" if port.once else "",
        class_token=False,
        embed_dim=channels,
        depth=depth,
        num_heads=1,
        drop_path_rate=config.drop_path,
    )
