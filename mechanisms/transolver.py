"""Physics attention: tokens are softly gathered into slices, the slices attend to each other, and are handed back.

Wu et al., "Transolver", ICML 2024, equations 2 to 5. https://arxiv.org/abs/2402.02366
Work N for a fixed number of slices.
Departs from the paper: nothing known. As in the released code, grids have 3 x 3 convolutions for the two input maps and
a temperature held between 0.1 and 5, sequences (irregular meshes) have linear maps and a free temperature. The maps q,
k and v act on slices, are shared by all heads and have no bias.
"""

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens

TINY = 1e-5  # added to a slice's mass, as in the released code
COLDEST, HOTTEST = 0.1, 5.0  # bounds of the temperature on grids


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    slices: PositiveInt = 32
    """number of slices that the tokens are gathered into"""


@register("transolver", Config, fits=("sequence", "grid"), order="N", reach="global")
class Transolver(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        width = head_channels(site, config.heads, of="transolver")
        self.heads, self.grid = config.heads, len(site.shape) == 2
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(site.channels, site.channels)
        self.where, self.what = (self.input_map(site.channels) for _ in range(2))
        self.slices = nn.Linear(width, config.slices)
        nn.init.orthogonal_(self.slices.weight)
        self.temperature = nn.Parameter(torch.full((config.heads, 1, 1), 0.5))

    def input_map(self, channels: int) -> nn.Module:
        return nn.Conv2d(channels, channels, 3, padding=1) if self.grid else nn.Linear(channels, channels)

    def forward(self, x: Tokens) -> Tokens:
        where, what = self.mapped(self.where, x), self.mapped(self.what, x)
        temperature = self.temperature.clamp(COLDEST, HOTTEST) if self.grid else self.temperature
        share = (self.slices(where) / temperature).softmax(-1)  # [b, h, n, slices]
        mass = share.sum(2).unsqueeze(-1) + TINY
        tokens = share.mT @ what / mass
        tokens = F.scaled_dot_product_attention(self.q(tokens), self.k(tokens), self.v(tokens))
        return self.out(rearrange(share @ tokens, "b h n d -> b n (h d)").reshape(x.shape))

    def mapped(self, input_map: nn.Module, x: Tokens) -> Tensor:
        y = input_map(x.movedim(-1, 1)).movedim(1, -1) if self.grid else input_map(x)
        return rearrange(y, "b ... (h d) -> b h (...) d", h=self.heads)
