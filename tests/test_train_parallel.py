"""Several processes that train one model together make the steps of one, all with the same weights; a cell of them
ends as a cell of one process would, whatever becomes of each.

What forked processes do is told by parallel_stories.py, all at once; one test starts a cell's processes in earnest.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from attnbench import launch
from attnbench.check import START_S, check, estimate_s
from attnbench.engine._child import Child, environment
from attnbench.engine._verdict import Ending, judge
from attnbench.run import set_up
from attnbench.sweep import expand
from tests import tiny
from tests.asked import changed, ids, launch_options, plan, written
from tests.fake_cell import runs, until

CUDA = changed("runs: 4", "runs: 4\ndevice: cuda\ngpus: 2")
CLOSE = {"fields": 1e-4, "every knob": 1e-4, "hidden symbols": 1e-4}
NUMBERS = [*CLOSE, "answers in 1", "answers in 3", "a step on 11 in 1", "a step on 11 in 3", "a step on 2 in 1"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.parallel_stories", str(tmp_path_factory.mktemp("stories"))]
    more = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    root = Path(__file__).parent.parent
    done = subprocess.run(
        command, cwd=root, env=os.environ | more, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NUMBERS)
def test_processes_together_tell_what_one_tells_and_hold_the_same_weights(told, name):
    (alone,), *more = told[name]
    close = CLOSE.get(name, 1e-11)
    assert more
    for each in more:
        assert len({weights for *_, weights in each}) == 1  # to the last bit
        for numbers, curves, _ in each:
            assert numbers == pytest.approx(alone[0], rel=close)
            assert curves.keys() == alone[1].keys()
            for curve, values in curves.items():
                assert values == pytest.approx(alone[1][curve], rel=close)
                assert values == each[0][1][curve]


def test_a_killed_training_of_two_processes_ends_as_one_that_never_was_with_dropout_too(told):
    never, killed = told["never killed"], told["killed twice"]
    assert killed["codes"] == [[-signal.SIGKILL] * 2] * 2
    assert killed["told"] == never["told"]
    assert never["told"][0] == never["told"][1]


def test_each_process_and_step_draws_its_own_numbers(told):
    first, second = told["draws"]
    assert len({*first, *second}) == 8
    assert (first[0], second[0]) == (first[-1], second[-1])


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells where a process listens")
def test_nothing_listens_beyond_the_loopback_interface(told):
    assert told["ports"] != [1, 1], "they could not meet"
    ports = [port for *_, own in told["ports"] for port in own]
    assert ports
    assert all(port.startswith("0100007F:") for port in ports)  # 127.0.0.1


def test_a_process_whose_peer_is_killed_does_not_wait_for_it(told):
    assert told["bereft"] == [1, -signal.SIGKILL]


def test_a_cell_of_two_gpus_is_two_processes_with_the_numbers_of_one(told):
    alone, two = (told["cells"][name]["outcome"] for name in ("alone", "two"))
    assert two["status"] == alone["status"] == "ok"
    assert two["result"] == pytest.approx(alone["result"], rel=1e-4)
    assert two["result"] != alone["result"]
    assert two.keys() == alone.keys()
    assert two["data"] == alone["data"]
    assert two["cost"].keys() == alone["cost"].keys()


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("error", "error", "KeyError"),
        ("error of the first", "error", "KeyError"),
        ("oom", "oom", "OutOfMemoryError"),
        ("oom, unnoticed", "oom", "OutOfMemoryError"),
        ("diverged", "diverged", "Diverged"),
    ],
)
def test_when_one_process_fails_the_cell_has_its_outcome_at_once(told, name, status, kind):
    cell = told["cells"][name]
    assert (cell["code"], cell["left"]) == (0, [])
    assert cell["took_s"] < 30
    assert (cell["outcome"]["status"], cell["outcome"]["error"]["type"]) == (status, kind)
    assert kind in cell["outcome"]["error"]["traceback"]
    assert cell["outcome"]["code"]["fingerprint"]


@pytest.mark.parametrize("name", ["killed", "the first killed"])
def test_when_one_process_is_killed_the_cell_is(told, name, tmp_path):
    cell = told["cells"][name]
    assert (cell["code"], cell["outcome"]) == (-signal.SIGKILL, None)
    assert cell["took_s"] < 30
    (log := tmp_path / "log").write_text("")
    for peak_mib, outcome in ((950.0, "oom"), (50.0, "killed")):  # as of one process
        ending = Ending(code=cell["code"], killed=None, peak_mib=peak_mib, limit_mib=1000.0, limit_s=None)
        assert judge(ending, tmp_path / "outcome.json", log).outcome == outcome


def child(place: Path) -> Child:
    """A long cell of two processes, as a supervisor starts it."""
    spec = tiny.written(place, tiny.spec(gpus=2, task={**tiny.spec()["task"], "knobs": tiny.TASK | {"epochs": 10**6}}))
    words = [str(spec), str(place / "outcome.json"), "--data", str(place)]
    return Child([sys.executable, "-m", "attnbench.run", *words], log=place / "log", environment=environment(1))


def test_a_process_that_is_killed_takes_the_others_and_the_cell_with_it(tmp_path):
    tiny.data(tmp_path)
    cell = child(tmp_path)
    try:
        until(lambda: (tmp_path / "rank1.partial.json").exists() and (tmp_path / "partial.json").exists(), 60)
        time.sleep(0.5)
        ranks = psutil.Process(cell.pid).children()
        assert len(ranks) == 2
        (second,) = [rank for rank in ranks if rank.cmdline()[-1] == "1"]
        second.kill()
        until(lambda: cell.code() is not None, 20)
        assert cell.code() == -signal.SIGKILL
        assert not any(runs(rank.pid) for rank in ranks)
        assert not (tmp_path / "outcome.json").exists()
        assert "Process 1 of 2 was ended by signal 9." in (tmp_path / "log").read_text()
    finally:
        cell.kill()
        cell.collect()


def test_processes_end_with_the_one_that_started_them():
    code = (
        "import os, time; from attnbench import _ranks; _ranks.bound(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    starter = f"""
import os, subprocess, sys, time
rank = subprocess.Popen([sys.executable, "-c", {code!r}], env=os.environ | {{"ATTNBENCH_STARTER": str(os.getpid())}})
time.sleep(60)
"""
    root = Path(__file__).parent.parent
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", starter], cwd=root, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        until(lambda: not runs(pid))


# --- sweep files


def test_gpus_are_in_the_ids_of_trainings_on_cuda_alone(tmp_path):
    one = plan(tmp_path, changed("runs: 4", "runs: 4\ndevice: cuda"))
    same, two = plan(tmp_path, CUDA.replace("gpus: 2", "gpus: 1")), plan(tmp_path, CUDA)
    assert ids(same) == ids(one)
    assert {cell.spec["gpus"] for cell in one.cells} == {1}
    assert [cell.spec["gpus"] for cell in two.cells] == [2] * 4 + [1] * 2
    assert ids(two)[4:] == ids(one)[4:]  # cost is measured on one
    assert not set(ids(two)[:4]) & set(ids(one))
    assert {cell.cost_id for cell in two.trainings} == set(ids(two)[4:])
    assert {cell.spec["gpus"] for cell in plan(tmp_path).cells} == {0}
    took = [estimate_s(found.cells[0], check(found).works) for found in (one, two)]
    assert 0 < took[1] - START_S["cuda"] < took[0] - START_S["cuda"]


SLURM = "slurm: {hours: 1, gpus: 1}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (changed("runs: 4", "runs: 4\ngpus: 2"), "line 3: gpus is 2, and cells run on cpu here"),
        (CUDA.replace("batch: 4", "batch: 1"), "line 6: gpus is 2, more than the 1 examples of a batch of darcy"),
        (CUDA + SLURM, "line 15: gpus is 2, and a job has slurm.gpus of 1; give it at least as many"),
        (CUDA.replace("gpus: 2", "gpus: 0"), "gpus should be greater than 0"),
    ],
)
def test_gpus_that_cannot_be_are_refused_in_one_sentence(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        expand(written(tmp_path, text), device="cpu")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("launcher", "found", "sentence"),
    [
        ("slurm", 8, "gpus is 2, and a job has 0; give the file a section slurm with 2 gpus"),
        ("local", 1, "gpus is 2, and torch finds 1 here"),
    ],
)
def test_a_launch_without_enough_gpus_is_refused(tmp_path, monkeypatch, launcher, found, sentence):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    options = launch_options(launcher)
    checked = check(plan(tmp_path, CUDA))
    store: Any = SimpleNamespace()  # is not asked
    with pytest.raises(ValueError, match=sentence):
        launch.launch(checked, store, tmp_path, options, print)
    costly = replace(options, max_gpu_hours=1.5 * checked.hours)  # of two GPUs each
    with pytest.raises(ValueError, match="above --max-gpu-hours"):
        launch.launch(checked, store, tmp_path, costly, print)


@pytest.mark.usefixtures("settings_put_back")
def test_a_cell_of_more_gpus_than_there_are_is_an_error_and_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    with pytest.raises(RuntimeError, match="the cell asks for 2 GPUs, and torch finds 1 here"):
        set_up(tiny.spec(device="cuda", gpus=2, threads=0))
    assert torch.get_num_threads() == 3
