"""What should not stand in one table: rows made by other code, from other data or from other weights."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from attnbench.reports.rows import counted, records


def refuse_mixtures(frame: pd.DataFrame, sweep: str) -> None:
    """Raises ValueError if a table would compare rows of different code, or of different data for the same task."""
    for sentence in mixtures(frame):
        remedy = "Run the cells again under one of them"
        if "versions of the code" in sentence:
            remedy = "`attnbench sweep --retry stale` runs those again that other code made than today's"
        raise ValueError(f"{sweep}: {sentence} {remedy}, or give --mixed to tabulate them together.")


def mixtures(frame: pd.DataFrame) -> list[str]:
    """One sentence for each way in which the rows are not of one making; none if they can be compared."""
    sentences, rows = [], records(frame)
    if len(versions := counted(row["code.fingerprint"] for row in rows)) > 1:
        sentences.append(f"The rows come from {len(versions)} versions of the code ({named(versions)}).")
    whose: dict[tuple[str, ...], list[Any]] = {}  # a cell's own files are those of its task, model and mechanism
    for row in rows:
        parts = (row["mechanism"], row["model"], row["task"] or row["kind"])  # a probe's are its own too
        whose.setdefault(tuple(str(part or "") for part in parts), []).append(row.get("code.entries"))
    for (mechanism, model, _), own in sorted(whose.items()):
        if len(versions := counted(own)) > 1:
            told = f"The rows of {mechanism or model} come from {len(versions)} versions of its files"
            sentences.append(f"{told} ({named(versions)}).")
    knobs = [name for name in frame.columns if name == "task" or name.startswith("task.")]
    tasks: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        tasks.setdefault(tuple(row[knob] for knob in knobs), []).append(row["data.hash"])
    for task in sorted(tasks, key=str):
        if len(hashes := counted(tasks[task])) > 1:
            name = task[knobs.index("task")]
            sentences.append(f"The rows of {name} come from {len(hashes)} different data sets ({named(hashes)}).")
    return sentences + [sentence for column in ("model.pretrained", "task.start") for sentence in origins(rows, column)]


def origins(rows: list[dict[str, Any]], column: str) -> list[str]:
    """A sentence for each name of weights to start from under which several were read."""
    hashed, sentences = f"data.{column.partition('.')[2]}_hash", []
    for name in sorted({str(row.get(column)) for row in rows if row.get(hashed)}):
        own = (row[hashed] for row in rows if str(row.get(column)) == name)
        if len(hashes := counted(own)) > 1:
            sentences.append(f"The rows that start from {name} read {len(hashes)} different weights ({named(hashes)}).")
    return sentences


def named(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} rows of {word.removeprefix('sha256:')[:12]}" for word, count in counts)
