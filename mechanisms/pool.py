"""Pool: every token becomes the mean of its neighbourhood less itself. A control that mixes without attention.

Yu et al., "MetaFormer Is Actually What You Need for Vision", CVPR 2022, section 3.2. https://arxiv.org/abs/2111.11418
Work N: no weights at all.
Departs from the paper: nothing; on sequences the neighbourhood is a stretch instead of a square.
"""

from pydantic import PositiveInt, field_validator
from torch import nn
from torch.nn import functional as F

from mechanisms._knobs import Knobs
from mechanisms._registry import Reach, register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    window: PositiveInt = 3
    """side of the neighbourhood in tokens, odd; at the border only tokens that exist are averaged"""

    @field_validator("window")
    @classmethod
    def has_a_middle(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError("odd, so that a token stands in the middle")
        return window


def reach(site: Site, config: Config) -> Reach:
    """All tokens only where the neighbourhood of a border token holds the whole grid."""
    if config.window == 1:
        return "token"
    return "global" if max(site.shape) <= config.window // 2 + 1 else "local"


@register("pool", Config, fits=("sequence", "grid"), order="N", reach=reach)
class Pool(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        self.average = {1: F.avg_pool1d, 2: F.avg_pool2d}[len(site.shape)]
        self.window = config.window

    def forward(self, x: Tokens) -> Tokens:
        means = self.average(x.movedim(-1, 1), self.window, 1, self.window // 2, count_include_pad=False)
        return means.movedim(1, -1) - x
