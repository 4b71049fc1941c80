"""Linear attention twice: as a quadratic sum over pairs, and as a recurrence that reads one token after the other."""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.oracles.dense import Weights, in_every_head

Feature = Callable[[Tensor], Tensor]


def elu_plus_one(x: Tensor) -> Tensor:
    """exp(x) below zero, x + 1 above."""
    return torch.where(x > 0, x + 1, torch.exp(torch.clamp(x, max=0.0)))


def relu(x: Tensor) -> Tensor:
    """x where it is positive, else 0."""
    return torch.where(x > 0, x, torch.zeros_like(x))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))"""
    return torch.log1p(torch.exp(-torch.abs(x))) + relu(x)


FEATURES: dict[str, Feature] = {"elu": elu_plus_one, "relu": relu, "softplus": softplus}


def mean(summed: Tensor, mass: Tensor) -> Tensor:
    """The weighted sum over its mass; a query that gives no weight to any key, possible with relu, reads zero."""
    return summed / mass if mass > 0 else summed


def quadratic(sample: Tensor, weights: Weights, *, heads: int, feature: str = "elu", causal: bool = False) -> Tensor:
    """Every pair's weight phi(q_i).phi(k_j) is written down, then normalised over j."""
    phi = FEATURES[feature]

    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for i in range(len(q)):
            pairs = [torch.dot(phi(q[i]), phi(k[j])) for j in range(i + 1 if causal else len(k))]
            summed = sum((pair * v[j] for j, pair in enumerate(pairs)), torch.zeros_like(v[0]))
            rows.append(mean(summed, torch.stack(pairs).sum()))
        return torch.stack(rows)

    return in_every_head(sample.reshape(-1, sample.shape[-1]), weights, heads, one_head).reshape(sample.shape)


def recurrent(sample: Tensor, weights: Weights, *, heads: int, feature: str = "elu") -> Tensor:
    """The causal form: a memory [d, e] and a total [d] take in a token, then answer its query."""
    phi = FEATURES[feature]

    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        memory, total, rows = torch.zeros(k.shape[1], v.shape[1], dtype=k.dtype), torch.zeros_like(k[0]), []
        for i in range(len(q)):
            memory = memory + torch.outer(phi(k[i]), v[i])
            total = total + phi(k[i])
            rows.append(mean(phi(q[i]) @ memory, phi(q[i]) @ total))
        return torch.stack(rows)

    return in_every_head(sample.reshape(-1, sample.shape[-1]), weights, heads, one_head).reshape(sample.shape)
