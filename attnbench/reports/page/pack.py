"""Rows as compact columns: a column of one value is kept once, repeated ones by number, floats with six digits.

The full values stand in rows.csv; the page is for reading, and has to stay small with ten thousand rows.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from attnbench.reports.effects import Rows

DIGITS = 6
TIMES = ("started", "finished")
ORDER = ("efficiency", "atlas", "train", "cost", "trial")


def rounded(value: Any) -> Any:
    """A number with six digits, integers whole; None for what is no finite number; words as they are."""
    if not isinstance(value, float):
        return value
    if not isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 10**DIGITS else short


def moment(value: Any) -> Any:
    """A time in seconds since 1970 as words in UTC; anything else as it is."""
    if not isinstance(value, int | float) or not isfinite(value):
        return value
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def packed(rows: Sequence[dict[str, Any]], names: Iterable[str]) -> list[dict[str, Any]]:
    """The columns that any row fills, each as {name, one}, {name, words, at} or {name, each}.

    A training is left without the cost that it repeats from its cost cell; the page finds it there by cost_id.
    """
    places = {row["id"]: place for place, row in enumerate(rows) if row["kind"] == "cost"}
    prices = [places.get(row["cost_id"], -1) if row["kind"] == "train" else -1 for row in rows]
    found = []
    names = list(names)
    columns = zip(*(map(row.get, names) for row in rows), strict=True)  # row after row, as they lie in memory
    for name, values in zip(names, columns, strict=False):
        if name.startswith("cost."):
            known = (*values, None)  # the last one where there is no cost cell
            values = [None if value == known[price] else value for value, price in zip(values, prices, strict=True)]
        if any(value is not None for value in values):
            found.append({"name": name, **column(turned(moment if name in TIMES else rounded, values))})
    return found


def turned(turn: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """Each value as it is shown; where they are of one kind those that repeat are turned once, which most do."""
    if len(set(map(type, values)) - {type(None)}) > 1:  # 1 and True are equal
        return list(map(turn, values))
    short = {value: turn(value) for value in dict.fromkeys(values)}
    return [short[value] for value in values]


def column(values: list[Any]) -> dict[str, Any]:
    """The shortest of three ways to write values down; `at` are places in `words`, -1 where there is none."""
    told = dict.fromkeys((type(value), value) for value in values if value is not None)
    if len(told) == 1 and None not in values:
        return {"one": values[0]}
    if 2 * len(told) > len(values):
        return {"each": values}
    places = {one: i for i, one in enumerate(told)}
    at = [-1 if value is None else places[type(value), value] for value in values]
    return {"words": [value for _, value in told], "at": at}


def sorted_for_reading(rows: Rows) -> Rows:
    """By kind, variant and seed."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        place = ORDER.index(row["kind"]) if row["kind"] in ORDER else len(ORDER)
        seed = row["seed"] if isinstance(row["seed"], int | float) else -1
        return place, str(row["sweep"]), str(row["task"]), str(row["variant"]), seed, str(row["id"])

    return sorted(rows, key=key)
