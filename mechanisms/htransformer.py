"""H-Transformer-1D: exact attention to the nearest blocks of a sequence, and ever coarser attention further away.

Zhu and Soricut, "H-Transformer-1D", ACL 2021. https://arxiv.org/abs/2107.11906
Work N b d for blocks of b tokens; N log N on causal sites.
On level l, 2^l tokens are one: the means of their queries, keys and values. Blocks of b such tokens attend to those
beside them, except for the two touching halves, which were neighbours on the level below. On level 0 they attend to
themselves, too. Every pair of tokens is covered once, and a coarse key weighs 2^l in the one softmax over all levels.
Departs from the paper: causal queries are not averaged, for the mean of several queries would tell the first of them of
the later ones; levels are merged by their log masses, without the overflow of exponentials and without a least mass.
"""

from math import log

import torch
from einops import rearrange
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._normaliser import merged
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    block: int = Field(default=16, ge=2, multiple_of=2)
    """tokens of a block on every level; the sequence has block x 2^k of them"""


@register(
    "htransformer",
    Config,
    fits=("sequence", "causal"),
    order="N log N",
    order_of=lambda site, _: "N log N" if site.causal else "N",
    reach="global",
)
class HTransformer(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="htransformer")
        blocks = site.tokens // config.block
        if blocks * config.block != site.tokens or blocks.bit_count() != 1:
            near = config.block << max(blocks.bit_length() - 1, 0)
            raise ValueError(
                f"htransformer needs block x 2^k tokens, such as {near}; "
                f"its site has {site.tokens}, with a block of {config.block}."
            )
        self.heads, self.causal, self.block = config.heads, site.causal, config.block
        self.levels = max(blocks.bit_length() - 1, 1)
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b ... (h d) -> b h (...) d", h=self.heads) for p in (self.q, self.k, self.v))
        levels = [(q * q.shape[-1] ** -0.5, k, v)]
        for _ in range(self.levels - 1):
            q, k, v = levels[-1]
            levels.append((q if self.causal else halved(q), halved(k), halved(v)))
        y = self.read(levels).to(v.dtype)
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape))

    def read(self, levels: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """From the coarsest level to the tokens: what neighbours say is merged in, and the sum handed down."""
        coarsest = levels[-1][0]
        wide = torch.promote_types(coarsest.dtype, torch.float32)
        y, mass = torch.zeros_like(coarsest, dtype=wide), torch.full_like(coarsest[..., :1], -torch.inf, dtype=wide)
        for level in reversed(range(len(levels))):
            blocks = levels[level][1].shape[2] // self.block
            q, k, v, y, mass = (t.unflatten(2, (blocks, -1)) for t in (*levels[level], y, mass))
            if level == 0:
                y, mass = merged(y, mass, *attend(q, k, v, self.future(q)))
            if blocks > 1:
                y, mass = beside(y, mass, (q, k, v), level, causal=self.causal)
            y, mass = y.flatten(2, 3), mass.flatten(2, 3)
            if level and not self.causal:
                y, mass = y.repeat_interleave(2, 2), mass.repeat_interleave(2, 2)
        return y

    def future(self, q: Tensor) -> Tensor | None:
        side = self.block, self.block
        return torch.ones(side, dtype=torch.bool, device=q.device).triu(1) if self.causal else None


def halved(x: Tensor) -> Tensor:
    """Means of neighbouring tokens: [b, h, n, d] to [b, h, n / 2, d]."""
    return x.unflatten(2, (-1, 2)).mean(3)


def beside(
    y: Tensor, mass: Tensor, tokens: tuple[Tensor, Tensor, Tensor], level: int, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Merges into y and mass [b, h, blocks, n, ...] what the blocks before and, unless causal, after have to say."""
    q, k, v = tokens
    last = q.shape[2] - 1
    query = torch.arange(q.shape[3], device=q.device).unsqueeze(1) * 2 < q.shape[3]  # the first half
    key = torch.arange(k.shape[3], device=q.device) * 2 < k.shape[3]
    for shift in (1,) if causal else (1, -1):
        done = (query & ~key if shift == 1 else ~query & key) if level else None
        mine, theirs = (slice(1, None), slice(last)) if shift == 1 else (slice(last), slice(1, None))
        far, far_mass = attend(q[:, :, mine], k[:, :, theirs], v[:, :, theirs], done)
        both = merged(y[:, :, mine], mass[:, :, mine], far, far_mass + level * log(2))
        rest = slice(1) if shift == 1 else slice(last, None)
        y, mass = (torch.cat([t[:, :, rest], new][::shift], 2) for t, new in zip((y, mass), both, strict=True))
    return y, mass


def attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax attention within pairs of blocks, in float32 at least, and the log masses."""
    scores = q @ k.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    return (scores.softmax(-1).to(v.dtype) @ v).to(scores.dtype), scores.logsumexp(-1, keepdim=True)
