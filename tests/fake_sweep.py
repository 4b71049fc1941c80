"""A sweep of fake cells as a process to be killed or interrupted: `python -m tests.fake_sweep STORE WORKERS ID ...`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attnbench.engine.local import run_local
from attnbench.engine.shard import Limits, Supervisor, Timing
from attnbench.engine.store import Store
from attnbench.manifest import Cell
from tests import fake_cell

FAST = Timing(poll_s=0.02, beat_s=0.05, look_s=0.05, hold_s=0.05, again_s=0.01)


def fake_store(folder: Path, monkeypatch) -> Store:
    """A store whose cells are fake, with scratch folders of its own, here and in child processes.

    No kill takes back what a process has written, so this one need not wait for the disk.
    """
    monkeypatch.setattr(os, "fsync", lambda _: None)
    (scratch := folder / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(Supervisor, "command", fake_cell.command)
    return Store(folder / "results")


def supervisor(store: Store, watch=None, **limits) -> Supervisor:
    """One that looks at everything often."""
    watch = watch or (lambda _: None)
    return Supervisor(store, data=None, limits=Limits(**limits), watch=watch, where={"who": "test"}, timing=FAST)


def clean(store: Store) -> bool:
    """Whether nothing is left over: no half-written file, no scratch folder, no attempt that looks alive."""
    files = [*store.root.rglob("*.tmp"), *Path(tempfile.gettempdir()).iterdir()]
    ids = [path.parent.name for path in store.root.rglob("spec.json")]
    return not files and not any(info.alive(time.time()) for id in ids for info in store.attempts(id))


def row(store: Store, id: str) -> dict:
    """The row that must be there."""
    found = store.result(id)
    assert found is not None
    return found


def sweep(store: Store, ids: list[str], workers: int = 1) -> subprocess.Popen:
    """This file as a process."""
    command = [sys.executable, "-m", "tests.fake_sweep", str(store.root), str(workers), *ids]
    place, pipe = Path(__file__).parent.parent, subprocess.PIPE
    return subprocess.Popen(command, cwd=place, stdout=pipe, stderr=pipe, text=True)


def cell(id: str, seed: int = 0, kind: str = "train", estimate_s: float = 1.0) -> Cell:
    """A cell of a sweep that has this id."""
    return Cell(
        id=id,
        kind="cost" if kind == "cost" else "train",
        label=f"cell {id[:4]}",
        variant="fake",
        mechanism="full",
        model="isotropic",
        seed=seed,
        estimate_s=estimate_s,
    )


def main(root: str, workers: str, *ids: str) -> int:
    Supervisor.command = fake_cell.command
    cells = [cell(id) for id in ids]
    limits = Limits(**json.loads(os.environ.get("ATTNBENCH_TEST_LIMITS", "{}")))
    return run_local(Store(Path(root)), cells, workers=int(workers), data=None, limits=limits, quiet=False)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests may have it ignored, as nohup does
    sys.exit(main(*sys.argv[1:]))
