"""Window attention, shifted or not: for every token, the list of tokens it may see and how far away they are."""

from collections.abc import Callable
from functools import partial
from math import log2
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import Weights, in_every_head, places_of, project, softmax_average
from mechanisms import Site

BiasOf = Callable[[int, int, int], Tensor]  # head, rows and columns from key to query -> what is added to the score
CASES = [
    Case(at(4, 6), {"heads": 2, "window": 2}),
    Case(at(6, 9, block=1), {"heads": 2, "window": 3}),
    Case(at(8, 8, block=1), {"heads": 2, "window": 4}),
    Case(at(8, 8, block=1), {"heads": 2, "window": 4, "position": "none"}),
    Case(at(8, 8, block=1), {"heads": 2, "window": 4, "shift": False}),
    Case(at(4, 4, block=1), {"heads": 2, "window": 4}),
    Case(at(7, 5), {"heads": 2, "window": 3, "pad": True}),
    Case(at(7, 5, block=1), {"heads": 2, "window": 3, "pad": True}),
    Case(at(7, 6, block=1), {"heads": 2, "window": 4, "pad": True}),
    Case(at(3, 3, block=1), {"heads": 2, "window": 4, "pad": True}),
    Case(at(4, 6), {"heads": 2, "window": 2, "version": "v2"}),
    Case(at(6, 6, block=1), {"heads": 3, "window": 3, "version": "v2", "pretrained_window": 5}),
    Case(at(5, 7, block=1), {"heads": 2, "window": 4, "version": "v2", "pad": True}),
    Case(at(4, 4, block=1), {"heads": 2, "window": 2, "version": "v2", "position": "none"}),
    Case(at(2, 3), {"heads": 1, "window": 1, "version": "v2"}),
]


def meets(a: int, b: int, *, side: int, window: int, shift: int) -> bool:
    """Whether places a and b of one axis share a window of the cyclically shifted grid and are real neighbours there.

    The shift carries the first `shift` places behind the last ones; they share windows with them, but no neighbourhood.
    """
    padded = -(-side // window) * window
    same_window = ((a - shift) % padded) // window == ((b - shift) % padded) // window
    return same_window and (a < shift) == (b < shift)


def seen_by(place: tuple[int, int], site: Site, window: int, shift: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Whom a token may see: number in the flattened grid, and rows and columns from it to the token."""
    (row, column), (height, width) = place, site.shape
    return [
        (other_row * width + other_column, row - other_row, column - other_column)
        for other_row in range(height)
        for other_column in range(width)
        if meets(row, other_row, side=height, window=window, shift=shift[0])
        and meets(column, other_column, side=width, window=window, shift=shift[1])
    ]


def table_bias(weights: Weights, window: int) -> BiasOf:
    """Version 1: an entry of a table [(2 window - 1)^2, heads] for each offset."""

    def bias(head: int, down: int, right: int) -> Tensor:
        return weights["bias"][(down + window - 1) * (2 * window - 1) + right + window - 1, head]

    return bias


def made_bias(weights: Weights, window: int, trained: int) -> BiasOf:
    """Version 2: an MLP of the offset, scaled to -8 .. 8 and then logarithmically."""

    def spaced(offset: int) -> float:
        far = 8 * offset / max((trained or window) - 1, 1)
        return (1 if far >= 0 else -1) * log2(1 + abs(far)) / log2(8)

    def bias(head: int, down: int, right: int) -> Tensor:
        place = torch.tensor([spaced(down), spaced(right)], dtype=torch.float64)
        hidden = project(weights, "offset_bias.hidden", place)
        made = weights["offset_bias.head.weight"][head] @ torch.where(hidden > 0, hidden, torch.zeros_like(hidden))
        return 16 / (1 + torch.exp(-made))

    return bias


def none(_head: int, _down: int, _right: int) -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def cosine_average(query: Tensor, keys: Tensor, values: Tensor, extra: Tensor, factor: Tensor) -> Tensor:
    """What a query reads when scores are cosines times a factor, held below 100."""
    cosines = torch.stack([key @ query / (torch.linalg.norm(key) * torch.linalg.norm(query)) for key in keys])
    scores = cosines * torch.clamp(torch.exp(factor), max=100.0) + extra
    shares = torch.exp(scores - scores.detach().max())
    return (shares / shares.sum()) @ values


def oracle(site: Site, config: Any) -> Oracle:
    half = config.window // 2 if config.shift and site.block % 2 else 0
    shift = tuple(half if side > config.window else 0 for side in site.shape)
    cosine = config.version == "v2"

    def swin(weights: Weights, sample: Tensor) -> Tensor:
        made = partial(made_bias, trained=config.pretrained_window) if cosine else table_bias
        bias = none if config.position == "none" else made(weights, config.window)

        def one_head(head: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            rows = []
            for i, place in enumerate(places_of(sample)):
                seen = seen_by(place, site, config.window, (shift[0], shift[1]))
                others, extra = [j for j, _, _ in seen], torch.stack([bias(head, *offset) for _, *offset in seen])
                if cosine:
                    factor = weights["logit_scale"][head, 0, 0]
                    rows.append(cosine_average(q[i], k[others], v[others], extra, factor))
                else:
                    rows.append(softmax_average(q[i], k[others], v[others], extra))
            return torch.stack(rows)

        named = dict(weights)
        named.setdefault("k.bias", torch.zeros(site.channels, dtype=torch.float64))  # version 2 has none
        tokens = sample.reshape(-1, site.channels)
        return in_every_head(tokens, named, config.heads, one_head).reshape(sample.shape)

    return swin
