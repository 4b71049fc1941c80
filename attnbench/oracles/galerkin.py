"""Galerkin attention written out: every pair's product is a weight, and weights are summed without softmax."""

from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from attnbench.oracles._dense import in_every_head
from mechanisms import Site

CASES = [
    Case(at(7), {"heads": 2}),
    Case(at(3, 5), {"heads": 3}),
    Case(at(6), {"heads": 2, "norm": False}),
    Case(at(5), {"heads": 2, "kind": "fourier"}),
    Case(at(4, 3), {"heads": 1, "kind": "fourier", "norm": False}),
]


NORMED = {"galerkin": ("k", "v"), "fourier": ("q", "k")}  # what each kind divides by its spread


def oracle(site: Site, config: Any) -> Oracle:  # noqa: ARG001 - all slow forms are asked alike
    def attend(weights: Weights, sample: Tensor) -> Tensor:
        def normed(name: str, head: int, token: Tensor) -> Tensor:
            if not config.norm or name not in NORMED[config.kind]:
                return token
            centred = token - token.mean()
            scaled = centred / torch.sqrt((centred * centred).mean() + 1e-5)
            return scaled * weights[f"norms.{name}.weight"][head, 0] + weights[f"norms.{name}.bias"][head, 0]

        def one_head(head: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (
                torch.stack([normed(name, head, token) for token in part])
                for name, part in zip("qkv", (q, k, v), strict=True)
            )
            scale = len(k) if config.kind == "galerkin" else len(k) * q.shape[1] ** 0.5
            rows = []
            for query in q:
                read = torch.zeros_like(v[0])
                for key, value in zip(k, v, strict=True):
                    read = read + torch.dot(query, key) * value / scale
                rows.append(read)
            return torch.stack(rows)

        tokens = sample.reshape(-1, sample.shape[-1])
        return in_every_head(tokens, weights, config.heads, one_head).reshape(sample.shape)

    return attend
