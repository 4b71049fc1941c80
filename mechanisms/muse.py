"""MuSe: queries and keys are clustered apart, and a query reads every cluster of keys through a short expansion.

Mitchell and Kersting, "Multipole Semantic Attention", 2025, versions 1 and 2. https://arxiv.org/abs/2509.10406
Work N on sequences and grids: with C clusters, N C d for monopoles and N C d^2 for dipoles, d being the channels of a
head; N log N on causal sites. Every pair of tokens is covered once, under one normaliser.
A scaled query is q = c + e, c its cluster's centre. For c, every cluster of keys is read exactly: Z = sum exp(c k),
the means kbar, vbar and the covariance Cov(v, k) under these weights. From there on, in first order of e, the cluster
weighs Z exp(e kbar) and answers vbar (monopole) or vbar + Cov(v, k) e (dipole).
On causal sites a query reads its own block exactly. Of each two neighbouring segments of block x 2^level tokens, the
second reads the first in clusters, around centres of the first one's queries: its own would tell of the future.
Departs from the paper: only abstracts of it were at hand, so the formulas above, k-means (evenly spaced tokens first, a
fixed number of steps, gradients through means but not through assignments) and where causal centres come from are
inferred; the two-level clusters and exact retrieval of versions 3 and 4 are left out; what lies between the projections
is at least float32.
"""

from typing import Any, Literal

import torch
from einops import rearrange
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._clusters import blocks, centres, filled, nearest
from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._normaliser import merged
from mechanisms._precise import uncast
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    query_clusters: PositiveInt = 16
    """number of clusters of queries; at most the tokens, on causal sites at most those of a block"""
    key_clusters: PositiveInt = 16
    """number of clusters of keys, with the same limits"""
    iterations: int = Field(default=3, ge=0)
    """steps of k-means; 0 takes evenly spaced tokens as centres"""
    order: Literal["monopole", "dipole"] = "dipole"
    """what a cluster of keys answers: its mean value, or also how that turns with the query"""
    block: PositiveInt = 32
    """tokens of a block that causal queries read exactly; without effect on other sites"""


@register(
    "muse",
    Config,
    fits=("sequence", "causal", "grid"),
    order="N log N",
    order_of=lambda site, _: "N log N" if site.causal else "N",
    reach="global",
)
class Muse(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="muse")
        self.config, self.causal = config, site.causal
        limit, of = (config.block, "a block") if site.causal else (site.tokens, "its site")
        for knob in ("query_clusters", "key_clusters"):
            if getattr(config, knob) > limit:
                got = getattr(config, knob)
                raise ValueError(f"muse.{knob} must be at most {limit}, the tokens of {of}; got {got}.")
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b ... (h d) -> b h (...) d", h=self.config.heads) for p in (self.q, self.k, self.v))
        y = self.expanded(*(t.flatten(0, 1) for t in (q, k, v))).to(q.dtype)
        return self.out(rearrange(y, "(b h) n d -> b n (h d)", b=len(x)).reshape(x.shape))

    def expanded(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """In float32 at least: a rounding that moves a token to another cluster is no small change."""
        wide = torch.promote_types(q.dtype, torch.float32)
        with uncast(q.device):
            q, k, v = q.to(wide) * q.shape[-1] ** -0.5, k.to(wide), v.to(wide)
            return read_past(q, k, v, self.config) if self.causal else read(q, q, k, v, self.config)[0]


def read_past(q: Tensor, k: Tensor, v: Tensor, config: Any) -> Tensor:
    """Causal answers [s, n, d]: blocks exactly, then ever longer segments, each from the one before it."""
    tokens, segment = q.shape[1], config.block
    while segment < tokens:
        segment *= 2
    # The filling lies in everybody's future.
    q, k, v = (F.pad(t, (0, 0, 0, segment - tokens)).unflatten(1, (-1, config.block)) for t in (q, k, v))
    future = torch.ones(config.block, config.block, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.mT).masked_fill(future, -torch.inf)
    q, k, v, y, mass = (t.flatten(1, 2) for t in (q, k, v, scores.softmax(-1) @ v, scores.logsumexp(-1, keepdim=True)))
    segment = config.block
    while segment < q.shape[1]:
        pairs = "s (p two n) d -> two (s p) n d"
        (q0, q1), (k0, _), (v0, _), (y0, y1), (mass0, mass1) = (
            rearrange(t, pairs, two=2, n=segment) for t in (q, k, v, y, mass)
        )
        y1, mass1 = merged(y1, mass1, *read(q1, q0, k0, v0, config))
        y, mass = (
            rearrange(torch.stack(t), "two (s p) n d -> s (p two n) d", s=len(q)) for t in ((y0, y1), (mass0, mass1))
        )
        segment *= 2
    return y[:, :tokens]


def read(q: Tensor, like: Tensor, k: Tensor, v: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    """Answers [s, n, d] of all keys to all queries, and the logarithms [s, n, 1] of their masses.

    Queries are seen from the cluster centres of those in `like`, themselves or others.
    """
    samples = torch.arange(len(q), device=q.device).unsqueeze(-1)
    centre = centres(like, config.query_clusters, config.iterations)
    middle = centres(k, config.key_clusters, config.iterations)
    weight, mean, value, turn = summaries(centre, middle, k, v, config.order)
    group = nearest(q, centre)
    slot, owner, size = blocks(group, config.query_clusters)
    offset = filled(q - centre[samples, group], slot, owner, size)
    scores = weight[samples, owner].unsqueeze(2) + offset @ mean[samples, owner].mT
    shares = scores.softmax(-1)
    y = shares @ value[samples, owner]
    if turn is not None:
        y = y + (shares.unsqueeze(-1) * offset.unsqueeze(-2)).flatten(3) @ turn[samples, owner].flatten(2, 3)
    mass = scores.logsumexp(-1, keepdim=True)
    return y.flatten(1, 2)[samples, slot], mass.flatten(1, 2)[samples, slot]


def summaries(
    centre: Tensor, middle: Tensor, k: Tensor, v: Tensor, order: str
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What each cluster of keys is to each centre of queries: log Z [s, i, j], kbar and vbar [s, i, j, d], Cov^T."""
    samples, d = torch.arange(len(k), device=k.device).unsqueeze(-1), k.shape[-1]
    group = nearest(k, middle)
    slot, owner, size = blocks(group, middle.shape[1])
    scores, members = centre @ k.mT, group.unsqueeze(1).expand(-1, centre.shape[1], -1)
    top = scores.new_full((*centre.shape[:2], middle.shape[1]), -torch.inf)
    top = top.scatter_reduce(2, members, scores.detach(), "amax")
    shares = filled((scores - top.gather(2, members)).exp().mT, slot, owner, size).mT  # zero where a block is not full
    near = k - middle[samples, group]  # small numbers, for a difference of two moments follows
    parts = [torch.ones_like(k[..., :1]), near, v]
    if order == "dipole":
        parts.append((near.unsqueeze(-1) * v.unsqueeze(-2)).flatten(2))
    sums = shares @ filled(torch.cat(parts, -1), slot, owner, size)
    mine = (owner.unsqueeze(1) == torch.arange(middle.shape[1], device=k.device).unsqueeze(-1)).to(k.dtype)
    sums = torch.einsum("sjb,sbip->sijp", mine, sums)
    mass = sums[..., :1].clamp_min(0.5)  # a cluster's largest share is 1; an empty one keeps its top at -inf
    near, value, *products = (sums[..., 1:] / mass).split([d, d, *[d * d] * (order == "dipole")], -1)
    turn = [product.unflatten(-1, (d, d)) - near.unsqueeze(-1) * value.unsqueeze(-2) for product in products]
    return top + mass.squeeze(-1).log(), near + middle.unsqueeze(1), value, turn[0] if turn else None
