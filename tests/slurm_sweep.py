"""Sweeps of fake cells for a real SLURM; `python -m tests.slurm_sweep STORE CELLS` is a controller to be killed."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from attnbench.engine import slurm
from attnbench.engine._queue import Job
from attnbench.engine._records import AttemptInfo
from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits
from attnbench.engine.slurm import QueueSnapshot, Request, Resources
from attnbench.engine.store import Store
from attnbench.manifest import Cell
from tests import fake_cell
from tests.slurm_cluster import until

REQUEST = Request(
    resources=Resources(hours=1 / 6, gpus=0, cpus=1, memory_gib=0.25, parallel=2),
    site=SiteSettings(poll_s=0.25),
    limits=Limits(),
    child=(sys.executable, "-I", "-S", fake_cell.__file__),
)


class Sweep:
    """Fake cells in a store of their own."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.cells: list[Cell] = []

    def add(self, count: int, seconds: float = 0.1, kind: Literal["train", "cost"] = "train", **more: object) -> None:
        for seed in range(len(self.cells), len(self.cells) + count):
            asked = {"do": "ok", "sleep": seconds, "kind": kind, **more}
            id = self.store.ask(fake_cell.spec(self.store.root / "trace", seed, **asked))
            names = {"label": f"fake {seed}", "variant": "fake", "mechanism": None, "model": "fake"}
            self.cells.append(Cell(id=id, kind=kind, seed=seed, estimate_s=seconds, **names))

    @property
    def ids(self) -> list[str]:
        return [cell.id for cell in self.cells]

    def run(self, request: Request = REQUEST, *, wait: bool = True) -> int:
        """The exit code, within a minute, or what was raised."""
        return self._start(request, wait=wait).result(60)

    @contextmanager
    def running(self, request: Request = REQUEST, *, seconds: float = 60) -> Iterator[list[int]]:
        """Runs beside the test; its exit code is in the list afterwards, which must come within so many seconds."""
        codes: list[int] = []
        ends = self._start(request, wait=True)
        yield codes
        codes.append(ends.result(seconds))

    def _start(self, request: Request, *, wait: bool) -> Future[int]:
        """In a thread that does not keep a failed test from ending."""
        ends: Future[int] = Future()

        def work() -> None:
            try:
                ends.set_result(slurm.run_slurm(self.store, self.cells, request=request, wait=wait, quiet=True))
            except BaseException as error:
                ends.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return ends

    def rows(self) -> list[dict[str, Any]]:
        return [row for id in self.ids if (row := self.store.result(id)) is not None]

    def attempts(self) -> list[AttemptInfo]:
        return [attempt for id in self.ids for attempt in self.store.attempts(id)]

    def submissions(self) -> list[Path]:
        return sorted(self.store.root.glob("submissions/*"))

    def queue(self) -> QueueSnapshot:
        seen = slurm.snapshot(self.store)
        assert seen is not None
        return seen

    def jobs(self) -> tuple[Job, ...]:
        return self.queue().jobs

    def until_running(self, count: int = 1) -> None:
        until(20, lambda: sum(a.end is None for a in self.attempts()) >= count, f"{count} cells run")

    def assert_whole(self) -> None:
        """Every cell has the row its spec asks for, and nothing is left over."""
        scores = [row["result"]["score"] for row in self.rows()]
        assert scores == [number / 7 for number in range(len(self.cells))]
        until(10, lambda: not any(job.live for job in self.jobs()), "all jobs ended")
        assert not list(self.store.root.glob("cells/*/*/*.tmp"))

    def finished(self) -> list[dict[str, Any]]:
        """All rows, once they are there."""
        until(30, lambda: len(self.rows()) == len(self.cells), "all cells have rows")
        return self.rows()

    def state_of(self, id: str) -> str:
        """SLURM's word for a job."""
        return next(job.state for job in self.jobs() if job.id == id)


def in_a_process(sweep: Sweep) -> subprocess.Popen[bytes]:
    """A controller that can be killed."""
    cells = json.dumps([vars(cell) for cell in sweep.cells])
    command = [sys.executable, "-m", "tests.slurm_sweep", str(sweep.store.root), cells]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1], start_new_session=True)


if __name__ == "__main__":
    given = Sweep(Path(sys.argv[1]))
    given.cells = [Cell(**cell) for cell in json.loads(sys.argv[2])]
    sys.exit(slurm.run_slurm(given.store, given.cells, request=REQUEST, wait=True, quiet=True))
