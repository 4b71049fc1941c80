"""What each knob of a mechanism does to the error: differences between cells that differ in that knob alone."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import pandas as pd

from attnbench.reports.rows import records
from attnbench.reports.stats import difference, holm, resolution, t_interval

KEYS = ("task", "model", "mechanism", "knob", "before", "after")
Row = dict[str, Any]
Rows = list[Row]
COLUMNS = (
    *KEYS,
    *("n_pairs", "n_pairs_asked", "n_seeds", "difference", "low", "high"),
    *("percent", "percent_low", "percent_high", "p", "p_holm"),
)


def effects(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One row per step of a knob: the mean change of `measure`, paired, with 95 % t intervals over seeds.

    Two cells are a pair if task, model, seed and every other knob are equal. A knob that is idle in one of the two
    cannot part them, for there it changes nothing; a knob that is idle itself has no effect to show. Differences are
    averaged within a seed first, over combinations that are whole in every seed; n_pairs counts their pairs,
    n_pairs_asked all of them.
    percent: the change relative to the mean of the `before` cells of the same seed.
    Steps lead from a number to the next larger one, and between all two words. p_holm is corrected over the table.
    """
    trained = [row for row in records(frame) if row["kind"] == "train" and row["mechanism"]]
    around = ["task", "model", *varying(trained, ("task.", "model.", "dtype", "device"))]
    found: Rows = []
    for mechanism in sorted({row["mechanism"] for row in trained}):
        asked = [row for row in trained if row["mechanism"] == mechanism]
        for knobs in tied(asked):
            for before, after in steps(asked, knobs[0]):
                found += [
                    {"mechanism": mechanism, "knob": " and ".join(short(knob) for knob in knobs)}
                    | {"before": before, "after": after}
                    | effect
                    for effect in step(asked, around, knobs, (before, after), measure)
                ]
    table = pd.DataFrame(found, columns=[*around, *(name for name in COLUMNS if name not in around)])
    table["p_holm"] = holm(table["p"].astype("float64").tolist())
    return table


def varying(rows: Rows, prefixes: tuple[str, ...]) -> list[str]:
    """The columns under these prefixes with more than one value, none being one.

    What a sweep settles by itself for each variant, a chosen rate or a solved width, is no difference that it asks for.
    """
    settled = {name for row in rows for name in (row.get("settled") or "").split()}
    names = [name for name in (rows[0] if rows else {}) if name.startswith(prefixes) and name not in settled]
    return [name for name in names if len({row[name] for row in rows}) > 1]


def short(column: str) -> str:
    return column.removeprefix("mechanism.")


def tied(rows: Rows) -> list[list[str]]:
    """The knobs with more than one value, in groups that change together, as a stride that follows its window does."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for knob in varying(rows, ("mechanism.",)):
        first: dict[Any, int] = {}  # where each value comes first
        groups.setdefault(tuple(first.setdefault(row[knob], i) for i, row in enumerate(rows)), []).append(knob)
    return list(groups.values())


def steps(rows: Rows, knob: str) -> Iterator[tuple[Any, Any]]:
    """Numbers and truth values from each to the next, words each against each later one."""
    values = {row[knob] for row in rows} - {None}
    words = any(isinstance(value, str) for value in values)
    yield from combinations(sorted(values, key=str), 2) if words else pairwise(sorted(values))


def step(asked: Rows, around: list[str], knobs: list[str], ends: tuple[Any, Any], measure: str) -> Rows:
    """The effect of one step of a knob, once per task, model and whatever else of them varies."""
    pairs: dict[tuple[Any, ...], list[tuple[Row, Row]]] = {}
    for setting, a, b in matched(asked, around, knobs, ends):
        pairs.setdefault(setting, []).append((a, b))
    return [
        dict(zip(around, setting, strict=True)) | measured(pairs[setting], measure)
        for setting in sorted(pairs, key=str)
    ]


def matched(
    asked: Rows, around: list[str], knobs: list[str], ends: tuple[Any, Any]
) -> Iterator[tuple[tuple[Any, ...], Row, Row]]:
    """All pairs of cells, finished or not, that differ in these knobs alone, with their setting."""
    others = [name for name in (asked[0] if asked else {}) if name.startswith("mechanism.") and name not in knobs]
    first, second = ([row for row in asked if row[knobs[0]] == end and not idle(row, knobs)] for end in ends)
    whole = not any(row["idle"] for row in (*first, *second))  # then the other knobs can be looked up, too
    alike = [*around, "seed", *(others if whole else [])]
    beside: dict[tuple[Any, ...], Rows] = {}  # those of the same setting and seed, the only ones that can pair
    for b in second:
        beside.setdefault(tuple(b[name] for name in alike), []).append(b)
    for a in first:
        for b in beside.get(tuple(a[name] for name in alike), ()):
            if whole or differing(a, b, others) <= rests(a) | rests(b):
                yield tuple(a[name] for name in around), a, b


def differing(a: Row, b: Row, names: list[str]) -> set[str]:
    return {name for name in names if a[name] != b[name]}


def rests(row: Row) -> set[str]:
    return {f"mechanism.{knob}" for knob in (row["idle"] or "").split()}


def idle(row: Row, knobs: list[str]) -> bool:
    return bool(rests(row).intersection(knobs))


def measured(pairs: list[tuple[Row, Row]], measure: str) -> Row:
    """Differences averaged within each seed, then their interval over seeds.

    A combination that lacks a seed which others have is left out, else seeds would average over different ones.
    """
    whole = [(a, b) for a, b in pairs if a["status"] == b["status"] == "ok" and None not in (a[measure], b[measure])]
    seeds = sorted({a["seed"] for a, _ in whole})
    times = Counter((a["variant"], b["variant"]) for a, b in whole)
    whole = [(a, b) for a, b in whole if times[a["variant"], b["variant"]] == len(seeds)]
    seeds = seeds if whole else []
    changes, percents = [], []
    values: dict[Any, list[tuple[float, float]]] = {seed: [] for seed in seeds}
    for a, b in whole:
        values[a["seed"]].append((a[measure], b[measure]))
    for own in values.values():
        start = sum(a for a, _ in own) / len(own)
        changes.append(sum(b - a for a, b in own) / len(own))
        percents += [100 * changes[-1] / start] if start else []
    step = resolution([row[measure] for pair in whole for row in pair])
    change, percent = difference(changes, step=step), t_interval(percents)
    return {
        **{"n_pairs": len(whole), "n_pairs_asked": len(pairs), "n_seeds": len(seeds)},
        **{"difference": change.mean, "low": change.low, "high": change.high, "p": change.p},
        **{"percent": percent.mean, "percent_low": percent.low, "percent_high": percent.high},
    }
