"""DeltaNet: a linear state that, before it stores a value under a key, takes away what this key retrieved so far.

Yang et al., "Parallelizing Linear Transformers with the Delta Rule", NeurIPS 2024. https://arxiv.org/abs/2406.06484
Work N. S_t = (I - b_t k_t k_t^T) S_(t-1) + b_t k_t v_t^T and o_t = S_t^T q_t / sqrt(d); q and k are silu of their
projections with length one in each head, v is silu of its own, b_t = sigmoid(w x_t) in each head. An RMS norm of each
head before `out`, as in the paper's layer.
Departs from the paper: no short convolutions on q, k and v, for such local mixing belongs to the model here;
projections have a bias; the states before chunks of 64 tokens come from a tree of products, where the paper has a loop.
"""

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._precise import least
from mechanisms._recurrent import chunked, states
from mechanisms._registry import register
from mechanisms._site import Site, Tokens

CHUNK = 64  # tokens whose mutual corrections are one triangular system
EPS = 1e-5  # of the norm, as in the authors' code


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""


@register("deltanet", Config, fits=("causal",), order="N", reach="global")
class Deltanet(nn.Module):
    name = "deltanet"

    def __init__(self, site: Site, config: Config):
        super().__init__()
        width = head_channels(site, config.heads, of=self.name)
        self.heads = config.heads
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        self.beta = nn.Linear(site.channels, config.heads)
        self.norm = nn.RMSNorm(width, EPS)

    def forward(self, x: Tokens) -> Tokens:
        return self.joined(self.sums(*self.parts(x)), x)

    def recurrent(self, x: Tokens) -> Tokens:
        """What forward computes, token by token from a state of fixed size."""
        return self.joined(one_by_one(*self.parts(x)), x)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled q, k and v [b, h, n, d], and beta [b, h, n, 1]."""
        q, k, v = (rearrange(F.silu(p(x)), "b n (h d) -> b h n d", h=self.heads) for p in (self.q, self.k, self.v))
        beta = rearrange(self.beta(x).sigmoid(), "b n h -> b h n 1")
        q, k = (F.normalize(t, dim=-1, eps=least(t.dtype)) for t in (q, k))
        return q * q.shape[-1] ** -0.5, k, v, beta

    def sums(self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        return in_chunks(q, k, v, beta)

    def joined(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(rearrange(self.norm(y.to(x.dtype)), "b h n d -> b n (h d)"))


def in_chunks(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """o_t of all tokens [b, h, n, d].

    In a chunk that starts from state S, token i stores u_i = b_i (v_i - S^T k_i - sum over j < i of (k_i . k_j) u_j):
    a unit triangular system, solved once for the part with v and once for the part with S.
    """
    tokens, width = q.shape[2:]
    q, k, v, beta = (chunked(t, CHUNK) for t in (q, k, v, beta))
    system = (beta * torch.einsum("bhcid,bhcjd->bhcij", k, k)).tril(-1)
    solved = solve(system, torch.cat([beta * v, beta * k], -1)).to(v.dtype)
    from_values, from_state = solved.split([width, width], -1)
    decay = torch.eye(width, dtype=k.dtype, device=k.device) - torch.einsum("bhcid,bhcie->bhcde", k, from_state)
    added = torch.einsum("bhcid,bhcie->bhcde", k, from_values)
    before = states(decay, added, torch.matmul)
    stored = from_values - from_state @ before
    pairs = torch.einsum("bhcid,bhcjd->bhcij", q, k).tril()
    return (pairs @ stored + q @ before).flatten(2, 3)[:, :, :tokens]


def solve(strictly_lower: Tensor, right: Tensor) -> Tensor:
    """(I + L)^-1 R, at least in float32: there is no triangular solution of shorter types."""
    wide = torch.promote_types(right.dtype, torch.float32)
    return torch.linalg.solve_triangular(strictly_lower.to(wide), right.to(wide), upper=False, unitriangular=True)


def one_by_one(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The same as a recurrence."""
    state, rows = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]), []
    for i in range(q.shape[2]):
        key = k[:, :, i].unsqueeze(-2)
        change = beta[:, :, i].unsqueeze(-2) * (v[:, :, i].unsqueeze(-2) - key @ state)
        state = state + key.mT @ change
        rows.append((q[:, :, i].unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(rows, 2)
