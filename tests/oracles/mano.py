"""Multipole attention of neural operators: one window attention on the grid and on ever coarser copies, summed."""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.oracles.dense import Weights, full

Step = Callable[[Tensor], Tensor]  # [H, W, C] -> a coarser or finer grid


def windows(sample: Tensor, weights: Weights, *, heads: int, window: int, stride: int) -> Tensor:
    """Full attention inside every window of the grid; a token in several windows gets the mean of their answers."""
    height, width, _ = sample.shape
    total, count = torch.zeros_like(sample), torch.zeros(height, width, 1, dtype=sample.dtype)
    for row in range(0, height - window + 1, stride):
        for column in range(0, width - window + 1, stride):
            here = slice(row, row + window), slice(column, column + window)
            placed = torch.zeros_like(sample)
            placed[here] = full(sample[here], weights, heads=heads)
            total = total + placed
            count[here] += 1
    return total / count


def convolve(filters: Tensor) -> Step:
    """Merges k x k tokens by a learned map; filters [out, in, k, k] as torch's Conv2d holds them."""
    k = filters.shape[-1]

    def down(sample: Tensor) -> Tensor:
        rows = []
        for row in range(len(sample) // k):
            cells = []
            for column in range(sample.shape[1] // k):
                parts = [filters[:, :, a, b] @ sample[row * k + a, column * k + b] for a in range(k) for b in range(k)]
                cells.append(sum(parts[1:], parts[0]))
            rows.append(torch.stack(cells))
        return torch.stack(rows)

    return down


def spread(filters: Tensor) -> Step:
    """Makes k x k tokens of one by a learned map; filters [in, out, k, k] as torch's ConvTranspose2d holds them."""
    k = filters.shape[-1]

    def up(sample: Tensor) -> Tensor:
        height, width, _ = sample.shape
        return torch.stack(
            [
                torch.stack(
                    [sample[row // k, column // k] @ filters[:, :, row % k, column % k] for column in range(width * k)]
                )
                for row in range(height * k)
            ]
        )

    return up


def mean_of_blocks(k: int) -> Step:
    """Merges k x k tokens into their mean."""

    def down(sample: Tensor) -> Tensor:
        return torch.stack(
            [
                torch.stack(
                    [
                        sample[row : row + k, column : column + k].mean(dim=(0, 1))
                        for column in range(0, sample.shape[1], k)
                    ]
                )
                for row in range(0, len(sample), k)
            ]
        )

    return down


def copies(k: int) -> Step:
    """Repeats every token k x k times."""
    return lambda sample: torch.stack(
        [
            torch.stack([sample[row // k, column // k] for column in range(sample.shape[1] * k)])
            for row in range(len(sample) * k)
        ]
    )


def times(step: Step, count: int, sample: Tensor) -> Tensor:
    """The step applied `count` times."""
    for _ in range(count):
        sample = step(sample)
    return sample


def plain_sum(sample: Tensor, *, attend: Step, down: Step, up: Step, levels: int) -> Tensor:
    """sum over m of U^m(A(D^m x))."""
    parts = [times(up, m, attend(times(down, m, sample))) for m in range(levels)]
    return sum(parts[1:], parts[0])


def published(sample: Tensor, *, attend: Step, down: Step, up: Step, levels: int) -> Tensor:
    """The released code's chain: r = y of the coarsest, then y of the next finer + up(r) / (j + 1), j = 0, 1, ..."""
    answers = [attend(times(down, m, sample)) for m in range(levels)]
    result = answers[levels - 1]
    for j in range(levels - 1):
        result = answers[levels - 2 - j] + up(result) / (j + 1)
    return result


COMBINE = {"sum": plain_sum, "published": published}
