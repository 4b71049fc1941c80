"""What is asked of SLURM and how its answers are read, without a cluster: recorded texts, and scripts in its place."""

import dataclasses
import sys
import time
from pathlib import Path

import pytest

from attnbench.engine import _division, _queue, slurm
from attnbench.engine._freeze import MARKER, PACKAGES, freeze
from attnbench.engine._submission import Submission, executor_for, prepare
from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits
from attnbench.engine.slurm import Request, Resources
from attnbench.engine.store import Store
from attnbench.manifest import Cell

RESOURCES = Resources(hours=4, gpus=1, cpus=8, memory_gib=30.5, parallel=3)
LIMITS = Limits(cell_s=None, memory_mib=None, until=None)
RECORDED = """\
#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-4%3
#SBATCH --comment=0123456789ab
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=8
#SBATCH --error={folder}/submitit/%A_%a_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --hold
#SBATCH --job-name=an-0123456789ab
#SBATCH --mem=31232MB
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output={folder}/submitit/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=low
#SBATCH --requeue
#SBATCH --reservation=week
#SBATCH --signal=B:USR2@120
#SBATCH --time=240
#SBATCH --wckey=submitit

# setup
trap '' USR2
module load cuda
export PYTHONPATH={folder}/code${{PYTHONPATH:+:$PYTHONPATH}}
export PYTHONSAFEPATH=1
export SUBMITIT_PREEMPT_SIGNAL=URG

# command
export SUBMITIT_EXECUTOR=slurm
exec {python} -u -m submitit.core._submit {folder}/submitit
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts shell scripts where SLURM's programs would be."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    put("srun", "exit 1")
    return put


def request(**changes) -> Request:
    return dataclasses.replace(Request(resources=RESOURCES, limits=LIMITS), **changes)


def text(submission: Submission, asked: Request, *, alone: bool = False, tasks: int = 5) -> str:
    executor = executor_for(submission, asked, alone=alone)
    executor.parameters["map_count"] = tasks
    return executor._make_submission_file_text(executor._submitit_command_str, "uid")


def cell(number: int, estimate_s: float) -> Cell:
    id, label = f"{number:020x}", f"c{number}"
    return Cell(id=id, kind="train", label=label, variant="v", mechanism=None, model="m", seed=0, estimate_s=estimate_s)


@pytest.mark.usefixtures("programs")
def test_the_sbatch_text_is_the_recorded_one(tmp_path):
    submission = Submission(tmp_path / "0123456789ab")
    site = SiteSettings(
        partition="gpu",
        account="lab",
        qos="low",
        constraint="a100",
        setup=("module load cuda",),
        options={"reservation": "week"},
    )
    expected = RECORDED.format(folder=submission.folder, python=sys.executable)
    assert text(submission, request(site=site)).strip() == expected.strip()


@pytest.mark.usefixtures("programs")
def test_timing_cells_ask_for_the_node_alone(tmp_path):
    assert "#SBATCH --exclusive\n" in text(Submission(tmp_path / "n"), request(), alone=True)
    assert "--exclusive" not in text(Submission(tmp_path / "n"), request())


@pytest.mark.usefixtures("programs")
def test_a_site_can_share_nodes_forbid_requeues_and_bring_its_own_python(tmp_path):
    site = SiteSettings(shared_timing=True, options={"no-requeue": True}, python="apptainer exec a.sif python")
    said = text(Submission(tmp_path / "n"), request(site=site))
    assert "\nexport ATTNBENCH_SHARED=1\n" in said
    assert "\nexec apptainer exec a.sif python -u -m submitit.core._submit" in said
    assert "#SBATCH --no-requeue\n" in said
    assert "#SBATCH --requeue\n" not in said


@pytest.mark.parametrize(("hours", "notice_s", "longest_s"), [(4, 120, 14160), (1, 120, 3360), (1 / 60, 12, 24)])
def test_a_cell_as_long_as_its_job_is_stopped_before_the_job_is(hours, notice_s, longest_s):
    resources = dataclasses.replace(RESOURCES, hours=hours)
    assert (resources.notice_s, resources.longest_s) == (notice_s, longest_s)


@pytest.mark.parametrize("name", ["hours", "cpus", "memory_gib", "parallel"])
def test_an_amount_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"needs {name} above 0; got 0"):
        dataclasses.replace(RESOURCES, **{name: 0})


def test_shards_last_at_most_half_the_limit_and_lose_no_cell():
    cells = [cell(n, 600 + 37 * (n % 7)) for n in range(200)]
    divided = _division.shards(cells, hours=2, parallel=3)
    seconds = {c.id: c.estimate_s for c in cells}
    assert sorted(id for shard in divided for id in shard) == sorted(seconds)
    assert max(sum(seconds[id] for id in shard) for shard in divided) <= 3600
    assert len(divided) <= 1.25 * sum(seconds.values()) / 3600


def test_there_are_as_many_shards_as_may_run_at_once():
    assert [len(s) for s in _division.shards([cell(n, 1) for n in range(9)], hours=2, parallel=3)] == [3, 3, 3]
    assert len(_division.shards([cell(0, 1), cell(1, 1)], hours=2, parallel=3)) == 2
    assert _division.shards([], hours=2, parallel=3) == []


def test_a_cell_longer_than_half_the_limit_stands_alone():
    divided = _division.shards([cell(0, 9000), cell(1, 100), cell(2, 100)], hours=2, parallel=1)
    assert sorted(map(len, divided)) == [1, 2]


def test_the_queue_is_read_line_by_line_and_strangers_are_left_out():
    jobs = _queue.parse(
        "70|3|an-ab|RUNNING|ab|n1|None\n"
        "71|N/A|an-cd|PENDING|cd||JobHeldUser\n"
        "72|N/A|an-ab|RUNNING|somebody else|n2|None\n"
        "73|0|an-ef|PENDING|ef||launch failed requeued held\n"
    )
    assert [(job.id, job.nonce, job.shard, job.live, job.held, job.stuck) for job in jobs] == [
        ("70_3", "ab", 3, True, False, False),
        ("71", "cd", 0, True, True, False),
        ("73_0", "ef", 0, True, False, True),
    ]
    assert [job.detail for job in jobs[:2]] == ["job 70_3 on n1", "job 71 (JobHeldUser)"]


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "CANCELLED"])
def test_an_ended_job_covers_no_cell(state):
    ended, running = (_queue.parse(f"{n}|N/A|an-ab|{word}|ab||x")[0] for n, word in ((1, state), (2, "RUNNING")))
    seen = slurm.QueueSnapshot((ended, running), {"1": ["a", "b"], "2": ["b"]})
    assert dict(seen.cells) == {"b": running}


def test_a_state_nobody_has_heard_of_counts_as_alive():
    assert _queue.parse("1|N/A|an-ab|HIBERNATING|ab||x")[0].live


@pytest.mark.parametrize("script", ["echo broken >&2; exit 1", "exec sleep 30"], ids=["failing", "hanging"])
def test_a_scheduler_that_does_not_answer_is_not_an_empty_queue(tmp_path, programs, script):
    store = Store(tmp_path / "results")
    prepare(store.root, [["a"]], request())
    programs("squeue", script)
    start = time.monotonic()
    assert slurm.snapshot(store, timeout_s=1) is None
    assert time.monotonic() - start < 5
    programs("squeue", "true")
    empty = slurm.snapshot(store, timeout_s=5)
    assert empty is not None
    assert empty.jobs == ()


def test_a_store_without_submissions_asks_nobody(tmp_path, programs):
    programs("squeue", "exit 1")
    assert slurm.snapshot(Store(tmp_path)) == slurm.QueueSnapshot((), {})


def test_many_submissions_are_asked_for_in_several_questions(programs, tmp_path):
    programs("squeue", f'echo "$7" >>{tmp_path}/asked')
    assert _queue.look([f"{n:012x}" for n in range(1201)]) == ()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.count(",") + 1 for line in asked] == [500, 500, 201]


def test_the_intent_is_written_before_anything_is_submitted(tmp_path):
    asked = request(data=Path("data"), child=("python", "fake.py"))
    submission = prepare(tmp_path, [["a", "b"], ["c"]], asked)
    assert submission.shards == [["a", "b"], ["c"]]
    assert not submission.released
    assert (submission.folder / "code" / MARKER).exists()


def test_a_percent_sign_in_the_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match="choose a results folder without it"):
        prepare(tmp_path / "50%j", [["a"]], request())


def test_a_path_that_python_would_cut_in_two_is_refused(tmp_path):
    with pytest.raises(ValueError, match="':' as the end of a path; choose a results folder without it"):
        prepare(tmp_path / "12:30", [["a"]], request())


def test_the_code_is_frozen_whole_and_its_marker_comes_last(tmp_path, monkeypatch):
    freeze(tmp_path / "code")
    for package in PACKAGES:
        here = Path(str(sys.modules["attnbench"].__file__)).parents[1] / package
        files = {file.relative_to(here.parent) for file in here.rglob("*.py")}
        assert files
        assert {file for file in files if not (tmp_path / "code" / file).is_file()} == set()
    assert not list(tmp_path.rglob("__pycache__"))
    monkeypatch.setattr("attnbench.engine._freeze.PACKAGES", ("attnbench", "json"))
    monkeypatch.setattr(
        "attnbench.engine._freeze.home", lambda name: tmp_path / "absent" if name == "json" else tmp_path
    )
    with pytest.raises(OSError, match="absent"):
        freeze(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("ping", "inside", "expected"),
    [
        ("echo 'Slurmctld(primary) at c is UP'", False, (True, "its controller answers")),
        ("echo 'Slurmctld(primary) at c is DOWN'; exit 1", False, (False, "controller does not answer")),
        ("echo 'Slurmctld(primary) at c is UP'", True, (False, "already inside SLURM job 7")),
        (None, False, (False, "there is no sbatch")),
    ],
)
def test_the_launcher_is_chosen_with_a_reason(programs, monkeypatch, ping, inside, expected):
    monkeypatch.setenv("SLURM_JOB_ID", "7") if inside else monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if ping:
        programs("sbatch", "exit 1")
        programs("scontrol", ping)
    else:
        monkeypatch.setenv("PATH", "/nonexistent")
    chosen, sentence = slurm.available()
    assert chosen is expected[0]
    assert expected[1] in sentence


def test_what_a_sites_squeue_says_beside_its_answer_is_passed_over():
    line = "7|0|an-abc|RUNNING|abc|n1|None"
    assert line.count("|") == _queue.FIELDS.count("|")
    assert [job.id for job in _queue.parse(f"welcome to the cluster\n{line}\n\n")] == ["7_0"]


def test_cancelling_a_cell_cancels_every_job_that_has_it(tmp_path, monkeypatch):
    jobs = (
        _queue.Job("7", "n", 0, "RUNNING", "", "n1"),
        _queue.Job("8", "n", 0, "PENDING", "", ""),
        _queue.Job("9", "n", 0, "PENDING", "", ""),
    )
    seen, asked = slurm.QueueSnapshot(jobs, {"7": ["a", "b"], "8": ["b"], "9": ["c"]}), []
    monkeypatch.setattr(slurm, "snapshot", lambda _: seen)
    monkeypatch.setattr(slurm, "ask", lambda *words: asked.append(words) or "")
    assert slurm.cancel(Store(tmp_path), ["b"]) == ["7", "8"]
    assert asked == [("scancel", "7", "8")]
