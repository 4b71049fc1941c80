"""Figures of lines: curves over places, trainings over epochs, cost over tokens, and errors of approximation.

A series is one variant: points from left to right, joined where each has a place of its own.
"""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from statistics import fmean, geometric_mean, median
from typing import Any

from attnbench.reports import canvas, efficiency
from attnbench.reports.atlas import ROUNDING
from attnbench.reports.columns import PLACES, described
from attnbench.reports.effects import Rows, varying
from attnbench.reports.page.axes import ranged, spans
from attnbench.reports.page.pack import rounded
from attnbench.reports.page.part import Beside
from attnbench.reports.places import Curves, averaged
from attnbench.reports.sheets import around, three
from attnbench.reports.summary import apart, named, split

Found = dict[str, Any]
POINTS, SERIES = 60, 300  # of a training's curve, and curves of a figure, above which some are left out
BANDS = "Lines and bands: mean and 95 % t interval over seeds."
EACH = "A line for each training."
LINES = {  # by kind of rows
    "efficiency": "Points: processes; lines: through what the tables say of them.",
    "atlas": "Points: seeds; lines: means.",
}
RINGS = "Rings: where a line falls below full attention for good, the bar through a ring its 95 % interval."
TIMED = ("cost.step_ms", "cost.tokens_per_s")  # whose mean over processes is that of logarithms
CROSSED = {"cost.step_ms": "time", "cost.memory_mib": "memory"}
OUT_OF_MEMORY = "Crosses at the frame: out of memory, so that this size does not fit."
COSTS = {  # what is drawn of a row of kind efficiency: bounds, if it has any, and words
    "cost.step_ms": ("time of a step", "ms"),
    "cost.memory_mib": ("peak memory", "MiB"),
    "cost.tokens_per_s": ("throughput", "tokens/s"),
    "cost.peak_share": ("share of the roofline's limit", ""),
}
ERRORS = {  # of a row of kind atlas: words
    "result.output_error": "error of outputs",
    "result.row_error": "error of attention rows",
    "result.spectrum_error": "error of the spectrum",
    "result.gradient_error": "error of gradients",
}
APART = {  # columns by which rows of these kinds stand in figures of their own
    "efficiency": ("device", "dtype", "pass", "batch", "site.causal", "site.channels"),
    "atlas": ("input", "device", "dtype", "site.causal", "site.channels"),
}


def over_places(rows: Rows, curves: Curves) -> list[Found]:
    """A figure for each kind of curve and setting: the mean over seeds at every place."""
    trained = [row for row in rows if row["kind"] == "train"]
    found = []
    for settings, setting, own in apart(trained):
        words = ", ".join(named(column, value) for column, value in zip(settings, setting, strict=True))
        for name, place in PLACES.items():
            series = []
            for (variant,), mine in split([row for row in own if curves.get(row["id"], {}).get(name)], ["variant"]):
                means = averaged([curves[row["id"]][name] for row in mine])
                points = [(place.first + i, *bounds(one), around(one)) for i, one in enumerate(means) if one.mean > 0]
                series.append(drawn(str(variant), canvas.group(mine[0]), points, [row["place"] for row in mine]))
            label = {"x": place.axis, "y": described(name).axis}
            found += [figure(f"{words}: {name.partition('.')[2].replace('_', ' ')}", series, label, BANDS)]
    return [one for one in found if one["series"]]


def trainings(rows: Rows, known: Mapping[str, Beside]) -> list[Found]:
    """A figure for each setting and series of numbers over epochs, a line for each training."""
    found = []
    for settings, setting, own in apart([row for row in rows if row["kind"] == "train" and row["id"] in known]):
        words = ", ".join(named(column, value) for column, value in zip(settings, setting, strict=True))
        for name in dict.fromkeys(name for row in own for name in known[row["id"]].histories):
            mine = [row for row in own if name in known[row["id"]].histories]
            kept = [row for row in mine if row["seed"] == mine[0]["seed"]] if len(mine) > SERIES else mine
            series = [
                drawn(str(row["label"] or row["variant"]), canvas.group(row), epochs(known[row["id"]].histories[name]))
                | {"cells": [row["place"]], "variant": row["variant"]}
                for row in kept[:SERIES]
            ]
            left = len(mine) - len(series)
            note = f"{EACH} {left} of {len(mine)} are not drawn." if left else EACH
            found.append(figure(f"{words}: {name.replace('_', ' ')}", series, {"x": "epoch", "y": name}, note))
    return found


def epochs(series: Sequence[float]) -> list[tuple[Any, ...]]:
    """Points of a training's curve, thinned to a number that a figure can show."""
    step = -(-len(series) // POINTS)
    places = sorted({*range(0, len(series), step), len(series) - 1})
    return [(i + 1, series[i], nan, nan, f"{series[i]:.4g}") for i in places if isfinite(series[i])]


def over_tokens(rows: Rows, kind: str) -> list[Found]:
    """Figures of rows of kind `efficiency` or `atlas` over the number of tokens; none without such rows."""
    own = [row for row in rows if row["kind"] == kind and row.get("site.tokens") is not None]
    names = [name for name in APART[kind] if any(row.get(name) is not None for row in own)]
    full = [row | {name: row.get(name) for name in names} for row in own]
    shown, found = [name for name in names if name in varying(full, tuple(names))], []
    for values, mine in split(full, names) if names else [((), full)] if full else []:
        pairs = [(name, value) for name, value in zip(names, values, strict=True) if name in shown]
        words = ", ".join(f"{described(name).label.rpartition('.')[2]} {value}" for name, value in pairs)
        columns = COSTS if kind == "efficiency" else ERRORS
        found += [one for column in columns if (one := measured(mine, column, words, kind))]
    return found


def measured(rows: Rows, column: str, words: str, kind: str) -> Found | None:
    """One column of such rows over tokens, a line for each variant; None where no row has it."""
    if not any(number(row.get(column)) for row in rows):
        return None
    label, unit = COSTS[column] if kind == "efficiency" else (ERRORS[column], "relative to full attention")
    series, lost, exact = [], False, []
    for (variant,), own in split(rows, ["variant"]):
        ordered = sorted(own, key=lambda row: row["site.tokens"])
        ok = [row for row in ordered if row["status"] == "ok" and (number(row.get(column)) or row.get(column) == 0)]
        there = [row for row in ok if row[column] >= ROUNDING]
        exact += [str(variant)] if len(there) < len(ok) else []
        oom = [[row["site.tokens"], row["place"]] for row in ordered if row["status"] == "oom"]
        points = [
            (row["site.tokens"], row[column], *beside(row, column), f"{three(row[column])} {unit}") for row in there
        ]
        made = drawn(str(variant), canvas.group(own[0]), points, [row["place"] for row in there], marked=True)
        series.append(made | {"lost": oom, "path": path(there, column, kind)})
        lost = lost or bool(oom)
    y = f"{label} [{unit}]" if unit else label
    title = f"{label}{f', {words}' if words else ''}"
    crossings = rings(rows, column)
    note = " ".join(
        filter(
            None,
            (
                LINES[kind],
                OUT_OF_MEMORY if lost else "",
                RINGS if crossings else "",
                f"Not drawn, for it is zero but for rounding: {', '.join(exact)}." if exact else "",
            ),
        )
    )
    return figure(title, series, {"x": "tokens", "y": y}, note) | {"rings": crossings}


def path(rows: Rows, column: str, kind: str) -> list[list[float | None]]:
    """What the line of a variant goes through at each number of tokens: the number of its table."""
    found = []
    for (tokens,), own in split(rows, ["site.tokens"]):
        values = [row[column] for row in own]
        mean = fmean if kind == "atlas" else geometric_mean if column in TIMED else median
        middle = mean(values)
        found.append([rounded(float(tokens)), rounded(middle)])
    return found


def rings(rows: Rows, column: str) -> list[Found]:
    """From where on a variant's cost is below that of full attention, on its line; none for other numbers."""
    what = CROSSED.get(column, "")
    known = efficiency.costs(rows) if what else None
    found = []
    for curve in known.curves if known else ():
        crossing = known.crossing(curve, what) if known else None
        if crossing is None or crossing.word != "at" or not isfinite(y := curve.at(crossing.size, what)):
            continue
        ends = max(crossing.low, crossing.least), min(crossing.high, crossing.most)
        words = f"below full attention from {three(crossing.size)} tokens on [{three(ends[0])}, {three(ends[1])}]"
        place = {"x": rounded(crossing.size), "y": rounded(y), "low": rounded(ends[0]), "high": rounded(ends[1])}
        found.append({"name": curve.variant, "group": curve.mechanism, "text": words, **place})
    return found


def beside(row: dict[str, Any], column: str) -> tuple[float, float]:
    """The bounds of a row's number: its interval if it has one."""
    low, high = (row.get(f"{column}_{word}") for word in ("low", "high"))
    return (low, high) if low is not None and high is not None else (nan, nan)


def number(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value) and value > 0


def bounds(one: Any) -> tuple[float, float, float]:
    return one.mean, one.low, one.high


def drawn(
    variant: str, group: str, points: Sequence[tuple[Any, ...]], cells: Sequence[int] = (), *, marked: bool = False
) -> Found:
    """A series: points of (x, y, low, high, words). marked: cells belong to the points, one each; else to the line."""
    columns = [list(one) for one in zip(*points, strict=True)] or [[], [], [], [], []]
    xs, ys, lows, highs = ([rounded(value) for value in one] for one in columns[:4])
    made = {"variant": variant, "name": variant, "group": group, "x": xs, "y": ys, "text": columns[4], "marked": marked}
    made |= {"low": lows, "high": highs} if any(one is not None for one in lows) else {}
    return made | {"cells": list(cells)}


def figure(title: str, series: list[Found], label: Mapping[str, str], note: str) -> Found:
    """A figure of lines with its axes around all of them."""
    series = [one for one in series if one["x"] or one.get("lost")]
    xs = [float(x) for one in series for x in one["x"]]
    places = [float(x) for one in series for x, _ in one.get("lost", [])]
    ys = [float(y) for one in series for y in one["y"]]
    ends = [y for one in series for side in ("low", "high") for y in one.get(side, []) if y is not None]
    across = ranged([*xs, *places], log=spans([*xs, *places], 16))
    up = ranged(ys, ends, log=spans(ys, 6))
    note = " ".join(filter(None, (note, up.pop("cut").replace("Bars", "Bands"))))
    across.pop("cut")
    axes = {"x": {"label": label["x"], **across}, "y": {"label": label["y"], **up}}
    return {"kind": "lines", "title": title, "series": series, "note": note, **axes}
