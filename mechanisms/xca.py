"""Cross-covariance attention: channels attend to channels, through their covariance over all tokens.

El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", NeurIPS 2021, equation 3. https://arxiv.org/abs/2106.09681
Work N: each head's d x d softmax does not depend on the number of tokens.
Departs from the paper: the local patch interaction after it belongs to the model; q, k and v have biases.
"""

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._precise import least
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels; channels attend only within their head"""


@register("xca", Config, fits=("sequence", "grid"), order="N", reach="global")
class Xca(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="xca")
        self.heads = config.heads
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        self.temperature = nn.Parameter(torch.ones(config.heads, 1, 1))

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b ... (h d) -> b h d (...)", h=self.heads) for p in (self.q, self.k, self.v))
        q, k = (
            F.normalize(t, dim=-1, eps=least(t.dtype)) for t in (q, k)
        )  # each channel has length one over all tokens
        y = (q @ k.mT * self.temperature).softmax(-1) @ v
        return self.out(rearrange(y, "b h d n -> b n (h d)").reshape(x.shape))
