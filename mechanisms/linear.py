"""Linear attention: the softmax becomes a positive feature map, so keys and values are summed once for all queries.

Katharopoulos et al., "Transformers are RNNs", ICML 2020, equations 4 to 7. https://arxiv.org/abs/2006.16236
Other features: favor is Performer's (Choromanski et al., 2020, https://arxiv.org/abs/2009.14794), l2vit that of Zheng,
2025 (https://arxiv.org/abs/2501.16182), efficient that of Shen et al., 2018 (https://arxiv.org/abs/1812.01243).
Work N. Normalised: each output is a weighted mean of the values, with weights phi(q_i) . phi(k_j); of l2vit tau times
this mean, less where its mass is below 100. L2ViT's local convolution belongs to the model around the attention.
Departs from the paper: queries and keys are not scaled (the scale cancels only for homogeneous maps; the paper has none
either; favor has d^-1/4 on each); the causal form adds up in chunks of 64 tokens, which is the same sum in another
order. Favor's features are drawn once and kept, and nothing is added to them; bidirectionally they are shifted by each
feature's largest key, which cancels exactly; causally by constants, since a maximum over all keys would see the future.
Causally, a query reads zero while no key before it has a feature above 1e-30, as happens where keys are very long; with
relu it reads less than the mean where its mass is below 1e-6, and zero where no key shares a positive feature.
"""

from collections.abc import Mapping
from math import log
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._precise import uncast
from mechanisms._recurrent import chunked, running_sums
from mechanisms._registry import Reach, register
from mechanisms._site import Site, Tokens

CHUNK = 64  # tokens summed by a small masked product in the causal form
TINY = 1e-30  # least mass of a row: only what float32 cannot hold
LEAST = {"l2vit": 100.0, "relu": 1e-6}  # other least masses: the paper's; for rows whose features are all zero
HIGHEST = 40.0  # of the logarithm of a random feature of a key in the causal form; exp(40) times many keys is finite


def elu(x: Tensor) -> Tensor:
    """elu(x) + 1, without the rounding of that sum where x is far below zero."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


FEATURES = {"elu": elu, "relu": F.relu, "softplus": F.softplus, "l2vit": F.relu}  # the same of queries and keys


class Config(Knobs):
    neutral: ClassVar[Mapping[str, Any]] = {"features": 0}
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    feature: Literal["elu", "relu", "softplus", "l2vit", "favor", "efficient"] = "elu"
    """feature map phi; elu means elu(x) + 1; l2vit is relu with a learned scale; l2vit and efficient are not causal"""
    features: NonNegativeInt = 0
    """number of random features of favor; 0 means d ln d rounded down, for heads of d channels"""

    def idle(self) -> set[str]:
        return {"features"} if self.feature != "favor" else set()


def reach(site: Site, config: Config) -> Reach:
    """With relu, a query sees only the keys that share a positive feature with it."""
    return "local" if config.feature in ("relu", "l2vit") and site.tokens > 1 else "global"


@register("linear", Config, fits=("sequence", "causal", "grid"), order="N", reach=reach)
class Linear(nn.Module):
    projection: Tensor

    def __init__(self, site: Site, config: Config):
        super().__init__()
        width = head_channels(site, config.heads, of="linear")
        if site.causal and config.feature in ("l2vit", "efficient"):
            raise ValueError(
                f"linear.feature of a causal site is elu, relu, softplus or favor, since {config.feature} is defined "
                "over all tokens."
            )
        self.heads, self.causal, self.feature = config.heads, site.causal, config.feature
        self.least = LEAST.get(config.feature, TINY)
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        self.tau = nn.Parameter(torch.full((config.heads, 1, 1), width**-0.5)) if config.feature == "l2vit" else None
        if config.feature == "favor":
            count = config.features or max(1, int(width * log(width)))
            self.register_buffer("projection", orthogonal(count, width))

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = self.features(x)
        with uncast(x.device):
            y = past_mean(q, k, v, self.least) if self.causal else whole_mean(q, k, v, self.least)
        return self.joined(y if self.tau is None else self.tau * y, x)

    def recurrent(self, x: Tokens) -> Tokens:
        """What forward computes at a causal site, token by token from a state of fixed size."""
        if not self.causal:
            raise ValueError("linear.recurrent reads tokens in causal order, and this site is not causal.")
        q, k, v = self.features(x)
        memory, total, rows = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]), torch.zeros_like(k[:, :, 0]), []
        with uncast(x.device):
            for i in range(q.shape[2]):
                memory = memory + k[:, :, i].unsqueeze(-1) * v[:, :, i].unsqueeze(-2)
                total = total + k[:, :, i]
                mass = (q[:, :, i] * total).sum(-1, keepdim=True).clamp_min(self.least)
                rows.append((q[:, :, i].unsqueeze(-2) @ memory).squeeze(-2) / mass)
        return self.joined(torch.stack(rows, 2), x)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """phi(q) and phi(k) [b, h, n, features] and v [b, h, n, d]."""
        q, k, v = (roomy(rearrange(p(x), "b ... (h d) -> b h (...) d", h=self.heads)) for p in (self.q, self.k, self.v))
        if self.feature == "favor":
            q, k = favor(q, k, self.projection, causal=self.causal)
        elif self.feature == "efficient":
            q, k = q.softmax(-1), k.softmax(-2)  # every row's mass is one
        else:
            q, k = FEATURES[self.feature](q), FEATURES[self.feature](k)
        kind = torch.promote_types(q.dtype, v.dtype)  # autocast on CUDA leaves exponentials in float32
        return q.to(kind), k.to(kind), v.to(kind)

    def joined(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape).to(x.dtype))


def roomy(x: Tensor) -> Tensor:
    """In float32 what is in float16, which ends at 65,504: sums over a few thousand tokens are larger."""
    return x.float() if x.dtype == torch.float16 else x


def favor(q: Tensor, k: Tensor, projection: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Positive random features of queries and keys, up to factors that cancel in the mean.

    Feature m of x' = x d^-1/4 is exp(w_m . x' - |x'|^2 / 2), at most exp(|w_m|^2 / 2). What is taken from the
    logarithm of feature m of all keys goes to that of all queries; each query is free to shift by its own maximum.
    """
    kind, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)  # an exponent's errors are relative after it
    q, k, projection = (t.to(wide) for t in (q * q.shape[-1] ** -0.25, k * k.shape[-1] ** -0.25, projection))
    with uncast(q.device):
        log_q, log_k = q @ projection.T, k @ projection.T - k.square().sum(-1, keepdim=True) / 2
    highest = (projection.square().sum(-1) / 2 - HIGHEST).clamp_min(0) if causal else log_k.amax(2, keepdim=True)
    log_q = log_q + highest.detach()
    q, k = (log_q - log_q.amax(-1, keepdim=True).detach()).exp(), (log_k - highest.detach()).exp()
    return q.to(kind), k.to(kind)


def orthogonal(count: int, width: int) -> Tensor:
    """Gaussian vectors [count, width] of independent lengths, orthogonal within each group of `width`."""
    blocks = []
    for _ in range(-(-count // width)):
        basis, triangle = torch.linalg.qr(torch.randn(width, width))
        blocks.append(basis.T * triangle.diagonal().sign().unsqueeze(-1))  # the signs make it uniform over rotations
    return torch.cat(blocks)[:count] * torch.randn(count, width).norm(dim=1, keepdim=True)


def whole_mean(q: Tensor, k: Tensor, v: Tensor, least: float) -> Tensor:
    """Mean of the values [b, h, n, d] under weights q_i . k_j over all j."""
    memory = torch.einsum("bhnd,bhne->bhde", k, v)
    total = torch.einsum("bhnd,bhd->bhn", q, k.sum(2))
    return torch.einsum("bhnd,bhde->bhne", q, memory) / total.clamp_min(least).unsqueeze(-1)


def past_mean(q: Tensor, k: Tensor, v: Tensor, least: float) -> Tensor:
    """The same mean over j <= i: whole chunks from their running sums, the query's own chunk by a masked product."""
    tokens = q.shape[2]
    q, k, v = (chunked(t, CHUNK) for t in (q, k, v))
    inside = torch.einsum("bhcid,bhcjd->bhcij", q, k).tril()
    memory = torch.einsum("bhcjd,bhcje->bhcde", k, v)
    memory, total = running_sums(memory), running_sums(k.sum(3))
    mass = inside.sum(-1) + torch.einsum("bhcid,bhcd->bhci", q, total)
    y = torch.einsum("bhcij,bhcje->bhcie", inside, v) + torch.einsum("bhcid,bhcde->bhcie", q, memory)
    return (y / mass.clamp_min(least).unsqueeze(-1)).flatten(2, 3)[:, :, :tokens]
