"""The third kind of figure: lines over a knob, in panels, with every seed and a level for each whole model."""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnbench.reports.bounded import mean_of
from attnbench.reports.canvas import (
    DASHES,
    MARKERS,
    QUIET,
    WIDTH_IN,
    Drawing,
    Row,
    Rows,
    against,
    blank,
    colors,
    finish,
    holes,
    legend,
    levels,
    limits,
    note,
    reached,
    scale,
    seeds,
    shown,
    value,
    word,
)
from attnbench.reports.columns import described
from attnbench.reports.effects import rests, varying
from attnbench.reports.names import ABOVE, BELOW, LETTERS, TICK, lines_of, shortened
from attnbench.reports.references import references
from attnbench.reports.stats import Interval
from attnbench.reports.summary import split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Look = tuple[Any, Any, Any]  # values of color, style and panel; None for a word that is not given
NOTE = "Small points: seeds. Markers and bars: mean and 95 % t interval over seeds, within what can be."
SHARED = "Where lines meet in one point, the knobs that part them are idle."


@dataclass(frozen=True)
class Curve:
    """One line: its look, and at each x its cells with their values of y, by id; x without a cell are left out."""

    y: str
    look: Look
    cells: dict[Any, dict[str, float]]

    def values(self, x: Any) -> list[float]:
        return list(self.cells.get(x, {}).values())

    def mean(self, x: Any) -> Interval:
        return mean_of(self.y, self.values(x))


@dataclass(frozen=True)
class Whole:
    """A whole model: in which panel it stands (None: in all), and its mean at each x (at None: it has none)."""

    name: str
    panel: Any
    points: dict[Any, Interval]


def lines(rows: Rows, drawing: Drawing) -> Figure:
    """Mean of y over x, one line for each combination of the knobs that vary, a panel for each value of `panel`."""
    assert drawing.x is not None
    about, found = shown([row for row in rows if row["mechanism"]], drawing)
    found = [row for row in found if row.get(drawing.x) is not None]
    if not found:
        return blank(drawing, about)
    drawn, loose = curves(found, drawing)
    panels = [panel for panel in panels_of(found, drawing) if any(one.look[2] == panel for one in drawn)]
    figure = Figure(figsize=(WIDTH_IN, 3.2), layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    wholes, hues = baselines(rows, drawing), looks(rows, drawing)
    known = references(drawing.y, found)
    cut = framed(grid, drawn, wholes, drawing, known)
    titles = [f"{described(drawing.panel).label} {word(panel)}" if drawing.panel else "" for panel in panels]
    short = shortened(titles, ABOVE)
    for axes, panel, title in zip(grid, panels, titles, strict=True):
        fill(axes, [one for one in drawn if one.look[2] == panel], hues, levels(found, drawing.x))
        axes.set_title(short[title], fontweight="normal")
        for whole in wholes:
            if whole.panel in (None, panel):
                level(axes, whole, levels(found, drawing.x))
    if drawing.title:
        figure.suptitle(lines_of(drawing.title), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    keys(figure, found, drawing, hues)
    shared = SHARED if len({id for one in drawn for cells in one.cells.values() for id in cells}) < total(drawn) else ""
    note(figure, " ".join(filter(None, (NOTE, shared, explained(wholes, loose), cut))), holes(about, drawing))
    return figure


def panels_of(found: Rows, drawing: Drawing) -> list[Any]:
    return levels(found, drawing.panel) if drawing.panel else [None]


def total(drawn: list[Curve]) -> int:
    """Cells of all lines, those that lines share counted for each."""
    return sum(len(cells) for one in drawn for cells in one.cells.values())


def explained(wholes: list[Whole], loose: list[str]) -> str:
    """What else the small print has to say."""
    names = ", ".join(dict.fromkeys(whole.name for whole in wholes))
    level = f"Dotted: {names}, mean and interval." if wholes else ""
    apart = f"Lines of one look differ in {', '.join(described(name).label for name in loose)}." if loose else ""
    return f"{level} {apart}".strip()


def curves(found: Rows, drawing: Drawing) -> tuple[list[Curve], list[str]]:
    """All lines, and the varying columns that no word of the drawing shows: they part lines of one look.

    A cell in which a shown knob is idle belongs to the line of every value of that knob.
    """
    assert drawing.x is not None
    words = (drawing.color, drawing.style, drawing.panel)
    taken = {drawing.x, *words}
    free = [name for name in varying(found, ("mechanism", "model", "task.")) if name not in taken]
    free = [name for name in free if not follows(found, name, [one for one in taken if one])]
    spread = [copy for row in found for copy in everywhere(row, found, [*filter(None, words), *free])]
    names = [*filter(None, words), *free]
    made = []
    for _, rows in split(spread, names) if names else [((), spread)]:
        look = tuple(value(rows[0], word) if word else None for word in words)
        cells: dict[Any, dict[str, float]] = {x: {} for x in levels(rows, drawing.x)}
        for row in sorted(rows, key=lambda row: row["id"]):
            cells[row[drawing.x]][row["id"]] = float(row[drawing.y])
        made.append(Curve(drawing.y, (look[0], look[1], look[2]), cells))
    return made, free


def follows(rows: Rows, name: str, taken: list[str]) -> bool:
    """Whether a column is settled by those that are shown, as a stride by its window."""
    settled: dict[tuple[Any, ...], set[Any]] = {}
    for row in rows:
        settled.setdefault(tuple(row[one] for one in taken), set()).add(row[name])
    return all(len(values) == 1 for values in settled.values())


def everywhere(row: Row, found: Rows, names: list[str]) -> Rows:
    """The row once for every value that its idle columns have elsewhere; itself if none is idle."""
    idle = [name for name in names if name in rests(row)]
    choices = [levels(found, name) for name in idle]
    return [row | dict(zip(idle, values, strict=True)) for values in product(*choices)]


def looks(found: Rows, drawing: Drawing) -> tuple[dict[Any, Any], dict[Any, int]]:
    """A colour for each value of `color`, a number for each of `style`."""
    hue = colors(levels(found, drawing.color)) if drawing.color else {None: colors([None])[None]}
    styles = levels(found, drawing.style) if drawing.style else [None]
    return hue, {name: i for i, name in enumerate(styles)}


def fill(axes: "Axes", drawn: list[Curve], looks: tuple[dict[Any, Any], dict[Any, int]], xs: list[Any]) -> None:
    """The lines of one panel, side by side at every x so that intervals do not hide each other.

    Where lines share their cells, because a knob is idle there, those stand once, between the lines, and grey unless
    all are of one colour. A line is broken where its cells have no number.
    """
    hue, number = looks
    step = min(0.09, 0.5 / len(drawn))
    for i, curve in enumerate(drawn):
        sharing = [[j for j, other in enumerate(drawn) if other.cells.get(x) == curve.cells.get(x)] for x in xs]
        middles = [sum(own) / len(own) - (len(drawn) - 1) / 2 for own in sharing]
        places = [place + middle * step for place, middle in enumerate(middles)]
        alone = [place for place, own in enumerate(sharing) if len(own) == 1]
        look = dashed(hue[curve.look[0]], number[curve.look[1]])
        axes.plot(places, [curve.mean(x).mean for x in xs], zorder=4, markevery=alone, **look)
        for x, place, own in zip(xs, places, sharing, strict=True):
            if own[0] == i:  # cells that are shared are drawn with the first of their lines
                same = len({drawn[j].look[0] for j in own}) == 1
                dot(axes, place, (curve, x), hue[curve.look[0]] if same else QUIET, shared=len(own) > 1)
    words = [word(x) for x in xs]
    grid = axes.get_gridspec()
    room = max(BELOW // len(xs) // (grid.ncols if grid else 1), 7)
    short = shortened(words, LETTERS if max(map(len, words)) <= TICK else room)
    axes.set_xticks(range(len(xs)), [short[one] for one in words])
    axes.set_xlim(-0.45, len(xs) - 0.55)


def dot(axes: "Axes", place: float, where: tuple[Curve, Any], color: Any, *, shared: bool) -> None:
    """The seeds at one place and their interval, cut off where the axis ends; a large point if the place is shared."""
    curve, x = where
    if not (values := curve.values(x)):
        return
    around = curve.mean(x)
    seeds(axes, [(place, one, color) for one in values], size=2.4, alpha=0.55)
    if around.n > 1:
        low = max(around.low, axes.get_ylim()[0])
        axes.plot([place, place], [low, around.high], color=color, linewidth=0.9, alpha=0.8, zorder=2)
    if shared:
        axes.plot([place], [around.mean], marker="o", markersize=4.5, color=color, zorder=5)


def framed(grid: Any, drawn: list[Curve], wholes: list[Whole], drawing: Drawing, known: dict[str, float]) -> str:
    """The axes' labels, scale and range, the same in all panels, and what numbers are read against, `known`.

    Returns sentences that name those levels, and say if intervals reach beyond the range.
    """
    assert drawing.x is not None
    levels = [one for whole in wholes for one in whole.points.values()]
    means = [curve.mean(x) for curve in drawn for x in curve.cells] + levels
    values = [one for curve in drawn for x in curve.cells for one in curve.values(x)]
    values += [one.mean for one in levels]
    log = scale(grid[0], "y", drawing.y, values, log_from=6)
    near, told = reached(known, values, log=log)
    low, high, cut = limits(
        [*values, *near.values()], [bound for one in means for bound in (one.low, one.high)], log=log
    )
    grid[0].set_ylim(low, high)
    for axes in grid:
        axes.set_xlabel(described(drawing.x).axis)
        against(axes, "y", near.values())
        finish(axes, grid="y")
    return f"{told} {cut}".strip()


def baselines(rows: Rows, drawing: Drawing) -> list[Whole]:
    """Each whole model, apart by what the drawing shows of the task."""
    _, found = shown([row for row in rows if not row["mechanism"]], Drawing(name="", kind="variants", y=drawing.y))
    parts = [name for name in (drawing.color, drawing.style, drawing.panel) if name and name.startswith("task.")]
    made = []
    for (variant, *knobs), own in split(found, ["variant", *parts]):
        apart = dict(zip(parts, knobs, strict=True))
        panel = apart.pop(drawing.panel or "", None)
        name = ", ".join([str(variant), *(f"{described(part).label} {value}" for part, value in apart.items())])
        over = split(own, [drawing.x]) if drawing.x and drawing.x.startswith("task.") else [((None,), own)]
        points = {x: mean_of(drawing.y, [float(row[drawing.y]) for row in cells]) for (x,), cells in over}
        made.append(Whole(name, panel, points))
    return made


def level(axes: "Axes", whole: Whole, xs: list[Any]) -> None:
    """A whole model as a dotted line with its interval, level where x says nothing of it, named at its right end."""
    level = whole.points.get(None)
    ends = (
        [(-0.45, level), (len(xs) - 0.55, level)] if level else [(xs.index(x), one) for x, one in whole.points.items()]
    )
    places, intervals = zip(*ends, strict=True)
    axes.plot(places, [one.mean for one in intervals], color=QUIET, linewidth=0.9, linestyle=(0, (1, 1)), zorder=1)
    if all(one.n > 1 for one in intervals):
        low, high = [one.low for one in intervals], [one.high for one in intervals]
        axes.fill_between(places, low, high, color="#888888", alpha=0.15, linewidth=0, zorder=0)
    text = {"textcoords": "offset points", "ha": "right", "va": "bottom", "fontsize": 6.5, "color": QUIET}
    axes.annotate(shortened([whole.name])[whole.name], (places[-1], intervals[-1].mean), xytext=(-2, 2), **text)


def keys(figure: Figure, found: Rows, drawing: Drawing, looks: tuple[dict[Any, Any], dict[Any, int]]) -> None:
    """A legend beside the panels, a list for the colours and one for the dashes."""
    hue, number = looks
    sections = []
    if drawing.color:
        used = [(name, hue[name]) for name in levels(found, drawing.color)]
        entries = [Line2D([], [], color=color, marker="o", markersize=4.5, label=word(n)) for n, color in used]
        sections.append((described(drawing.color).label, entries))
    if drawing.style:
        entries = [Line2D([], [], label=word(n), **dashed(QUIET, number[n])) for n in levels(found, drawing.style)]
        sections.append((described(drawing.style).label, entries))
    if sections:
        legend(figure, *sections)


def dashed(color: Any, style: int) -> dict[str, Any]:
    """Dashes, marker and its face for a line of this colour and number of style."""
    face = "white" if style % 2 else color
    look = {"markerfacecolor": face, "markeredgecolor": color, "markersize": 4.5, "color": color}
    return look | {"linestyle": DASHES[style % len(DASHES)], "marker": MARKERS[style % len(MARKERS)]}
