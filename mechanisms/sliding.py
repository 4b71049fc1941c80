"""Sliding attention: every token attends to the last few tokens and to the first few, which stay visible to all.

Xiao et al., "Efficient Streaming Language Models with Attention Sinks", ICLR 2024. https://arxiv.org/abs/2309.17453
Work N (w + s) for a window of w tokens and s sinks: queries are taken in blocks, and a block reads itself, the block
before it, and the sinks.
Departs from the paper: no positions are encoded, so none are renumbered inside the cache; the sinks are the first
tokens of the sequence, none of them learned.
"""

import torch
from einops import rearrange
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import Reach, register
from mechanisms._site import Site, Tokens

BLOCK = 32  # least tokens in a block of queries: smaller products leave hardware idle


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    window: PositiveInt = 64
    """tokens that a token sees, itself among them"""
    sinks: NonNegativeInt = 4
    """first tokens of the sequence that every later token sees too"""


def reach(site: Site, config: Config) -> Reach:
    if config.window + config.sinks >= site.tokens:
        return "global"
    return "local" if config.window > 1 or config.sinks else "token"


@register("sliding", Config, fits=("causal",), order="N", reach=reach)
class Sliding(nn.Module):
    allowed: Tensor

    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="sliding")
        self.heads, self.sinks = config.heads, min(config.sinks, site.tokens)
        self.block = min(max(config.window, BLOCK), site.tokens)
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        seen = allowed(site.tokens, self.block, config.window, self.sinks)
        self.register_buffer("allowed", seen, persistent=False)

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b n (h d) -> (b h) n d", h=self.heads) for p in (self.q, self.k, self.v))
        q = F.pad(q, (0, 0, 0, -q.shape[1] % self.block)).unflatten(1, (-1, self.block))
        y = F.scaled_dot_product_attention(q, self.listed(k), self.listed(v), attn_mask=self.allowed)
        return self.out(rearrange(y, "(b h) c i d -> b (c i) (h d)", h=self.heads)[:, : x.shape[1]])

    def listed(self, tokens: Tensor) -> Tensor:
        """What each block's queries may look at [b, blocks, sinks + 2 block, d]: sinks, the block before, the block."""
        padded = F.pad(tokens, (0, 0, self.block, -tokens.shape[1] % self.block)).unflatten(1, (-1, self.block))
        sinks = tokens[:, None, : self.sinks].expand(-1, padded.shape[1] - 1, -1, -1)
        return torch.cat([sinks, padded[:, :-1], padded[:, 1:]], 2)


def allowed(tokens: int, block: int, window: int, sinks: int) -> Tensor:
    """Whether a query of a block may look at a listed token [blocks, block, sinks + 2 block]; at none of them twice."""
    start = torch.arange(0, tokens, block).view(-1, 1, 1)
    query, key = start + torch.arange(block).view(-1, 1), start + torch.arange(-block, block)
    recent = (key >= 0) & (key <= query) & (key > query - window)
    return torch.cat([torch.arange(sinks) <= query - window, recent], 2)
