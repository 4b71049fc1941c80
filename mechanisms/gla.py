"""Gated linear attention: a state of key-value products that forgets each key channel at a rate the token chooses.

Yang et al., "Gated Linear Attention Transformers with Hardware-Efficient Training", ICML 2024.
https://arxiv.org/abs/2312.06635
Work N. S_t = diag(a_t) S_(t-1) + k_t v_t^T and o_t = S_t^T q_t / sqrt(d), with a_t = sigmoid(W2 W1 x_t + b)^(1/16).
With output `gated`, what the paper's layer adds belongs to the mechanism: an RMS norm of each head, then a product with
silu(W3 x_t + c). Without a norm the output grows with the number of tokens that are remembered.
Departs from the paper: keys are as wide as values, not half; projections have a bias; chunks of 16 tokens, inside which
each pair of tokens and channel has its own factor exp(log a_(j+1) + ... + log a_i), which cannot overflow, where the
paper has two levels of chunks; the norm subtracts no mean, as in the authors' code.
"""

from typing import Literal

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._recurrent import chunked, states
from mechanisms._registry import register
from mechanisms._site import Site, Tokens

CHUNK = 16  # tokens; memory has this many numbers for each number of the keys
EPS = 1e-5  # of the norm, as in the authors' code


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    rank: PositiveInt = 16
    """channels in the middle of the map to the forget gates"""
    temperature: PositiveInt = 16
    """root taken of the forget gates, which starts them near one"""
    output: Literal["gated", "plain"] = "gated"
    """a norm of each head and a silu gate after the sums, or the sums themselves"""


@register("gla", Config, fits=("causal",), order="N", reach="global")
class Gla(nn.Module):
    name = "gla"

    def __init__(self, site: Site, config: Config):
        super().__init__()
        width = head_channels(site, config.heads, of=self.name)
        self.heads, self.temperature = config.heads, config.temperature
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        low, high = nn.Linear(site.channels, config.rank, bias=False), nn.Linear(config.rank, site.channels)
        self.forget = nn.Sequential(low, high)
        gated = config.output == "gated"
        self.norm = nn.RMSNorm(width, EPS) if gated else None
        self.gate = nn.Linear(site.channels, site.channels) if gated else None

    def forward(self, x: Tokens) -> Tokens:
        return self.joined(self.sums(*self.parts(x)), x)

    def recurrent(self, x: Tokens) -> Tokens:
        """What forward computes, token by token from a state of fixed size."""
        return self.joined(one_by_one(*self.parts(x)), x)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled q, k, v and the logarithm of the forget gates, [b, h, n, d]."""
        log_a = F.logsigmoid(self.forget(x)) / self.temperature
        parts = (rearrange(t, "b n (h d) -> b h n d", h=self.heads) for t in (self.q(x), self.k(x), self.v(x), log_a))
        q, k, v, log_a = parts
        return q * q.shape[-1] ** -0.5, k, v, log_a

    def sums(self, q: Tensor, k: Tensor, v: Tensor, log_a: Tensor) -> Tensor:
        return in_chunks(q, k, v, log_a)

    def joined(self, y: Tensor, x: Tensor) -> Tensor:
        if self.norm is None or self.gate is None:
            return self.out(rearrange(y, "b h n d -> b n (h d)").to(x.dtype))
        y = rearrange(self.norm(y.to(x.dtype)), "b h n d -> b n (h d)")
        return self.out(y * F.silu(self.gate(x)))


def in_chunks(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor) -> Tensor:
    """o_t of all tokens [b, h, n, d]: of the query's chunk by its pairs, of all before through the state."""
    tokens = q.shape[2]
    q, k, v, log_a = (chunked(t, CHUNK) for t in (q, k, v, log_a))
    passed = log_a.cumsum(3)  # the logarithm of what is left, at each token, of the state before the chunk
    past = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril().unsqueeze(-1)
    left = (passed.unsqueeze(4) - passed.unsqueeze(3)).masked_fill(~past, -torch.inf).exp()  # of token j at token i
    pairs = torch.einsum("bhcid,bhcjd,bhcijd->bhcij", q, k, left)
    whole = passed[:, :, :, -1:]
    added = torch.einsum("bhcjd,bhcje->bhcde", k * (whole - passed).exp(), v)
    before = states(whole.exp().transpose(3, 4), added, torch.mul)
    y = torch.einsum("bhcij,bhcje->bhcie", pairs, v) + torch.einsum("bhcid,bhcde->bhcie", q * passed.exp(), before)
    return y.flatten(2, 3)[:, :, :tokens]


def one_by_one(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor) -> Tensor:
    """The same as a recurrence."""
    state, rows = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]), []
    for i in range(q.shape[2]):
        kept = log_a[:, :, i].exp().unsqueeze(-1) * state
        state = kept + k[:, :, i].unsqueeze(-1) * v[:, :, i].unsqueeze(-2)
        rows.append((q[:, :, i].unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(rows, 2)
