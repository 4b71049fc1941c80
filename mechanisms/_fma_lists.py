"""Who looks at what in fast multipole attention: near cells and, on every level, the far ones, on one axis or two."""

from dataclasses import dataclass
from itertools import product
from math import log
from typing import Any

import torch
from torch import Tensor

from mechanisms._site import Site


@dataclass(frozen=True)
class Lists:
    """Lists of all finest cells.

    near: numbers of near cells [cells, up to 3^axes]. far: of far cells on all levels, counted on [cells, listed].
    weight: log weight of each key that they bring [cells, 1 or tokens of a cell, keys]; -inf where nothing is seen.
    real: which places of near and far hold a cell, and not a phantom [cells, near], [cells, listed].
    """

    near: Tensor
    far: Tensor
    weight: Tensor
    real: tuple[Tensor, Tensor]


def lists(site: Site, config: Any, levels: int) -> Lists:
    """Of a site whose axes are alike; config is that of `fma`."""
    side, axes, causal, cell = site.shape[0], len(site.shape), site.causal, config.cell
    finest = side // cell
    here = places(range(finest), axes)
    near, near_real = around(here, finest, causal)
    seen = torch.ones_like(near_real) if config.phantom else near_real
    weights = [expand(log_weight(seen, cell**axes, 1.0), (near == here[:, :1]) & near_real, cell, causal)]
    fars, reals, start = [], [], 0
    for level in range(levels):
        wide = cell * 2**level
        far, real, slots = interactions(here // 2**level, side // wide, causal)
        stands_for = wide**axes / config.rank if config.size_weight else 1.0
        weights.append(log_weight(slots if config.phantom else real, config.rank, stands_for).unsqueeze(1))
        fars.append(far + start)
        reals.append(real)
        start += (side // wide) ** axes
    empty = torch.zeros(len(here), 0, dtype=torch.long)
    rows = max(weight.shape[1] for weight in weights)
    weight = torch.cat([weight.expand(-1, rows, -1) for weight in weights], 2)
    return Lists(near, torch.cat([empty, *fars], 1), weight, (near_real, torch.cat([empty.bool(), *reals], 1)))


def places(steps: range, axes: int) -> Tensor:
    """Every combination of the steps on all axes [steps^axes, axes]."""
    return torch.tensor(list(product(steps, repeat=axes))).reshape(-1, axes)


def around(place: Tensor, side: int, causal: bool) -> tuple[Tensor, Tensor]:
    """A cell's own and its neighbours, only those up to it if causal: numbers and whether they exist [n, listed]."""
    axes = place.shape[1]
    cells = place.unsqueeze(1) + places(range(-1, 1 if causal else 2), axes)
    exists = ((cells >= 0) & (cells < side)).all(-1)
    return listed(cells, exists, side, exists.shape[1] if causal else min(side, 3) ** axes)[:2]


def interactions(place: Tensor, side: int, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Children of a cell's parent and of its neighbours that do not neighbour the cell: numbers, and which exist.

    Of n places [n, axes]; lists are as long as the longest can be. A causal one holds only cells before, at most two;
    the third answer says which of its places are the list's own, also where they lie before the first cell.
    """
    axes = place.shape[1]
    cells = (place // 2 * 2).unsqueeze(1) + places(range(-2, 4), axes)
    apart = ((cells - place.unsqueeze(1)).abs() > 1).any(-1)
    if causal:
        apart &= (cells < place.unsqueeze(1)).all(-1)
    exists = ((cells >= 0) & (cells < side)).all(-1)
    most = 2 if causal else 4**axes - 2**axes if side == 4 else 6**axes - 3**axes
    numbers, slots, real = listed(cells, apart if causal else apart & exists, side, most, exists & apart)
    return numbers, real, slots


def listed(
    cells: Tensor, counts: Tensor, side: int, most: int, real: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of the cells [n, m, axes] that count, first: numbers [n, most], which places are filled, which are real."""
    first = counts.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    inside = cells.clamp(0, side - 1)  # what lies outside does not count, and needs a number all the same
    numbers = inside[..., 0] if cells.shape[2] == 1 else inside[..., 0] * side + inside[..., 1]
    real = counts if real is None else real
    return numbers.gather(1, first), counts.gather(1, first), real.gather(1, first)


def log_weight(counts: Tensor, keys: int, stands_for: float) -> Tensor:
    """Log weights [n, listed * keys] of cells that bring some keys each; -inf where a list's place is empty."""
    exact = torch.full(counts.shape, log(stands_for), dtype=torch.float64)  # of any precision that tokens may have
    return exact.masked_fill(~counts, -torch.inf).repeat_interleave(keys, 1)


def expand(weight: Tensor, own: Tensor, cell: int, causal: bool) -> Tensor:
    """Near weights [cells, keys] for every query of a cell [cells, 1 or m, keys]: if causal, none after the query.

    own: which listed cell is the query's [cells, listed].
    """
    if not causal:
        return weight.unsqueeze(1)
    within = torch.arange(cell).repeat(own.shape[1])
    later = own.repeat_interleave(cell, 1).unsqueeze(1) & (within > torch.arange(cell).unsqueeze(1))
    return weight.unsqueeze(1).masked_fill(later, -torch.inf)
