"""Linear attention: the softmax becomes a positive feature map, so keys and values are summed once for all queries.

Katharopoulos et al., "Transformers are RNNs", ICML 2020, equations 4 to 7. https://arxiv.org/abs/2006.16236
Work N. Normalised: each output is a weighted mean of the values, with weights phi(q_i) . phi(k_j).
Departs from the paper: queries and keys are not scaled (the scale cancels only for homogeneous maps; the paper has none
either); the causal form adds up in chunks of 64 tokens, which is the same sum in another order.
"""

from typing import Literal

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens

CHUNK = 64  # tokens summed by a small masked product in the causal form
TINY = 1e-6  # least mass of a row: keeps one whose features are all zero, as relu can make them, finite


def elu(x: Tensor) -> Tensor:
    """elu(x) + 1, without the rounding of that sum where x is far below zero."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


FEATURES = {"elu": elu, "relu": F.relu, "softplus": F.softplus}


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    feature: Literal["elu", "relu", "softplus"] = "elu"
    """feature map phi; elu means elu(x) + 1"""


@register("linear", Config, fits=("sequence", "causal", "grid"), order="N")
class Linear(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="linear")
        self.heads, self.causal, self.feature = config.heads, site.causal, FEATURES[config.feature]
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b ... (h d) -> b h (...) d", h=self.heads) for p in (self.q, self.k, self.v))
        q, k = self.feature(q), self.feature(k)
        y = past_mean(q, k, v) if self.causal else whole_mean(q, k, v)
        return self.out(rearrange(y, "b h n d -> b n (h d)").view_as(x))


def whole_mean(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Mean of the values [b, h, n, d] under weights q_i . k_j over all j."""
    memory = torch.einsum("bhnd,bhne->bhde", k, v)
    total = torch.einsum("bhnd,bhd->bhn", q, k.sum(2))
    return torch.einsum("bhnd,bhde->bhne", q, memory) / total.clamp_min(TINY).unsqueeze(-1)


def past_mean(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same mean over j <= i: whole chunks from their running sums, the query's own chunk by a masked product."""
    tokens = q.shape[2]
    pad = -tokens % CHUNK
    q, k, v = (F.pad(t, (0, 0, 0, pad)).unflatten(2, (-1, CHUNK)) for t in (q, k, v))
    inside = torch.einsum("bhcid,bhcjd->bhcij", q, k).tril()
    memory = torch.einsum("bhcjd,bhcje->bhcde", k, v)
    total = k.sum(3)
    memory, total = before(memory), before(total)
    mass = inside.sum(-1) + torch.einsum("bhcid,bhcd->bhci", q, total)
    y = torch.einsum("bhcij,bhcje->bhcie", inside, v) + torch.einsum("bhcid,bhcde->bhcie", q, memory)
    return (y / mass.clamp_min(TINY).unsqueeze(-1)).flatten(2, 3)[:, :, :tokens]


def before(chunks: Tensor) -> Tensor:
    """Running sums [b, h, chunks, ...] of the chunks before each one.

    Shifted, not inclusive sums minus the chunk itself: the rounding of that difference would depend on the future.
    """
    sums = chunks.cumsum(2)
    return torch.cat([torch.zeros_like(sums[:, :, :1]), sums[:, :, :-1]], 2)
