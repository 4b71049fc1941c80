"""Swin V2 of the package timm, with every block's attention taken out and a mechanism put in.

Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR 2022. https://arxiv.org/abs/2111.09883
What is taken out is the attention with its shift, its windows and their order; norms after the mechanism and after the
MLP, drop path, patch merging and head are timm's. Grids halve and channels double from stage to stage. What tells
tokens where they lie was in the attention, too: a mechanism without positions of its own knows little of places here.
MANO's recipe for images (Colagrande et al., 2025, section 5, https://arxiv.org/abs/2507.02748) is `pretrained` weights
with the mechanism mano in their attention's place and `train: new`. `adapter_stages: 2` is the control that the paper
lacks: as many new weights as MANO's samplers have in these stages, and no second scale.
Departs from timm: without pretrained weights the mechanism starts as it starts everywhere in this bench.
"""

import importlib
from typing import Any, Literal

from einops.layers.torch import Rearrange
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from attnbench.models._images import Blocks, refuse
from attnbench.models._pretrained import Start, Started
from attnbench.models._registry import register
from attnbench.models._timm import timm
from mechanisms import Build, Site
from tasks import Port

SIZES = {"tiny": (96, (2, 2, 6, 2)), "small": (96, (2, 2, 18, 2)), "base": (128, (2, 2, 18, 2))}


class Config(Start):
    size: Literal["tiny", "small", "base", "custom"] = "tiny"
    """the paper's sizes T, S and B, or that of channels and blocks below"""
    channels: PositiveInt = 32
    """of size custom, width of the first stage; it doubles from stage to stage"""
    blocks: Blocks = "2 2"
    """of size custom, the number of blocks of each stage, such as 2 2 6 2"""
    patch: PositiveInt = 4
    """side of a patch in points: patch^2 points are one token of the first stage"""
    drop_path: float = Field(default=0.1, ge=0.0, lt=1.0)
    """chance with which the last block is left out in training, less for those before it"""
    adapter_stages: NonNegativeInt = 0
    """in how many first stages a mechanism has an MLP beside it, 8 C^2 weights a block, which adds nothing at first"""

    def idle(self) -> set[str]:
        return set() if self.size == "custom" else {"channels", "blocks"}

    @property
    def stages(self) -> int:
        return len(self.widths[1])

    @property
    def widths(self) -> tuple[int, tuple[int, ...]]:
        """Channels of the first stage, and the number of blocks of each."""
        if self.size == "custom":
            return self.channels, tuple(int(word) for word in self.blocks.split())
        return SIZES[self.size]


@register("swinv2", Config, socket=True)
class SwinV2(Started):
    """From images [B, H, W, inputs] to one answer each [B, outputs]. Raises ValueError for other ports."""

    def __init__(self, port: Port, config: Config, build: Build):
        super().__init__()
        refuse(port, config.patch, of="swinv2")
        if not port.once:
            raise ValueError("swinv2 gives one answer an example; this task asks for one at every point.")
        self.first = Rearrange("b h w c -> b c h w")
        self.net = without_weights(port, config)
        for number, stage in enumerate(self.net.layers, 1):
            for i, block in enumerate(stage.blocks):
                site = Site(channels=block.dim, shape=tuple(block.input_resolution), stage=number, block=i)
                stage.blocks[i] = Block(block, build(site), adapter=number <= config.adapter_stages)
        self.start(config, "head.fc", of="swinv2")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.first(x))


class Block(nn.Module):
    """A block of timm's with another mechanism in it: each part is normed after it, and then added."""

    def __init__(self, block: Any, mechanism: nn.Module, *, adapter: bool):
        super().__init__()
        self.mechanism = mechanism
        self.norm1, self.drop_path1 = block.norm1, block.drop_path1
        self.mlp, self.norm2, self.drop_path2 = block.mlp, block.norm2, block.drop_path2
        self.adapter = Adapter(block.dim) if adapter else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.mechanism(x)
        y = y if self.adapter is None else y + self.adapter(x)
        x = x + self.drop_path1(self.norm1(y))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class Adapter(nn.Sequential):
    """An MLP of 8 C^2 weights, without biases, on every token by itself."""

    def __init__(self, channels: int):
        last = nn.Linear(4 * channels, channels, bias=False)
        nn.init.zeros_(last.weight)
        super().__init__(nn.Linear(channels, 4 * channels, bias=False), nn.GELU(), last)


def without_weights(port: Port, config: Config) -> Any:
    """timm's model at this size; heads and windows are those of the attention that is taken out."""
    timm()
    made = importlib.import_module("timm.models.swin_transformer_v2").SwinTransformerV2
    channels, blocks = config.widths
    return made(
        img_size=port.shape,
        patch_size=config.patch,
        in_chans=port.inputs,
        num_classes=port.outputs,
        embed_dim=channels,
        depths=blocks,
        num_heads=(1,) * len(blocks),
        window_size=1,
        drop_path_rate=config.drop_path,
    )
