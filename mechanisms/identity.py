"""Identity: every token stays as it is. The control without any mixing, which any mechanism must beat.

No source: it is the empty mechanism; compare the controls of Yu et al., "MetaFormer Is Actually What You Need for
Vision", CVPR 2022. https://arxiv.org/abs/2111.11418
Work 0.
Departs from the paper: MetaFormer's controls are pooling and identity inside its own blocks; here the socket is the
backbone's, like every other mechanism's.
"""

from torch import nn

from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    pass


@register("identity", Config, fits=("sequence", "causal", "grid"), order="0", reach="token")
class Identity(nn.Module):
    def __init__(self, site: Site, config: Config):  # noqa: ARG002 - all mechanisms are built alike
        super().__init__()

    def forward(self, x: Tokens) -> Tokens:
        return x
