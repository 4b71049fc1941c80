"""FMA: exact attention to near tokens and, in the same softmax, attention to learned summaries of larger far cells.

Kang, Tran and De Sterck, "Fast Multipole Attention", 2023, version 4 for grids. https://arxiv.org/abs/2310.11960
Work N log N: a query sees near tokens, and at most 3 p summaries (27 p on grids) on each of log2(n / r) - 1 levels.
With pooled queries the attention is N; summaries by filters still read all tokens on every level, at 2 p products a
channel, and only averages, made of those of the level below, are N in all.
Finest cells have side r, on level l = 1, 2, ... cells have side w_l = r 2^(l-1), up to a quarter of the site. Near are
the query's own cell and its neighbours; on level l a query sees the cells whose parents neighbour its own parent and
which do not neighbour its own cell, of a causal sequence only those before. So each pair of tokens is covered once.
Pooled queries: on each level a cell's queries become p rows too, a token takes its part's row, and near field and
levels are merged by their normalisers.
Departs from the paper: no code for grids or pooled queries is known, so these are the direct analogues; a summary
weighs w_l / p exactly (w_l^2 / p on grids), where the released code rounds down; the released causal kernels also let
every query see zeros before the first token, here only with `phantom`; keys are gathered and handed to torch's fused
attention.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._fma_lists import interactions, lists, log_weight, places
from mechanisms._fma_pooled import asked, merged, rows_of_rows, rows_of_tokens
from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import Reach, register
from mechanisms._site import Site, Tokens

CELLS = {1: "b (i m) (h d) -> b h i m d", 2: "b (i m) (j n) (h d) -> b h (i j) (m n) d"}
TOKENS = {1: "b h i m d -> b (i m) (h d)", 2: "b h (i j) (m n) d -> b (i m) (j n) (h d)"}
GRID = {1: "b h i m d -> (b h) d (i m)", 2: "b h (i j) (m n) d -> (b h) d (i m) (j n)"}
SUMMARIES = {1: "b (d p) i -> b i p d", 2: "b (d p) i j -> b (i j) p d"}
MEANS = {1: "b d (i s) -> b i s d", 2: "b d (i s) (j t) -> b (i j) (s t) d"}


class Config(Knobs):
    neutral: ClassVar[Mapping[str, Any]] = {"queries": "fine", "phantom": False, "far": True}

    heads: PositiveInt = 4
    """number of heads; divides the channels; all heads share the filters"""
    cell: PositiveInt = 4
    """side r of a finest cell in tokens; the site's side is a power of two times r"""
    rank: PositiveInt = 4
    """number p of summaries of a far cell"""
    basis: Literal["grouped", "average", "dense"] = "grouped"
    """how a cell is summarised: p learned filters for each channel, means over p equal parts, or filters that also mix
    the channels of a head"""
    size_weight: bool = True
    """whether a summary counts in the softmax as the tokens that it stands for, or as one"""
    queries: Literal["fine", "pooled"] = "fine"
    """whether every token asks far cells itself, or a cell's queries are summarised too, which makes attention N"""
    phantom: bool = False
    """whether, as in the released causal kernels, zeros before the first token are seen"""
    far: bool = True
    """whether far cells are seen at all; without them it is attention to the near cells"""

    def idle(self) -> set[str]:
        return set() if self.far else {"rank", "basis", "size_weight", "queries"}


def reach(site: Site, config: Config) -> Reach:
    if config.far or max(site.shape) <= 2 * config.cell:
        return "global"
    return "token" if site.tokens == 1 else "local"


@register(
    "fma",
    Config,
    fits=("sequence", "causal", "grid"),
    order="N log N",
    order_of=lambda _, config: (
        "N" if not config.far or (config.queries, config.basis) == ("pooled", "average") else "N log N"
    ),
    reach=reach,
    bound_to_shape=lambda _, config: config.far and config.basis != "average",
)
class Fma(nn.Module):
    near: Tensor
    far: Tensor
    weight: Tensor
    real_near: Tensor
    real_far: Tensor

    def __init__(self, site: Site, config: Config):
        super().__init__()
        width = head_channels(site, config.heads, of="fma")
        levels = far_levels(site, config)
        refuse_misfit(site, config)
        levels = levels if config.far else 0
        self.axes, self.heads, self.cell, self.rank = len(site.shape), config.heads, config.cell, config.rank
        self.sides = [config.cell * 2**level for level in range(levels)]
        self.pooled, self.phantom = config.queries == "pooled" and config.far, config.phantom
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        sides = self.sides if config.basis != "average" else []
        groups = width if config.basis == "grouped" else 1
        self.k_filters, self.v_filters = (made_filters(width, config.rank, sides, groups, self.axes) for _ in range(2))
        self.q_filters = made_filters(width, config.rank, sides if self.pooled else [], groups, self.axes)
        who = lists(site, config, 0 if self.pooled else levels)
        self.register_buffer("near", who.near, persistent=False)
        self.register_buffer("far", who.far, persistent=False)
        self.register_buffer("weight", who.weight, persistent=False)
        self.register_buffer("real_near", who.real[0], persistent=False)
        self.register_buffer("real_far", who.real[1], persistent=False)
        if self.pooled:
            self.list_levels(site, config)

    def list_levels(self, site: Site, config: Config) -> None:
        """Of every level: whom its cells ask, with what weight, and its row for each row of the next finer one, of the
        finest for each token [finest cells, tokens of one]."""
        side, parts = site.shape[0], config.rank if self.axes == 1 else isqrt(config.rank)
        finer = None
        for level, wide in enumerate(self.sides):
            far, real, _ = interactions(places(range(side // wide), self.axes), side // wide, False)
            stands_for = wide**self.axes / config.rank if config.size_weight else 1.0
            row = rows_of_tokens(side=side, axes=self.axes, cell=config.cell, wide=wide, parts=parts)
            rows = (side // wide * parts) ** self.axes
            handed = row if finer is None else rows_of_rows(finer, row)[: rows * 2**self.axes]
            weigh = log_weight(real, config.rank, stands_for)
            for name, buffer in (("who", far), ("weigh", weigh), ("row", handed)):
                self.register_buffer(f"{name}_{level}", buffer, persistent=False)
            finer = row

    def forward(self, x: Tokens) -> Tokens:
        sides = {"h": self.heads, "m": self.cell, **({"n": self.cell} if self.axes == 2 else {})}
        q, k, v = (rearrange(p(x), CELLS[self.axes], **sides) for p in (self.q, self.k, self.v))
        y = self.ask_together(q, k, v) if self.pooled else self.ask_alone(q, k, v)
        size = {"i": x.shape[1] // self.cell, **sides}
        return self.out(rearrange(y, TOKENS[self.axes], **size))

    def ask_alone(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every token asks near tokens and far summaries in one softmax; [b, h, cells, tokens of a cell, d] to it."""
        k, v = self.keys(k, self.k_filters), self.keys(v, self.v_filters)
        q, k, v = (rearrange(t, "b h c n d -> b (h c) n d") for t in (q, k, v))
        weight = self.weight.to(q.dtype).repeat(self.heads, 1, 1)  # [heads * cells, 1 or tokens of a cell, keys]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=weight)
        return rearrange(y, "b (h c) n d -> b h c n d", h=self.heads)

    def ask_together(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every token asks near tokens; far cells are asked by summaries of its cells' queries; then both are one.

        From the coarsest level on, what a level read is handed to the rows of the next finer one and merged there, so
        that nothing is held for every token and level.
        """
        near_k, near_v = (self.gathered(t, self.near, self.real_near) for t in (k, v))
        near = asked(q, near_k, near_v, self.weight)
        if not self.sides:
            return near[0]
        filters, far = (self.q_filters, self.k_filters, self.v_filters), None
        summaries = [self.summaries(self.grid(t), f) for t, f in zip((q, k, v), filters, strict=True)]
        for level in reversed(range(len(self.sides))):
            here = self.ask_level([found[level] for found in summaries], level)
            far = here if far is None else merged(here, far)
            row = self.get_buffer(f"row_{level}")
            far = far[0][:, row], far[1][:, row]
        assert far is not None
        return merged(near, (far[0].unflatten(0, q.shape[:2]), far[1].unflatten(0, q.shape[:2])))[0]

    def ask_level(self, summaries: list[Tensor], level: int) -> tuple[Tensor, Tensor]:
        """What the summaries of queries read on a level [(b h), rows, d], and log normalisers [(b h), rows]."""
        q, k, v = summaries
        far, weight = self.get_buffer(f"who_{level}"), self.get_buffer(f"weigh_{level}")
        y, mass = asked(q, k[:, far].flatten(2, 3), v[:, far].flatten(2, 3), weight.unsqueeze(1))
        return y.flatten(1, 2), mass.flatten(1, 2)

    def keys(self, tokens: Tensor, filters: nn.ModuleList) -> Tensor:
        """What every cell's queries look at [b, h, cells, near tokens + far summaries, d]."""
        near = self.gathered(tokens, self.near, self.real_near)
        if not self.sides:
            return near
        summaries = torch.cat(self.summaries(self.grid(tokens), filters), 1)
        far = self.gathered(summaries.unflatten(0, tokens.shape[:2]), self.far, self.real_far)
        return torch.cat([near, far], 3)

    def gathered(self, cells: Tensor, numbers: Tensor, real: Tensor) -> Tensor:
        """The listed cells' rows [b, h, cells, listed * rows, d]; phantoms are zeros."""
        rows = cells[:, :, numbers]
        if self.phantom:
            rows = rows * real.to(rows.dtype).unsqueeze(-1).unsqueeze(-1)
        return rows.flatten(3, 4)

    def grid(self, cells: Tensor) -> Tensor:
        """Tokens in cells [b, h, cells, n, d] as a grid [(b h), d, *sides], as convolutions want it."""
        rows = cells.shape[2] if self.axes == 1 else isqrt(cells.shape[2])
        return rearrange(cells, GRID[self.axes], i=rows, m=self.cell)

    def summaries(self, grid: Tensor, filters: nn.ModuleList) -> list[Tensor]:
        """Of tokens [(b h), d, *sides] every level's rank summaries of its cells [(b h), cells, rank, d], finest first.

        Means over a part of a cell are made of the means over its halves.
        """
        if filters:
            return [rearrange(made(grid), SUMMARIES[self.axes], p=self.rank) for made in filters]
        parts = self.rank if self.axes == 1 else isqrt(self.rank)
        sides = {"s": parts, **({"t": parts} if self.axes == 2 else {})}
        pool, found = F.avg_pool1d if self.axes == 1 else F.avg_pool2d, []
        for level in range(len(self.sides)):
            grid = pool(grid, 2 if level else self.cell // parts)
            found.append(rearrange(grid, MEANS[self.axes], **sides))
        return found


def refuse_misfit(site: Site, config: Config) -> None:
    """Raises ValueError for knobs that the site does not take."""
    axes, most = len(site.shape), config.cell ** len(site.shape)
    if config.far and config.rank > most:
        raise ValueError(f"fma.rank is at most the {most} tokens of a cell of side {config.cell}; got {config.rank}.")
    parts = isqrt(config.rank) if axes == 2 else config.rank
    even = parts**axes == config.rank and config.cell % parts == 0
    if config.far and not even and (config.basis == "average" or config.queries == "pooled"):
        knob = "basis average" if config.basis == "average" else "queries pooled"
        what = "squares, so rank is a square whose root" if axes == 2 else "stretches, so rank"
        raise ValueError(
            f"fma with {knob} cuts a cell of side {config.cell} into rank equal {what} divides the side; "
            f"got {config.rank}."
        )
    if config.far and site.causal and config.queries == "pooled":
        raise ValueError("fma.queries pooled mixes a cell's queries with later ones; a causal site takes fine.")
    if config.phantom and not site.causal:
        raise ValueError(f"fma.phantom is about the start of a causal sequence; this site is a {site.setting}.")


def far_levels(site: Site, config: Config) -> int:
    """How many far levels there are. Raises ValueError unless each axis has the same power of two of cells."""
    cells = site.shape[0] // config.cell
    if len(set(site.shape)) > 1 or site.shape[0] % config.cell or cells & (cells - 1) or not cells:
        takes = "a square grid whose side" if len(site.shape) == 2 else "a sequence whose length"
        got = " x ".join(map(str, site.shape))
        raise ValueError(f"fma takes {takes} is fma.cell times a power of two; got {got} with cell {config.cell}.")
    return max(0, cells.bit_length() - 2)


def made_filters(channels: int, rank: int, sides: list[int], groups: int, axes: int) -> nn.ModuleList:
    """For each side of cells, rank filters of a cell's size for every channel of a head.

    Filter t of channel c is output c * rank + t.
    """
    kind = nn.Conv1d if axes == 1 else nn.Conv2d
    return nn.ModuleList(kind(channels, rank * channels, side, side, groups=groups) for side in sides)
