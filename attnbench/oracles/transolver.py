"""Physics attention written out: every token's shares of the slices, their means, attention of slice to slice."""

from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, Weights, at
from attnbench.oracles._dense import project, softmax_average
from mechanisms import Site

CASES = [
    Case(at(7), {"heads": 2, "slices": 3}),
    Case(at(4), {"heads": 1, "slices": 5}),
    Case(at(5), {"heads": 3, "slices": 1}),
    Case(at(3, 4), {"heads": 2, "slices": 4}),
    Case(at(5, 2), {"heads": 3, "slices": 2}),
]


def neighbours(weights: Weights, name: str, sample: Tensor) -> Tensor:
    """A 3 x 3 convolution, zeros outside: [H, W, C] -> [N, C]."""
    kernel, rows = weights[f"{name}.weight"], []
    height, width = sample.shape[:2]
    for row in range(height):
        for column in range(width):
            total = weights[f"{name}.bias"]
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if 0 <= row + down < height and 0 <= column + right < width:
                        total = total + kernel[:, :, down + 1, right + 1] @ sample[row + down, column + right]
            rows.append(total)
    return torch.stack(rows)


def oracle(site: Site, config: Any) -> Oracle:
    grid = site.setting == "grid"

    def attend(weights: Weights, sample: Tensor) -> Tensor:
        mapped = neighbours if grid else project
        where, what = (mapped(weights, name, sample) for name in ("where", "what"))
        size, outputs = site.channels // config.heads, []
        for head in range(config.heads):
            mine = slice(head * size, (head + 1) * size)
            warmth = weights["temperature"][head, 0, 0]
            warmth = torch.clamp(warmth, 0.1, 5.0) if grid else warmth
            shares = []
            for token in where[:, mine]:
                raised = torch.exp(project(weights, "slices", token) / warmth)
                shares.append(raised / raised.sum())
            shares = torch.stack(shares)
            means = []
            for part in shares.T:
                gathered = sum((share * token for share, token in zip(part, what[:, mine], strict=True)), 0.0)
                means.append(gathered / (part.sum() + 1e-5))
            means = torch.stack(means)
            q, k, v = (means @ weights[f"{name}.weight"].T for name in ("q", "k", "v"))
            read = torch.stack([softmax_average(query, k, v) for query in q])
            outputs.append(torch.stack([part @ read for part in shares]))
        return project(weights, "out", torch.cat(outputs, -1)).reshape(sample.shape)

    return attend
