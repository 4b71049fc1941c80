"""What all figures share: what a drawing is made of, its style and colours, axes, notes and legends."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log10
from typing import TYPE_CHECKING, Any, Literal

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import HPacker, TextArea
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from attnbench.reports.columns import described
from attnbench.reports.names import BESIDE, FONT, SHORT, cut, lines_of, shortened, visible
from attnbench.reports.summary import number_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["variants", "scatter", "lines", "curves"]
Row = dict[str, Any]
Rows = list[Row]

WIDTH_IN = 7.0  # the text of a paper's page
WRONG = "#9c1c1c"  # what failed
QUIET = "#555555"
MARKERS = ("o", "s", "^", "D", "v", "p", "X", "<", ">", "h", "P", "*")
DASHES = ("solid", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (7, 2, 2, 2)))
SAFE = (0, 3, 2, 4, 1, 9, 5, 7, 6, 8)  # seaborn's colour-blind palette, those first that differ most in lightness too
CUT = "Bars that end at the frame go on beyond it."
STYLE: Any = {
    **sns.axes_style("whitegrid"),
    **{"font.family": FONT, "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8.5},
    **{"xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.title_fontsize": 7},
    **{"axes.linewidth": 0.7, "grid.linewidth": 0.5, "grid.color": "#e2e2e2", "lines.linewidth": 1.3},
    **{
        "axes.edgecolor": "#666666",
        "pdf.fonttype": 42,
        "text.parse_math": False,
        "legend.frameon": False,
        "svg.hashsalt": "attnbench",
    },
    **{"xtick.bottom": True, "ytick.left": True, "xtick.major.size": 3, "ytick.major.size": 3},
    **{"xtick.major.width": 0.7, "ytick.major.width": 0.7, "axes.titleweight": "bold"},
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure as a sweep file asks for it; all words but name, kind, mechanism and title are columns of the rows.

    y: empty for the first measure that the rows of each task have.
    """

    name: str
    kind: Kind
    y: str = ""
    x: str | None = None
    color: str | None = None
    style: str | None = None
    panel: str | None = None
    mechanism: str | None = None
    title: str | None = None


def group(row: Row) -> str:
    """A row's mechanism, or its model where that is a whole model."""
    return row["mechanism"] or row["model"]


def value(row: Row, column: str) -> Any:
    """A row's value for a colour, dash or panel; a whole model stands among the mechanisms under its own name."""
    return group(row) if column == "mechanism" else row.get(column)


def levels(rows: Iterable[Row], column: str) -> list[Any]:
    """The values of a column in order: numbers by size, then words, then None where some row has no value."""
    return sorted({value(row, column) for row in rows}, key=number_first)


def word(one: Any) -> str:
    """A value as a legend names it."""
    return "without" if one is None else str(one)


def colors(names: Sequence[Any]) -> dict[Any, Any]:
    """A colour for each name; after ten they begin again, and markers tell them apart."""
    palette = sns.color_palette("colorblind")
    return {name: palette[SAFE[i % len(SAFE)]] for i, name in enumerate(names)}


def markers(names: Sequence[Any]) -> dict[Any, str]:
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}


def shown(rows: Rows, drawing: Drawing) -> tuple[Rows, Rows]:
    """The rows that a figure is about, and those of them that have numbers for it."""
    about = [row for row in rows if drawing.mechanism in (None, row["mechanism"])]
    return about, [row for row in about if drawable(row, drawing)]


def drawable(row: Row, drawing: Drawing) -> bool:
    """Whether a row is ok and has finite numbers in the columns that a figure measures."""
    found = [row.get(drawing.y)] + ([row.get(drawing.x)] if drawing.kind == "scatter" and drawing.x else [])
    return row["status"] == "ok" and all(isinstance(one, int | float) and isfinite(one) for one in found)


def holes(about: Rows, drawing: Drawing) -> str:
    """One sentence about the cells that are not drawn, by variant and cause; empty if all are."""
    return unseen([row for row in about if not drawable(row, drawing)], len(about))


def unseen(missing: Rows, asked: int) -> str:
    """One sentence about these cells of all that a figure asks for, by variant and cause; empty if there are none."""
    if not missing:
        return ""
    counts = Counter((row["variant"], cause(row)) for row in missing)
    short = shortened(variant for variant, _ in counts)
    named = [f"{short[variant]}: {count} {why}" for (variant, why), count in sorted(counts.items())]
    more = f"; and {len(named) - 6} more, see the table" if len(named) > 6 else ""
    return f"{len(missing)} of {asked} cells not drawn. {'; '.join(named[:6])}{more}."


def cause(row: Row) -> str:
    """Why a row has no place in a figure."""
    if row["status"] != "ok":
        return row["status"]
    state = row.get("cost.status")
    return f"cost {state}" if state not in (None, "ok") else "without a number"


def note(figure: Figure, *sentences: str) -> None:
    """Small print below the figure, wrapped to its width; it tells as well that a legend's names are shortened."""
    width = int(figure.get_figwidth() * 18)
    sentences = (*sentences, *(SHORT for one in figure.legends if one.get_gid() == "shortened"))
    told = [textwrap.wrap(visible(sentence), width) for sentence in dict.fromkeys(sentences)]
    text = "\n".join(line for own in told for line in own)
    if text:
        figure.supxlabel(text, x=0.01, ha="left", fontsize=6.5, color=QUIET, linespacing=1.35)


def scale(axes: "Axes", which: Literal["x", "y"], column: str, numbers: Sequence[float], *, log_from: float) -> bool:
    """Labels an axis, and makes it logarithmic if its numbers are positive and span this factor; whether it did.

    Never for a score of which more is better, such as an accuracy: towards 1 a logarithm would hide its differences.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(described(column).axis)
    if described(column).better == "higher":
        return False
    span = max(numbers) / min(numbers) if numbers and min(numbers) > 0 else 1.0
    if span < log_from:
        return False
    axes.set(**{f"{which}scale": "log"})
    subs = (1, 1.5, 2, 3, 5, 7) if log10(span) < 0.8 else (1, 2, 5) if log10(span) < 2.2 else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.6g}"))
    return True


def limits(numbers: Sequence[float], bounds: Iterable[float], *, log: bool) -> tuple[float, float, str]:
    """The range of an axis around all numbers and their bounds, with some air, and a sentence if bounds are cut off.

    An interval of two seeds can be many times as wide as all else: beyond three times the numbers' own span, or a
    factor of five on a logarithmic axis, a bar runs to the frame.
    """
    low, high = min(numbers), max(numbers)
    span = (high - low) or abs(high) or 1.0
    least, most = (low / 5, 5 * high) if log else (low - 3 * span, high + 3 * span)
    wide = [bound for bound in bounds if isfinite(bound)]
    cut = any(not least <= bound <= most for bound in wide)
    low, high = max(least, min([low, *wide])), min(most, max([high, *wide]))
    if log:
        air = (high / low) ** 0.04 if high > low else 1.1
        return low / air, high * air, CUT if cut else ""
    air = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air, CUT if cut else ""


def reached(levels: Mapping[str, float], numbers: Sequence[float], *, log: bool) -> tuple[dict[str, float], str]:
    """Of what numbers are read against, the levels no farther from them than they span, and a sentence naming all.

    A level far off would press the numbers, which a reader wants to tell apart, into a corner.
    """
    if not numbers:
        return {}, ""
    low, high = min(numbers), max(numbers)
    least, most = (low * low / high, high * high / low) if log else (2 * low - high, 2 * high - low)
    near = {name: level for name, level in levels.items() if least <= level <= most}
    far = {name: level for name, level in levels.items() if name not in near}
    told = [
        f"{where}: {', '.join(f'{name} {level:.4g}' for name, level in sorted(some.items(), key=lambda one: one[1]))}"
        for where, some in (("Dotted", near), ("Beyond the frame", far))
        if some
    ]
    return near, ". ".join([*told, ""]).rstrip()


def against(axes: "Axes", which: Literal["x", "y"], levels: Iterable[float]) -> None:
    """Dotted lines at what the numbers of an axis are read against."""
    draw = axes.axvline if which == "x" else axes.axhline
    for level in levels:
        draw(level, color=QUIET, linewidth=0.8, linestyle=(0, (1, 1.2)), zorder=1, gid="level")


def entitled(figure: Figure, drawing: Drawing, *, panels: int) -> None:
    """The drawing's title: over its only panel, or over all."""
    if panels == 1:
        figure.axes[0].set_title(lines_of(drawing.title), loc="left")
    elif drawing.title:
        figure.suptitle(lines_of(drawing.title), x=0.01, ha="left", fontsize=8.5, fontweight="bold")


def seeds(axes: "Axes", points: Iterable[tuple[float, float, Any]], *, size: float, alpha: float) -> None:
    """A small point for each seed, at x and y in a colour; all of a colour together, for alone they take long.

    size: across, in points.
    """
    alike: dict[Any, list[tuple[float, float]]] = {}
    for x, y, color in points:
        alike.setdefault(color, []).append((x, y))
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": size, "markeredgewidth": 0, "gid": "seeds"}
    for color, places in alike.items():
        axes.plot(*zip(*places, strict=True), color=color, alpha=alpha, zorder=3, **look)


def blank(drawing: Drawing, about: Rows) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(figsize=(WIDTH_IN, 1.6), layout="constrained")
    words = f"{lines_of(drawing.title) or drawing.name}: no cell has a result yet"
    figure.text(0.5, 0.6, words, ha="center", color=WRONG)
    note(figure, holes(about, drawing))
    return figure


def legend(figure: Figure, *sections: tuple[str, Sequence[Line2D]]) -> None:
    """One legend beside the figure; every section is a heading over its entries."""
    most = BESIDE[any(grid.ncols > 1 for axes in figure.axes if (grid := axes.get_gridspec()))]
    short = [shortened((str(entry.get_label()) for entry in own), most) for _, own in sections]
    for names, (_, own) in zip(short, sections, strict=True):
        for entry in own:
            entry.set_label(names[str(entry.get_label())])
    titles = [title if i == 0 else f"\n{title}" for i, (title, _) in enumerate(sections)]
    entries = zip(titles, (own for _, own in sections), strict=True)
    handles = [entry for title, own in entries for entry in (Line2D([], [], linestyle="", label=title), *own)]
    made = figure.legend(handles=handles, loc="outside right upper", handlelength=2.4)
    made.set_gid("shortened" if any(map(cut, short)) else None)
    for pair in made.findobj(HPacker):
        marker, *texts = pair.get_children()
        if texts and isinstance(texts[0], TextArea) and texts[0].get_text() in titles:
            marker.set_visible(False)  # a heading has none, and moves to its place
            texts[0].get_children()[0].set(fontweight="bold")


def finish(axes: "Axes", *, grid: Literal["x", "y", "both"]) -> None:
    """Grid lines along the numbers only, no frame on the far sides."""
    axes.grid(visible=False)
    axes.grid(visible=True, axis=grid)
    axes.set_axisbelow(True)
    sns.despine(ax=axes)
