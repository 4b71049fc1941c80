"""Two kinds of figures in which every variant has its own place: a strip for each, and a point for each."""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnbench.reports import fronts
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
    finish,
    group,
    holes,
    legend,
    levels,
    limits,
    markers,
    note,
    reached,
    scale,
    shown,
    value,
    word,
)
from attnbench.reports.columns import described, measured, worth
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
SEEDS = {"s": 8, "alpha": 0.75, "linewidths": 0, "gid": "seeds", "zorder": 3}
MEANS = "Small points: seeds. Large points and bars: mean and 95 % t interval over seeds, within what can be."
STRIPS = "Points: seeds. Ticks and bars: mean and 95 % t interval, within what can be. Right: seeds drawn / asked."


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
    panels = [panel(own, drawing) for _, own in split(about, [drawing.panel] if drawing.panel else [])]
    asked, most = sum(len(one.order) for one in panels), max(LINES // max(len(panels), 1), LEAST)
    panels = [replace(one, order=one.order[:most], names=one.names[:most]) for one in panels]
    if not any(spot.found for one in panels for spot in one.order):
        return blank(drawing, about)
    hue = colors(levels(rows, "mechanism"))
    longest = max(len(name) for one in panels for name in one.names)
    across = 2 if len(panels) > 1 and longest <= LONGEST else 1
    down = -(-len(panels) // across)
    heights = [max(len(one.order) for one in panels[across * i :][:across]) for i in range(down)]
    figure = Figure(figsize=(WIDTH_IN, 0.4 + 0.6 * down + ROW_IN * sum(heights)), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False, height_ratios=[height + 2 for height in heights]).flat)
    cuts = [strips(axes, one, hue) for axes, one in zip(grid, panels, strict=False)]
    for axes in grid[len(panels) :]:
        axes.remove()
    if len(panels) == 1:
        figure.axes[0].set_title(drawing.title or "", loc="left")
    elif drawing.title:
        figure.suptitle(drawing.title, x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    kept = sum(len(one.order) for one in panels)
    fewer = f"The first {kept} of {asked} variants; of the others the tables tell." if kept < asked else ""
    note(figure, f"{STRIPS} {max(cuts)}", fewer, holes(about, drawing) if fewer else "")
    return figure


Look = Callable[[dict[str, Any]], tuple[Any, str]]  # a row's colour and marker


@dataclass(frozen=True)
class Panel:
    """Some variants in their order, the names of their lines, and the drawing that is theirs."""

    title: str
    order: list[Spot]
    names: list[str]
    drawing: Drawing


def panel(rows: Rows, drawing: Drawing) -> Panel:
    """These rows as a panel; where panels are tasks, the lines do not repeat the task."""
    own = replace(drawing, y=drawing.y or measured(rows, rows[0])[0])
    title = word(value(rows[0], drawing.panel)) if drawing.panel else ""
    order = ranked(spots(rows, own), own.y)
    names = [spot.variant for spot in order]
    if drawing.panel == "task":
        names = [" · ".join(part for part in name.split(" · ") if part.split(" ")[0] != title) for name in names]
    return Panel(title, order, names, own)


def strips(axes: "Axes", one: Panel, hue: dict[Any, Any]) -> str:
    """Fills a panel; returns a sentence if bars reach beyond its frame."""
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
        beside(axes, place, spot, one.drawing)
        if place and spot.group != one.order[place - 1].group:
            axes.axhline(place - 0.5, color="#bbbbbb", linewidth=0.5)
    axes.set_ylim(len(one.order) - 0.4, -0.6)
    axes.set_yticks(range(len(one.order)), one.names, fontsize=6.5)
    axes.tick_params(axis="y", length=0)
    axes.set_title(one.title, loc="left")
    finish(axes, grid="x")
    return cut


def seeds_and_means(axes: "Axes", one: Panel, hue: dict[Any, Any]) -> None:
    """All variants' seeds, means and intervals, drawn together, for one after the other takes ten times as long."""
    found = [(place, spot, hue[spot.group]) for place, spot in enumerate(one.order) if spot.found]
    points = [(float(row[one.drawing.y]), place, color) for place, spot, color in found for row in spot.found]
    left = axes.get_xlim()[0]
    axes.scatter(*([point[i] for point in points] for i in (0, 1)), color=[point[2] for point in points], **SEEDS)
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
    whole = len(spot.found) == len(spot.rows)
    causes = counted(cause(row) for row in spot.rows if not drawable(row, drawing))
    words = [f"{len(spot.found)}/{len(spot.rows)}", ", ".join(f"{count} {why}" for why, count in causes)]
    right = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 6.5}
    axes.text(1.01, place, "  ".join(filter(None, words)), color=QUIET if whole else WRONG, **right)


def ranked(made: list[Spot], column: str) -> list[Spot]:
    """Groups by their best variant, variants by their mean, those without a number last."""
    rank = {spot.variant: (not spot.found, worth(column, spot.y.mean) if spot.found else 0.0) for spot in made}
    best = {spot.group: min(rank[other.variant] for other in made if other.group == spot.group) for spot in made}
    return sorted(made, key=lambda spot: (best[spot.group], spot.group, rank[spot.variant], spot.variant))


def scatter(rows: Rows, drawing: Drawing) -> Figure:
    """A point per variant with the intervals of both its columns; hollow where the timing is noisy."""
    assert drawing.x is not None
    about, found = shown(rows, drawing)
    if not found:
        return blank(drawing, about)
    figure = Figure(figsize=(WIDTH_IN, 3.9), layout="constrained")
    axes = figure.subplots()
    made = [spot for spot in spots(about, drawing) if spot.found]
    across = {spot.variant: horizontal(spot, drawing.x) for spot in made}
    ys = [float(row[drawing.y]) for row in found]
    xs = [float(row[drawing.x]) for row in found]
    log_y = scale(axes, "y", drawing.y, ys, log_from=6)
    log_x = scale(axes, "x", drawing.x, xs, log_from=3)
    near, told = reached(references(drawing.y, found), ys, log=log_y)
    bottom, top, cut_y = limits(
        [*ys, *near.values()], [bound for spot in made for bound in (spot.y.low, spot.y.high)], log=log_y
    )
    axes.set_ylim(bottom, top)
    left, right, cut_x = limits(xs, [bound for one in across.values() for bound in (one.low, one.high)], log=log_x)
    axes.set_xlim(left, right)
    against(axes, "y", near.values())
    color, style = drawing.color or "mechanism", drawing.style or drawing.color or "mechanism"
    hue, mark = colors(levels(rows, color)), markers(levels(rows, style))
    means_and_bars(axes, made, across, drawing, lambda one: (hue[value(one, color)], mark[value(one, style)]))
    lined = front(axes, made, across, drawing)
    keys(figure, [spot.found[0] for spot in made], drawing, (hue, mark))
    axes.set_title(drawing.title or "", loc="left")
    finish(axes, grid="both")
    quartiles = any(one.low < one.high for one in across.values())
    noisy = "Hollow: the timing did not settle or shared its node." if any(map(unsettled, made)) else ""
    spread = f"Horizontal bars: quartiles of {described(drawing.x).label}." if quartiles else ""
    note(figure, " ".join(filter(None, (MEANS, spread, lined, noisy, cut_y or cut_x, told))), holes(about, drawing))
    return figure


def front(axes: "Axes", made: list[Spot], across: dict[str, Interval], drawing: Drawing) -> str:
    """Marks the front of quality against a cost; a sentence if it does."""
    sides = (fronts.cost_side(str(drawing.x)), round(worth(drawing.y, 1.0)))
    if not sides[0] or not described(drawing.y).better or len(made) < 2:
        return ""
    values = {spot.variant: {row["seed"]: float(row[drawing.y]) for row in spot.found} for spot in made}
    prices = {name: (one.mean, one.low, one.high) for name, one in across.items()}
    found = fronts.chances(values, prices, worse=sides[1], dear=sides[0])
    fronts.mark(axes, {spot.variant: (across[spot.variant].mean, spot.y.mean) for spot in made}, found, sides)
    return fronts.MARKED if found else fronts.MARKED.partition(",")[0] + "."


def means_and_bars(
    axes: "Axes", made: list[Spot], across: Mapping[str, Interval], drawing: Drawing, look: Look
) -> None:
    """All variants' seeds, intervals and means; the first two drawn together, for one after the other takes longer."""
    found = [(spot, across[spot.variant], *look(spot.found[0])) for spot in made]
    points = [(x.mean, float(row[drawing.y]), color) for spot, x, color, _ in found for row in spot.found]
    many = SEEDS | {"s": 4, "alpha": 0.35}
    axes.scatter(*([point[i] for point in points] for i in (0, 1)), color=[point[2] for point in points], **many)
    bottom, left = axes.get_ylim()[0], axes.get_xlim()[0]
    bars = []
    for spot, x, color, marker in found:
        y, face = spot.y, "white" if unsettled(spot) else color
        bars += [([(x.mean, max(y.low, bottom)), (x.mean, y.high)], color)] if y.n > 1 else []
        bars += [([(max(x.low, left), y.mean), (x.high, y.mean)], color)] if x.low < x.high else []
        edges = {"color": color, "markerfacecolor": face, "markeredgecolor": color if face == "white" else "white"}
        axes.plot([x.mean], [y.mean], marker=marker, markersize=5.5, markeredgewidth=0.7, zorder=5, **edges)
    drawn: dict[str, Any] = {"linewidths": 0.8, "alpha": 0.7, "zorder": 2, "capstyle": "projecting"}
    colored = {"colors": [color for _, color in bars], **drawn}
    axes.add_collection(LineCollection([ends for ends, _ in bars], **colored), autolim=False)


def unsettled(spot: Spot) -> bool:
    """Whether the timing of this variant is marked as noisy or taken on a shared node."""
    return any(row.get(f"cost.{word}") for row in spot.found for word in ("noisy", "shared"))


def horizontal(spot: Spot, column: str) -> Interval:
    """A variant's place on the horizontal axis: quartiles where there are some, else the interval over seeds."""
    first = spot.found[0]
    numbers = [float(row[column]) for row in spot.found]
    mean = sum(numbers) / len(numbers)
    if (low := first.get(f"{column}_q25")) is not None and (high := first.get(f"{column}_q75")) is not None:
        return Interval(mean, low, high, len(numbers))
    if len(set(numbers)) > 1:
        return mean_of(column, numbers)
    return Interval(mean, mean, mean, len(numbers))


def keys(figure: Figure, firsts: Rows, drawing: Drawing, looks: tuple[dict[Any, Any], dict[Any, str]]) -> None:
    """A legend beside the figure: one list if colour and marker mean the same, else one for each."""
    color, style = drawing.color or "mechanism", drawing.style or drawing.color or "mechanism"
    hue, mark = looks
    look = {"linestyle": "", "markersize": 5, "markeredgewidth": 0.5}
    section = [
        Line2D([], [], marker=mark[name] if style == color else "o", color=hue[name], label=word(name), **look)
        for name in levels(firsts, color)
    ]
    other = [Line2D([], [], marker=mark[name], color=QUIET, label=word(name), **look) for name in levels(firsts, style)]
    further = [(described(style).label, other)] if style != color else []
    legend(figure, (described(color).label, section), *further)
