"""Figures of what bare mechanisms cost: time and memory over the number of tokens, and the roofline."""

from collections.abc import Callable, Sequence
from math import ceil, inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnbench.reports.canvas import (
    DASHES,
    MARKERS,
    QUIET,
    STYLE,
    WIDTH_IN,
    WRONG,
    colors,
    finish,
    legend,
    note,
    scale,
)
from attnbench.reports.efficiency import Costs, Curve, Place
from attnbench.reports.efficiency_sheets import ABOVE
from attnbench.reports.saving import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_IN = 2.7  # height of a row of panels
LABELS = {"time": "cost.step_ms", "memory": "cost.memory_mib"}
LEAST = {"time": 0.0, "memory": 2.0**-10}  # of memory nothing at all has no logarithm
NOTES = {
    "time": "Markers: median time of a step; bars: 95 % interval. ",
    "memory": "Markers: peak of the allocator above the start of a step; none at all stands at 0.001. ",
}
MARKS = (
    "Crosses at the upper edge: memory ran out there. Rings: where a line falls below full attention for good, the bar "
    "through a ring its 95 % interval."
)


def write(known: Costs, folder: Path) -> list[str]:
    """Draws into `folder` in every format; returns the names of the files without ending."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {f"{what}_over_tokens": over_tokens(known, what) for what in LABELS}
    if any(shown(place) for curve in known.curves for place in curve.places):
        made["roofline"] = roofline(known)
    with mpl.rc_context(STYLE):
        for name, figure in made.items():
            save(figure, folder / name)
    return list(made)


def looks(known: Costs) -> dict[str, dict[str, Any]]:
    """Of each variant the colour of its mechanism, a marker of its own among all, and dashes among its mechanism's."""
    variants = sorted({(curve.mechanism, curve.variant) for curve in known.curves})
    hues = colors(sorted({mechanism for mechanism, _ in variants}))
    found, seen = {}, dict.fromkeys(hues, 0)
    for number, (mechanism, variant) in enumerate(variants):
        dashes = DASHES[seen[mechanism] % len(DASHES)]
        seen[mechanism] += 1
        found[variant] = {"color": hues[mechanism], "marker": MARKERS[number % len(MARKERS)], "linestyle": dashes}
    return found


def panels(known: Costs, draw: Callable[["Axes", tuple[Any, ...]], None]) -> Figure:
    """A panel for each setting, two in a row, with one legend of all variants."""
    with mpl.rc_context(STYLE):
        across = min(2, len(known.settings))
        down = ceil(len(known.settings) / across)
        figure = Figure(figsize=(WIDTH_IN, PANEL_IN * down + 0.5), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, setting in zip(grid, known.settings, strict=False):
            axes.set_title(known.named(setting), loc="left")
            draw(axes, setting)
        for axes in grid[len(known.settings) :]:
            axes.set_visible(False)
        handles = [Line2D([], [], label=name, markersize=4, **look) for name, look in looks(known).items()]
        legend(figure, ("mechanism", handles))
        return figure


def over_tokens(known: Costs, what: str) -> Figure:
    """Time or memory of every variant over the number of tokens, both logarithmic."""
    values = [
        max(point.value, LEAST[what]) for curve in known.curves for point in curve.points(what) if isfinite(point.value)
    ]
    sizes = [place.tokens for curve in known.curves for place in curve.places]
    top = max([value for value in values if value > 0], default=1.0)

    def draw(axes: "Axes", setting: tuple[Any, ...]) -> None:
        for curve in known.inside(setting):
            line(axes, curve, what, looks(known)[curve.variant], 2.2 * top)
            ring(axes, known, curve, what)
        scale(axes, "x", "site.tokens", sizes, log_from=2)
        scale(axes, "y", LABELS[what], [value for value in values if value > 0], log_from=2)
        finish(axes, grid="both")

    figure = panels(known, draw)
    for axes in figure.axes:
        axes.label_outer()
    note(figure, NOTES[what] + MARKS)
    return figure


def line(axes: "Axes", curve: Curve, what: str, look: dict[str, Any], edge: float) -> None:
    """One variant: a line with bars, and crosses where memory ran out."""
    points = [point for point in curve.points(what) if isfinite(point.value)]
    if points:
        x = [point.size for point in points]
        y = [max(point.value, LEAST[what]) for point in points]
        bars = [[max(0.0, a - point.low) for a, point in zip(y, points, strict=True)]]
        bars += [[max(0.0, point.high - a) for a, point in zip(y, points, strict=True)]]
        axes.errorbar(x, y, yerr=bars if what == "time" else None, markersize=3.5, elinewidth=0.8, **look)
    out = [point.size for point in curve.points(what) if point.value == inf]
    if out:
        axes.plot(out, [edge] * len(out), linestyle="", marker="x", markersize=5, color=look["color"], gid="oom")
        if points:
            axes.plot([points[-1].size, out[0]], [max(points[-1].value, LEAST[what]), edge], ":", color=WRONG, lw=0.8)


def ring(axes: "Axes", known: Costs, curve: Curve, what: str) -> None:
    """Where a variant falls below full attention for good, on its own line."""
    found = known.crossing(curve, what)
    if found is None or found.word != "at" or not 0 < found.size < inf:
        return
    y = curve.at(found.size, what)
    axes.plot([found.size], [y], marker="o", markersize=6, mfc="none", mec="black", mew=0.7, linestyle="", gid="ring")
    axes.plot([max(found.low, found.least), min(found.high, found.most)], [y, y], color="black", lw=0.9)


def shown(place: Place) -> bool:
    """Whether a point has a place in a roofline: its work and traffic are known, and below the limit."""
    share = place.middle("cost.peak_share")
    return place.middle("cost.step_flops") > 0 and place.middle("cost.bytes") > 0 and 0 < share <= ABOVE


def roofline(known: Costs) -> Figure:
    """Achieved work over intensity, larger sizes larger, under the limits that were measured beside them."""
    points = [place for curve in known.curves for place in curve.places if shown(place)]
    achieved = [place.middle("cost.step_flops") / (point.value * 1e6) for place in points if (point := place.time)]
    intensity = [place.middle("cost.step_flops") / place.middle("cost.bytes") for place in points]

    def draw(axes: "Axes", setting: tuple[Any, ...]) -> None:
        own = [place for curve in known.inside(setting) for place in curve.places if shown(place)]
        for curve in known.inside(setting):
            dots(axes, curve, looks(known)[curve.variant])
        if own:
            roofs(axes, own, min(*intensity, corner(points)) / 2, 2 * max(intensity))
        scale(axes, "x", "cost.intensity", [*intensity, corner(points)], log_from=1)
        scale(axes, "y", "cost.achieved_gflops", achieved, log_from=1)
        finish(axes, grid="both")

    figure = panels(known, draw)
    for axes in figure.axes:
        axes.label_outer()
    note(
        figure,
        "Work: matrix products and Fourier transforms, counted; bytes: compulsory traffic. Larger marks: more tokens. "
        "Lines: the best matrix product, and triads over the fewest and the most bytes of these points, in and out of "
        "caches. Points without counted work, and those above the limit, are left out.",
    )
    return figure


def corner(points: Sequence[Place]) -> float:
    """The least intensity at which products and not bytes are the limit."""
    return min(place.middle("cost.peak_gflops") / place.middle("cost.peak_gbps") for place in points)


def dots(axes: "Axes", curve: Curve, look: dict[str, Any]) -> None:
    own = [place for place in curve.places if shown(place)]
    x = [place.middle("cost.step_flops") / place.middle("cost.bytes") for place in own]
    y = [place.middle("cost.step_flops") / (point.value * 1e6) for place in own if (point := place.time)]
    axes.plot(x, y, color=look["color"], linewidth=0.7, alpha=0.6)
    for number, (a, b) in enumerate(zip(x, y, strict=True)):
        axes.plot([a], [b], marker=look["marker"], color=look["color"], markersize=2.5 + 0.7 * number, linestyle="")


def roofs(axes: "Axes", own: Sequence[Place], least: float, most: float) -> None:
    """The measured limits of a setting: products, and moving bytes at the slowest and at the fastest."""
    top = max(place.middle("cost.peak_gflops") for place in own)
    speeds = [place.middle("cost.peak_gbps") for place in own]
    for speed, dashes in ((min(speeds), "solid"), (max(speeds), (0, (4, 1.6)))):
        corner = top / speed
        x = [least, max(least, min(corner, most)), most]
        axes.plot(x, [min(top, speed * one) for one in x], color=QUIET, linewidth=1.0, linestyle=dashes, gid="roof")
