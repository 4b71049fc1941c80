"""What the page of a sweep is made from: the same tables and sheets that the other files of the report hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from attnbench.reports.anonymous import Veil
from attnbench.reports.columns import PLACES
from attnbench.reports.places import HISTORY, Curves, Kept
from attnbench.reports.sheets import Sheet
from attnbench.reports.summary import Table

if TYPE_CHECKING:
    from attnbench.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Part:
    """One sweep of a page.

    notes: sentences on where the rows come from and what is missing. known, pages: the tables and the sheets of
    summary.md. curves: of a training's id, values over places. veil: over names and paths, for an anonymous report.
    beside: what only the store knows of each cell.
    """

    manifest: "Manifest"
    frame: pd.DataFrame
    notes: Sequence[str]
    known: Sequence[Table]
    pages: Sequence[Sheet]
    curves: Curves
    veil: Veil
    beside: Mapping[str, "Beside"]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What stands in no table of a cell: how often it was tried (None: not known), its traceback, its training curves.

    histories: of `train_loss` and the like, a number for each epoch.
    """

    tries: int | None = None
    traceback: str = ""
    histories: Mapping[str, list[float]] = field(default_factory=dict)


def beside(store: Kept, manifest: "Manifest", veil: Veil, tried: Mapping[str, int] | None = None) -> dict[str, Beside]:
    """What the store alone knows of the sweep's cells; of a store that holds none of them, nothing is known.

    tried: how many attempts at each cell the store has noted, where that is known already.
    """
    tried = store.tries(cell.id for cell in manifest.cells) if tried is None else tried
    found = {}
    for cell in manifest.cells:
        record = store.result(cell.id)
        failure = None if record else store.failed(cell.id)
        raw = (record or {}).get("raw") or {}
        error = (record or {}).get("error") or failure or {}
        found[cell.id] = Beside(
            tries=(failure or {}).get("tries") or tried.get(cell.id),
            traceback=veil.text(str(error.get("traceback") or "")),
            histories={name: series for name, series in raw.items() if historic(name, series)},
        )
    return found


def historic(name: str, series: Any) -> bool:
    """Whether a raw series of a row has a number for each epoch of a training."""
    numbers = isinstance(series, list) and set(map(type, series)) <= {int, float}
    return numbers and len(series) > 1 and name.startswith(HISTORY) and f"raw.{name}" not in PLACES
