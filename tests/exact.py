"""Mechanisms in float64 for tests of exact relations: seeded, with steep softmax, compared to within rounding."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import mechanisms
from mechanisms import Site

CHANNELS = 8


def grid(*shape: int, block: int = 0, channels: int = CHANNELS) -> Site:
    """A site on a grid (H, W)."""
    return Site(channels=channels, shape=shape, block=block)


def build(name: str, site: Site, **knobs: Any) -> nn.Module:
    """In float64; seeded, with weights three times the usual, so that softmax is far from flat."""
    torch.manual_seed(0)
    module = mechanisms.build(name, site, **({"heads": 2} | knobs)).double()
    for parameter in module.parameters():
        parameter.data *= 3
    return module


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same for the same shape and seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(one: Tensor, other: Tensor) -> None:
    """Asserts equality to within float64 rounding."""
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def differ(one: Tensor, other: Tensor) -> None:
    """Asserts a difference that no rounding explains."""
    assert float((one - other).detach().abs().max()) > 0.1


def mixing(name: str, site: Site, **knobs: Any) -> Tensor:
    """How much token j enters token i [N, N] when all scores are equal: queries zero, values the tokens themselves."""
    mechanism = build(name, replace(site, channels=1), heads=1, **knobs)
    weights = {"q.weight": 0.0, "q.bias": 0.0, "v.weight": 1.0, "v.bias": 0.0, "out.weight": 1.0, "out.bias": 0.0}
    mechanism.load_state_dict(
        {key: torch.full_like(mechanism.state_dict()[key], weights[key]) for key in weights}, False
    )
    tokens = site.tokens
    return mechanism(torch.eye(tokens, dtype=torch.float64).reshape(tokens, *site.shape, 1)).reshape(tokens, tokens).T
