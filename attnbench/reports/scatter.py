"""The kind of figure in which every variant is a point: quality against a cost, with intervals of both."""

import textwrap
from dataclasses import dataclass
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
    colors,
    drawable,
    entitled,
    finish,
    legend,
    levels,
    limits,
    markers,
    note,
    reached,
    scale,
    seeds,
    shown,
    unseen,
    value,
    word,
)
from attnbench.reports.columns import described, worth
from attnbench.reports.references import references
from attnbench.reports.stats import Interval
from attnbench.reports.strips import Spot, apart, spots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT_IN, PANEL_IN = 3.9, 2.7  # of a figure of one panel, of each row of several
TOLD = 44  # letters of a line below a panel
MEANS = "Small points: seeds. Large points and bars: mean and 95 % t interval over seeds, within what can be."
NOISY = "Hollow: the timing did not settle or shared its node."
Looks = tuple[dict[Any, Any], dict[Any, str]]  # the colour and the marker of each value


@dataclass(frozen=True)
class Cloud:
    """The variants of a panel that have numbers, the place of each along the cost, and rows without a number."""

    title: str
    made: list[Spot]
    across: dict[str, Interval]
    lost: Rows
    drawing: Drawing


def scatter(rows: Rows, drawing: Drawing) -> Figure:
    """A point per variant with the intervals of both its columns; hollow where the timing is noisy.

    With `panel` all this for each of its values, on scales of its own.
    """
    about, _ = shown(rows, drawing)
    panels = [cloud(title, own, one) for title, own, one in apart(about, drawing)]
    if not any(one.made for one in panels):
        return blank(drawing, about)
    color, style = named(drawing)
    looks = colors(levels(rows, color)), markers(levels(rows, style))
    down = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH_IN, 0.6 + PANEL_IN * down if len(panels) > 1 else HEIGHT_IN), layout="constrained")
    grid = list(figure.subplots(down, min(len(panels), 2), squeeze=False).flat)
    told = [fill(axes, one, looks) for axes, one in zip(grid, panels, strict=False)]
    for axes in grid[len(panels) :]:
        axes.remove()
    keys(figure, [spot.found[0] for one in panels for spot in one.made], drawing, looks)
    entitled(figure, drawing, panels=len(panels))
    words = [max(own, key=len) for own in zip(*told, strict=True)]
    note(
        figure, " ".join(filter(None, (MEANS, *words))), unseen([row for one in panels for row in one.lost], len(about))
    )
    return figure


def cloud(title: str, rows: Rows, drawing: Drawing) -> Cloud:
    """These rows as a panel."""
    made = spots(rows, drawing)
    found = [spot for spot in made if spot.found]
    lost = [row for row in rows if not drawable(row, drawing)]
    return Cloud(title, found, {spot.variant: horizontal(spot, str(drawing.x)) for spot in found}, lost, drawing)


def fill(axes: "Axes", one: Cloud, looks: Looks) -> tuple[str, ...]:
    """Fills a panel; returns what the small print has to say of it, each sentence empty if it has not."""
    axes.set_title(one.title, loc="left")
    if not one.made:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no cell has a result yet", ha="center", color=WRONG, transform=axes.transAxes)
        return ("",) * 5
    drawing, x, across = one.drawing, str(one.drawing.x), one.across.values()
    found = [row for spot in one.made for row in spot.found]
    ys, xs = ([float(row[column]) for row in found] for column in (drawing.y, x))
    log_y = scale(axes, "y", drawing.y, ys, log_from=6)
    log_x = scale(axes, "x", x, xs, log_from=3)
    near, told = reached(references(drawing.y, found), ys, log=log_y)
    bounds = [bound for spot in one.made for bound in (spot.y.low, spot.y.high)]
    bottom, top, cut_y = limits([*ys, *near.values()], bounds, log=log_y)
    axes.set_ylim(bottom, top)
    left, right, cut_x = limits(xs, [bound for own in across for bound in (own.low, own.high)], log=log_x)
    axes.set_xlim(left, right)
    against(axes, "y", near.values())
    means_and_bars(axes, one, looks)
    lined = front(axes, one)
    finish(axes, grid="both")
    if one.title:  # what these lines are holds for this panel alone
        axes.set_xlabel("\n".join([axes.get_xlabel(), *textwrap.wrap(told, TOLD)]))
    spread = f"Horizontal bars: quartiles of {described(x).label}." if any(own.low < own.high for own in across) else ""
    noisy = NOISY if any(map(unsettled, one.made)) else ""
    return spread, lined, noisy, cut_y or cut_x, "" if one.title else told


def front(axes: "Axes", one: Cloud) -> str:
    """Marks the front of quality against a cost; a sentence if it does."""
    drawing, made, across = one.drawing, one.made, one.across
    sides = (fronts.cost_side(str(drawing.x)), round(worth(drawing.y, 1.0)))
    if not sides[0] or not described(drawing.y).better or len(made) < 2:
        return ""
    values = {spot.variant: {row["seed"]: float(row[drawing.y]) for row in spot.found} for spot in made}
    prices = {name: (own.mean, own.low, own.high) for name, own in across.items()}
    found = fronts.chances(values, prices, worse=sides[1], dear=sides[0])
    points = {spot.variant: (across[spot.variant].mean, spot.y.mean) for spot in made}
    whole = fronts.mark(axes, points, found, sides)
    return (fronts.MARKED if whole else fronts.ROOM) if found else fronts.MARKED.partition(",")[0] + "."


def means_and_bars(axes: "Axes", one: Cloud, looks: Looks) -> None:
    """All variants' seeds, intervals and means, alike ones drawn together: one after the other takes longer."""
    color, style = named(one.drawing)
    found = [(spot, one.across[spot.variant], looks[0][value(spot.found[0], color)]) for spot in one.made]
    points = [(x.mean, float(row[one.drawing.y]), hue) for spot, x, hue in found for row in spot.found]
    seeds(axes, points, size=2, alpha=0.35)
    bottom, left = axes.get_ylim()[0], axes.get_xlim()[0]
    bars: list[tuple[list[tuple[float, float]], Any]] = []
    alike: dict[tuple[str, Any, bool], list[tuple[float, float]]] = {}
    for spot, x, hue in found:
        y = spot.y
        bars += [([(x.mean, max(y.low, bottom)), (x.mean, y.high)], hue)] if y.n > 1 else []
        bars += [([(max(x.low, left), y.mean), (x.high, y.mean)], hue)] if x.low < x.high else []
        alike.setdefault((looks[1][value(spot.found[0], style)], hue, unsettled(spot)), []).append((x.mean, y.mean))
    for (marker, hue, hollow), places in alike.items():
        look: dict[str, Any] = {
            "markerfacecolor": "white" if hollow else hue,
            "markeredgecolor": hue if hollow else "white",
        }
        xs, ys = zip(*places, strict=True)
        axes.plot(xs, ys, linestyle="", marker=marker, markersize=5.5, markeredgewidth=0.7, zorder=5, color=hue, **look)
    drawn: dict[str, Any] = {"linewidths": 0.8, "alpha": 0.7, "zorder": 2, "capstyle": "projecting"}
    colored = {"colors": [hue for _, hue in bars], **drawn}
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


def named(drawing: Drawing) -> tuple[str, str]:
    """The columns that colours and markers tell."""
    return drawing.color or "mechanism", drawing.style or drawing.color or "mechanism"


def keys(figure: Figure, firsts: Rows, drawing: Drawing, looks: Looks) -> None:
    """A legend beside the figure: one list if colour and marker mean the same, else one for each."""
    (color, style), (hue, mark) = named(drawing), looks
    look = {"linestyle": "", "markersize": 5, "markeredgewidth": 0.5}
    section = [
        Line2D([], [], marker=mark[name] if style == color else "o", color=hue[name], label=word(name), **look)
        for name in levels(firsts, color)
    ]
    other = [Line2D([], [], marker=mark[name], color=QUIET, label=word(name), **look) for name in levels(firsts, style)]
    further = [(described(style).label, other)] if style != color else []
    legend(figure, (described(color).label, section), *further)
