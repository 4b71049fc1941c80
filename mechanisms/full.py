"""Full attention: every token attends to every token by a softmax over scaled dot products.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation 1. https://arxiv.org/abs/1706.03762
Work N^2. Runs on torch's fused scaled_dot_product_attention.
Departs from the paper: nothing in the attention itself; no dropout.
"""

from einops import rearrange
from pydantic import PositiveInt
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""


@register("full", Config, fits=("sequence", "causal", "grid"), order="N^2")
class Full(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="full")
        self.heads, self.causal = config.heads, site.causal
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b ... (h d) -> b h (...) d", h=self.heads) for p in (self.q, self.k, self.v))
        y = scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(rearrange(y, "b h n d -> b n (h d)").view_as(x))
