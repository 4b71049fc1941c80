"""Sweeps of fake cells for a real SLURM; `python -m tests.slurm_sweep STORE CELLS` is a controller to be killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attnbench.engine import _upkeep, slurm
from attnbench.engine._queue import Job
from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits
from attnbench.engine.slurm import QueueSnapshot, Request, Resources
from attnbench.manifest import Cell
from tests import fake_cell
from tests.fake_cells import FakeCells
from tests.slurm_cluster import until

REQUEST = Request(
    resources=Resources(hours=1 / 6, gpus=0, cpus=1, memory_gib=0.25, parallel=2),
    site=SiteSettings(poll_s=0.25),
    limits=Limits(),
    child=(sys.executable, "-I", "-S", fake_cell.__file__),
)


class Sweep(FakeCells):
    """Fake cells that run on SLURM."""

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

    def submissions(self) -> list[Path]:
        return sorted(self.store.root.glob("submissions/*"))

    def queue(self) -> QueueSnapshot:
        seen = slurm.snapshot(self.store)
        assert seen is not None
        return seen

    def jobs(self) -> tuple[Job, ...]:
        return self.queue().jobs

    def until_running(self, count: int = 1) -> None:
        """Until so many cells are at work."""
        until(20, lambda: sum(a.end is None for a in self.attempts()) >= count, f"{count} cells run")

    def again(self) -> int:
        return self.run()

    def live(self) -> bool:
        return any(job.live for job in self.jobs())

    def finished(self) -> list[dict[str, Any]]:
        """All rows, once they are there."""
        until(30, lambda: len(self.rows()) == len(self.cells), "all cells have rows")
        return self.rows()

    def state_of(self, id: str) -> str:
        """SLURM's word for a job."""
        return next(job.state for job in self.jobs() if job.id == id)


def in_a_process(sweep: Sweep, *, code: Path | None = None) -> subprocess.Popen[bytes]:
    """A controller that can be killed; `code` is the folder of the packages that it runs, if not these."""
    root = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (code or root, root)))
    cells = json.dumps([vars(cell) for cell in sweep.cells])
    command = [sys.executable, "-m", "tests.slurm_sweep", str(sweep.store.root), cells]
    environment = os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests may have it ignored, as nohup does
    _upkeep.DEAF_S = float(os.environ.get("ATTNBENCH_TEST_DEAF_S", _upkeep.DEAF_S))
    given = Sweep(Path(sys.argv[1]))
    given.cells = [Cell(**cell) for cell in json.loads(sys.argv[2])]
    sys.exit(slurm.run_slurm(given.store, given.cells, request=REQUEST, wait=True, quiet=True))
