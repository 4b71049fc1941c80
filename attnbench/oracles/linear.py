"""Linear attention twice: as a quadratic sum over pairs, and as a recurrence that reads one token after the other."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import Weights, in_every_head
from mechanisms import Site

Feature = Callable[[Tensor], Tensor]
EVERYWHERE = ("elu", "relu", "softplus", "favor")

CASES = [
    *(
        Case(site, {"heads": 2, "feature": word})
        for site in (at(9), at(9, causal=True), at(3, 3))
        for word in EVERYWHERE
    ),
    *(Case(site, {"heads": 2, "feature": word}) for site in (at(9), at(3, 5)) for word in ("l2vit", "efficient")),
    Case(at(79), {"heads": 1, "feature": "l2vit"}),  # with the mass above 100, where the clamp does not act
    Case(at(1), {"heads": 6, "feature": "favor"}),
    Case(at(2, 7), {"heads": 3, "feature": "favor", "features": 7}),
    Case(at(70, causal=True), {"heads": 2, "feature": "favor", "features": 3}),
    Case(at(131, causal=True), {"heads": 2, "feature": "elu"}),
]


def elu_plus_one(x: Tensor) -> Tensor:
    """exp(x) below zero, x + 1 above."""
    return torch.where(x > 0, x + 1, torch.exp(torch.clamp(x, max=0.0)))


def relu(x: Tensor) -> Tensor:
    """x where it is positive, else 0."""
    return torch.where(x > 0, x, torch.zeros_like(x))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))"""
    return torch.log1p(torch.exp(-torch.abs(x))) + relu(x)


def random(directions: Tensor) -> Feature:
    """exp(w . y - |y|^2 / 2) for each of r directions w [r, d], over sqrt(r), where y = x / d^(1/4)."""

    def feature(x: Tensor) -> Tensor:
        y = x / sqrt(sqrt(x.shape[-1]))
        return torch.stack([torch.exp(w @ y - (y @ y) / 2) for w in directions]) / sqrt(len(directions))

    return feature


FEATURES: dict[str, Feature] = {"elu": elu_plus_one, "relu": relu, "softplus": softplus, "l2vit": relu}


def feature_of(feature: str, weights: Weights) -> Feature:
    return random(weights["projection"]) if feature == "favor" else FEATURES[feature]


def mean(summed: Tensor, mass: Tensor) -> Tensor:
    """The weighted sum over its mass; a query that gives no weight to any key, possible with relu, reads zero."""
    return summed / mass if mass > 0 else summed


def quadratic(sample: Tensor, weights: Weights, *, heads: int, feature: str = "elu", causal: bool = False) -> Tensor:
    """Every pair's weight phi(q_i).phi(k_j) is written down, then normalised over j."""
    phi = feature_of(feature, weights)

    def one_head(head: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, keys = [], [phi(key) for key in k]
        for i in range(len(q)):
            pairs = [torch.dot(phi(q[i]), keys[j]) for j in range(i + 1 if causal else len(k))]
            summed = sum((pair * v[j] for j, pair in enumerate(pairs)), torch.zeros_like(v[0]))
            mass = torch.stack(pairs).sum()
            if feature == "l2vit":
                rows.append(weights["tau"].flatten()[head] * summed / torch.clamp(mass, min=100.0))
            else:
                rows.append(mean(summed, mass))
        return torch.stack(rows)

    return in_every_head(sample.reshape(-1, sample.shape[-1]), weights, heads, one_head).reshape(sample.shape)


def recurrent(sample: Tensor, weights: Weights, *, heads: int, feature: str = "elu") -> Tensor:
    """The causal form: a memory [r, e] and a total [r] take in a token's r features, then answer its query."""
    phi = feature_of(feature, weights)

    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        memory, total, rows = torch.zeros(len(phi(k[0])), v.shape[1], dtype=k.dtype), torch.zeros_like(phi(k[0])), []
        for i in range(len(q)):
            memory = memory + torch.outer(phi(k[i]), v[i])
            total = total + phi(k[i])
            rows.append(mean(phi(q[i]) @ memory, phi(q[i]) @ total))
        return torch.stack(rows)

    return in_every_head(sample.reshape(-1, sample.shape[-1]), weights, heads, one_head).reshape(sample.shape)


def efficient(sample: Tensor, weights: Weights, *, heads: int) -> Tensor:
    """Each channel of the keys is a softmax over tokens and collects values; a query mixes channels by a softmax."""

    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        collected = []
        for channel in k.T:
            weight = torch.exp(channel - channel.detach().max())
            collected.append((weight / weight.sum()) @ v)
        rows = []
        for query in q:
            share = torch.exp(query - query.detach().max())
            rows.append(sum((part * row for part, row in zip(share / share.sum(), collected, strict=True)), 0 * v[0]))
        return torch.stack(rows)

    return in_every_head(sample.reshape(-1, sample.shape[-1]), weights, heads, one_head).reshape(sample.shape)


def oracle(site: Site, config: Any) -> Oracle:
    def slow(weights: Weights, sample: Tensor) -> Tensor:
        if config.feature == "efficient":
            return efficient(sample, weights, heads=config.heads)
        if site.causal and site.tokens > 64:  # pairs would take long, and tests compare the two forms
            return recurrent(sample, weights, heads=config.heads, feature=config.feature)
        return quadratic(sample, weights, heads=config.heads, feature=config.feature, causal=site.causal)

    return slow
