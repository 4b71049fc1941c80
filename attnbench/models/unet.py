"""The plain U-Net, of the package segmentation-models-pytorch: a whole model, no mechanism inside.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015.
https://arxiv.org/abs/1505.04597
At every level of the way down two 3 x 3 convolutions, then the largest of each 2 x 2 points goes on, and channels
double; on the way up the grid is doubled, joined with what stood at the same level, and two convolutions follow.
Departs from the paper, as the package does: convolutions are padded, so that the answer is as large as the input, and
normed over the batch; the grid is doubled by copying points, without weights of its own.
"""

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from attnbench.models._registry import register
from attnbench.models._segmentation import library
from mechanisms import Knobs
from tasks import Port


class Config(Knobs):
    channels: PositiveInt = 16
    """width at full size, doubled with every halving of the grid; 64 in the paper"""
    levels: int = Field(default=3, ge=1, le=5)
    """how often the grid is halved; 4 in the paper"""


@register("unet", Config, socket=False)
class Unet(nn.Module):
    """From inputs [B, H, W, inputs] to outputs [B, H, W, outputs]. Raises ValueError for other shapes."""

    def __init__(self, port: Port, config: Config):
        super().__init__()
        port.refuse(of="unet", grid_only=True)
        if any(side % 2**config.levels for side in port.shape):
            raise ValueError(
                f"unet.levels: a grid {port.shape} cannot be halved {config.levels} times; "
                f"its sides should be multiples of {2**config.levels}."
            )
        widths = [config.channels << level for level in range(config.levels + 1)]
        parts, init = library("base.modules", of="unet"), library("base.initialization", of="unet")
        steps = zip([port.inputs, *widths], widths, strict=False)
        self.down = nn.ModuleList(
            nn.Sequential(parts.Conv2dReLU(before, after, 3, padding=1), parts.Conv2dReLU(after, after, 3, padding=1))
            for before, after in steps
        )
        self.up = library("decoders.unet.decoder", of="unet").UnetDecoder(
            encoder_channels=[port.inputs, *widths], decoder_channels=widths[-2::-1], n_blocks=config.levels
        )
        self.head = library("base", of="unet").SegmentationHead(config.channels, port.outputs, kernel_size=1)
        init.initialize_decoder(self.down)
        init.initialize_decoder(self.up)
        init.initialize_head(self.head)

    def forward(self, x: Tensor) -> Tensor:
        kept = [x.movedim(-1, 1)]  # the package's way up leaves out the first, and asks for its place
        for level, convolve in enumerate(self.down):
            kept.append(convolve(F.max_pool2d(kept[-1], 2) if level else kept[-1]))
        return self.head(self.up(kept)).movedim(1, -1)
