"""A cell whose child is killed in its training goes on from its checkpoint, and leaves none when it has its row."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

import attnbench
from attnbench import run
from attnbench.engine.store import Store
from tasks import Checkpoint
from tests import tiny
from tests.fake_cell import spec, until
from tests.fake_sweep import clean, fake_store, supervisor

SWEEP = {
    "question": "Does it go on?",
    "runs": 1,
    "tasks": [{"name": "darcy", **tiny.TASK, "epochs": 150}],
    "models": [{"name": "isotropic", **tiny.MODEL}],
    "mechanisms": [{"name": "full"}],
    "seeds": [0],
}
PATIENCE_S = 120


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    return fake_store(tmp_path, monkeypatch)


def checkpoint(store: Store, id: str) -> Path:
    """A cell's folder of checkpoints, with one in it."""
    folder = store.spec_path(id).parent / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(b"kept")
    return folder


@pytest.mark.parametrize(("do", "ended"), [("ok", "ok"), ("killed-once", "ok"), ("diverged", "diverged")])
def test_a_cell_with_a_row_has_no_checkpoint(store, tmp_path, do, ended):
    id = store.ask(spec(tmp_path / "trace", 0, do))
    folder = checkpoint(store, id)
    assert supervisor(store).run([id]) == Counter({ended: 1})
    assert not folder.exists()
    checkpoint(store, id)  # as one that was killed between its commit and its cleaning leaves it
    assert supervisor(store).run([id]) == Counter(done=1)
    assert not folder.exists()
    assert clean(store)


def test_a_cell_without_a_row_keeps_it(store, tmp_path):
    id = store.ask(spec(tmp_path / "trace", 0, "killed"))
    folder = checkpoint(store, id)
    assert supervisor(store).run([id]) == Counter(failed=1)
    assert (folder / "state.pt").read_bytes() == b"kept"


def test_all_attempts_at_a_cell_are_given_the_same_folder_outside_of_them(tmp_path):
    command = supervisor(Store(tmp_path)).command(tmp_path / "ab" / "spec.json", tmp_path / "out.json")
    assert command[command.index("--cell") + 1] == str(tmp_path / "ab")


def environment(place: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(Path(attnbench.__file__).parents[1]),
        "PYTHONSAFEPATH": "1",
        "ATTNBENCH_RESULTS": str(place / "results"),
        "ATTNBENCH_DATA": str(place / "data"),
        "ATTNBENCH_CHECKPOINT_S": "0",
        "XDG_CACHE_HOME": str(place / "cache"),
        "XDG_CONFIG_HOME": str(place / "settings"),
    }


def until_row(process: subprocess.Popen, results: Path, kill: bool) -> dict[str, Any]:
    """The training's row; its first child is killed after some checkpoints."""
    ends, dates = time.monotonic() + PATIENCE_S, set()
    while time.monotonic() < ends and process.poll() is None:
        for file in results.glob("cells/??/*/checkpoint/state.pt"):
            dates.add(file.stat().st_mtime_ns)
        if kill and len(dates) > 5:
            (child,) = [one for one in psutil.Process(process.pid).children() if "attnbench.run" in one.cmdline()]
            os.kill(child.pid, signal.SIGKILL)
            kill = False
        for file in results.glob("cells/??/*/result.json"):
            row = json.loads(file.read_text())
            until(lambda folder=file.parent / "checkpoint": not folder.exists())
            return row
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def test_a_sweep_whose_child_is_killed_has_the_row_of_one_that_was_left_alone(tmp_path):
    rows = {}
    for name in ("alone", "killed"):
        (place := tmp_path / name).mkdir()
        (place / "asked.yaml").write_text(json.dumps(SWEEP))
        words = ["sweep", "asked.yaml", "--device", "cpu", "--launcher", "local"]
        command = [sys.executable, "-m", "attnbench", *words]
        process = subprocess.Popen(
            command, cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            rows[name] = until_row(process, place / "results", kill=name == "killed")
        finally:
            process.kill()  # the measurement of cost is not waited for
            process.communicate()
    assert rows["killed"]["status"] == "ok"
    for block in ("result", "raw", "data"):
        assert rows["killed"][block] == rows["alone"][block]
    (cell,) = [file.parent for file in (tmp_path / "killed").glob("results/cells/??/*/result.json")]
    ends = [json.loads(file.read_text().splitlines()[-1]) for file in cell.glob("attempts/*.jsonl")]
    assert sorted(end.get("outcome", "") for end in ends) == ["killed", "ok"]
    logs = "".join(file.read_text() for file in cell.glob("attempts/*.log"))
    assert "Training goes on from a checkpoint" in logs
    assert not (cell / "checkpoint").exists()


def test_seconds_of_earlier_attempts_are_in_the_row(tmp_path, monkeypatch):
    class Long(Checkpoint):
        def load(self) -> None:
            self.earlier_s = 1000.0

    tiny.data(tmp_path)
    made = Long(folder=tmp_path / "checkpoint", of={})
    monkeypatch.setattr(run, "checkpoint", lambda *_: made)
    assert run.train(tiny.spec(), tmp_path, tmp_path)["cost"]["train_wall_s"] > 1000
    assert run.train(tiny.spec(), tmp_path)["cost"]["train_wall_s"] < 1000
