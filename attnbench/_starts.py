"""Weights that trainings start from: whether they are there, are still to be made, or never will be.

`start` names a file, or a cell of the store that kept its weights. A cell that is asked for and keeps weights is a
sound plan, in this sweep or in another one: trainings that start from it are held back until it has ended.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attnbench._yaml import SweepError
from attnbench.cell import Spec
from attnbench.engine.store import Store
from attnbench.run import CELL_ID, WEIGHTS
from attnbench.sweep import Plan, Planned


def start_of(spec: Spec) -> str:
    """The file or cell that a training starts from; empty for most."""
    return str(spec["task"]["knobs"].get("start", "")) if spec["kind"] == "train" else ""


def refuse_starts(plan: Plan, store: Store, *, now: bool = False) -> None:
    """Raises SweepError for a start of a training to run that is not there and that no cell will bring.

    now: nor one that a cell is still to bring.
    """
    own = {cell.id: cell.spec for cell in plan.cells}
    for cell in (*plan.cells, *plan.waiting):
        start = start_of(cell.spec)
        if start and not store.done(cell.id) and (why := lacking(start, own, store)):
            raise SweepError(plan.file, cell.task.line, f"{cell.task.name}.start: {why}.")
    if now and (held := held_back(plan.cells, store)):
        first = next(iter(held.values()))
        raise SweepError(plan.file, None, f"start: cell {first} has not ended yet, so there is no {WEIGHTS} of it.")


def held_back(cells: Iterable[Planned], store: Store) -> dict[str, str]:
    """Trainings that cannot begin yet, and of each the cell whose weights it waits for."""
    starts = {cell.id: start_of(cell.spec) for cell in cells}
    return {id: start for id, start in starts.items() if start and not store.done(id) and not there(start, store)}


def there(start: str, store: Store) -> bool:
    if Path(start).expanduser().is_file():
        return True
    return bool(CELL_ID.fullmatch(start)) and weights(start, store).is_file()


def weights(id: str, store: Store) -> Path:
    """Where a cell leaves its weights."""
    return store.spec_path(id).with_name(WEIGHTS)


def lacking(start: str, own: Mapping[str, Spec], store: Store) -> str:
    """Why there are no such weights and will be none, without a full stop; empty where that is not so.

    own: the cells of this sweep.
    """
    if there(start, store):
        return ""
    if not CELL_ID.fullmatch(start):
        return f"there is no file {Path(start).expanduser().absolute()}"
    folder = weights(start, store).parent
    if row := store.result(start):
        return f"cell {start} ended with {row['status']} and {gone(row, folder)}"
    try:
        spec = own.get(start) or store.spec(start)
    except ValueError:
        return f"there is no cell {start} under {store.root}, no such file, and no such cell in this sweep"
    if error := store.failed(start):
        return f"cell {start} is set aside and left no {WEIGHTS} in {folder}: {str(error.get('message')).rstrip('.')}"
    return "" if spec["task"]["knobs"].get("keep_weights") else f"cell {start} {keeps_none(folder)}"


def gone(row: Mapping[str, Any], folder: Path) -> str:
    """What became of the weights of a cell that has its row."""
    if row["status"] != "ok":
        return f"left no {WEIGHTS} in {folder}"
    return f"its {WEIGHTS} is no longer in {folder}" if row["data"].get("weights") else keeps_none(folder)


def keeps_none(folder: Path) -> str:
    return f"keeps no {WEIGHTS} in {folder}; a cell of its own with keep_weights: true does"
