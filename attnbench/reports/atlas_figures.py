"""The atlas in pictures: distance from full attention over tokens, against work, and against the loss on the tasks."""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullLocator

from attnbench.reports.atlas import Spot
from attnbench.reports.canvas import (
    DASHES,
    MARKERS,
    QUIET,
    STYLE,
    WIDTH_IN,
    against,
    colors,
    finish,
    legend,
    markers,
    note,
    scale,
)
from attnbench.reports.columns import described
from attnbench.reports.foretells import Pairing, told
from attnbench.reports.saving import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOWEST = 1e-4  # errors below it are drawn at the lower frame
ERROR = "error of outputs, relative to full attention"
WAYS = {"output_error": "as they are", "output_error_scaled": "best factor"}
DOTS = (0, (1, 1.2))
TOLD = "Markers: mean over seeds. Bars: from the smallest to the largest of them."


def write(spots: Sequence[Spot], pairings: Sequence[Pairing], folder: Path, groups: Iterable[str] = ()) -> list[str]:
    """Draws what there is into `folder` in every format; returns names of files without ending.

    groups: all mechanisms and whole models of the report, so that each has the colour of the other figures.
    """
    hue = colors(sorted({*groups, *(one.mechanism for one in spots)}))
    found = [one for one in spots if one.numbers.get("output_error")]
    near = others(found)
    drawn: dict[str, Callable[[], Figure]] = {}
    if len({one.tokens for one in near}) > 1:
        drawn["atlas_tokens"] = lambda: over_tokens(near, hue)
    if any(one.flops for one in near):
        drawn["atlas_budget"] = lambda: over_work(found, hue)
    if pairings:
        drawn["atlas_loss"] = lambda: against_loss(pairings, hue)
    for name, draw in drawn.items():
        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(STYLE):
            figure = draw()
            save(figure, folder / name)
    return list(drawn)


def others(spots: Iterable[Spot]) -> list[Spot]:
    """Those whose distance from full attention means something."""
    return [one for one in spots if one.comparable and one.mechanism != "full"]


def entries(hue: dict[Any, Any], mark: dict[Any, str]) -> list[Line2D]:
    look = {"linestyle": "", "markersize": 5}
    return [Line2D([], [], marker=mark[name], color=hue[name], label=name, **look) for name in hue]


def panelled(spots: Sequence[Spot], rows: int, height: float) -> tuple[Figure, Any, list[str]]:
    inputs = list(dict.fromkeys(one.input for one in spots))
    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    return figure, figure.subplots(rows, len(inputs), sharex=True, sharey=True, squeeze=False), inputs


def over_tokens(spots: Sequence[Spot], hue: Mapping[str, Any]) -> Figure:
    """Error of outputs over the number of tokens, a line for each variant, a panel for each input."""
    spots = others(spots)
    figure, grid, inputs = panelled(spots, 1, 3.6)
    style = styles(spots, hue)
    for axes, label in zip(grid[0], inputs, strict=True):
        here = [one for one in spots if one.input == label]
        for name, look in style.items():
            own = sorted((one for one in here if one.variant == name), key=lambda one: one.tokens)
            trace(axes, own, "output_error", {**look, "linewidth": 1.2})
        trace(axes, plain(here), "output_error_mean", {"color": QUIET, "linestyle": DOTS, "marker": ""})
        axes.set_title(label, fontweight="normal")
        axes.set_xlabel("tokens")
        finish(axes, grid="both")
    framed(grid[0])
    for axes in grid[0]:
        axes.xaxis.set_major_locator(FixedLocator(sorted({one.tokens for one in spots})))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    grid[0][0].set_ylabel(ERROR)
    legend(figure, ("variant", [Line2D([], [], label=name, markersize=4, **look) for name, look in style.items()]))
    note(figure, f"{TOLD} Dotted, without markers: the plain mean of all tokens.", left(spots, "output_error"))
    return figure


def styles(spots: Sequence[Spot], hue: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each variant the colour of its mechanism, dashes that tell it from its like, and a marker of its own."""
    found: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    for mechanism, name in sorted({(one.mechanism, one.variant) for one in spots}):
        dash, marker = DASHES[seen.get(mechanism, 0) % len(DASHES)], MARKERS[len(found) % len(MARKERS)]
        seen[mechanism] = seen.get(mechanism, 0) + 1
        found[name] = {"color": hue[mechanism], "marker": marker, "linestyle": dash}
    return found


def plain(spots: Sequence[Spot]) -> list[Spot]:
    """One variant for each size, for the plain mean is the same beside all of one number of heads."""
    return [next(one for one in spots if one.tokens == size) for size in sorted({one.tokens for one in spots})]


def trace(axes: "Axes", spots: Sequence[Spot], column: str, look: dict[str, Any]) -> None:
    """A line through the means of spots, with the range of their seeds."""
    found = [one for one in spots if one.numbers.get(column)]
    heights = [seen(one.mean(column).mean) for one in found]
    axes.plot([one.tokens for one in found], heights, markersize=4, markeredgewidth=0, **look)
    for one in found:
        bar(axes, one.tokens, one.numbers[column].values(), look["color"])


def seen(error: float) -> float:
    return max(error, LOWEST)


def bar(axes: "Axes", x: float, values: Iterable[float], color: Any) -> None:
    ends = [seen(value) for value in values]
    axes.plot([x, x], [min(ends), max(ends)], color=color, linewidth=0.8, alpha=0.7, zorder=2)


def left(spots: Iterable[Spot], *columns: str) -> str:
    """A sentence where some error is too small for the axis; empty if none is."""
    means = [one.mean(column).mean for one in spots for column in columns if one.numbers.get(column)]
    return "At the lower frame: less than 0.0001, or no error at all." if min(means, default=1) < LOWEST else ""


def framed(grid: Iterable["Axes"]) -> None:
    """Both axes logarithmic, without ticks between those that have numbers."""
    for axes in grid:
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def over_work(spots: Sequence[Spot], hue: Mapping[str, Any]) -> Figure:
    """Error of outputs against work at the largest size, as they are and after the best single factor."""
    largest = max(one.tokens for one in others(spots))
    full = [one.flops for one in spots if one.tokens == largest and one.mechanism == "full" and one.flops]
    here = [one for one in others(spots) if one.tokens == largest and one.flops]
    figure, grid, inputs = panelled(here, 2, 5.0)
    style = styles(here, hue)
    for row, (column, words) in enumerate(WAYS.items()):
        for axes, label in zip(grid[row], inputs, strict=True):
            own = [one for one in here if one.input == label]
            for one in own:
                point(axes, one, column, style[one.variant])
            against(axes, "x", full[:1])
            against(axes, "y", [one.mean("output_error_mean").mean for one in own[:1]])
            axes.set_title(f"{label}, {words}", fontweight="normal")
            finish(axes, grid="both")
    framed(grid.flat)
    for axes in grid[1]:
        axes.set_xlabel("forward pass [FLOP]")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.supylabel(ERROR, fontsize=8)
    for look in style.values():
        look |= {"linestyle": ""}
    legend(figure, ("variant", [Line2D([], [], label=name, markersize=5, **look) for name, look in style.items()]))
    words = f"{TOLD} At {here[0].place} tokens. Dotted: across, the plain mean of all tokens"
    words += "; down, the work of full attention." if full else "."
    note(figure, words, left(here, *WAYS))
    return figure


def point(axes: "Axes", one: Spot, column: str, look: dict[str, Any]) -> None:
    if one.flops is None or not one.numbers.get(column):
        return
    bar(axes, one.flops, one.numbers[column].values(), look["color"])
    edge = {"markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.6, "linestyle": ""}
    axes.plot([one.flops], [seen(one.mean(column).mean)], zorder=4, **(look | edge))


def against_loss(pairings: Sequence[Pairing], hue: Mapping[str, Any]) -> Figure:
    """A panel for each task and input: the loss over the distance, a point for each variant."""
    across = min(3, len(pairings))
    down = -(-len(pairings) // across)
    figure = Figure(figsize=(WIDTH_IN, 0.6 + 2.5 * down), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    names = sorted({name for one in pairings for name, *_ in one.points})
    mark = markers(names)
    for axes, one in zip(grid, pairings, strict=False):
        for name, _, distance, loss in one.points:
            axes.plot([seen(distance)], [loss], color=hue[name], marker=mark[name], markersize=5, linestyle="")
        scale(axes, "x", "result.output_error", [seen(distance) for *_, distance, _ in one.points], log_from=1)
        scale(axes, "y", one.measure, [loss for *_, loss in one.points], log_from=6)
        axes.set_title(textwrap.fill(f"{one.setting}; {one.input}, {one.place}", 34), fontweight="normal")
        label = textwrap.fill(described("result.output_error").label, 72 // across)
        axes.set_xlabel(f"{label}\n{verdict(one)}")
        finish(axes, grid="both")
    for axes in grid[len(pairings) :]:
        axes.remove()
    legend(figure, ("mechanism", entries({name: hue[name] for name in names}, mark)))
    note(figure, "Means over seeds. Full attention, whose distance is 0, and variants that share less are left out.")
    return figure


def verdict(one: Pairing) -> str:
    if not one.enough:
        return f"n = {len(one.points)}: too few to say"
    return f"rho {told(one)}, n = {len(one.points)}"
