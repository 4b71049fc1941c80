"""The fourth kind of figure: a curve of each variant over places, such as distances, and the file that keeps curves.

A training leaves some results as curves, in the raw part of its row. They stand in no table; those of columns.PLACES
are kept in curves.csv, one number a line, so that a report can be made again where the store is not.
"""

from collections.abc import Iterable, Mapping
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnbench.reports.canvas import (
    DASHES,
    WIDTH_IN,
    Drawing,
    Rows,
    blank,
    colors,
    finish,
    legend,
    levels,
    limits,
    note,
    scale,
    value,
)
from attnbench.reports.collect import Results
from attnbench.reports.columns import PLACES
from attnbench.reports.names import lines_of
from attnbench.reports.stats import Interval, t_interval
from attnbench.reports.summary import split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from attnbench.manifest import Manifest

Curves = Mapping[str, Mapping[str, list[float]]]  # of a cell's id, of a column: a value for each place
FILE, COLUMNS = "curves.csv", ["id", "curve", "place", "value"]
HISTORY = ("train_", "valid_")  # how series of a training begin that have a number for each epoch
NOTE = "Lines and bands: mean and 95 % t interval over seeds."


class Kept:
    """A store whose rows are read from the disk once; of what is raw in them only curves are held, no timed steps."""

    def __init__(self, store: Results):
        self.store = store
        self.rows: dict[str, dict[str, Any] | None] = {}

    def spec(self, id: str) -> dict[str, Any]:
        return self.store.spec(id)

    def failed(self, id: str) -> dict[str, Any] | None:
        return self.store.failed(id)

    def tries(self, ids: Iterable[str]) -> dict[str, int]:
        return self.store.tries(ids)

    def result(self, id: str) -> dict[str, Any] | None:
        if id not in self.rows:
            row = self.store.result(id)
            raw = {name: own for name, own in ((row or {}).get("raw") or {}).items() if curved(name)}
            self.rows[id] = row and {**row, "raw": raw}
        return self.rows[id]


def curved(name: str) -> bool:
    """Whether a raw series is drawn: over places, or over the epochs of a training."""
    return f"raw.{name}" in PLACES or name.startswith(HISTORY)


def curves_of(store: Results, manifest: "Manifest", folder: Path) -> Curves:
    """The curves of the sweep's trainings in the store or, where it has none, those of the folder's file."""
    found = {cell.id: raw_of(store, cell.id) for cell in manifest.cells if cell.kind == "train" and not cell.trial}
    if any(found.values()) or not (file := folder / FILE).is_file():
        return found
    kept = pd.read_csv(file, dtype=str)  # whose numbers Python reads to the last bit
    read: dict[str, dict[str, list[float]]] = {}
    for id, curve, number in zip(*(kept[name].tolist() for name in ("id", "curve", "value")), strict=True):
        if id in found:  # one line after another, in the order of places
            read.setdefault(id, {}).setdefault(curve, []).append(float(number))
    return read


def raw_of(store: Results, id: str) -> dict[str, list[float]]:
    """A cell's curves that are known to figures; a value that is missing is not a number."""
    raw = (store.result(id) or {}).get("raw") or {}
    named = {f"raw.{name}": series for name, series in raw.items() if f"raw.{name}" in PLACES}
    return {name: [nan if one is None else float(one) for one in series] for name, series in named.items()}


def write_curves(curves: Curves, file: Path) -> None:
    """One number a line, in full precision; no file where there are no curves."""
    rows = [
        [id, name, place, number]
        for id, own in sorted(curves.items())
        for name, series in sorted(own.items())
        for place, number in enumerate(series)
    ]
    if rows:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(file, index=False, lineterminator="\n")


def over_places(rows: Rows, drawing: Drawing) -> Figure:
    """Mean of a curve over seeds at every place, a line for each variant; rows hold curves under the column's name."""
    found = [row for row in rows if drawing.mechanism in (None, row["mechanism"]) and row.get(drawing.y)]
    if not found:
        return blank(drawing, rows)
    figure = Figure(figsize=(WIDTH_IN, 3.2), layout="constrained")
    axes = figure.subplots()
    hue, entries, seen = colors(levels(found, "mechanism")), [], dict.fromkeys(levels(found, "mechanism"), 0)
    means = {str(variant): averaged([row[drawing.y] for row in own]) for (variant,), own in split(found, ["variant"])}
    cut = framed(axes, [one for series in means.values() for one in series], drawing)
    for (variant,), own in split(found, ["variant"]):
        name = value(own[0], "mechanism")
        look = {"color": hue[name], "linestyle": DASHES[seen[name] % len(DASHES)]}
        seen[name] += 1
        line(axes, means[str(variant)], PLACES[drawing.y].first, look)
        entries.append(Line2D([], [], label=str(variant), **look))
    axes.set_xlabel(PLACES[drawing.y].axis)
    finish(axes, grid="y")
    if drawing.title:
        axes.set_title(lines_of(drawing.title), loc="left")
    legend(figure, ("variant", entries))
    missing = len(rows) - len(found)
    note(figure, NOTE, cut, f"{missing} of {len(rows)} cells not drawn." if missing else "")
    return figure


def averaged(series: list[list[float]]) -> list[Interval]:
    """At each place the mean over the cells that have a number there."""
    width = max(map(len, series))
    places = [[own[place] for own in series if place < len(own) and isfinite(own[place])] for place in range(width)]
    return [t_interval(values) for values in places]


def framed(axes: "Axes", means: list[Interval], drawing: Drawing) -> str:
    """The vertical axis; a sentence if bands reach beyond it."""
    numbers = [one.mean for one in means if isfinite(one.mean) and one.mean > 0]
    log = scale(axes, "y", drawing.y, numbers, log_from=6)
    low, high, cut = limits(numbers, [bound for one in means for bound in (one.low, one.high)], log=log)
    axes.set_ylim(low, high)
    return cut.replace("Bars", "Bands")


def line(axes: "Axes", means: list[Interval], first: float, look: Mapping[str, Any]) -> None:
    """A curve and its band; broken where no field has such a place."""
    places, floor = first + np.arange(len(means)), axes.get_ylim()[0]
    there = [one if one.mean > 0 else Interval(nan, nan, nan, 0) for one in means]
    axes.plot(places, [one.mean for one in there], zorder=3, gid="curve", **look)
    low, high = [max(one.low, floor) for one in there], [one.high for one in there]
    axes.fill_between(places, low, high, color=look["color"], alpha=0.12, linewidth=0, zorder=1)
