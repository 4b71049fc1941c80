"""A mechanism and full attention at one site, with the same weights wherever both have them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mechanisms import Site, build, configure, find

PARTS = ("q", "k", "v", "out")
SHARED = re.compile(r"(?:^|\.)(q|k|v|out)(?:\.\d+)?\.(weight|bias)$")  # `q.weight`, of a level `q.0.weight`
HEADS = 4  # of full attention beside a mechanism without heads


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two modules from tokens [B, *shape, C] to the same, in evaluation mode.

    shared: which of q, k, v and out have equal weights in both, in that order.
    own: number of weights that the mechanism has besides; they are as initialised.
    """

    site: Site
    heads: int
    mechanism: nn.Module
    full: nn.Module
    shared: tuple[str, ...]
    own: int

    @property
    def alike(self) -> bool:
        """Whether all four projections are shared, so that full attention's rows are what it should have."""
        return self.shared == PARTS


def heads_of(name: str, knobs: Mapping[str, Any]) -> int:
    """The mechanism's heads, which full attention beside it has too."""
    return int(getattr(configure(find(name).config, dict(knobs), of=name), "heads", HEADS))


def fresh(site: Site, heads: int, *, seed: int, sharpness: float = 1.0) -> dict[str, Tensor]:
    """Weights of full attention as it is initialised by a seed.

    sharpness: factor of all scores before the softmax; fresh weights alone leave it nearly flat.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = {name: tensor.double() for name, tensor in build("full", site, heads=heads).state_dict().items()}
    return {name: sharpness * tensor if name.startswith("q.") else tensor for name, tensor in weights.items()}


def paired(name: str, knobs: Mapping[str, Any], site: Site, weights: Mapping[str, Tensor], *, seed: int) -> Pair:
    """The mechanism and full attention with these weights of full attention.

    weights: by the names that `full` has. seed: of what the mechanism draws for itself.
    Raises ValueError for a site that the mechanism refuses.
    """
    heads = heads_of(name, knobs)
    full = build("full", site, heads=heads)
    full = full.to(next(iter(weights.values())).dtype)
    full.load_state_dict(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        mechanism = build(name, site, **knobs).to(next(full.parameters()).dtype)
    given, copied = set(), set()
    parameters = dict(mechanism.named_parameters())
    for own, parameter in parameters.items():
        if (found := SHARED.search(own)) and parameter.shape == weights[f"{found[1]}.{found[2]}"].shape:
            parameter.data.copy_(weights[f"{found[1]}.{found[2]}"])
            given.add(own)
            copied |= {found[1]} if found[2] == "weight" else set()
    without_bias(full, mechanism)
    own = sum(parameter.numel() for each, parameter in parameters.items() if each not in given)
    shared = tuple(part for part in PARTS if part in copied)
    return Pair(site=site, heads=heads, mechanism=mechanism.eval(), full=full.eval(), shared=shared, own=own)


def without_bias(full: nn.Module, mechanism: nn.Module) -> None:
    """Takes from full attention the bias of a projection that the mechanism has without one."""
    held = {(found[1], found[2]) for name, _ in mechanism.named_parameters() if (found := SHARED.search(name))}
    for part in PARTS:
        if (part, "weight") in held and (part, "bias") not in held:
            full.get_parameter(f"{part}.bias").data.zero_()
