"""Starting a sweep: data are made once, in a process of their own, on whatever machine the call is made."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from attnbench import launch
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
