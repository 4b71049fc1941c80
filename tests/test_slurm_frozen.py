"""Code that is edited while jobs wait: they run what was there when they were submitted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attnbench.engine.store import Store
from tests.invariants import numbers_are_the_same
from tests.slurm_cluster import Cluster
from tests.slurm_sweep import Sweep, in_a_process
from tests.test_slurm_cli import SWEEP
from tests.test_slurm_faults import drained

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[1]
PACKAGES = ("attnbench", "mechanisms", "tasks")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages that a test may edit."""
    for package in PACKAGES:
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / "code" / package, ignore=leave)
    return tmp_path / "code"


def edit(file: Path) -> None:
    """From now on it cannot even be imported."""
    file.write_text(f"raise RuntimeError('this was edited')\n{file.read_text()}")


@pytest.mark.fault("F17", "the supervisor's code is edited while its jobs wait")
def test_waiting_jobs_run_the_supervisor_that_was_there_when_they_were_submitted(cluster: Cluster, tmp_path, copy):
    sweep = Sweep(tmp_path / "results")
    sweep.add(3)
    with drained(cluster, "n1", "n2"):
        controller = in_a_process(sweep, code=copy)
        try:
            assert not controller.poll()
            while not any((folder / "jobs.json").exists() for folder in sweep.submissions()):
                controller.poll()
            edit(copy / "attnbench" / "engine" / "shard.py")
        finally:
            controller.kill()
            controller.wait()
    assert sweep.run() == 0
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1
    assert sweep.outcomes() == ["ok"] * 3


@pytest.mark.chaos
@pytest.mark.fault("F17", "the mechanism of real trainings is edited while their jobs wait")
def test_rows_of_jobs_that_waited_have_the_fingerprint_and_numbers_of_the_code_before_the_edit(cluster, tmp_path, copy):
    (file := tmp_path / "same.yaml").write_text(SWEEP)
    given = ["--data-dir", tmp_path / "data", "--slurm", "poll_s=0.5", "--device", "cpu"]

    def call(code: Path, launcher: str, *words: str) -> subprocess.CompletedProcess[str]:
        where = ["--launcher", launcher, "--results", tmp_path / launcher]
        command = [sys.executable, "-m", "attnbench", "sweep", str(file), *map(str, [*given, *where]), *words]
        environment = os.environ | {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "XDG_CONFIG_HOME": str(tmp_path)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
        )

    with drained(cluster, "n1", "n2"):
        first = call(copy, "slurm", "--no-wait")
        assert first.returncode == 3, first.stdout + first.stderr
        edit(copy / "mechanisms" / "identity.py")
        edit(copy / "tasks" / "_train.py")
    last = call(ROOT, "slurm")
    assert last.returncode == 0, last.stdout + last.stderr
    plain = call(ROOT, "local")
    assert plain.returncode == 0, plain.stdout + plain.stderr
    ids = [path.parent.name for path in (tmp_path / "local").glob("cells/??/*/result.json")]
    there, here = ([Store(tmp_path / name).result(id) for id in ids] for name in ("slurm", "local"))
    assert len(ids) == 3
    prints = [[row and (row["code"]["fingerprint"], row["code"]["entries"]) for row in rows] for rows in (there, here)]
    assert prints[0] == prints[1]
    trained = [[row["result"] for row in rows if row and row["spec"]["kind"] == "train"] for rows in (there, here)]
    numbers_are_the_same(dict(enumerate(trained[0])), dict(enumerate(trained[1])))
    assert len(list((tmp_path / "slurm").glob("submissions/*"))) == 2
