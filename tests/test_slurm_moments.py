"""Faults of the plan on a real SLURM at other moments and in other combinations; the longest run with `-m chaos`."""

import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from attnbench.engine import _files, slurm
from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits
from tests import fake_sweep
from tests.disks import ballast, small_disk
from tests.fake_cell import runs
from tests.slurm_cluster import until
from tests.slurm_sweep import REQUEST, Sweep, in_a_process
from tests.test_slurm_faults import drained

pytestmark = pytest.mark.slurm
ONE = replace(REQUEST, resources=replace(REQUEST.resources, parallel=1))
DIES = """\
import os, signal
link = os.link

def armed(source, target, **more):
    if str(target).endswith("result.json"):
        try:
            os.mkdir("{flag}")
        except FileExistsError:
            return link(source, target, **more)
        if {after}:
            link(source, target, **more)
        os.kill(os.getpid(), signal.SIGKILL)
    return link(source, target, **more)

os.link = armed
"""
NOT_ALONE = """\
if grep -q exclusive "$1"; then
  echo "sbatch: error: Batch job submission failed: Requested node configuration is not available" >&2
  exit 1
fi
"""


def result(sweep: Sweep, place: int) -> Path:
    return sweep.store.spec_path(sweep.ids[place]).with_name("result.json")


@pytest.mark.fault("F11", "kill -9 of the supervisor just before, and just after, the link of a row")
@pytest.mark.parametrize("after", [False, True])
def test_a_supervisor_killed_at_the_link_of_a_row(sweep, tmp_path, after):
    (tmp_path / "armed").mkdir()
    code = DIES.format(flag=tmp_path / "flag", after=after)
    (tmp_path / "armed" / "sitecustomize.py").write_text(code)
    site = SiteSettings(poll_s=0.25, setup=(f"export PYTHONPATH={tmp_path}/armed",))
    sweep.add(2)
    assert sweep.run(replace(ONE, site=site)) == 0
    sweep.assert_whole()
    assert Counter(sweep.outcomes()) == {"vanished": 1, "ok": 1 if after else 2}


@pytest.mark.fault(
    "F13", "two sweeps with overlapping cells, and the first that releases jobs is killed before it does"
)
@pytest.mark.fault("F14", "the same")
def test_two_sweeps_of_which_one_is_killed_before_it_releases_its_jobs(sweep, lie, tmp_path):
    sweep.add(8, seconds=0.3)
    parts = [Sweep(sweep.store.root), Sweep(sweep.store.root)]
    parts[0].cells, parts[1].cells = sweep.cells[:6], sweep.cells[2:]
    lie("scontrol", f'if [ "$1" = release ] && mkdir {tmp_path}/once; then kill -9 $PPID; exit 1; fi')
    codes = sorted(process.wait(60) for process in [in_a_process(part) for part in parts])
    assert codes == [-signal.SIGKILL, 0]
    assert sweep.run() == 0
    sweep.assert_whole()
    assert Counter(seed for seed, _ in sweep.starts()) == dict.fromkeys(range(8), 1)


@pytest.mark.fault("F14", "SIGTERM, or a hang-up, to the controller while it submits, or while jobs run")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_controller_that_is_told_to_end_leaves_no_job_held(sweep, lie, tmp_path, number):
    sweep.add(2, seconds=0.5)
    lie("sbatch", f'"$real" "$@"; touch {tmp_path}/taken; sleep 1; exit 0')
    controller = in_a_process(sweep)
    until(20, (tmp_path / "taken").exists, "the jobs are taken")
    controller.send_signal(number)
    assert controller.wait(20) == 3
    sweep.finished()
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1


@pytest.mark.fault("F14", "SIGINT to the controller twice, the second while it lets jobs go")
def test_a_second_interrupt_leaves_what_is_held_to_the_next_sweep(sweep, lie, tmp_path):
    sweep.add(2)
    lie("scontrol", f'if [ "$1" = release ]; then touch {tmp_path}/asked; sleep 2; fi')
    controller = in_a_process(sweep)
    for _ in range(2):
        until(20, (tmp_path / "asked").exists, "jobs are let go")
        (tmp_path / "asked").unlink()
        controller.send_signal(signal.SIGINT)
    assert controller.wait(20) == 3
    assert sweep.run() == 0
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_jobs_that_are_cancelled_while_all_of_them_wait_are_not_submitted_again(sweep, cluster, lie, tmp_path, wait):
    sweep.add(3, seconds=20)
    asked = replace(REQUEST, site=SiteSettings(poll_s=0.5 if wait else 3))
    lie("scontrol", f'if [ "$1" = release ]; then "$real" "$@"; touch {tmp_path}/released; exit 0; fi')
    with drained(cluster, "n1", "n2"), sweep.running(asked) as codes:
        until(20, (tmp_path / "released").exists, "the jobs are released")
        time.sleep(wait)
        assert len(slurm.cancel(sweep.store, sweep.ids)) == 2
    assert codes == [1]
    assert len(sweep.submissions()) == 1
    assert not sweep.live()
    assert sweep.run(replace(REQUEST, limits=Limits(cell_s=0.5))) == 0


def test_one_waiting_task_of_an_array_that_is_cancelled_is_not_submitted_again(sweep, cluster):
    sweep.add(4, seconds=0.5)
    asked = replace(REQUEST, resources=replace(REQUEST.resources, parallel=4))
    with drained(cluster, "n1", "n2") as free, sweep.running(asked) as codes:
        until(20, lambda: [job.held for job in sweep.jobs()] == [False] * 4, "four tasks wait")
        cluster.sh("scancel", sweep.queue().cells[sweep.ids[2]].id)
        time.sleep(1.0)
        free()
    assert codes == [1]
    assert len(sweep.submissions()) == 1
    assert [row["id"] for row in sweep.rows()] == [id for id in sweep.ids if id != sweep.ids[2]]
    assert sweep.run() == 0
    sweep.assert_whole()


@pytest.mark.fault("F10", "cells that were set aside are opened again by another sweep while their job still runs")
def test_cells_opened_again_while_jobs_run_are_made_by_either_sweep(sweep):
    sweep.add(1, do="broken", message="boom", times=2)
    sweep.add(1, seconds=6)  # in a job of its own, so that the first sweep goes on
    with sweep.running() as first:
        until(20, lambda: sweep.store.failed(sweep.ids[0]), "it is set aside")
        time.sleep(1)  # so that the first sweep has seen it
        sweep.store.retry(sweep.ids[0], after=0)
        assert sweep.run() == 0
    assert first == [0]  # nothing is set aside any more
    sweep.assert_whole()
    assert Counter(seed for seed, _ in sweep.starts()) == {0: 3, 1: 1}


@pytest.mark.fault("F11", "a committed row is emptied, another truncated, while the sweep still runs")
def test_rows_that_are_damaged_while_the_sweep_runs_are_made_again_before_it_ends(sweep, monkeypatch):
    monkeypatch.setattr(_files, "FRESH_S", 0.5)
    sweep.add(2)
    sweep.add(2, seconds=4)
    sweep.cells = [replace(cell, estimate_s=9 - cell.seed) for cell in sweep.cells]  # those of 4 s come last
    with sweep.running() as codes:
        until(20, lambda: len(sweep.rows()) == 2, "two rows")
        for place, left in ((0, 0), (1, 100)):
            sweep.witness.forget(result(sweep, place))
            os.truncate(result(sweep, place), left)
            os.utime(result(sweep, place), (time.time(), time.time() + 9000))
        sweep.status(cause="damaged")
    assert codes == [0]
    sweep.assert_whole()
    assert Counter(seed for seed, _ in sweep.starts()) == {0: 2, 1: 2, 2: 1, 3: 1}


@pytest.mark.fault("F11", "the folder of a running cell is taken away")
def test_a_running_cell_whose_folder_is_taken_away_still_gets_its_row(sweep):
    sweep.add(3, seconds=1.5)
    with sweep.running() as codes:
        until(20, lambda: len(sweep.starts()) == 2, "two run")
        shutil.rmtree(sweep.store.spec_path(sweep.ids[0]).parent)
    assert codes == [0]
    sweep.assert_whole()
    assert Counter(seed for seed, _ in sweep.starts()) == {0: 1, 1: 1, 2: 1}


@pytest.mark.fault("F11", "intent and note of a submission are truncated while its jobs wait and run")
def test_a_submission_that_is_damaged_under_its_jobs_is_replaced(sweep):
    sweep.add(3, seconds=3)
    with sweep.running(ONE) as codes:
        sweep.until_running()
        folder = sweep.submissions()[0]
        for name in ("intent.json", "jobs.json"):
            os.truncate(folder / name, 20)
        sweep.status()
        assert in_a_process(sweep).wait(60) == 0  # one that has not read the intent while it was whole
    assert codes == [0]
    sweep.assert_whole()


@pytest.mark.fault("F18", "sbatch refuses the second of two arrays, that of the cells that run alone")
def test_a_refusal_of_the_second_array_leaves_no_job_of_the_first_held(sweep, lie):
    sweep.add(2)
    sweep.add(1, kind="cost")
    lie("sbatch", NOT_ALONE)
    with pytest.raises(ValueError, match=r"SLURM refused the jobs: .*not available"):
        sweep.run()
    until(10, lambda: not sweep.live(), "no job is left")
    assert len(sweep.rows()) == 2
    (Path(os.environ["PATH"].split(":")[0]) / "sbatch").unlink()
    assert sweep.run() == 0
    sweep.assert_whole()


@pytest.mark.fault("F18", "a results folder with spaces and other letters, under umask 077")
def test_a_folder_with_an_odd_name(cluster, tmp_path):
    until(60, cluster.idle, "the nodes are idle")
    before = os.umask(0o077)
    try:
        sweep = Sweep(tmp_path / "Ergebnisse für A & B (neu), 'x' $HOME #1" / "results")
        sweep.add(2)
        sweep.add(1, kind="cost")
        assert sweep.run() == 0
        sweep.assert_whole()
    finally:
        os.umask(before)
    assert len(sweep.attempts()) == 3


@pytest.mark.fault("F13", "the same cells on SLURM and on this machine's own pool at once")
def test_a_cluster_and_this_machine_share_a_store_and_run_no_cell_twice(sweep, monkeypatch):
    monkeypatch.setenv("ATTNBENCH_TEST_LIMITS", "{}")
    sweep.add(10, seconds=0.5)
    with sweep.running() as codes:
        here = fake_sweep.sweep(sweep.store, sweep.ids[::-1], workers=2)
        said = here.communicate(timeout=60)
    assert (codes, here.returncode) == ([0], 0), said
    sweep.assert_whole()
    assert Counter(seed for seed, _ in sweep.starts()) == dict.fromkeys(range(10), 1)


@pytest.mark.chaos
@pytest.mark.fault("F16", "an administrator requeues a running job and holds it")
def test_a_job_that_is_requeued_and_held_goes_on(sweep, cluster):
    sweep.add(2, seconds=2)
    with sweep.running() as codes:
        sweep.until_running(2)
        job = sweep.jobs()[0].id
        cluster.sh("scontrol", "requeue", job)
        until(10, lambda: sweep.state_of(job) == "PENDING", "it waits")
        cluster.sh("scontrol", "hold", job)
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1


@pytest.mark.chaos
@pytest.mark.fault("F15", "the disk is full while cells end, and then their jobs are preempted")
@pytest.mark.fault("F7", "the same")
def test_a_job_that_holds_a_row_back_and_is_preempted_makes_it_again(cluster, tmp_path):
    until(60, cluster.idle, "the nodes are idle")
    with small_disk(tmp_path / "disk", mib=8) as disk:
        sweep = Sweep(disk / "results")
        sweep.add(3, seconds=1.5)
        sweep.manifest()
        with sweep.running() as codes:
            until(20, lambda: sweep.logs() == 2, "two cells run")
            with ballast(disk):
                until(20, lambda: not any(runs(pid) for _, pid in sweep.starts()), "cells end")
                time.sleep(0.5)
                for job in sweep.jobs():
                    cluster.sh("scancel", "--signal=USR2", "--batch", job.id)
                until(20, lambda: all(job.state == "PENDING" for job in sweep.jobs()), "all wait again")
        assert codes == [0]
        sweep.assert_whole()


@pytest.mark.chaos
@pytest.mark.fault("F16", "the logs of running jobs are deleted, and squeue is missing for a while")
def test_logs_that_are_deleted_and_a_squeue_that_is_missing_cost_nothing(sweep, lie, tmp_path):
    sweep.add(4, seconds=1)
    lie("squeue", f"if [ -e {tmp_path}/missing ]; then exit 127; fi")
    with sweep.running() as codes:
        sweep.until_running(2)
        for log in (sweep.submissions()[0] / "submitit").glob("*_log.*"):
            log.unlink()
        (tmp_path / "missing").touch()
        sweep.status(cause="SLURM does not answer")
        os.kill(next(a.pid for a in sweep.attempts() if a.end is None), signal.SIGKILL)
        time.sleep(2)
        (tmp_path / "missing").unlink()
    assert codes == [0]
    sweep.assert_whole()
