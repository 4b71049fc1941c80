"""The kind of figure in which every variant has a line of its own: seeds, their mean, and what became of the rest."""

import textwrap
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from attnbench.reports.bounded import mean_of
from attnbench.reports.canvas import (
    QUIET,
    WIDTH_IN,
    WRONG,
    Drawing,
    Rows,
    against,
    blank,
    cause,
    colors,
    drawable,
    entitled,
    finish,
    group,
    levels,
    limits,
    note,
    reached,
    scale,
    seeds,
    shown,
    unseen,
    value,
    word,
)
from attnbench.reports.columns import measured, worth
from attnbench.reports.names import ABOVE, SHORT, cut, shortened
from attnbench.reports.references import references
from attnbench.reports.rows import counted
from attnbench.reports.stats import Interval
from attnbench.reports.summary import split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_IN = 0.17
LINES = 160  # of all panels, beyond which a figure of lines is longer than anybody reads
LEAST = 12  # lines that a panel has all the same
TOLD = 60  # letters of a line that names levels
LONGEST = 26  # letters of a line's name with which two panels stand side by side
STRIPS = "Ticks and bars: mean and 95 % t interval, within what can be."


@dataclass(frozen=True)
class Spot:
    """One variant in a figure: its rows, those with numbers, and the mean of y over them."""

    variant: str
    rows: Rows
    found: Rows
    y: Interval

    @property
    def group(self) -> str:
        return group(self.rows[0])

    @property
    def whole(self) -> bool:
        """Whether all seeds that were asked have a number."""
        return len(self.found) == len(self.rows)


def spots(about: Rows, drawing: Drawing) -> list[Spot]:
    """Every variant of the rows, also those without a number."""
    made = []
    for (variant,), rows in split(about, ["variant"]):
        found = [row for row in rows if drawable(row, drawing)]
        made.append(Spot(variant, rows, found, mean_of(drawing.y, [float(row[drawing.y]) for row in found])))
    return made


def variants(rows: Rows, drawing: Drawing) -> Figure:
    """Every variant on a line of its own, grouped by mechanism, the best first; failed ones keep their line.

    With `panel` all this for each of its values, on a scale of its own. Of very many variants the first stand for all.
    """
    about, _ = shown(rows, drawing)
    parts = apart(about, drawing)
    panels = [panel(*own) for own in parts]
    asked, most = sum(len(one.order) for one in panels), max(LINES // max(len(panels), 1), LEAST)
    panels = [replace(one, order=one.order[:most], names=one.names[:most]) for one in panels]
    if not any(spot.found for one in panels for spot in one.order):
        return blank(drawing, about)
    hue = colors(levels(rows, "mechanism"))
    short = [shortened(one.names) for one in panels]
    panels = [replace(one, names=[own[name] for name in one.names]) for one, own in zip(panels, short, strict=True)]
    longest = max(len(name) for one in panels for name in one.names)
    across = 2 if len(panels) > 1 and longest <= LONGEST else 1
    down = -(-len(panels) // across)
    heights = [max(len(one.order) for one in panels[across * i :][:across]) for i in range(down)]
    figure = Figure(figsize=(WIDTH_IN, 0.4 + 0.6 * down + ROW_IN * sum(heights)), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False, height_ratios=[height + 2 for height in heights]).flat)
    all_spots = [spot for one in panels for spot in one.order]
    usual = most_often(all_spots)
    cuts = [strips(axes, one, hue, usual) for axes, one in zip(grid, panels, strict=False)]
    for axes in grid[len(panels) :]:
        axes.remove()
    entitled(figure, drawing, panels=len(panels))
    lost = [row for _, own, one in parts for row in own if not drawable(row, one)]
    kept = len(all_spots)
    fewer = f"The first {kept} of {asked} variants; of the others the tables tell." if kept < asked else ""
    less = SHORT if any(map(cut, short)) else ""
    note(figure, f"{points(all_spots, usual)} {max(cuts)}", fewer, unseen(lost, len(about)) if fewer else "", less)
    return figure


@dataclass(frozen=True)
class Panel:
    """Some variants in their order, the names of their lines, and the drawing that is theirs."""

    title: str
    order: list[Spot]
    names: list[str]
    drawing: Drawing


def apart(about: Rows, drawing: Drawing) -> list[tuple[str, Rows, Drawing]]:
    """The title, the rows and the drawing of each panel; with `y` empty each is of its rows' own first measure."""
    found = []
    parts = [rows for _, rows in split(about, [drawing.panel] if drawing.panel else [])]
    titles = [word(value(rows[0], drawing.panel)) if drawing.panel else "" for rows in parts]
    short = shortened(titles, ABOVE)
    for title, rows in zip(titles, parts, strict=True):
        found.append((short[title], rows, replace(drawing, y=drawing.y or measured(rows, rows[0])[0])))
    return found


def panel(title: str, rows: Rows, drawing: Drawing) -> Panel:
    """These rows as a panel; where panels are tasks, the lines do not repeat the task."""
    order = ranked(spots(rows, drawing), drawing.y)
    names = [spot.variant for spot in order]
    if drawing.panel == "task":
        names = [" · ".join(part for part in name.split(" · ") if part.split(" ")[0] != title) for name in names]
    return Panel(title, order, names, drawing)


def most_often(made: list[Spot]) -> int:
    """How many seeds most of the variants have that lack none, so that only the others need be told."""
    counts = Counter(len(spot.rows) for spot in made if spot.whole)
    return max(counts, key=lambda count: (counts[count], count), default=0)


def points(made: list[Spot], usual: int) -> str:
    """What the points are, and what stands at the right of some variants."""
    if all(spot.whole and len(spot.rows) == usual for spot in made):
        return f"Points: seeds, {usual} on each line. {STRIPS}"
    return f"Points: seeds. {STRIPS} Right: seeds drawn / asked{f', where not {usual}/{usual}' if usual else ''}."


def strips(axes: "Axes", one: Panel, hue: dict[Any, Any], usual: int) -> str:
    """Fills a panel; returns a sentence if bars reach beyond its frame. usual: seeds of a variant, told of no line."""
    found = [row for spot in one.order for row in spot.found]
    numbers = [float(row[one.drawing.y]) for row in found]
    log = scale(axes, "x", one.drawing.y, numbers, log_from=6)
    near, told = reached(references(one.drawing.y, found), numbers, log=log)
    bounds = [bound for spot in one.order for bound in (spot.y.low, spot.y.high) if spot.found]
    left, right, cut = limits([*numbers, *near.values()], bounds, log=log) if found else (0.0, 1.0, "")
    axes.set_xlim(left, right)
    against(axes, "x", near.values())
    axes.set_xlabel("\n".join([axes.get_xlabel(), *textwrap.wrap(told, TOLD)]))
    seeds_and_means(axes, one, hue)
    for place, spot in enumerate(one.order):
        if not spot.whole or len(spot.rows) != usual:
            beside(axes, place, spot, one.drawing)
        if place and spot.group != one.order[place - 1].group:
            axes.axhline(place - 0.5, color="#bbbbbb", linewidth=0.5)
    axes.set_ylim(len(one.order) - 0.4, -0.6)
    axes.set_yticks(range(len(one.order)), one.names, fontsize=6.5)
    axes.tick_params(axis="y", length=0)
    axes.yaxis.set_label_coords(0, 0.5)  # there is none, and its place and the title's need not be sought among names
    axes.set_title(one.title, loc="left", y=1.0)
    finish(axes, grid="x")
    return cut


def seeds_and_means(axes: "Axes", one: Panel, hue: dict[Any, Any]) -> None:
    """All variants' seeds, means and intervals, drawn together, for one after the other takes ten times as long."""
    found = [(place, spot, hue[spot.group]) for place, spot in enumerate(one.order) if spot.found]
    points = [(float(row[one.drawing.y]), place, color) for place, spot, color in found for row in spot.found]
    left = axes.get_xlim()[0]
    seeds(axes, points, size=2.8, alpha=0.75)
    ends = [[(max(spot.y.low, left), place), (spot.y.high, place)] for place, spot, _ in found]
    look: dict[str, Any] = {"linewidths": 6, "alpha": 0.3, "capstyle": "butt", "zorder": 2}
    axes.add_collection(LineCollection(ends, colors=[color for *_, color in found], **look), autolim=False)
    tick: dict[str, Any] = {
        "linestyle": "",
        "marker": "|",
        "markersize": 8,
        "markeredgewidth": 1.4,
        "color": "#222222",
        "zorder": 4,
    }
    axes.plot([spot.y.mean for _, spot, _ in found], [place for place, *_ in found], **tick)


def beside(axes: "Axes", place: int, spot: Spot, drawing: Drawing) -> None:
    """To the right of a variant how many of its seeds there are and what became of the others."""
    causes = counted(cause(row) for row in spot.rows if not drawable(row, drawing))
    words = [f"{len(spot.found)}/{len(spot.rows)}", ", ".join(f"{count} {why}" for why, count in causes)]
    right = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 6.5}
    axes.text(1.01, place, "  ".join(filter(None, words)), color=QUIET if spot.whole else WRONG, **right)


def ranked(made: list[Spot], column: str) -> list[Spot]:
    """Groups by their best variant, variants by their mean, those without a number last."""
    rank = {spot.variant: (not spot.found, worth(column, spot.y.mean) if spot.found else 0.0) for spot in made}
    best = {spot.group: min(rank[other.variant] for other in made if other.group == spot.group) for spot in made}
    return sorted(made, key=lambda spot: (best[spot.group], spot.group, rank[spot.variant], spot.variant))
