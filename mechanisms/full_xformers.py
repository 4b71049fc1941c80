"""Full attention on xFormers' memory-efficient CUDA kernels: the same numbers as `full`, another implementation.

Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory", 2021. https://arxiv.org/abs/2112.05682
Work N^2. Needs the optional package xformers, whose kernels take CUDA tensors only.
Departs from the paper: nothing; the kernels are xFormers' own.
"""

from einops import rearrange
from pydantic import PositiveInt
from torch import nn

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""


@register(
    "full_xformers",
    Config,
    fits=("sequence", "causal", "grid"),
    order="N^2",
    reach="global",
    needs="xformers",
    devices=("cuda",),
    reference="full",
)
class FullXformers(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="full_xformers")
        self.heads, self.causal = config.heads, site.causal
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

    def forward(self, x: Tokens) -> Tokens:
        # Here, for it takes seconds, and only where the optional package is installed.
        from xformers.ops import LowerTriangularMask, memory_efficient_attention  # pyright: ignore[reportMissingImports]

        q, k, v = (rearrange(p(x), "b ... (h d) -> b (...) h d", h=self.heads) for p in (self.q, self.k, self.v))
        y = memory_efficient_attention(q, k, v, attn_bias=LowerTriangularMask() if self.causal else None)
        return self.out(rearrange(y, "b n h d -> b n (h d)").reshape(x.shape))
