"""What is asked for and refused of cells over several nodes, and what becomes of them; without a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attnbench import _node_rank, _nodes, _ranks, launch
from attnbench.check import check
from attnbench.engine import _controller, shard_job
from attnbench.engine._submission import Submission, executor_for
from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits
from attnbench.engine.slurm import Request, Resources
from attnbench.engine.store import Evidence
from attnbench.sweep import expand
from tests import tiny
from tests.asked import changed, ids, launch_options, plan, written

CPU = changed("runs: 4", "runs: 4\nnodes: 2")
CUDA = changed("runs: 4", "runs: 4\ndevice: cuda\ngpus: 4\nnodes: 2")
SLURM = "slurm: {hours: 1, gpus: 1}\n"


def test_nodes_are_in_the_ids_of_trainings_on_several_alone(tmp_path):
    one, same = plan(tmp_path), plan(tmp_path, changed("runs: 4", "runs: 4\nnodes: 1"))
    two = plan(tmp_path, CPU)
    assert ids(same) == ids(one)
    assert not any("nodes" in cell.spec for cell in same.cells)
    assert [cell.spec.get("nodes") for cell in two.cells] == [2] * 4 + [None] * 2
    assert ids(two)[4:] == ids(one)[4:]  # cost is measured on one
    assert not set(ids(two)[:4]) & set(ids(one))
    assert {cell.cost_id for cell in two.trainings} == set(ids(two)[4:])


def test_gpus_are_those_of_all_nodes_and_on_a_cpu_each_node_has_one_process(tmp_path):
    for text, gpus, size in ((CPU, 0, 2), (CUDA, 4, 4)):
        spec = plan(tmp_path, text).trainings[0].spec
        assert (spec["gpus"], spec["nodes"], _nodes.size(spec)) == (gpus, 2, size)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            CUDA.replace("gpus: 4", "gpus: 3"),
            "line 5: nodes is 2, and gpus is 3, those of all nodes; give it a multiple",
        ),
        (
            CUDA.replace("gpus: 4\n", ""),
            "line 4: nodes is 2, and gpus is 1, those of all nodes; give it a multiple of 2",
        ),
        (CUDA.replace("batch: 4", "batch: 2"), "line 7: gpus is 4, more than the 2 examples of a batch of darcy"),
        (CPU.replace("batch: 4", "batch: 1"), "line 5: nodes is 2, more than the 1 examples of a batch of darcy"),
        (
            CUDA + SLURM,
            "line 16: gpus is 4 on 2 nodes, and a job has slurm.gpus of 1; give it at least 2, those",
        ),
        (CPU.replace("nodes: 2", "nodes: 0"), "nodes should be greater than 0"),
    ],
)
def test_nodes_that_cannot_be_are_refused_in_one_sentence(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        expand(written(tmp_path, text), device="cpu")
    assert "\n" not in str(refusal.value)


def test_one_machine_is_no_place_for_cells_over_several_nodes(tmp_path):
    store: Any = SimpleNamespace()  # is not asked
    with pytest.raises(ValueError, match="nodes is 2, and this is one machine; --launcher slurm goes to a cluster"):
        launch.launch(check(plan(tmp_path, CPU)), store, tmp_path, launch_options("local"), print)


def test_a_job_needs_the_gpus_of_one_node(tmp_path):
    store: Any = SimpleNamespace()
    with pytest.raises(
        ValueError, match="gpus is 4 on 2 nodes, and a job has 0; give the file a section slurm with 2 gpus"
    ):
        launch.launch(check(plan(tmp_path, CUDA)), store, tmp_path, launch_options("slurm"), print)


# --- jobs

RESOURCES = Resources(hours=1, gpus=2, cpus=3, memory_gib=1, parallel=2, nodes=2)


def test_a_job_of_several_nodes_asks_for_them_and_one_task_on_each(tmp_path, monkeypatch):
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    asked = Request(resources=RESOURCES, limits=Limits(), site=SiteSettings(python="apptainer exec a.sif python"))
    executor = executor_for(Submission(tmp_path / "0123456789ab"), asked, alone=False)
    executor.parameters["map_count"] = 2
    text = executor._make_submission_file_text(executor._submitit_command_str, "uid")
    for line in ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=3", "--gpus-per-node=2", "--mem=1024MB"):
        assert f"#SBATCH {line}\n" in text
    assert "\nexport ATTNBENCH_PYTHON='apptainer exec a.sif python'\n" in text


def test_every_training_over_several_nodes_is_a_job_of_its_own_and_cost_needs_one_node(tmp_path, monkeypatch):
    sent: list[SimpleNamespace] = []
    cells = check(plan(tmp_path, CPU)).manifest.cells

    def made(_: Any, shards: list[list[str]], request: Request) -> SimpleNamespace:
        return SimpleNamespace(nodes=request.resources.nodes, shards=shards)

    monkeypatch.setattr(_controller, "largest_array", lambda: 3)
    monkeypatch.setattr(_controller, "prepare", made)
    monkeypatch.setattr(_controller, "submit", lambda submission, *_, **__: sent.append(submission))
    store: Any = SimpleNamespace(root=tmp_path)
    request = Request(resources=RESOURCES, limits=Limits())
    control = _controller.Controller(store, cells, request, progress=SimpleNamespace(), note=print)  # type: ignore[arg-type]
    control._submit(cells, {cell.id: Evidence(id=cell.id) for cell in cells}, patient=False)
    assert [(one.nodes, len(one.shards)) for one in sent] == [(2, 3), (2, 1), (1, 2)]
    assert sorted(id for one in sent if one.nodes == 2 for (id,) in one.shards) == sorted(
        cell.id for cell in cells if cell.kind == "train"
    )


def test_the_child_of_such_a_cell_is_another_program_which_knows_the_memory_of_a_node():
    words = ["python", "-m", "attnbench.run", "spec.json", "outcome.json", "--data", "d"]
    told = shard_job.over_nodes(words, 900.0)
    assert told == ["python", "-m", "attnbench._nodes", *words[3:], "--memory-mib", "900.0"]
    assert shard_job.over_nodes(["fake", "spec.json"], 900.0) == ["fake", "spec.json"]


# --- the outcome of all

OK = {"status": "ok", "result": {"score": 1.0}, "ended": 1.0}
ERROR = {"status": "error", "error": {"type": "KeyError"}, "ended": 1.0}
ENDS: dict[str, tuple[list[Any], dict[str, Any], int, Any]] = {
    # what both nodes have told, files beside it, srun's exit code; the outcome, or how this process ends
    "all well": ([[0], [0]], {"rank0": OK}, 0, "ok"),
    "the first well, another cut off": ([[0], None], {"rank0": OK}, 0, "ok"),
    "an error on the other node": ([[None], [1]], {"first": ERROR}, 1, "error"),
    "an error that follows from a kill": ([[1], [-9]], {"first": ERROR}, 1, -signal.SIGKILL),
    "an error that follows from the end of a node": ([[1], "begun"], {"first": ERROR}, 137, -signal.SIGKILL),
    "a segmentation fault": ([[-11], [None]], {}, 1, -signal.SIGSEGV),
    "an abort after an error": ([[-6], [1]], {"first": ERROR}, 1, "error"),
    "all ended by SLURM": ([[None], [None]], {}, 143, -signal.SIGTERM),
    "srun killed": ([[None], [None]], {}, -9, -signal.SIGKILL),
    "nothing started": ([None, None], {}, 2, 2),
    "too much memory": ([[None], "memory"], {"partial": {"host": {"name": "x"}}}, 1, "oom"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_outcome_of_a_cell_is_that_of_the_first_that_failed_unless_one_was_killed(tmp_path, monkeypatch, name):
    nodes, files, code, expected = ENDS[name]
    monkeypatch.setattr(_nodes, "SAY_S", 0.0)
    monkeypatch.setattr(_ranks, "end_by", lambda number: sys.exit(-number))
    outcome = tmp_path / "outcome.json"
    memory = {"peak_mib": 950.0, "limit_mib": 1000.0, "node": "n2"}
    for number, told in enumerate(nodes):
        if told == "memory":
            _nodes.tell(outcome, number, [-9], memory)
        elif told is not None:
            _nodes.tell(outcome, number, None if told == "begun" else told)
    for file, content in files.items():
        (tmp_path / f"{file}.json").write_text(json.dumps(content))
    if isinstance(expected, int):
        with pytest.raises(SystemExit) as end:
            _nodes.outcome_of(outcome, tiny.spec(nodes=2), code)
        assert end.value.code == expected
    else:
        found = _nodes.outcome_of(outcome, tiny.spec(nodes=2), code)
        assert found["status"] == expected
        assert "ended" not in found
        if expected == "oom":
            assert found["host"] == {"name": "x"}
            assert found["cost"] == {"memory_limit_mib": 1000.0, "peak_rss_mib": 950.0}
            assert "1000 MiB on node n2" in found["error"]["message"]


@pytest.mark.parametrize("second", ["error", "diverged"])
def test_of_several_that_fail_the_first_is_heard_whatever_their_clocks_say(tmp_path, second):
    for rank, status in enumerate(["oom", second]):
        if (pid := os.fork()) == 0:
            _ranks.leave({"status": status}, tmp_path / f"rank{rank}.json")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert json.loads((tmp_path / "first.json").read_text())["status"] == "oom"


# --- on a node

LEASH = """
import time
from attnbench import _nodes
_nodes.SILENCE_S = 0.5
leash = _nodes.Leash()
print("ready", flush=True)
while not (leash.lost() or leash.ended):
    time.sleep(0.01)
print("term" if leash.ended else "lost", flush=True)
"""


@pytest.mark.parametrize("how", ["closed", "silent", "term"])
def test_a_node_goes_on_only_while_the_pulse_comes_and_nobody_ends_it(how):
    command, root = [sys.executable, "-c", LEASH], Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as watch:
        assert watch.stdin is not None
        assert watch.stdout is not None
        assert watch.stdout.readline() == b"ready\n"
        for _ in range(10):  # twice as long as it may be silent
            watch.stdin.write(b".")
            time.sleep(0.1)
        assert watch.poll() is None
        if how == "closed":
            watch.stdin.close()
        elif how == "term":
            watch.terminate()
        assert watch.stdout.readline() == (b"term\n" if how == "term" else b"lost\n")


def test_what_all_processes_of_a_node_hold_counts_against_its_limit(monkeypatch):
    monkeypatch.setattr(_nodes, "memory_mib", lambda _: 850.0)
    assert not _nodes.Memory(1000.0).full()
    assert not _nodes.Memory(None).full()
    held = _nodes.Memory(900.0)
    assert held.full()
    monkeypatch.setattr(_nodes, "memory_mib", lambda _: 1.0)
    held._next = 0.0
    assert held.full()  # at any time
    assert held.told()["peak_mib"] == 850.0


def test_the_interface_is_the_one_by_which_an_address_is_reached():
    assert _node_rank.interface("127.0.0.1").startswith("lo")


def test_who_does_not_come_is_named_after_a_while(monkeypatch):
    store: Any = SimpleNamespace(set=lambda *_: None, check=lambda keys: keys == ["here 0"])
    with pytest.raises(TimeoutError, match=r"Of 3 processes, \[1, 2\] have not come"):
        _node_rank.all_come(store, 0, 3, time.monotonic() + 0.05)
    monkeypatch.setattr(_node_rank, "MEET_S", 0.05)
    with pytest.raises(TimeoutError, match=r"address.json is not there after 0.05 s"):
        _node_rank.awaited(Path(__file__).with_name("address.json"), time.monotonic() + 0.05)


def test_python_is_started_on_every_node_as_the_site_says(monkeypatch):
    monkeypatch.setenv(_nodes.PYTHON, "env WORD=$HOME python")
    assert _nodes.python() == ["sh", "-c", 'exec env WORD=$HOME python "$@"', "sh"]
    monkeypatch.delenv(_nodes.PYTHON)
    assert _nodes.python() == [sys.executable]
