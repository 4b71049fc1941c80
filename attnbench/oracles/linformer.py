"""Linformer written out: each mixed key and value as a sum over tokens, then one softmax for every query."""

from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import in_every_head, softmax_average
from mechanisms import Site

CASES = [
    Case(at(1), {"heads": 2, "rank": 1}),
    Case(at(7), {"heads": 2, "rank": 3}),
    Case(at(9), {"heads": 3, "rank": 4, "share": "key_value"}),
    Case(at(5), {"heads": 1, "rank": 8}),
    Case(at(3, 4), {"heads": 2, "rank": 5}),
    Case(at(4, 5), {"heads": 2, "share": "key_value"}),
]


def mixed(weights: Tensor, tokens: Tensor) -> Tensor:
    """sum over tokens j of weights[r, j] tokens[j], for each r."""
    rows = []
    for row in weights:
        terms = [weight * token for weight, token in zip(row, tokens, strict=True)]
        rows.append(sum(terms[1:], terms[0]))
    return torch.stack(rows)


def oracle(site: Site, config: Any) -> Oracle:
    def run(weights: Any, sample: Tensor) -> Tensor:
        of_keys = weights["mix_k"]
        of_values = of_keys if config.share == "key_value" else weights["mix_v"]

        def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = mixed(of_keys, k), mixed(of_values, v)
            return torch.stack([softmax_average(query, keys, values) for query in q])

        tokens = sample.reshape(site.tokens, site.channels)
        return in_every_head(tokens, weights, config.heads, one_head).reshape(sample.shape)

    return run
