"""Refuses figures that the rows of a sweep could never fill, before any cell runs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attnbench._entries import once
from attnbench._sections import Figure, Frame
from attnbench._yaml import SweepError, line
from attnbench.reports.columns import COLUMN_WORDS, COLUMNS, NEEDED, misplaced
from mechanisms import nearest

ALWAYS = ("task", "model", "mechanism", "variant", "seed", "device")


def refuse_figures(file: Path, text: Any, frame: Frame, cells: Iterable[Any]) -> None:
    """Raises SweepError, with the line, for two figures of one name, a missing word, an unknown column or mechanism."""
    cells = list(cells)
    columns, mechanisms = known(cells), sorted({cell.mechanism.name for cell in cells if cell.mechanism})
    for number, figure in enumerate(frame.figures):
        node = text["figures"][number]
        if figure.name in [other.name for other in frame.figures[:number]]:
            raise SweepError(
                file, line(node, "name"), f"two figures are named {figure.name!r}; give each its own name."
            )
        if why := fault(figure, columns, mechanisms):
            word, sentence = why
            raise SweepError(
                file, line(node, word) if word in node else line(node), f"figure {figure.name}: {sentence}"
            )


def fault(figure: Figure, columns: list[str], mechanisms: list[str]) -> tuple[str, str] | None:
    """The word that is wrong in a figure, and the sentence that says why."""
    given = figure.model_dump(exclude_none=True)
    for word in NEEDED[figure.kind]:
        if word not in given:
            return word, f"kind {figure.kind} needs {word}, a column of the rows."
    for word in COLUMN_WORDS:
        if word in given and given[word] not in columns:
            return word, f"the rows have no column {given[word]!r}.{nearest(given[word], columns)}"
    if wrong := misplaced(figure.kind, given):
        return "y", wrong
    if figure.mechanism and figure.mechanism not in mechanisms:
        return "mechanism", (
            f"the sweep has no mechanism {figure.mechanism!r}.{nearest(figure.mechanism, mechanisms)} "
            f"It has {', '.join(mechanisms)}."
        )
    return None


def known(cells: list[Any]) -> list[str]:
    """The columns that rows of these cells will have."""
    chosen = {field: once(getattr(cell, field) for cell in cells) for field in ("task", "model", "mechanism")}
    knobs = {f"{field}.{knob}" for field, parts in chosen.items() for part in parts for knob in part.values}
    results = {f"result.{name}" for part in chosen["task"] for name in part.entry.better}
    costs = {name for name in COLUMNS if not name.startswith("result.")}
    return sorted({*ALWAYS, *knobs, *results, *costs})
