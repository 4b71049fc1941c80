"""Cross-covariance attention written out: for every channel a list of its head's channels, one softmax."""

from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from attnbench.oracles._dense import in_every_head
from mechanisms import Site

CASES = [Case(at(1), {"heads": 2}), Case(at(9), {"heads": 2}), Case(at(5), {"heads": 6}), Case(at(3, 5), {"heads": 3})]


def oracle(site: Site, config: Any) -> Oracle:  # noqa: ARG001 - all slow forms are asked alike
    def attend(weights: Weights, sample: Tensor) -> Tensor:
        def one_head(head: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            columns = []
            for i in range(q.shape[1]):
                scores = []
                for j in range(k.shape[1]):
                    lengths = torch.sqrt((q[:, i] ** 2).sum() * (k[:, j] ** 2).sum())
                    scores.append((q[:, i] * k[:, j]).sum() / lengths * weights["temperature"][head, 0, 0])
                shares = torch.exp(torch.stack(scores))
                shares = shares / shares.sum()
                columns.append(sum((share * v[:, j] for j, share in enumerate(shares)), torch.zeros_like(v[:, 0])))
            return torch.stack(columns, 1)

        tokens = sample.reshape(-1, sample.shape[-1])
        return in_every_head(tokens, weights, config.heads, one_head).reshape(sample.shape)

    return attend
