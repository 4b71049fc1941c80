"""Window attention, shifted or not: for every token, the list of tokens it may see and how far away they are."""

import torch
from torch import Tensor

from tests.oracles.dense import Weights, in_every_head, places_of, softmax_average


def meets(a: int, b: int, *, side: int, window: int, shift: int) -> bool:
    """Whether places a and b of one axis share a window of the cyclically shifted grid and are real neighbours there.

    The shift carries the first `shift` places behind the last ones; they share windows with them, but no neighbourhood.
    """
    padded = -(-side // window) * window
    same_window = ((a - shift) % padded) // window == ((b - shift) % padded) // window
    return same_window and (a < shift) == (b < shift)


def swin(
    sample: Tensor,
    weights: Weights,
    *,
    heads: int,
    window: int,
    shift: int = 0,
    table: Tensor | None = None,
) -> Tensor:
    """[H, W, C] -> [H, W, C]; table [(2 window - 1)^2, heads] holds a bias for each offset, query minus key."""
    height, width, channels = sample.shape
    places = places_of(sample)

    def one_head(head: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for i, (row, column) in enumerate(places):
            seen, bias = [], []
            for j, (other_row, other_column) in enumerate(places):
                if meets(row, other_row, side=height, window=window, shift=shift) and meets(
                    column, other_column, side=width, window=window, shift=shift
                ):
                    seen.append(j)
                    down, right = row - other_row + window - 1, column - other_column + window - 1
                    if table is not None:
                        bias.append(table[down * (2 * window - 1) + right, head])
            rows.append(softmax_average(q[i], k[seen], v[seen], torch.stack(bias) if bias else None))
        return torch.stack(rows)

    return in_every_head(sample.reshape(-1, channels), weights, heads, one_head).reshape(sample.shape)
