"""Fake cells in a store of their own, which know how each of them must end; what sweeps here and on SLURM share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from attnbench.engine._records import AttemptInfo
from attnbench.engine.codes import DONE, SET_ASIDE
from attnbench.engine.store import Store
from attnbench.manifest import Cell, Manifest
from tests import fake_cell, invariants


class FakeCells:
    """Cells that are added, run by a subclass, and checked in the end."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.cells: list[Cell] = []
        self.ends: dict[str, str] = {}  # how each cell must end
        self.witness = invariants.Witness(root)

    def add(
        self,
        count: int,
        seconds: float = 0.1,
        kind: Literal["train", "cost"] = "train",
        *,
        ends: str = "ok",
        **more: object,
    ) -> None:
        """`ends`: the status that their rows must have, or `failed`."""
        for seed in range(len(self.cells), len(self.cells) + count):
            asked = {"do": "ok", "sleep": seconds, "kind": kind, **more}
            id = self.store.ask(fake_cell.spec(self.store.root / "trace", seed, **asked))
            names = {"label": f"fake {seed}", "variant": "fake", "mechanism": None, "model": "fake"}
            self.cells.append(Cell(id=id, kind=kind, seed=seed, estimate_s=seconds, **names))
            self.ends[id] = ends

    @property
    def ids(self) -> list[str]:
        return [cell.id for cell in self.cells]

    def rows(self) -> list[dict[str, Any]]:
        return [row for id in self.ids if (row := self.store.result(id)) is not None]

    def attempts(self) -> list[AttemptInfo]:
        return [attempt for id in self.ids for attempt in self.store.attempts(id)]

    def starts(self) -> list[tuple[int, int]]:
        """Seed and process id of every start of a cell."""
        return fake_cell.starts(self.store.root / "trace")

    def logs(self) -> int:
        """How many attempts have a word in their logs."""
        return sum(path.stat().st_size > 0 for path in self.store.root.glob("cells/??/*/attempts/*.log"))

    def outcomes(self) -> list[str]:
        """How the attempts ended, sorted."""
        return sorted(info.end["outcome"] if info.end else "vanished" for info in self.attempts())

    def status(self, *, cause: str = "") -> dict[str, Any]:
        """What `attnbench status` says now, within ten seconds; `cause` must be a part of one of its causes."""
        if not (self.store.root / "fake" / "cells.json").exists():
            self.manifest()
        return invariants.status(self.store, "fake", cause=cause)[1]

    def manifest(self) -> None:
        written = Manifest(sweep="fake", question="?", device="cpu", cells=tuple(self.cells))
        written.write(self.store.root / "fake" / "cells.json")

    def again(self) -> int:
        """The same sweep once more; its exit code."""
        raise NotImplementedError

    def live(self) -> bool:
        """Whether the scheduler still has a job of it."""
        return False

    def submissions(self) -> Sequence[Path]:
        return ()

    def assert_whole(self) -> None:
        """Every invariant but the fourth, which is asked while something is broken."""
        invariants.every_cell_has_one_row_or_is_set_aside(self.store, self.ends)
        invariants.nothing_is_left(self.store, self.ids, lambda: [pid for _, pid in self.starts()], live=self.live)
        rows, attempts, submitted = self.rows(), self.attempts(), self.submissions()
        told = invariants.story(rows, attempts, len(submitted) if submitted else None)
        code = SET_ASIDE if "failed" in self.ends.values() else DONE
        count = lambda: (list(self.submissions()), len(self.attempts()), len(self.starts()))  # noqa: E731
        invariants.nothing_starts_again(self.again, count, code=code)
        self.witness.bytes_are_unchanged()
        invariants.nothing_started_after_a_commit(self.store, self.ids)
        scores = {cell.seed: cell.seed / 7 for cell in self.cells if cell.seed is not None and self._ok(cell)}
        found = {row["spec"]["seed"]: row["result"]["score"] for row in rows if row["status"] == "ok"}
        invariants.numbers_are_the_same(found, scores)
        invariants.note("", told)

    def _ok(self, cell: Cell) -> bool:
        return self.ends[cell.id] == "ok"
