"""Cells of two sets of results that ask the same although their ids differ, so that they can be compared.

An id changes with the version of a task, of a mechanism or of the protocol, and with the device. Rows tell what was
asked: task, model and mechanism with all knobs that are not idle, seed and number type. Where exactly one cell of each
set asks it, the two are a pair, first among those on the same device and then on any; what else may part them is told.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attnbench.reports.effects import Row, rests
from attnbench.reports.sheets import Sheet

if TYPE_CHECKING:
    from attnbench.reports.compare import Side

ASKED = ("kind", "task", "model", "mechanism", "seed", "dtype")
PROBED = ("pass", "batch", "round", "input", "correlation", "sharpness")  # what cells without a task are asked beside
KNOBS = ("task.", "model.", "mechanism.", "site.")
WHERE = ("device", "threads")
UNTOLD = "a version of the task, of the mechanism or of the protocol, which rows do not tell"
Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """A pair of cells that ask the same: what it is called now, both ids, and in what the two differ."""

    label: str
    before: str
    after: str
    differs: str


def aligned(after: "Side", before: "Side") -> tuple["Side", tuple[Match, ...]]:
    """`before` with the ids of `after` where cells ask the same, and which those are; equal ids stay as they are."""
    ids: dict[str, str] = {}  # of before, those of after
    for key in (asked_where, asked):
        sides = [
            {id: row for id, row in side.rows.items() if id not in known}
            for side, known in ((after, {*before.rows, *ids.values()}), (before, {*after.rows, *ids}))
        ]
        news, olds = (single(rows, key) for rows in sides)
        ids |= {olds[what]: news[what] for what in sorted(news.keys() & olds.keys())}
    matches = tuple(
        Match(
            label=str(after.rows[new]["label"]),
            before=old,
            after=new,
            differs=differing(after.rows[new], before.rows[old]),
        )
        for old, new in sorted(ids.items(), key=lambda pair: str(after.rows[pair[1]]["label"]))
    )
    rows = {ids.get(id, id): {**row, "id": ids.get(id, id)} for id, row in before.rows.items()}
    raw = {ids.get(id, id): one for id, one in before.raw.items()}
    return replace(before, rows=rows, raw=raw), matches


def single(rows: Mapping[str, Row], key: Callable[[Row], Key]) -> dict[Key, str]:
    """The ids of rows by what they ask, without those that are not alone in it."""
    found: dict[Key, list[str]] = {}
    for id, row in rows.items():
        found.setdefault(key(row), []).append(id)
    return {what: ids[0] for what, ids in found.items() if len(ids) == 1}


def asked(row: Row) -> Key:
    """What a row says was asked of its cell, wherever it ran."""
    names = (name for name in row if name in (*ASKED, *PROBED) or name.startswith(KNOBS))
    idle = rests(row)
    return tuple(sorted((name, plain(row[name])) for name in names if row[name] is not None and name not in idle))


def asked_where(row: Row) -> Key:
    return (*asked(row), *((name, plain(row.get(name))) for name in WHERE))


def plain(value: Any) -> str:
    """A value that is the same text in a column of integers and of floats."""
    return repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def differing(new: Row, old: Row) -> str:
    """In what two cells differ that ask the same."""
    told = [f"{name} {old.get(name)} before, {new.get(name)} now" for name in WHERE if new.get(name) != old.get(name)]
    return "; ".join(told) or UNTOLD


def matches_sheet(found: tuple[Match, ...]) -> Sheet:
    """A line for each pair."""
    return Sheet(
        title="Matched by what they ask",
        caption="Cells whose ids differ, compared because exactly one of each set has this task, model, mechanism, "
        "knobs, seed and number type. Between devices or versions numbers may differ for that reason alone.",
        head=["cell", "id before", "id now", "what differs"],
        rows=[[one.label, one.before, one.after, one.differs] for one in found],
    )
