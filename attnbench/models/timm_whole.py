"""Any image model of the package timm as it is: a whole model, no mechanism inside.

Wightman, "PyTorch Image Models". https://github.com/huggingface/pytorch-image-models
It is made for the task's channels, classes and, where timm fixes it, size of images; pretrained weights are converted
by timm to that size, and a last layer for other classes is drawn anew.
"""

from difflib import get_close_matches
from typing import Any

from einops.layers.torch import Rearrange
from pydantic import Field, field_validator
from torch import Tensor

from attnbench.models._images import refuse
from attnbench.models._pretrained import Start, Started
from attnbench.models._registry import register
from attnbench.models._timm import timm
from tasks import Port


class Config(Start):
    timm: str = "swinv2_tiny_window8_256"
    """name of the model in timm, as timm.list_models() gives it"""
    drop_path: float | None = Field(default=None, ge=0.0, lt=1.0)
    """chance with which the last block is left out in training, less for those before it; None for timm's own"""

    @field_validator("timm")
    @classmethod
    def is_one_of_timms(cls, name: str) -> str:
        if not timm().is_model(name):
            like = get_close_matches(name, timm().list_models(), n=1, cutoff=0.0)[0]
            raise ValueError(f"a model of timm, such as {like!r}")
        return name


@register("timm_whole", Config, socket=False)
class TimmWhole(Started):
    """From images [B, H, W, inputs] to one answer each [B, outputs]. Raises ValueError for other ports."""

    def __init__(self, port: Port, config: Config):
        super().__init__()
        refuse(port, of="timm_whole")
        if not port.once:
            raise ValueError("timm_whole gives one answer an example; this task asks for one at every point.")
        self.first = Rearrange("b h w c -> b c h w")
        optional: dict[str, Any] = {} if config.drop_path is None else {"drop_path_rate": config.drop_path}
        known = timm().get_pretrained_cfg(config.timm)
        if known and known.fixed_input_size:
            optional["img_size"] = port.shape
        self.net = timm().create_model(config.timm, in_chans=port.inputs, num_classes=port.outputs, **optional)
        head = self.net.pretrained_cfg.get("classifier") or "head"
        if not isinstance(head, str):
            raise ValueError(f"timm_whole takes models with one last layer; {config.timm} has {' and '.join(head)}.")
        self.start(config, head, of="timm_whole")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.first(x))
