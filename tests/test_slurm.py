"""Sweeps on a real two-node SLURM whose parts are killed, stopped and lied about: every cell still ends with one row.

The cells are fake (tests/fake_cell.py), everything around them is real: sbatch, arrays, signals, requeues.
"""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from attnbench.engine import _controller, slurm
from attnbench.engine.settings import SiteSettings
from tests import invariants
from tests.slurm_cluster import Cluster, until
from tests.slurm_sweep import REQUEST, Sweep, in_a_process

pytestmark = pytest.mark.slurm

LATE = "Batch job submission failed: Socket timed out on send/recv operation"


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Sweep:
    assert cluster.idle()
    return Sweep(tmp_path / "results")


def test_every_cell_gets_its_row_and_a_second_sweep_submits_nothing(sweep):
    sweep.add(4)
    sweep.add(2, kind="cost")
    assert sweep.run() == 0
    sweep.assert_whole()
    submitted = sweep.submissions()
    assert len(submitted) == 2
    assert {row["where"]["nonce"] for row in sweep.rows()} == {folder.name for folder in submitted}
    assert sweep.run() == 0
    assert sweep.submissions() == submitted


def test_jobs_run_the_frozen_code(sweep):
    sweep.add(1, do="environment", names=["PYTHONPATH", "PYTHONSAFEPATH"])
    assert sweep.run() == 0
    found = sweep.rows()[0]["host"]
    assert found["PYTHONPATH"].split(":")[0] == f"{sweep.submissions()[0]}/code"
    assert found["PYTHONSAFEPATH"] == "1"


def test_timing_cells_have_their_node_alone(sweep, cluster):
    sweep.add(1, kind="cost")
    sweep.add(1)
    assert sweep.run(wait=False) == 3
    kinds = {row["where"]["nonce"]: row["spec"]["kind"] for row in sweep.finished()}
    shared = {
        kind: cluster.sh("squeue", "-h", "-o", "%h", "-t", "all", "-n", f"an-{nonce}") for nonce, kind in kinds.items()
    }
    assert shared == {"cost": "NO\n", "train": "OK\n"}


@pytest.mark.fault("F14", "kill -9 of the controller after sbatch, or before it releases the jobs")
@pytest.mark.parametrize("moment", ["sbatch", "release"])
def test_what_a_killed_controller_left_held_is_adopted(sweep, lie, monkeypatch, moment):
    sweep.add(3)
    path = os.environ["PATH"]
    if moment == "sbatch":
        lie("sbatch", '"$real" "$@" >/dev/null; kill -9 $PPID; exit 1')
    else:
        lie("scontrol", 'if [ "$1" = release ]; then kill -9 $PPID; exit 1; fi')
    assert in_a_process(sweep).wait(30) == -signal.SIGKILL
    monkeypatch.setenv("PATH", path)
    assert [job.held for job in sweep.jobs()] == [True, True]
    assert sweep.run() == 0
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1
    assert len(sweep.attempts()) == 3


@pytest.mark.fault("F12", "sbatch says that it timed out, although the jobs were taken")
def test_jobs_that_sbatch_denies_having_taken_are_adopted(sweep, lie):
    sweep.add(3)
    lie("sbatch", f'"$real" "$@" >/dev/null; echo "sbatch: error: {LATE}" >&2; exit 1')
    assert sweep.run() == 0
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1


def test_jobs_that_never_arrived_are_submitted_again(sweep, lie, tmp_path):
    sweep.add(2)
    lie("sbatch", f'if mkdir {tmp_path}/once 2>/dev/null; then echo "sbatch: error: {LATE}" >&2; exit 1; fi')
    assert sweep.run() == 0
    sweep.assert_whole()
    assert len(sweep.submissions()) == 2


def test_a_late_arrival_whose_cells_are_done_is_cancelled(sweep, lie, monkeypatch):
    sweep.add(2)
    path = os.environ["PATH"]
    lie("sbatch", '"$real" "$@" >/dev/null; kill -9 $PPID; exit 1')
    in_a_process(sweep).wait(30)
    monkeypatch.setenv("PATH", path)
    late = sweep.submissions()[0]
    hidden = late.rename(late.parent.parent / "hidden")
    assert sweep.run() == 0
    hidden.rename(late)
    sweep.add(1)
    assert sweep.run() == 0
    sweep.assert_whole()
    assert {job.state for job in sweep.jobs() if job.nonce == late.name} == {"CANCELLED"}
    assert len(sweep.attempts()) == 3


def test_a_refusal_is_one_sentence(sweep):
    sweep.add(1)
    with pytest.raises(ValueError, match=r"SLURM refused the jobs: .*[Ii]nvalid partition"):
        sweep.run(replace(REQUEST, site=SiteSettings(partition="nope")))


@pytest.mark.fault("F2", "kill -9 of a job's supervisor")
def test_a_killed_supervisor_costs_no_row(sweep):
    sweep.add(6, seconds=0.6)
    with sweep.running() as codes:
        sweep.until_running(2)
        victim = next(attempt for attempt in sweep.attempts() if attempt.end is None)
        os.kill(victim.pid, signal.SIGKILL)
        until(5, lambda: not victim.alive(time.time()), "it is dead")
        sweep.status(cause="vanished|no sign of it")
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 2


@pytest.mark.fault("F6", "USR2 while the job's Python starts")
def test_a_notice_during_start_up_kills_nothing(sweep, cluster):
    sweep.add(1, seconds=0.3)
    assert sweep.run(wait=False) == 3
    until(10, lambda: sweep.jobs()[0].state == "RUNNING", "the job runs", every=0.01)
    assert not sweep.attempts()
    cluster.sh("scancel", "--signal=USR2", "--batch", sweep.jobs()[0].id)
    sweep.finished()
    until(10, lambda: sweep.jobs()[0].state == "COMPLETED", "the job ended well")
    assert len(sweep.attempts()) == 1
    sweep.assert_whole()


@pytest.mark.fault("F7", "USR2 to one task of an array, as preemption sends it")
def test_a_preempted_task_goes_back_to_the_queue_alone(sweep, cluster):
    sweep.add(4, seconds=1.5)
    with sweep.running() as codes:
        sweep.until_running(2)
        last = max(sweep.jobs(), key=lambda job: job.shard)
        cluster.sh("scancel", "--signal=USR2", "--batch", last.id)
        until(15, lambda: sweep.state_of(last.id) == "PENDING", "the task waits again")
        assert all(job.state != "PENDING" for job in sweep.jobs() if job.id != last.id)
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1
    assert sorted(row["where"]["restart"] for row in sweep.rows()) == [0, 0, 1, 1]
    assert sorted(attempt.end["outcome"] for attempt in sweep.attempts()) == ["ok"] * 4 + ["preempted"]


def test_a_cancelled_job_stays_cancelled_until_the_next_sweep(sweep, cluster):
    sweep.add(2, seconds=3)
    with sweep.running() as codes:
        sweep.until_running(2)
        first, second = (job.id for job in sweep.jobs())
        cluster.sh("scancel", first)
    assert codes == [1]
    until(15, lambda: sweep.state_of(second) == "COMPLETED", "the other job ends")  # its rows are there before
    assert sweep.state_of(first) == "CANCELLED"
    assert len(sweep.submissions()) == 1
    assert sweep.run() == 0
    sweep.assert_whole()


def test_cancel_ends_the_jobs_of_its_cells(sweep):
    sweep.add(2, seconds=30)
    sweep.run(wait=False)
    first, second = (sweep.queue().cells[id].id for id in sweep.ids)
    assert slurm.cancel(sweep.store, sweep.ids[:1]) == [first]
    until(10, lambda: {job.id for job in sweep.queue().cells.values()} == {second}, "one job is gone")


@pytest.mark.fault("F19", "squeue fails, or hangs")
@pytest.mark.parametrize("script", ["exit 1", "exec sleep 100"], ids=["failing", "hanging"])
def test_cells_are_not_lost_because_squeue_does_not_answer(sweep, lie, tmp_path, monkeypatch, script):
    monkeypatch.setattr(_controller, "PATIENCE_S", 0.5)
    sweep.add(2, seconds=3)
    lie("squeue", f"if [ -e {tmp_path}/mute ]; then {script}; fi")
    with sweep.running(replace(REQUEST, resources=replace(REQUEST.resources, parallel=1))) as codes:
        sweep.until_running()  # the other cell waits behind it, and only the queue knows
        (tmp_path / "mute").touch()
        sweep.status(cause="SLURM does not answer")
        (tmp_path / "mute").unlink()
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1


@pytest.mark.fault("F18", "60 cells where arrays have at most 51 jobs")
def test_more_shards_than_an_array_may_have_become_two_arrays(sweep):
    sweep.add(60, seconds=30)
    sweep.run(replace(REQUEST, resources=replace(REQUEST.resources, parallel=60)), wait=False)
    sizes = [len(json.loads((folder / "intent.json").read_text())["shards"]) for folder in sweep.submissions()]
    assert sorted(sizes) == [9, 51]
    invariants.note("", "two arrays, of 51 and of 9 jobs")
    assert set(sweep.queue().cells) == set(sweep.ids)


def test_jobs_that_die_at_their_start_are_given_up_with_the_cause(sweep, capsys):
    sweep.add(1)
    site = SiteSettings(poll_s=0.02, setup=("echo no such module >&2; exit 3",))
    assert sweep.run(replace(REQUEST, site=site)) == 1
    assert len(sweep.submissions()) == 6
    assert "no such module" in capsys.readouterr().err


@pytest.mark.fault("F16", "SLURM gives up on a job and holds it for ever")
def test_a_job_that_slurm_holds_for_ever_is_replaced(sweep, cluster):
    sweep.add(1, seconds=2)
    with sweep.running() as codes:
        sweep.until_running()
        cluster.sh("scontrol", "requeuehold", sweep.jobs()[0].id)
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 2


def test_a_cell_that_fails_twice_is_set_aside(sweep):
    sweep.add(1)
    sweep.add(1, do="raise")
    assert sweep.run() == 4
    assert len(sweep.rows()) == 1
    assert sweep.store.failed(sweep.ids[1])["message"] == "no"


def test_an_interrupt_detaches_and_leaves_the_jobs(sweep):
    sweep.add(2, seconds=2)
    controller = in_a_process(sweep)
    sweep.until_running()
    controller.send_signal(signal.SIGINT)
    assert controller.wait(20) == 3
    sweep.finished()
    assert sweep.run() == 0
    assert len(sweep.submissions()) == 1
