"""UPerNet: a class for every pixel from all stages of Swin V2, with a mechanism in place of its attention.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018. https://arxiv.org/abs/1807.10221
Swin V2 is the model `swinv2` with all its knobs, without its last norm and its classifier. The head is that of the
package segmentation-models-pytorch: a pyramid of means of the last stage, joined from coarse to fine with every other
stage, all of them fused, and a linear map at each point of the first stage, enlarged to pixels bilinearly.
It norms over the batch, also what is pooled to one point, so a training batch has at least two images.
With pretrained weights `train: head` trains this head alone, and `train: new` it and all else that was drawn.
Departs from the paper: there is no second loss on the third stage; each stage is normed before the head.
"""

from dataclasses import replace

from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from attnbench.models import swinv2
from attnbench.models._images import refuse
from attnbench.models._registry import register
from attnbench.models._segmentation import library
from mechanisms import Build
from tasks import Port


class Config(swinv2.Config):
    head_channels: PositiveInt = 256
    """width of the head; 512 in the paper"""

    @model_validator(mode="after")
    def stages_are_joined(self) -> "Config":
        if len(self.widths[1]) < 2:
            raise ValueError(f"blocks need two stages or more, for the head joins them; got {self.blocks!r}.")
        return self


@register("upernet", Config, socket=True)
class UPerNet(swinv2.SwinV2):
    """From images [B, H, W, inputs] to [B, H, W, outputs]. Raises ValueError for other ports."""

    def __init__(self, port: Port, config: Config, build: Build):
        refuse(port, config.patch, of="upernet")
        if port.once:
            raise ValueError("upernet answers at every point; this task asks for one answer an example.")
        decoders, heads = library("decoders.upernet.decoder", of="upernet"), library("base.heads", of="upernet")
        super().__init__(replace(port, once=True), config, build)
        channels, stages = config.widths[0], len(config.widths[1])
        self.net.prune_intermediate_layers(list(range(stages)), prune_norm=True, prune_head=True)
        widths = [channels << stage for stage in range(stages)]
        self.head = nn.ModuleList(
            [
                decoders.UPerNetDecoder(
                    [0, 0, *widths], encoder_depth=stages + 1, decoder_channels=config.head_channels
                ),
                heads.SegmentationHead(config.head_channels, port.outputs, kernel_size=1, upsampling=config.patch),
            ]
        )
        init = library("base.initialization", of="upernet")
        init.initialize_decoder(self.head[0])
        init.initialize_head(self.head[1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        kept = [x, x, *self.net.forward_intermediates(x, intermediates_only=True)]  # the head passes over the first two
        join, answer = self.head
        return answer(join(kept)).movedim(1, -1)
