"""Fast multipole attention written out: each token reads near cells token by token and far ones in summary."""

from collections.abc import Callable
from functools import cache
from itertools import product
from math import log, prod
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import Weights, in_every_head
from mechanisms import Site

Cell = tuple[int, ...]  # on each axis, which cell or token of it
CASES = [
    Case(at(4, 4), {"heads": 2}),
    Case(at(8, 8), {"heads": 2}),
    Case(at(8, 8), {"heads": 2, "cell": 2, "rank": 3}),
    Case(at(8, 8), {"heads": 2, "cell": 1, "rank": 1}),
    Case(at(8, 8), {"heads": 2, "cell": 2, "rank": 2, "size_weight": False}),
    Case(at(8, 8), {"heads": 2, "cell": 2, "rank": 4, "basis": "average"}),
    Case(at(8, 8), {"heads": 2, "cell": 2, "rank": 1, "basis": "average", "size_weight": False}),
    Case(at(8, 8), {"heads": 2, "cell": 2, "rank": 2, "basis": "dense"}),
    Case(at(8, 8), {"heads": 2, "cell": 2, "far": False}),
    Case(at(8, 8), {"heads": 2, "cell": 2, "queries": "pooled"}),
    Case(at(8, 8), {"heads": 2, "cell": 1, "rank": 1, "queries": "pooled", "size_weight": False}),
    Case(at(12, 12), {"heads": 2, "cell": 3, "rank": 2}),
    Case(at(32), {"heads": 2}),
    Case(at(24), {"heads": 2, "cell": 3, "rank": 2}),
    Case(at(3), {"heads": 2, "cell": 3, "rank": 2}),
    Case(at(32), {"heads": 2, "cell": 2, "rank": 2, "basis": "average"}),
    Case(at(32), {"heads": 2, "cell": 2, "rank": 2, "basis": "dense", "size_weight": False}),
    Case(at(32), {"heads": 2, "cell": 4, "rank": 2, "queries": "pooled"}),
    Case(at(32), {"heads": 2, "cell": 2, "rank": 2, "basis": "average", "queries": "pooled"}),
    Case(at(16), {"heads": 2, "cell": 2, "rank": 1, "basis": "dense", "queries": "pooled"}),
    Case(at(32), {"heads": 2, "far": False}),
    Case(at(32, causal=True), {"heads": 2}),
    Case(at(48, causal=True), {"heads": 2, "cell": 3, "rank": 2}),
    Case(at(16, causal=True), {"heads": 2, "cell": 1, "rank": 1, "basis": "average"}),
    Case(at(32, causal=True), {"heads": 2, "cell": 2, "rank": 2, "basis": "dense", "size_weight": False}),
    Case(at(32, causal=True), {"heads": 2, "cell": 2, "rank": 2, "phantom": True}),
    Case(at(32, causal=True), {"heads": 2, "cell": 4, "rank": 2, "phantom": True, "size_weight": False}),
    Case(at(16, causal=True), {"heads": 2, "cell": 2, "far": False, "rank": 2}),
]
Summarise = Callable[[str, int, Tensor], Tensor]  # "q", "k" or "v", level, tokens of a cell [w, (w,) d] -> [p, d]


def levels_of(side: int, cell: int) -> int:
    """How many coarse levels a grid has: halve its cells per axis until 4 are left, counting the first."""
    levels, cells = 0, side // cell
    while cells >= 4:
        levels, cells = levels + 1, cells // 2
    return levels


def touches(a: Cell, b: Cell) -> bool:
    """Whether two cells of one level are the same or share a side or a corner."""
    return all(abs(one - other) <= 1 for one, other in zip(a, b, strict=True))


def within(place: Cell, width: int) -> Cell:
    """The cell of that width that holds a token, or of so many cells the one that holds a cell."""
    return tuple(one // width for one in place)


def every(count: int, axes: int) -> list[Cell]:
    """All cells, or all tokens, in flattened order."""
    return list(product(range(count), repeat=axes))


def near(place: Cell, *, side: int, cell: int, causal: bool = False) -> list[int]:
    """The tokens, in flattened order, in the cells that touch the cell of `place`; if causal, none after it."""
    home = within(place, cell)
    tokens = [i for i, other in enumerate(every(side, len(place))) if touches(home, within(other, cell))]
    return [i for i in tokens if i <= place[0]] if causal else tokens


def far(place: Cell, *, side: int, cell: int, level: int, causal: bool = False) -> list[Cell]:
    """The cells of a level that touch no cell of `place` while their parents touch its parent; if causal, earlier."""
    width = cell * 2 ** (level - 1)
    home = within(place, width)
    found = [
        other
        for other in every(side // width, len(place))
        if touches(within(home, 2), within(other, 2)) and not touches(home, other)
    ]
    return [other for other in found if other < home] if causal else found


def grouped(weights: Weights, name: Callable[[str, int], str], rank: int) -> Summarise:
    """Learned summaries: rank filters for each channel, channel c and filter t at output c rank + t of a convolution.

    name(kind, level) is the name of that convolution, for kind "q", "k" or "v".
    """

    def one(kind: str, level: int, block: Tensor) -> Tensor:
        filters, bias = weights[f"{name(kind, level)}.weight"], weights[f"{name(kind, level)}.bias"]
        rows = []
        for t in range(rank):
            channels = []
            for c in range(block.shape[-1]):
                output = c * rank + t
                read = [c] if filters.shape[1] == 1 else list(range(block.shape[-1]))  # dense filters read all channels
                parts = [(filters[output, i] * block[..., channel]).sum() for i, channel in enumerate(read)]
                channels.append(sum(parts, bias[output]))
            rows.append(torch.stack(channels))
        return torch.stack(rows)

    return one


def average(rank: int) -> Summarise:
    """Means over rank equal parts of a cell, squares on a grid."""

    def one(_kind: str, _level: int, block: Tensor) -> Tensor:
        axes = block.ndim - 1
        parts = round(rank ** (1 / axes))
        side = len(block) // parts
        means = []
        for part in every(parts, axes):
            here = tuple(slice(side * a, side * (a + 1)) for a in part)
            means.append(block[here].mean(dim=tuple(range(axes))))
        return torch.stack(means)

    return one


def every_token(_kind: str, _level: int, block: Tensor) -> Tensor:
    """The basis that loses nothing: each token is its own summary. With it, FMA is softmax attention."""
    return block.reshape(-1, block.shape[-1])


def cell_of(tokens: Tensor, cell: Cell, width: int) -> Tensor:
    """The tokens of one cell [w, (w,) d]."""
    return tokens[tuple(slice(width * one, width * (one + 1)) for one in cell)]


def phantoms(place: Cell, *, cell: int, levels: int, rank: int, size_weight: bool) -> list[float]:
    """Weights of the zeros before a causal sequence that a token sees in the released kernels."""
    found = [1.0] * (cell if place[0] < cell else 0)
    for level in range(1, levels + 1):
        width = cell * 2 ** (level - 1)
        first_pair, second_half = place[0] < 2 * width, place[0] % (2 * width) >= width
        rows = (2 if second_half else 1) * rank if first_pair else 0
        found += [width / rank if size_weight else 1.0] * rows
    return found


def mean_by_score(scores: Tensor, values: Tensor) -> Tensor:
    """The mean of n values [n, d], each weighing as the exponential of its score [n]."""
    shares = torch.exp(scores - scores.detach().max())
    return (shares / shares.sum()) @ values


def multipole(
    parts: tuple[Tensor, Tensor, Tensor], config: Any, *, summarise: Summarise, causal: bool, levels: int
) -> Tensor:
    """One head: q, k, v [S, (S,) d] -> [tokens, d], one softmax over near tokens and far summaries.

    Pooled queries: every level's scores are those of the summary that stands for the token's part of its cell.
    """
    q, k, v = parts
    side, axes = len(q), q.ndim - 1
    flat_k, flat_v = (part.reshape(side**axes, -1) for part in (k, v))
    tokens = {"q": q, "k": k, "v": v}

    @cache
    def summary(kind: str, level: int, cell: Cell) -> Tensor:
        return summarise(kind, level, cell_of(tokens[kind], cell, config.cell * 2 ** (level - 1)))

    rows = []
    for place in every(side, axes):
        mine = near(place, side=side, cell=config.cell, causal=causal)
        scores, values = [flat_k[mine] @ q[place]], [flat_v[mine]]
        extra = [torch.zeros(len(mine), dtype=q.dtype)]
        for level in range(1, levels + 1):
            width = config.cell * 2 ** (level - 1)
            asking = q[place]
            if config.queries == "pooled":
                cuts = round(config.rank ** (1 / axes))
                part = [one % width // (width // cuts) for one in place]
                row = sum(one * cuts ** (axes - 1 - axis) for axis, one in enumerate(part))
                asking = summary("q", level, within(place, width))[row]
            for other in far(place, side=side, cell=config.cell, level=level, causal=causal):
                far_k, far_v = summary("k", level, other), summary("v", level, other)
                size = width**axes / len(far_k) if config.size_weight else 1.0
                scores.append(far_k @ asking)
                values.append(far_v)
                extra.append(torch.full((len(far_k),), log(size), dtype=q.dtype))
        if config.phantom:
            known = {"cell": config.cell, "levels": levels, "rank": config.rank, "size_weight": config.size_weight}
            empty = phantoms(place, **known)
            scores.append(torch.zeros(len(empty), dtype=q.dtype))
            values.append(torch.zeros(len(empty), v.shape[-1], dtype=q.dtype))
            extra.append(torch.tensor([log(weight) for weight in empty], dtype=q.dtype))
        rows.append(mean_by_score(torch.cat(scores) / q.shape[-1] ** 0.5 + torch.cat(extra), torch.cat(values)))
    return torch.stack(rows)


def fma(sample: Tensor, weights: Weights, config: Any, *, summarise: Summarise, causal: bool = False) -> Tensor:
    """[S, (S,) C] -> the same; all heads share the summaries' filters."""
    sides = sample.shape[:-1]
    levels = levels_of(sides[0], config.cell) if config.far else 0

    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = (q.reshape(*sides, -1), k.reshape(*sides, -1), v.reshape(*sides, -1))
        return multipole(parts, config, summarise=summarise, causal=causal, levels=levels)

    tokens = sample.reshape(prod(sides), -1)
    return in_every_head(tokens, weights, config.heads, one_head).reshape(sample.shape)


def oracle(site: Site, config: Any) -> Oracle:
    def attend(weights: Weights, sample: Tensor) -> Tensor:
        learned = grouped(weights, lambda kind, level: f"{kind}_filters.{level - 1}", config.rank)
        summarise = average(config.rank) if config.basis == "average" else learned
        return fma(sample, weights, config, summarise=summarise, causal=site.causal)

    return attend
