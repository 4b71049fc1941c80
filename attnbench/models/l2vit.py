"""L2ViT: stages whose blocks attend in windows and globally by turns; a mechanism stands in the global ones.

Zheng, "The Linear Attention Resurrection in Vision Transformer", 2025, sections 3.3 and 3.4 and table 1.
https://arxiv.org/abs/2501.16182
Its own mechanism is `linear` with the feature l2vit and one head for 32 channels: 3, 6, 12 and 24 in the stages of the
sizes tiny and small. A depthwise 3 x 3 convolution tells tokens their places at the start of every block, and of even
blocks once more after the attention, which is softmax inside windows, neither shifted nor biased. In odd blocks the
local concentration module follows the mechanism: two depthwise 7 x 7 convolutions, normed over the batch in between.
Weights with 1000 classes, as in the released code: 28,596,781, 50,199,157 and 88,577,188.
Departs from the released code: where windows do not divide the grid, nobody sees what is padded, while there its zeros
become keys; the mechanism starts as it starts everywhere in this bench.
"""

from typing import Any, Literal

from einops import rearrange
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

import mechanisms
from attnbench.models._images import Blocks, refuse
from attnbench.models._registry import register
from attnbench.models._timm import timm
from mechanisms import Build, Knobs, Site
from tasks import Port

SIZES = {"tiny": (96, (2, 2, 6, 2)), "small": (96, (2, 2, 18, 2)), "base": (128, (2, 2, 18, 2))}
HEAD = 32  # channels of a head of window attention, in all of the paper's sizes
STEM = 4  # side of the points that become one token of the first stage


class Config(Knobs):
    size: Literal["tiny", "small", "base", "custom"] = "tiny"
    """the paper's sizes T, S and B, or that of channels and blocks below"""
    channels: PositiveInt = 32
    """of size custom, width of the first stage, even; it doubles from stage to stage"""
    blocks: Blocks = "2 2"
    """of size custom, the number of blocks of each stage, such as 2 2 6 2"""
    window: PositiveInt = 7
    """side of a window of the even blocks, in tokens"""
    even: Literal["windows", "mechanism"] = "windows"
    """what attends in even blocks: the paper's windows, or the mechanism there, too"""
    mlp_ratio: PositiveInt = 4
    """width of the hidden layer of a block's MLP, in channels"""
    drop_path: float = Field(default=0.1, ge=0.0, lt=1.0)
    """chance with which a branch of the last block is left out in training, less for those before it"""

    @model_validator(mode="after")
    def sizes_go_together(self) -> "Config":
        channels, blocks = self.widths
        if channels % 2:
            raise ValueError(f"channels must be even, for the stem starts with half of them; got {channels}.")
        if self.even == "windows" and max(blocks) == 1:
            raise ValueError("a stage needs two blocks, for the mechanism stands in odd ones, counted from 0.")
        return self

    def idle(self) -> set[str]:
        idle = set() if self.size == "custom" else {"channels", "blocks"}
        return idle | ({"window"} if self.even == "mechanism" else set())

    @property
    def stages(self) -> int:
        return len(self.widths[1])

    @property
    def widths(self) -> tuple[int, tuple[int, ...]]:
        """Channels of the first stage, and the number of blocks of each."""
        if self.size == "custom":
            return self.channels, tuple(int(word) for word in self.blocks.split())
        return SIZES[self.size]


@register("l2vit", Config, socket=True)
class L2Vit(nn.Module):
    """From images [B, H, W, inputs] to one answer each [B, outputs]. Raises ValueError for other ports."""

    def __init__(self, port: Port, config: Config, build: Build):
        super().__init__()
        refuse(port, of="l2vit")
        if not port.once:
            raise ValueError("l2vit gives one answer an example; this task asks for one at every point.")
        channels, blocks = config.widths
        height, width = (-(-side // STEM) for side in port.shape)
        done, parts = 0, []
        for number, count in enumerate(blocks, 1):
            if number > 1:
                parts.append(Merge(channels))
                channels, height, width = 2 * channels, -(-height // 2), -(-width // 2)
            for block in range(count):
                site = Site(channels=channels, shape=(height, width), stage=number, block=block)
                chance = config.drop_path * done / max(sum(blocks) - 1, 1)
                parts.append(Block(site, config, chance))
                done += 1
        self.stem, self.stages = Stem(port.inputs, config.widths[0]), nn.Sequential(*parts)
        self.norm, self.head = nn.LayerNorm(channels), nn.Linear(channels, port.outputs)
        self.apply(start)
        for part in parts:
            if isinstance(part, Block) and part.socket:
                part.mechanism = build(part.site)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stages(self.stem(x)))
        return self.head(x.mean((1, 2)))


class Block(nn.Module):
    """An even block's attention looks into windows, an odd one's everywhere; its socket is filled by the model."""

    def __init__(self, site: Site, config: Config, chance: float):
        super().__init__()
        channels, odd = site.channels, bool(site.block % 2)
        self.site, self.socket = site, odd or config.even == "mechanism"
        self.place = Depthwise(channels, 3)
        self.norm = nn.LayerNorm(channels)
        self.mechanism = nn.Identity() if self.socket else windows(site, config.window)
        self.place_again = None if odd else Depthwise(channels, 3)
        self.concentrate = nn.Sequential(nn.LayerNorm(channels), Concentration(channels)) if odd else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, config.mlp_ratio * channels),
            nn.GELU(),
            nn.Linear(config.mlp_ratio * channels, channels),
        )
        self.drop_path: nn.Module = timm().layers.DropPath(chance)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.place(x)
        x = x + self.drop_path(self.mechanism(self.norm(x)))
        if self.place_again is not None:
            x = x + self.place_again(x)
        if self.concentrate is not None:
            x = x + self.drop_path(self.concentrate(x))
        return x + self.drop_path(self.mlp(x))


def windows(site: Site, window: int) -> nn.Module:
    """Softmax attention inside windows; one that is wider than the grid sees what one as wide sees."""
    fitted, heads = min(window, max(site.shape)), max(1, site.channels // HEAD)
    knobs: dict[str, Any] = {"heads": heads, "window": fitted, "shift": False, "position": "none", "pad": True}
    return mechanisms.build("swin", site, **knobs)


class Depthwise(nn.Conv2d):
    """A convolution of every channel by itself, on grids with channels last."""

    def __init__(self, channels: int, side: int):
        super().__init__(channels, channels, side, padding=side // 2, groups=channels)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(-1, 1)).movedim(1, -1)


class Concentration(nn.Module):
    """The local concentration module: what linear attention spreads is gathered in a neighbourhood again."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.last, self.norm = Depthwise(channels, 7), Depthwise(channels, 7), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.first(x)).movedim(-1, 1)
        return self.last(self.norm(y).movedim(1, -1))


class Stem(nn.Module):
    """Two convolutions that halve the image each; sides that 4 does not divide are padded with zeros at their ends."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(inputs, channels // 2, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.net(padded(x, STEM).movedim(-1, 1)).movedim(1, -1))


class Merge(nn.Module):
    """From stage to stage: 2 x 2 tokens become one with twice the channels; an odd side is padded with zeros."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.merge = nn.LayerNorm(channels), nn.Linear(4 * channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        cells = rearrange(padded(self.norm(x), 2), "b (i p) (j q) c -> b i j (p q c)", p=2, q=2)
        return self.merge(cells)


def padded(x: Tensor, multiple: int) -> Tensor:
    """A grid [B, H, W, C] with zeros after its last row and column, up to the next multiple."""
    down, right = (-side % multiple for side in x.shape[1:3])
    return F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x


def start(module: nn.Module) -> None:
    """As released: weights from a normal distribution of deviation 0.02, cut at two units, and biases zero."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
