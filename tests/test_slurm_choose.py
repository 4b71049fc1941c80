"""A sweep that chooses a knob, on a real SLURM: trials first, then what they chose, then the report; in two calls.

Real cells, so it takes about a minute.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attnbench.engine.store import Store
from attnbench.manifest import Manifest

pytestmark = pytest.mark.slurm

SWEEP = """\
question: Does a cluster run trials and then what they choose?
runs: 3
tasks:
  - {name: darcy, side: 8, refine: 2, train: 8, valid: 4, test: 4, epochs: 1, batch: 4}
models:
  - {name: isotropic, channels: 8, depth: 1}
mechanisms:
  - {name: identity}
seeds: [0]
choose: {knob: task.rate, values: [1e-6, 1e-2], by: valid_rel_l2, seeds: [100]}
slurm: {hours: 0.2, cpus: 1, memory_gib: 1.8, parallel: 2}
"""


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`attnbench sweep` on SLURM, as people run it."""
    (file := folder / "tried.yaml").write_text(SWEEP)
    given = ["--launcher", "slurm", "--results", str(folder / "results"), "--data-dir", str(folder / "data")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "XDG_CONFIG_HOME": str(folder)}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    command = [sys.executable, "-m", "attnbench", "sweep", str(file), *given, "--slurm", "poll_s=0.5", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def rows(folder: Path) -> list[tuple[str, Any]]:
    """Kind and row of every cell of the manifest; the row is None where there is none."""
    manifest = Manifest.read(folder / "results" / "tried" / "cells.json")
    store = Store(folder / "results")
    return [("trial" if cell.trial else cell.kind, store.result(cell.id)) for cell in manifest.cells]


def ended_well(folder: Path) -> None:
    """All four cells have rows, the training has the better rate, and the report tells of trials and of it."""
    found = rows(folder)
    assert sorted(kind for kind, _ in found) == ["cost", "train", "trial", "trial"]
    assert all(row and row["status"] == "ok" and "nonce" in row["where"] for _, row in found)
    scores = {
        row["spec"]["task"]["knobs"]["rate"]: row["result"]["valid_rel_l2"] for kind, row in found if kind == "trial"
    }
    (trained,) = [row for kind, row in found if kind == "train"]
    assert trained["spec"]["task"]["knobs"]["rate"] == min(scores, key=lambda rate: scores[rate])
    summary = (folder / "results" / "tried" / "summary.md").read_text()
    assert "trials of rate" in summary
    assert "| identity | 1 / 1 |" in summary


@pytest.mark.usefixtures("cluster")
def test_trials_and_then_what_they_chose_run_in_two_calls(tmp_path):
    first = sweep(tmp_path, "--no-wait")
    assert first.returncode == 3, first.stdout + first.stderr
    assert "1 trainings wait for their trials: they have not ended; `attnbench sweep` again" in first.stdout
    assert "To see them through: " in first.stdout
    assert "--no-wait" not in first.stdout + first.stderr  # to wait is how they are seen through
    assert sorted(kind for kind, _ in rows(tmp_path)) == ["cost", "trial", "trial"]
    second = sweep(tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stderr.splitlines()[-1].startswith("[4/4] ok"), second.stderr
    ended_well(tmp_path)
