"""FMA: exact attention to near tokens and, in the same softmax, attention to learned summaries of larger far cells.

Kang, Tran and De Sterck, "Fast Multipole Attention", 2023, version 4 for grids. https://arxiv.org/abs/2310.11960
Work N log N: a query sees at most 9 r^2 near tokens and 27 p summaries on each of log2(S / r) - 1 levels.
The grid is S x S, cells have side r, level l = 1, 2, ... has cells of side w_l = r 2^(l-1) up to S / 4. Near are the
3 x 3 cells around the query's own; on level l a query sees the cells whose parents neighbour its own parent and which
do not neighbour its own cell. Each pair of tokens is thereby covered exactly once.
Departs from the paper: the published text describes sequences in detail and grids in outline, and no code for grids is
known, so this is its direct two-dimensional analogue; queries are not summarised (the paper's N log N form); a summary
weighs w_l^2 / p exactly, where the code for sequences rounds down; keys are gathered and handed to torch's fused
attention, where the paper has kernels of its own.
"""

from math import isqrt, log
from typing import Literal

import torch
from einops import rearrange
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels; all heads share the filters"""
    cell: PositiveInt = 4
    """side r of a finest cell in tokens; the grid's side is a power of two times r"""
    rank: PositiveInt = 4
    """number p of summaries of a far cell"""
    basis: Literal["grouped", "average"] = "grouped"
    """how a cell is summarised: p learned filters for each channel, or means over p equal squares"""
    size_weight: bool = True
    """whether a summary counts in the softmax as the w_l^2 / p tokens that it stands for, or as one"""

    @model_validator(mode="after")
    def summaries_suit_a_cell(self) -> "Config":
        if self.rank > self.cell**2:
            raise ValueError(
                f"rank is at most the {self.cell**2} tokens of a cell of side {self.cell}; got {self.rank}."
            )
        root = isqrt(self.rank)
        if self.basis == "average" and (root**2 != self.rank or self.cell % root):
            raise ValueError(
                f"basis average cuts a cell of side {self.cell} into rank equal squares, "
                f"so rank is a square whose root divides the side; got {self.rank}."
            )
        return self


@register("fma", Config, fits=("grid",), order="N log N", bound_to_shape=True)
class Fma(nn.Module):
    near: Tensor
    far: Tensor
    weight: Tensor

    def __init__(self, site: Site, config: Config):
        super().__init__()
        width = head_channels(site, config.heads, of="fma")
        levels = far_levels(site, config)
        self.heads, self.cell, self.rank = config.heads, config.cell, config.rank
        self.sides = [config.cell * 2**level for level in range(levels)]
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        grouped = config.basis == "grouped"
        self.k_filters, self.v_filters = (
            nn.ModuleList(filters(width, config.rank, side) for side in self.sides if grouped) for _ in range(2)
        )
        near, far, weight = key_lists(site.shape[0], config, self.sides)
        self.register_buffer("near", near, persistent=False)
        self.register_buffer("far", far, persistent=False)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tokens) -> Tokens:
        cells = "b (i m) (j n) (h d) -> b h (i j) (m n) d"
        q, k, v = (rearrange(p(x), cells, h=self.heads, m=self.cell, n=self.cell) for p in (self.q, self.k, self.v))
        k, v = self.keys(k, self.k_filters), self.keys(v, self.v_filters)
        q, k, v = (rearrange(t, "b h c n d -> b (h c) n d") for t in (q, k, v))
        weight = self.weight.to(q.dtype).repeat(self.heads, 1).unsqueeze(1)  # [heads * cells, 1, keys]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=weight)
        rows = x.shape[1] // self.cell
        return self.out(rearrange(y, "b (h i j) (m n) d -> b (i m) (j n) (h d)", h=self.heads, i=rows, m=self.cell))

    def keys(self, tokens: Tensor, filters: nn.ModuleList) -> Tensor:
        """What every cell's queries look at [b, h, cells, near tokens + far summaries, d]."""
        near = tokens[:, :, self.near].flatten(3, 4)
        if not self.sides:
            return near
        rows = isqrt(tokens.shape[2])
        grid = rearrange(tokens, "b h (i j) (m n) d -> (b h) d (i m) (j n)", i=rows, m=self.cell)
        summaries = torch.cat([self.summarise(grid, side, filters) for side in self.sides], 1)
        far = summaries.unflatten(0, tokens.shape[:2])[:, :, self.far].flatten(3, 4)
        return torch.cat([near, far], 3)

    def summarise(self, grid: Tensor, side: int, filters: nn.ModuleList) -> Tensor:
        """The rank summaries of all cells of one side [(b h), cells, rank, d], from the tokens [(b h), d, S, S]."""
        if filters:
            return rearrange(filters[self.sides.index(side)](grid), "b (d p) i j -> b (i j) p d", p=self.rank)
        root = isqrt(self.rank)
        means = F.avg_pool2d(grid, side // root)
        return rearrange(means, "b d (i s) (j t) -> b (i j) (s t) d", s=root, t=root)


def far_levels(site: Site, config: Config) -> int:
    """How many far levels the grid has. Raises ValueError unless it is a square of a power of two cells a side."""
    height, width = site.shape
    cells = height // config.cell
    if height != width or height % config.cell or cells & (cells - 1):
        raise ValueError(
            f"fma takes a square grid whose side is fma.cell times a power of two; got {height} x {width} with cell "
            f"{config.cell}."
        )
    return max(0, cells.bit_length() - 2)


def filters(channels: int, rank: int, side: int) -> nn.Conv2d:
    """Rank filters of a cell's size for each channel of a head; filter t of channel c is output c * rank + t."""
    return nn.Conv2d(channels, rank * channels, side, side, groups=channels)


def key_lists(tokens: int, config: Config, sides: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """For every finest cell: its near cells [cells, 9], its far cells over all levels [cells, listed], and the log
    weight of each key they bring [cells, keys], -inf for places of the lists that stay empty."""
    here = torch.cartesian_prod(*(torch.arange(tokens // config.cell),) * 2)  # place of each finest cell [cells, 2]
    near, near_open = around(here, tokens // config.cell)
    lists, weights = [torch.zeros(len(here), 0, dtype=torch.long)], [log_weight(near_open, config.cell**2, 1.0)]
    start = 0  # where a level's cells begin among the cells of all levels
    for level, side in enumerate(sides):
        far, far_open = interactions(here // 2**level, tokens // side)
        lists.append(far + start)
        stands_for = side**2 / config.rank if config.size_weight else 1.0
        weights.append(log_weight(far_open, config.rank, stands_for))
        start += (tokens // side) ** 2
    return near, torch.cat(lists, 1), torch.cat(weights, 1)


def around(place: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The 3 x 3 cells around each place [n, 2] on a side x side grid: numbers and whether they exist, [n, up to 9]."""
    steps = torch.cartesian_prod(*(torch.arange(-1, 2),) * 2)
    cells = place.unsqueeze(1) + steps
    exists = ((cells >= 0) & (cells < side)).all(-1)
    return listed(cells, exists, side, min(side, 3) ** 2)


def interactions(place: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Children of the 3 x 3 parents around each place [n, 2] that do not neighbour it: their numbers and which count.

    At most 27 of the 36 children are listed, on the coarsest grid of 4 x 4 at most 12: [n, 27] or [n, 12].
    """
    steps = torch.cartesian_prod(*(torch.arange(-2, 4),) * 2)
    cells = (place // 2 * 2).unsqueeze(1) + steps
    counts = ((cells >= 0) & (cells < side)).all(-1) & ((cells - place.unsqueeze(1)).abs() > 1).any(-1)
    return listed(cells, counts, side, 12 if side == 4 else 27)


def listed(cells: Tensor, counts: Tensor, side: int, most: int) -> tuple[Tensor, Tensor]:
    """Those of the cells [n, m, 2] that count, first: numbers [n, most], and which places of the list are filled."""
    first = counts.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    cells = cells.clamp(0, side - 1)  # what lies outside does not count, and needs a number all the same
    return (cells[..., 0] * side + cells[..., 1]).gather(1, first), counts.gather(1, first)


def log_weight(counts: Tensor, keys: int, stands_for: float) -> Tensor:
    """Log weights [n, listed * keys] of cells that bring some keys each; -inf where a list's place is empty."""
    exact = torch.full(counts.shape, log(stands_for), dtype=torch.float64)  # of any precision that tokens may have
    weight = exact.masked_fill(~counts, -torch.inf)
    return weight.repeat_interleave(keys, 1)
