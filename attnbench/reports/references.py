"""Numbers that a result is read against, such as the level of chance and the floor of entropy, taken from the rows."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

# Of each measure: columns of the row and their words; of columns with one word the first that is filled counts.
REFERENCES = {
    "result.accuracy": (("result.chance_accuracy", "chance"), ("result.chance", "chance")),
    "result.top5": (("result.chance_top5", "chance"),),
    "result.miou": (("result.chance_miou", "chance"),),
    "result.agreement": (("result.agreement_chance", "chance"),),
    "result.perplexity": (("result.chance_perplexity", "chance"),),
    "result.bits_per_byte": (
        ("result.chance", "chance"),
        ("result.forgetful", "best without memory"),
        ("result.floor", "entropy floor"),
    ),
    "result.above_floor": (
        ("result.chance_above_floor", "chance"),
        ("result.forgetful_above_floor", "best without memory"),
    ),
}
OTHERS = {"result.accuracy": "result.bits_per_byte"}  # where this is measured too, `chance` is a level of it


def above_floor(row: Mapping[str, Any]) -> dict[str, float]:
    """Where a row knows the floor of its measure, how far above it the measure and its levels are.

    Differences near a floor are seen on a logarithmic axis of these alone; no table has them.
    """
    if (floor := number(row.get("result.floor"))) is None:
        return {}
    names = {"bits_per_byte": "above_floor", "chance": "chance_above_floor", "forgetful": "forgetful_above_floor"}
    found = {above: number(row.get(f"result.{name}")) for name, above in names.items()}
    return {f"result.{above}": value - floor for above, value in found.items() if value is not None}


def references(measure: str | None, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Name and value of every level that these rows state for a measure, means where rows state several."""
    found: dict[str, list[float]] = {}
    for row in rows:
        told: dict[str, float] = {}
        for column, word in REFERENCES.get(measure or "", ()):
            if column == "result.chance" and number(row.get(OTHERS.get(measure or "", ""))) is not None:
                continue
            if (level := number(row.get(column))) is not None:
                told.setdefault(word, level)
        for word, level in told.items():
            found.setdefault(word, []).append(level)
    return {word: sum(levels) / len(levels) for word, levels in found.items()}


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and isfinite(value) else None
