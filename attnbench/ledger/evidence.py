"""Rows of results as evidence: pairs that differ in what a claim is about and in nothing else, by seed."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite, log
from pathlib import Path
from typing import Any

import pandas as pd

from attnbench.ledger.reruns import SPEED, Filter, Pair, Place
from attnbench.reports.columns import described
from attnbench.reports.mixtures import mixtures
from attnbench.reports.rows import read_csv, records
from attnbench.reports.stats import resolution
from mechanisms._knobs import nearest

Row = dict[str, Any]
ALIKE = ("task", "dtype", "device", "threads", "data.hash", "code.fingerprint")
OWN = {"model": "model.", "mechanism": "mechanism."}  # knobs that both sides have only if they are of one kind
PAID = "cost.train_wall_s"  # of every training its own; other costs are measured once a variant


@dataclass(frozen=True)
class Table:
    """The rows of one sweep, the names of its columns, and what a reader must know of them."""

    sweep: str
    rows: list[Row]
    columns: list[str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """What pairs say, a number for each seed: mean of `better - worse`, or of log(better / worse) for a ratio.

    pairs: how many were used; asked: how many there would be if every cell had a number; lost: those in which a cell
    ended without one, such as one that diverged, so that what is left is a selection. ids: of the cells used.
    first, second: means of the two sides over all pairs. step: the least by which the measure, or its logarithm, moves.
    """

    by_seed: dict[Any, float]
    pairs: int
    asked: int
    lost: int
    ids: frozenset[str]
    commits: tuple[str, ...]
    first: float = float("nan")
    second: float = float("nan")
    step: float = 0.0


def table(root: Path, sweep: str) -> Table | None:
    """The committed rows of a sweep under the root of results, or None where there are none.

    Raises ValueError for a file that holds rows of another sweep.
    """
    file = root / sweep / "rows.csv"
    if not file.is_file():
        return None
    if sweep == SPEED:
        rows = [timed(row) for row in pd.read_csv(file).to_dict("records")]
        return Table(sweep, rows, sorted({name for row in rows for name in row}))
    frame = read_csv(file)
    rows = records(frame)
    if others := sorted({str(row["sweep"]) for row in rows} - {sweep}):
        raise ValueError(
            f"{file} holds rows of the sweep {others[0]!r}, not of {sweep!r}; it lies in the wrong folder."
        )
    return Table(sweep, rows, [str(name) for name in frame.columns], tuple(mixtures(frame)))


def timed(row: Mapping[Any, Any]) -> Row:
    """A row of the benchmark of speed as one of a sweep's cost cells: its label is the mechanism."""
    status, commit = str(row["status"]), str(row["commit"])
    cell = "/".join(str(row[name]) for name in ("group", "tokens", "gradients", "label"))
    return {
        **{"id": cell, "kind": "cost", "status": status, "seed": None, "variant": str(row["label"])},
        **{"task": str(row["group"]), "task.tokens": int(row["tokens"]), "task.gradients": bool(row["gradients"])},
        **{"model": None, "mechanism": str(row["label"]), "device": str(row["device"]), "idle": None},
        **{"cost.ms": number(row["ms"]), "cost.mib": number(row["mib"])},
        **{"code.commit": commit.removesuffix("-dirty"), "code.dirty": commit.endswith("-dirty")},
    }


def number(value: Any) -> float | None:
    return float(value) if value is not None and isfinite(value) else None


def unknown_column(place: Place, columns: Iterable[str]) -> str:
    """A sentence for the first column of a place that its rows do not have, and the nearest; empty if all are there."""
    columns = list(columns)
    filters: list[Filter] = [place.where, *(one for pair in place.pairs for one in (pair.better, pair.worse))]
    words = [place.measure, *(pair.measure for pair in place.pairs if pair.measure)]
    words += [name for one in filters for name in one]
    absent = next((word for word in words if word not in columns), None)
    if absent is None:
        return ""
    return f"the rows of {place.sweep} have no column {absent!r}.{nearest(absent, columns)}"


def compared(place: Place, pair: Pair, rows: Iterable[Row], *, logs: bool) -> Sample:
    """The pairs of one comparison, by seed. logs: of ratios, whose mean is taken on the logarithm.

    Differences are averaged within a seed first, over combinations of the other knobs that are whole in every seed:
    else seeds would average over different ones.
    Raises ValueError where the filters leave several variants of two mechanisms, so that nobody knows who is meant.
    """
    measure = pair.measure or place.measure
    rows = [row for row in rows if row["kind"] == kind_of(measure) and fits(row, place.where)]
    pairs = list(matched(rows, pair))
    refuse_crowd(pairs)
    whole = [(a, b) for a, b in pairs if a["status"] == b["status"] == "ok" and finite(a, b, measure)]
    seeds = sorted({a["seed"] for a, _ in whole}, key=str)
    times = Counter((a["variant"], b["variant"]) for a, b in whole)
    whole = [(a, b) for a, b in whole if times[a["variant"], b["variant"]] == len(seeds)]
    by_seed = {
        seed: mean(change(a[measure], b[measure], logs=logs) for a, b in whole if a["seed"] == seed)
        for seed in (seeds if whole else [])
    }
    used = [row for both in whole for row in both]
    sides = [mean(float(both[i][measure]) for both in whole) for i in (0, 1)] if whole else []
    ids = frozenset(str(row["id"]) for row in used)
    step = resolution([log(row[measure]) if logs else float(row[measure]) for row in used])
    return Sample(by_seed, len(whole), len(pairs), lost(pairs, measure), ids, commits(used), *sides, step=step)


def valued(place: Place, rows: Iterable[Row]) -> Sample:
    """The values of one variant by seed, in the published unit. Raises ValueError where several variants are left."""
    rows = [row for row in rows if row["kind"] == kind_of(place.measure) and fits(row, place.where)]
    if len(variants := sorted({str(row["variant"]) for row in rows})) > 1:
        raise ValueError(f"{len(variants)} variants are left, among them {variants[0]!r} and {variants[1]!r}.")
    whole = [row for row in rows if row["status"] == "ok" and finite(row, row, place.measure)]
    by_seed = {row["seed"]: place.scale * float(row[place.measure]) for row in whole}
    ids = frozenset(str(row["id"]) for row in whole)
    return Sample(
        by_seed, len(whole), len(rows), lost(((row, row) for row in rows), place.measure), ids, commits(whole)
    )


def kind_of(measure: str) -> str:
    """Costs are read where they were measured, once: copies beside trainings are no seeds."""
    return "cost" if measure.startswith("cost.") and measure != PAID else "train"


def fits(row: Row, wanted: Filter) -> bool:
    return all(same(row.get(name), value) for name, value in wanted.items())


def same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)  # true is no 1


def matched(rows: list[Row], pair: Pair) -> Iterable[tuple[Row, Row]]:
    """All pairs of one seed that differ only in the columns that the two filters name."""
    parted = pair.better.keys() | pair.worse.keys()
    second = [row for row in rows if fits(row, pair.worse)]
    for a in (row for row in rows if fits(row, pair.better)):
        for b in second:
            if a["seed"] == b["seed"] and a is not b and alike(a, b, parted):
                yield a, b


def alike(a: Row, b: Row, parted: Iterable[str]) -> bool:
    """Whether all that was asked is equal, but for these columns, idle knobs, and what a sweep settled by itself."""
    loose = {*parted, *settled(a), *settled(b), *rests(a), *rests(b)}
    starts = ("task.", *(start for name, start in OWN.items() if a[name] == b[name]))
    return all(
        same(a[name], b.get(name)) for name in a if name not in loose and (name in ALIKE or name.startswith(starts))
    )


def settled(row: Row) -> list[str]:
    return str(row.get("settled") or "").split()


def rests(row: Row) -> list[str]:
    return [f"mechanism.{knob}" for knob in str(row.get("idle") or "").split()]


def refuse_crowd(pairs: list[tuple[Row, Row]]) -> None:
    """Between two mechanisms, or two models, a row has one partner; several are variants that no filter tells apart."""
    strangers = [(a, b) for a, b in pairs if any(a[name] != b[name] for name in OWN)]
    for here, there in ((0, 1), (1, 0)):
        partners: dict[str, set[str]] = {}
        for both in strangers:
            partners.setdefault(str(both[here]["id"]), set()).add(str(both[there]["variant"]))
        for found in partners.values():
            if len(found) > 1:
                first, second = sorted(found)[:2]
                raise ValueError(
                    f"the filters leave {first!r} and {second!r} on one side; name a column that tells them apart."
                )


def finite(a: Row, b: Row, measure: str) -> bool:
    return all(row.get(measure) is not None and isfinite(row[measure]) for row in (a, b))


def lost(pairs: Iterable[tuple[Row, Row]], measure: str) -> int:
    """Pairs in which a cell ran and has no number; one that is only missing says nothing."""
    return sum(any(row["status"] != "missing" and not finite(row, row, measure) for row in both) for both in pairs)


def change(better: float, worse: float, *, logs: bool) -> float:
    """Raises ValueError for a ratio of numbers that are not positive."""
    if not logs:
        return better - worse
    if min(better, worse) <= 0:
        raise ValueError(f"a ratio is asked of {better:g} and {worse:g}; both must be positive.")
    return log(better) - log(worse)


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def commits(rows: Iterable[Row]) -> tuple[str, ...]:
    """Short commits of the rows' code, with `-dirty` where it was not committed."""
    words = {(str(row.get("code.commit") or "unknown")[:7], str(row.get("code.dirty")) == "True") for row in rows}
    return tuple(sorted(f"{commit}{'-dirty' if dirty else ''}" for commit, dirty in words))


def lower_is_better(place: Place, pair: Pair) -> bool | None:
    """Which side of the measure is better; None where neither the claim nor the column says so."""
    side = pair.side or described(pair.measure or place.measure).better
    return None if side is None else side == "lower"
