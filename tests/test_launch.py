"""Starting a sweep: data are made once, in a process of their own, on whatever machine the call is made."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attnbench import launch, verbs
from attnbench.cli import main
from attnbench.engine import codes
from tests import tiny


def test_data_for_a_gpu_are_made_where_there_is_none(tmp_path, monkeypatch):
    asked: list[dict[str, Any]] = []

    def follow(command: list[str], *_: Any) -> None:
        asked.append(json.loads(Path(command[3]).read_text()))
        Path(command[4]).write_text(json.dumps({"error": None, "data": {"hash": "sha256:0"}}))

    monkeypatch.setattr(launch, "follow", follow)
    assert launch.prepare_one(tiny.spec(device="cuda"), tmp_path, quiet=True) == "sha256:0"
    assert asked == [tiny.spec(device="cpu")]


def test_lines_that_are_no_progress_do_not_disturb_the_making_of_data(capfd):
    script = "print('preparing 1 2'); print(); print('a word'); print('preparing the fields now')"
    launch.follow([sys.executable, "-c", script], dict(os.environ), "data", quiet=False)
    assert "a word" in capfd.readouterr().err


SWEEP = """\
question: Where does it run?
runs: 1
tasks: [{name: darcy, side: 16, train: 16, valid: 8, test: 8, epochs: 1, batch: 8}]
models: [{name: isotropic, channels: 8, depth: 1}]
mechanisms: [{name: identity}]
seeds: [0]
"""


@pytest.mark.parametrize("launcher", ["auto", "slurm"])
def test_a_first_sweep_goes_to_a_cluster_that_answers(launcher, tmp_path, monkeypatch):
    """Under a root where nothing was submitted before."""
    launched: list[launch.Options] = []
    monkeypatch.setattr(verbs.slurm, "available", lambda: (True, "Running on SLURM: sbatch is there."))
    monkeypatch.setattr(launch, "launch", lambda *given: launched.append(given[3]) or codes.INCOMPLETE)
    file = tmp_path / "where.yaml"
    file.write_text(SWEEP)
    told = CliRunner().invoke(
        main, ["sweep", str(file), "--launcher", launcher, "--results", str(tmp_path / "results")]
    )
    assert told.exit_code == codes.INCOMPLETE, told.output
    assert [options.launcher for options in launched] == ["slurm"]
