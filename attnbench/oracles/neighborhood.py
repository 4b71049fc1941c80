"""Neighbourhood attention written out: for every token the list of its neighbours, found by walking along each axis."""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import in_every_head, softmax_average
from mechanisms import Site

SMALL = {"heads": 2, "window": 3}
CASES = [
    Case(at(1), {"heads": 2, "window": 1}),
    Case(at(7), SMALL),
    Case(at(12), {"heads": 2, "window": 5, "dilation": 2}),
    Case(at(9), {**SMALL, "dilation": 3, "position": "relative"}),
    Case(at(13, causal=True), SMALL),
    Case(at(14, causal=True), {**SMALL, "dilation": 4, "position": "relative"}),
    Case(at(4, 7), SMALL),
    Case(at(7, 8), {**SMALL, "dilation": 2}),
    Case(at(6, 5), {"heads": 3, "window": 5, "position": "relative"}),
    Case(at(7, 6), {**SMALL, "dilation": 2, "position": "relative"}),
    Case(at(3, 4), {"heads": 1, "window": 1, "dilation": 2, "position": "relative"}),
]


def line(place: int, side: int, *, window: int, dilation: int, causal: bool) -> list[int]:
    """The neighbours of a place among those a multiple of the dilation away: the nearest ones, or the last ones."""
    reachable = [other for other in range(side) if (other - place) % dilation == 0]
    if causal:
        return [other for other in reachable if other <= place][-window:]
    nearest = sorted(reachable, key=lambda other: (abs(other - place), other))
    return sorted(nearest[:window])


def oracle(site: Site, config: Any) -> Oracle:
    knobs = {"window": config.window, "dilation": config.dilation, "causal": site.causal}
    places = list(product(*map(range, site.shape)))
    offsets = 2 * config.window - 1

    def run(weights: Any, sample: Tensor) -> Tensor:
        def bias(head: int, place: tuple[int, ...], other: tuple[int, ...]) -> Tensor:
            row = 0
            for here, there in zip(place, other, strict=True):
                row = row * offsets + (there - here) // config.dilation + config.window - 1
            return weights["bias"][row, head]

        def one_head(head: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            rows = []
            for i, place in enumerate(places):
                lines = (line(here, side, **knobs) for here, side in zip(place, site.shape, strict=True))
                seen = list(product(*lines))
                extra = torch.stack([bias(head, place, other) for other in seen]) if "bias" in weights else None
                flat = [places.index(other) for other in seen]
                rows.append(softmax_average(q[i], k[flat], v[flat], extra))
            return torch.stack(rows)

        tokens = sample.reshape(-1, sample.shape[-1])
        return in_every_head(tokens, weights, config.heads, one_head).reshape(sample.shape)

    return run
