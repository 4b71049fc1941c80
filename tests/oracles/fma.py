"""Fast multipole attention on a square grid: each token reads near cells token by token and far ones in summary."""

from collections.abc import Callable
from math import isqrt, log

import torch
from torch import Tensor

from tests.oracles.dense import Weights, in_every_head, places_of, softmax_average

Cell = tuple[int, int]
Summarise = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]  # level, k and v [w, w, d] -> two [p, d]


def levels_of(side: int, cell: int) -> int:
    """How many coarse levels a grid has: halve its cells per axis until 4 are left, counting the first."""
    levels, cells = 0, side // cell
    while cells >= 4:
        levels, cells = levels + 1, cells // 2
    return levels


def touches(a: Cell, b: Cell) -> bool:
    """Whether two cells of one level are the same or share a side or a corner."""
    return abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1


def halved(a: Cell) -> Cell:
    """The cell of the next coarser level that holds this one."""
    return a[0] // 2, a[1] // 2


def near(place: tuple[int, int], *, side: int, cell: int) -> list[int]:
    """The tokens, in flattened order, in the cells that touch the cell of `place`."""
    home = place[0] // cell, place[1] // cell
    return [
        row * side + column
        for row in range(side)
        for column in range(side)
        if touches(home, (row // cell, column // cell))
    ]


def far(place: tuple[int, int], *, side: int, cell: int, level: int) -> list[Cell]:
    """The cells of a level that touch no cell of `place` while their parents touch its parent."""
    width = cell * 2 ** (level - 1)
    home = place[0] // width, place[1] // width
    count = side // width
    cells = [(row, column) for row in range(count) for column in range(count)]
    return [other for other in cells if touches(halved(home), halved(other)) and not touches(home, other)]


def grouped(weights: Weights, name: Callable[[str, int], str], rank: int) -> Summarise:
    """Learned summaries: rank filters for each channel, channel c and filter t at output c rank + t of a convolution.

    name(kind, level) is the name of that convolution, for kind "k" or "v".
    """

    def one(kind: str, level: int, block: Tensor) -> Tensor:
        filters, bias = weights[f"{name(kind, level)}.weight"], weights[f"{name(kind, level)}.bias"]
        rows = []
        for t in range(rank):
            channels = []
            for c in range(block.shape[-1]):
                output = c * rank + t
                channels.append((filters[output, 0] * block[:, :, c]).sum() + bias[output])
            rows.append(torch.stack(channels))
        return torch.stack(rows)

    return lambda level, k, v: (one("k", level, k), one("v", level, v))


def average(rank: int) -> Summarise:
    """Means over rank equal square parts of a cell."""

    def one(block: Tensor) -> Tensor:
        parts = isqrt(rank)
        side = len(block) // parts
        return torch.stack(
            [
                block[side * row : side * (row + 1), side * column : side * (column + 1)].mean(dim=(0, 1))
                for row in range(parts)
                for column in range(parts)
            ]
        )

    return lambda _, k, v: (one(k), one(v))


def every_token(_: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The basis that loses nothing: each token is its own summary. With it, FMA is softmax attention."""
    return k.reshape(-1, k.shape[-1]), v.reshape(-1, v.shape[-1])


def multipole(q: Tensor, k: Tensor, v: Tensor, *, cell: int, summarise: Summarise, size_weight: bool) -> Tensor:
    """One head on a grid: q, k, v [S, S, d] -> [S, S, d], one softmax over near tokens and far summaries."""
    side = len(q)
    flat_k, flat_v = k.reshape(side * side, -1), v.reshape(side * side, -1)
    summaries: dict[tuple[int, Cell], tuple[Tensor, Tensor]] = {}
    for level in range(1, levels_of(side, cell) + 1):
        width = cell * 2 ** (level - 1)
        for row in range(side // width):
            for column in range(side // width):
                block = slice(row * width, (row + 1) * width), slice(column * width, (column + 1) * width)
                summaries[level, (row, column)] = summarise(level, k[block], v[block])

    rows = []
    for place in places_of(q):
        mine = near(place, side=side, cell=cell)
        keys, values, extra = [flat_k[mine]], [flat_v[mine]], [torch.zeros(len(mine), dtype=q.dtype)]
        for level in range(1, levels_of(side, cell) + 1):
            tokens_in_cell = (cell * 2 ** (level - 1)) ** 2
            for other in far(place, side=side, cell=cell, level=level):
                far_k, far_v = summaries[level, other]
                size = tokens_in_cell / len(far_k) if size_weight else 1.0
                keys.append(far_k)
                values.append(far_v)
                extra.append(torch.full((len(far_k),), log(size), dtype=q.dtype))
        rows.append(softmax_average(q[place], torch.cat(keys), torch.cat(values), torch.cat(extra)))
    return torch.stack(rows).reshape(v.shape)


def fma(sample: Tensor, weights: Weights, *, heads: int, cell: int, summarise: Summarise, size_weight: bool) -> Tensor:
    """[S, S, C] -> [S, S, C]; all heads share the summaries' filters."""
    grid = sample.shape[:2]

    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (part.reshape(*grid, -1) for part in (q, k, v))
        return multipole(q, k, v, cell=cell, summarise=summarise, size_weight=size_weight).reshape(len(v) ** 2, -1)

    return in_every_head(sample.reshape(-1, sample.shape[-1]), weights, heads, one_head).reshape(sample.shape)
