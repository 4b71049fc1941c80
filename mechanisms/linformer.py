"""Linformer: keys and values are mixed down to a few by learned maps over the tokens, then attended to exactly.

Wang et al., "Linformer", 2020, equation 7. https://arxiv.org/abs/2006.04768
Work N r d for maps E and F of r rows and N columns, which bind it to the number of tokens:
y = softmax(q (E k)^T / sqrt(d)) (F v).
Departs from the paper: nothing in the formula; of its ways to share E and F, those within a layer are here (over heads
always, over keys and values by `share`), the one over all layers is not; grids are taken row by row.
"""

from typing import Literal

import torch
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
    rank: PositiveInt = 16
    """how many keys and values the tokens are mixed down to"""
    share: Literal["none", "key_value"] = "none"
    """whether keys and values have a map each or the same one"""


@register("linformer", Config, fits=("sequence", "grid"), order="N", reach="global", bound_to_shape=True)
class Linformer(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="linformer")
        self.heads = config.heads
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

        def drawn() -> nn.Parameter:
            return nn.Parameter(torch.randn(config.rank, site.tokens) * config.rank**-0.5)

        self.mix_k = drawn()
        self.mix_v = drawn() if config.share == "none" else None

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b ... (h d) -> b h (...) d", h=self.heads) for p in (self.q, self.k, self.v))
        mix_v = self.mix_k if self.mix_v is None else self.mix_v
        y = scaled_dot_product_attention(q, self.mix_k @ k, mix_v @ v)
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape))
