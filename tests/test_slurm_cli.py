"""The command line end to end: a tiny sweep on a real SLURM gives the cells and the numbers that this machine gives.

This is the one SLURM test with real cells, so it needs torch in the jobs and takes about a minute.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnbench.engine.store import Store
from attnbench.manifest import Manifest

pytestmark = pytest.mark.slurm

SWEEP = """\
question: Do a cluster and this machine give the same numbers?
runs: 2
tasks:
  - {name: darcy, side: 16, train: 16, valid: 8, test: 8, epochs: 1, batch: 8}
models:
  - {name: isotropic, channels: 8, depth: 1}
mechanisms:
  - {name: identity}
seeds: [0, 1]
slurm: {hours: 0.2, cpus: 1, memory_gib: 1.8, parallel: 2}
"""


def sweep(folder: Path, launcher: str) -> dict[str, dict]:
    """Rows by cell after `attnbench sweep`, run as people run it."""
    file = folder / "same.yaml"
    file.write_text(SWEEP)
    results = folder / launcher
    given = ["--launcher", launcher, "--results", results, "--data-dir", folder / "data", "--slurm", "poll_s=0.5"]
    given_env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "XDG_CONFIG_HOME": str(folder)}
    command = [sys.executable, "-m", "attnbench", "sweep", str(file), *map(str, given)]
    done = subprocess.run(command, cwd=folder, env=given_env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = Manifest.read(results / "same" / "cells.json")
    return {cell.id: row for cell in manifest.cells if (row := Store(results).result(cell.id))}


@pytest.mark.usefixtures("cluster")
def test_a_sweep_gives_the_same_cells_and_numbers_on_slurm_as_here(tmp_path):
    there, here = sweep(tmp_path, "slurm"), sweep(tmp_path, "local")
    assert there.keys() == here.keys()
    assert len(there) == 3
    assert {id: row["status"] for id, row in there.items()} == dict.fromkeys(there, "ok")
    assert {id: row["result"] for id, row in there.items()} == {id: row["result"] for id, row in here.items()}
    assert {id: row["code"] for id, row in there.items()} == {id: row["code"] for id, row in here.items()}
    assert all("nonce" in row["where"] for row in there.values())
    assert sum("rel_l2" in row["result"] for row in there.values()) == 2
