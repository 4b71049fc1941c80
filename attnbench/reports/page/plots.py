"""The figures of one setting: a line for each variant, and quality against cost, from the lines of its summary table.

Every number and every text is that of summary.md; the page's scripts place them and compute nothing.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from attnbench.reports import fronts
from attnbench.reports.canvas import reached
from attnbench.reports.columns import described, worth
from attnbench.reports.page.axes import axis, spans
from attnbench.reports.page.pack import rounded
from attnbench.reports.sheets import mean, quartiles, seeds
from attnbench.reports.summary import Line, Table

Found = dict[str, Any]
MEANS = "Points and vertical bars: mean and 95 % t interval over seeds, within what can be."
STRIPS = "Points: seeds; a click opens the cell. Ticks and bars: mean and 95 % t interval, within what can be."
NOISY = "Hollow: the timing did not settle, or shared its node."
LINED = "Grey steps: the front of these means; beside its points the chance to be on it, of the others in their hints."
FLOOR, BITS = "entropy floor", "result.bits_per_byte"
PRICES = ("cost.train_samples_per_s", "cost.memory_train_mib", "cost.params", "cost.matmul_flops")


def setting(table: Table, cells: Mapping[str, Sequence[int]]) -> Found:
    """One setting: its variants as points, and figures of them: a line for each, and quality against each cost.

    cells: of each variant, the places of its cells among all of the page.
    """
    points = [point(table, line, cells.get(line.variant, [])) for line in table.lines]
    plots = [strips(table), *filter(None, (against(table, cost) for cost in PRICES))]
    better = described(table.measure).better
    return {"name": table.setting, "better": better, "points": points, "plots": plots}


def point(table: Table, line: Line, cells: Sequence[int]) -> Found:
    """One variant with its values, and what a hint says of it."""
    shown = mean(table, line).replace("**", "")
    hint = [f"{described(table.measure).label}: {shown}", f"seeds: {seeds(line)}"]
    ranks = zip(table.ranking.head, table.ranking.fields(line.variant), strict=False)
    hint += [f"{name}: {text}" for name, text in ranks]
    hint += [f"not ok: {line.trouble}"] if line.trouble else []
    return {
        "variant": line.variant,
        "group": line.group,
        "y": [rounded(one) for one in (line.error.mean, line.error.low, line.error.high)],
        "seeds": [[seed, rounded(value)] for seed, value in sorted(line.values.items())],
        "whole": len(line.values) == line.asked,
        "count": seeds(line).replace(" ", ""),
        "trouble": line.trouble,
        "hint": hint,
        "cells": list(cells),
    }


def scale(table: Table) -> tuple[Found, Found]:
    """The axis of a table's measure, and what it is read against: levels near the numbers, a sentence on all."""
    shift = table.levels.get(table.measure, {}).get(FLOOR, 0.0) if table.measure == BITS else 0.0
    numbers = [value for line in table.lines for value in line.values.values()]
    if shift and numbers and min(numbers) > shift:
        return above(table, numbers, shift)
    log = described(table.measure).better != "higher" and spans(numbers, 6)
    near, told = reached(table.levels.get(table.measure, {}), numbers, log=log)
    bounds = [one for line in table.lines for one in (line.error.low, line.error.high)]
    made = axis(table.measure, [*numbers, *near.values()] if numbers else [], bounds)
    return made, {"levels": [[name, rounded(level)] for name, level in near.items()], "told": told}


def above(table: Table, numbers: Sequence[float], floor: float) -> tuple[Found, Found]:
    """The axis of a measure whose floor is known: how far above it numbers are, as the printed figures have it."""
    numbers = [value - floor for value in numbers]
    levels = {name: level - floor for name, level in table.levels[table.measure].items() if level > floor}
    near, told = reached(levels, numbers, log=spans(numbers, 6))
    bounds = [one - floor for line in table.lines for one in (line.error.low, line.error.high)]
    made = axis("result.above_floor", [*numbers, *near.values()], bounds) | {"shift": rounded(floor)}
    return made, {"levels": [[name, rounded(level + floor)] for name, level in near.items()], "told": told}


def strips(table: Table) -> Found:
    """A line for each variant, in the table's order."""
    made, read = scale(table)
    note = noted(STRIPS, made.pop("cut"), read.pop("told"))
    return {"kind": "strips", "title": "Every variant", "x": made, "note": note, **read}


def against(table: Table, cost: str) -> Found | None:
    """Quality against a cost with the front of both; None where fewer than two costs differ."""
    made = [
        (place, line)
        for place, line in enumerate(table.lines)
        if line.values and line.cost_status == "ok" and isfinite(line.costs[cost].median)
    ]
    prices = [line.costs[cost] for _, line in made]
    xs = [price.median for price in prices]
    if len(set(xs)) < 2:
        return None
    across = axis(cost, xs, [one for price in prices for one in (price.q25, price.q75)], log_from=3)
    up, read = scale(table)
    on, path = front(table, [line for _, line in made], xs, cost)
    placed = [
        priced(table, line, cost) | {"at": place, "chance": chance(table, line, cost) if kept else ""}
        for (place, line), kept in zip(made, on, strict=True)
    ]
    note = noted(
        MEANS,
        f"Horizontal bars: quartiles of {described(cost).label}." if any(isfinite(x.q25) for x in prices) else "",
        "" if not path else LINED if table.fronts.get(cost) else f"{LINED.partition(';')[0]}.",
        NOISY if any(one["hollow"] for one in placed) else "",
        up.pop("cut") or across.pop("cut"),
        read.pop("told"),
    )
    across.pop("cut", None)
    title = f"Against {described(cost).label}"
    return {
        "kind": "scatter",
        "title": title,
        "x": across,
        "y": up,
        "placed": placed,
        "front": path,
        "note": note,
    } | read


def noted(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def priced(table: Table, line: Line, cost: str) -> Found:
    """A variant's place along a cost and the words for it."""
    price, told = line.costs[cost], chance(table, line, cost)
    hint = [f"{described(cost).axis}: {quartiles(price)}"]
    hint += [f"chance to be on the front: {told}"] if told else []
    hint += [f"timing: {line.timing}"] if line.timing else []
    x = [rounded(one) for one in (price.median, price.q25, price.q75)]
    return {"x": x, "hint": hint, "hollow": bool(line.timing) and cost.endswith("per_s")}


def chance(table: Table, line: Line, cost: str) -> str:
    """A variant's chance to be on the front of a cost, in words; empty where fronts are not told."""
    found = table.fronts.get(cost, {})
    return fronts.share(found, line.variant) if found else ""


def front(table: Table, lines: Sequence[Line], xs: Sequence[float], cost: str) -> tuple[list[bool], list[list[float]]]:
    """Which of the lines are on the front of means and a cost, and its corners as steps from the left.

    As `fronts.mark` draws them; no front where the cost has no better side, or one point is all there is of it.
    """
    dear, worse = fronts.cost_side(cost), round(worth(table.measure, 1.0))
    if not dear or not described(table.measure).better:
        return [False] * len(lines), []
    ys = [line.error.mean for line in lines]
    on = fronts.undominated(worse * np.array(ys), dear * np.array(xs)).tolist()
    corners = sorted({(x, y) for x, y, kept in zip(xs, ys, on, strict=True) if kept})
    path = [corners[0]]
    for (left, below), (right, above) in pairwise(corners):
        path += [(right, below) if dear > 0 else (left, above), (right, above)]
    return on, [[rounded(x), rounded(y)] for x, y in path] if len(corners) > 1 else []
