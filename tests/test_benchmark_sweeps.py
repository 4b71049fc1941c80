"""What the benchmarks of sweeps go by: turns and their ratios, tools that must leave every result, equal numbers."""

import argparse
import subprocess
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from benchmarks import _turns, packing, sweep_overhead
from benchmarks._sweep_tools import TOOLS, run_one
from benchmarks._turns import Turn, disturbed, ratio, table, turn
from benchmarks.packing import ONE

OPTIONS = argparse.Namespace(cells=1000, rounds=2, slurm=False, device="cpu", epochs=3)


def turns(*walls: float, foreign: float | None = 0.0, said: object = None) -> list[Turn]:
    return [Turn(wall_s=wall, foreign=foreign, said=said) for wall in walls]


def test_a_ratio_is_the_median_of_runs_of_one_round_with_its_extremes():
    assert ratio(turns(1.0, 4.0, 2.0), turns(2.0, 12.0, 3.0)) == "2.00 (1.50 to 3.00)"
    assert ratio(turns(2.0), turns(2.0)) == "1.00"


def test_a_run_that_others_disturbed_is_marked():
    assert disturbed(turns(1.0, foreign=0.34)) == " ~34%"
    assert disturbed(turns(1.0, foreign=0.05)) == disturbed(turns(1.0, foreign=None)) == ""


def test_a_turn_tells_its_time_what_it_said_and_fails_where_its_process_fails():
    script = "import time; time.sleep(0.3); print('a word'); print('{\"a\": 1}')"
    found = turn(["-c", script])
    assert found.said == {"a": 1}
    assert found.wall_s > 0.3
    with pytest.raises(subprocess.CalledProcessError):
        turn(["-c", "raise SystemExit(3)"])


def test_the_work_of_a_turns_own_process_is_not_foreign(monkeypatch):
    used = iter([0.0, 6.0])
    monkeypatch.setattr(_turns, "children_s", lambda: next(used))
    monkeypatch.setattr("attnbench.host.os.cpu_count", lambda: 2)
    usages = iter([_turns.Usage(0.0, 100.0, 1.0), _turns.Usage(4.0, 107.0, 1.0)])
    monkeypatch.setattr(_turns.Usage, "now", lambda: next(usages))
    assert turn(["-c", "print(1)"]).foreign == 1 / 8  # seven seconds of eight were used, six of them by it


def test_a_table_has_a_line_for_each_row():
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize("tool", ["attnbench", "a loop of subprocess.run"])
def test_a_tool_leaves_a_result_for_every_cell(tool, tmp_path):
    words = ["-m", "benchmarks._sweep_tools", tool, "--cells", "3", "--workers", "2", "--folder", str(tmp_path)]
    assert turn(words).said["results"] == 3
    assert not list(tmp_path.iterdir())


def test_a_tool_that_leaves_out_a_result_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="joblib left 0 results of 3"):
        run_tool(
            "joblib", tmp_path, lambda folder, cells, workers: (folder / "x.json").write_text("") * cells * workers
        )


def run_tool(name: str, folder: Path, run) -> None:
    with patch("sys.argv", ["it", name, "--cells", "3", "--workers", "1", "--folder", str(folder)]):
        run_one({name: replace(TOOLS[name], run=run)})


def test_a_table_of_tools_tells_times_against_attnbench_fewer_cells_and_who_is_missing():
    found = {"attnbench": turns(100.0, 120.0), "submitit, LocalExecutor": turns(50.0, 60.0, foreign=0.5)}
    text = sweep_overhead.report(found, ["doit"], TOOLS, OPTIONS, {"cores": 2})
    lines = [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert lines[2][:3] == ["attnbench", "0.110 (0.100 to 0.120)", "1.00"]
    assert lines[3][:3] == ["submitit, LocalExecutor", "1.100 (1.000 to 1.200) of 50 cells ~50%", "10.00"]
    assert lines[4][:2] == ["doit", "not installed"]
    assert {len(line) for line in lines} == {6}


def test_cells_an_hour_stand_beside_those_of_one_at_a_time():
    found = {ONE: turns(100.0, 120.0), "attnbench --workers auto": turns(50.0, 80.0)}
    text = packing.report(found, OPTIONS, {"cells": 10})
    lines = [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert lines[2][:3] == [ONE, "330 (300 to 360)", "1.00"]
    assert lines[3][:3] == ["attnbench --workers auto", "585 (450 to 720)", "1.75 (1.50 to 2.00)"]


@pytest.mark.parametrize(
    ("device", "score", "refused"), [("cpu", 0.5000001, True), ("cuda", 0.51, False), ("cuda", 0.6, True)]
)
def test_a_way_that_comes_to_other_numbers_is_refused(device, score, refused):
    found = {ONE: turns(1.0, said={"a": {"rel_l2": 0.5}}), "pool": turns(1.0, said={"a": {"rel_l2": score}})}
    if refused:
        with pytest.raises(SystemExit, match=f"pool came to other numbers than {ONE}"):
            packing.compared(found, device)
    else:
        packing.compared(found, device)
