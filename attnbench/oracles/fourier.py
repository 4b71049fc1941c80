"""Spectral convolution written out: Fourier sums over tokens, a complex matrix for each mode, sums back."""

from cmath import exp, pi
from itertools import product
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from mechanisms import Site

CASES = [
    Case(at(5), {"modes": 1}),
    Case(at(8), {"modes": 8}),
    Case(at(7), {"modes": 4}),
    Case(at(4, 6), {"modes": 3}),
    Case(at(5, 4), {"modes": 4}),
    Case(at(3, 3), {"modes": 2}),
]


def kept(site: Site, modes: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every kept mode: its place in the weight, and its frequency on each axis, which is not negative on the last."""
    last = [(place, place) for place in range(modes // 2 + 1)]
    others = [[(place, place - modes // 2) for place in range(modes)] for _ in site.shape[1:]]
    found = []
    for pairs in product(*others, last):
        found.append((tuple(place for place, _ in pairs), tuple(frequency for _, frequency in pairs)))
    return found


def oracle(site: Site, config: Any) -> Oracle:
    tokens = list(product(*map(range, site.shape)))

    def wave(frequency: tuple[int, ...]) -> Tensor:
        phases = [sum(f * m / n for f, m, n in zip(frequency, at, site.shape, strict=True)) for at in tokens]
        return torch.tensor([exp(2j * pi * phase) for phase in phases], dtype=torch.complex128)

    def convolve(weights: Weights, sample: Tensor) -> Tensor:
        x = sample.reshape(len(tokens), -1).to(torch.complex128)
        total = torch.zeros(len(tokens), site.channels, dtype=torch.float64)
        for place, frequency in kept(site, config.modes):
            pair = weights["weight"][(slice(None), slice(None), *place)]
            matrix = torch.complex(pair[..., 0], pair[..., 1])
            amplitude = (wave(frequency).conj() @ x) / len(tokens) @ matrix
            alone = 2 * frequency[-1] in (0, site.shape[-1])  # has no partner of negative frequency
            total = total + (1 if alone else 2) * torch.outer(wave(frequency), amplitude).real
        return (total + weights["bias"]).reshape(sample.shape)

    return convolve
