"""FNet written out: the cosine of every pair's phase, summed over all tokens and channels."""

from itertools import product
from math import cos, pi, prod
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from mechanisms import Site

CASES = [Case(at(1), {}), Case(at(6), {}), Case(at(7), {}), Case(at(3, 4), {}), Case(at(5, 2), {})]


def oracle(site: Site, config: Any) -> Oracle:  # noqa: ARG001 - all slow forms are asked alike
    def transform(_: Weights, sample: Tensor) -> Tensor:
        sides = sample.shape
        places = list(product(*map(range, sides)))
        phases = [
            [sum(a * b / side for a, b, side in zip(one, other, sides, strict=True)) for other in places]
            for one in places
        ]
        waves = torch.tensor([[cos(2 * pi * phase) for phase in row] for row in phases], dtype=sample.dtype)
        return (waves @ sample.flatten()).reshape(sides) / prod(sides) ** 0.5

    return transform
