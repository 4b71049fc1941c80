"""What the trials say that chose a knob: the best of them, and what fewer trials would have been expected to give."""

from collections.abc import Mapping, Sequence
from math import comb, inf, isfinite
from typing import Any

import pandas as pd

from attnbench.reports.columns import described
from attnbench.reports.rows import records
from attnbench.reports.sheets import NOTHING, Sheet
from attnbench.reports.summary import split


def expected_best(losses: Sequence[float]) -> list[float]:
    """The mean, over all choices of k of these, of the best among the k, for k = 1 to all; less is better.

    inf where some choice of k would hold no finite one.
    """
    ordered, n = sorted(losses), len(losses)
    return [
        sum(comb(n - 1 - place, k - 1) * loss for place, loss in enumerate(ordered) if n - 1 - place >= k - 1)
        / comb(n, k)
        for k in range(1, n + 1)
    ]


def trials_sheets(frame: pd.DataFrame, choose: Mapping[str, Any] | None) -> list[Sheet]:
    """A sheet for each task with a line for each variant; none where nothing is chosen."""
    rows = [row for row in records(frame) if row["kind"] == "trial" and row["task"]]
    if not choose or not rows:
        return []
    return [sheet(str(task), own, choose) for (task,), own in split(rows, ["task"])]


def sheet(task: str, rows: list[dict[str, Any]], choose: Mapping[str, Any]) -> Sheet:
    knob, (by, side) = choose["knob"], choose["scores"][task]
    column, sign = f"result.{by}", -1 if side == "higher" else 1
    name, values, neutral = knob.partition(".")[2], choose["values"], choose.get("neutral", {}).get(task)
    lines = []
    for (variant,), own in split(rows, ["variant"]):
        losses = [
            mean_loss([row for row in own if tried(row, knob, neutral) == value], column, sign) for value in values
        ]
        curve = [number(sign * one) for one in expected_best(losses)]
        ok = sum(row["status"] == "ok" for row in own)
        chosen = str(values[losses.index(min(losses))]) if len(own) == len(values) * len(choose["seeds"]) else NOTHING
        lines.append([str(variant), f"{ok} / {len(own)}", chosen, *(number(sign * loss) for loss in losses), *curve])
    count = len(choose["seeds"])
    return Sheet(
        title=f"{task}: trials of {name}",
        caption=f"{described(column).label} by {name}, {'mean over' if count > 1 else 'with'} "
        f"{count} trial seed{'s' if count > 1 else ''}; the best is chosen, of equal ones the first. Best of k: the "
        "mean over all ways to try k of these values of the best score among them. A dash: a trial gave no number, "
        "or some k of them would give none.",
        head=[
            *("variant", "trials ok", f"chosen {name}"),
            *(f"{name} {value}" for value in values),
            *(f"best of {k}" for k in range(1, len(values) + 1)),
        ],
        rows=lines,
    )


def tried(row: Mapping[str, Any], knob: str, neutral: Any) -> Any:
    """A trial's value of the knob; a row leaves out a neutral one."""
    return neutral if row.get(knob) is None else row[knob]


def mean_loss(rows: list[dict[str, Any]], column: str, sign: int) -> float:
    """Mean over trials of the score as a loss; inf where one of them has none, or there are none."""
    losses = [
        sign * float(row[column]) if row["status"] == "ok" and row.get(column) is not None else inf for row in rows
    ]
    return sum(losses) / len(losses) if losses else inf


def number(value: float) -> str:
    return f"{value:#.4g}" if isfinite(value) else NOTHING
