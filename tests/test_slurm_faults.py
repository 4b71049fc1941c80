"""Faults of the plan on a real SLURM that take seconds: processes killed, nodes down, disks full, answers withheld.

What they have in common is checked by `assert_whole`: the invariants of tests/invariants.py.
"""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from attnbench.engine import _controller, _upkeep
from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits
from tests.slurm_cluster import Cluster, until
from tests.slurm_sweep import REQUEST, Sweep, in_a_process

pytestmark = pytest.mark.slurm
ONE = replace(REQUEST, resources=replace(REQUEST.resources, parallel=1))
FULL_QUEUE = """\
wanted=$(grep -o 'array=0-[0-9]*' "$1" | grep -o '[0-9]*$'); there=$("${real%sbatch}squeue" -h -r | wc -l)
if [ $((${wanted:-0} + 1 + there)) -gt 2 ]; then
  echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
  echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2
  exit 1
fi
"""


def daemon_of(pid: int) -> int:
    """The slurmstepd above a supervisor."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert Path(f"/proc/{parent}/comm").read_text() == "slurmstepd\n"
    return parent


@contextmanager
def drained(cluster: Cluster, *nodes: str) -> Iterator[Callable[[], None]]:
    """Nodes that start no job; yields what lets them work again."""
    named = f"nodename={','.join(nodes)}"
    cluster.sh("scontrol", "update", named, "state=drain", "reason=test")
    freed = []

    def free() -> None:
        if not freed:
            freed.append(cluster.sh("scontrol", "update", named, "state=resume"))

    try:
        yield free
    finally:
        free()


def running(sweep: Sweep) -> list[int]:
    """Supervisors at work."""
    return [attempt.pid for attempt in sweep.attempts() if attempt.alive(time.time())]


@pytest.mark.fault("F1", "kill -9 of a running cell's process")
def test_a_cell_killed_from_outside_runs_again_in_the_same_job(sweep):
    sweep.add(4, seconds=1.5)
    with sweep.running() as codes:
        until(20, lambda: len(sweep.starts()) == 2, "two cells run")
        os.kill(sweep.starts()[0][1], signal.SIGKILL)
        until(10, lambda: "killed" in sweep.outcomes(), "it is noticed")
        sweep.status(cause="ended on n")
    assert codes == [0]
    sweep.assert_whole()
    assert sweep.outcomes() == ["killed", *["ok"] * 4]
    assert len(sweep.submissions()) == 1


@pytest.mark.fault("F2", "kill -9 of slurmstepd: the cell goes on, SLURM calls its job running for ever")
def test_a_job_whose_daemon_was_killed_is_ended_once_its_cells_are_done(sweep, monkeypatch):
    monkeypatch.setattr(_controller, "LINGER_S", 2.0)
    sweep.add(2, seconds=2)
    with sweep.running(ONE) as codes:
        sweep.until_running()
        os.kill(daemon_of(running(sweep)[0]), signal.SIGKILL)
    assert codes == [0]
    sweep.assert_whole()
    assert sweep.outcomes() == ["ok", "ok"]


@pytest.mark.fault("F2", "kill -9 of slurmstepd and of the supervisor under it")
def test_a_running_job_without_a_supervisor_is_replaced(sweep, monkeypatch):
    monkeypatch.setattr(_upkeep, "DEAF_S", 3.0)
    sweep.add(2, seconds=2)
    with sweep.running(ONE) as codes:
        sweep.until_running()
        supervisor = running(sweep)[0]
        os.kill(daemon_of(supervisor), signal.SIGKILL)
        os.kill(supervisor, signal.SIGKILL)
        sweep.status(cause="vanished")
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 2


@pytest.mark.fault("F2", "kill -9 of the supervisor, twice on one node")
def test_a_node_that_lost_a_cell_twice_gets_no_third_try(sweep, cluster):
    sweep.add(1, seconds=3)
    with drained(cluster, "n2") as free, sweep.running() as codes:
        for tries in (1, 2):
            until(30, lambda tries=tries: len(sweep.attempts()) == tries and bool(running(sweep)), "it is tried")
            if tries == 2:
                free()
            os.kill(running(sweep)[0], signal.SIGKILL)
            until(10, lambda: not sweep.store.scan(sweep.ids)[sweep.ids[0]].live, "it is gone")
    assert codes == [0]
    sweep.assert_whole()
    assert [attempt.where["node"] for attempt in sweep.attempts()] == ["n1", "n1", "n2"]


@pytest.mark.fault("F4", "scontrol update state=down of a node with running cells")
def test_a_node_that_goes_down_is_named_and_loses_no_cell(sweep, cluster):
    sweep.add(4, seconds=2)
    with sweep.running() as codes:
        sweep.until_running(2)
        node = sweep.jobs()[0].node
        cluster.sh("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        try:
            until(15, lambda: all(job.node != node for job in sweep.jobs()), "its job waits again")
            sweep.status(cause=f" on {node}")
        finally:
            with suppress(subprocess.CalledProcessError):  # it may have come back by itself
                cluster.sh("scontrol", "update", f"nodename={node}", "state=resume")
    assert codes == [0]
    sweep.assert_whole()


@pytest.mark.fault("F7", "a job of a higher partition preempts jobs that may not be queued again (--no-requeue)")
def test_preempted_jobs_that_may_not_be_requeued_are_submitted_again_and_nobody_is_charged(sweep, cluster):
    sweep.add(4, seconds=3)
    site = SiteSettings(poll_s=0.25, options={"no-requeue": True})
    with sweep.running(replace(REQUEST, site=site), seconds=120) as codes:
        sweep.until_running(2)
        cluster.sh("sbatch", "-p", "high", "-N2", "--exclusive", "-t1", "-o", "/dev/null", "--wrap", "sleep 2")
        until(40, lambda: "preempted" in sweep.outcomes(), "one is preempted")
        sweep.status(cause="'preempted'")
    assert codes == [0]
    sweep.assert_whole()
    assert set(sweep.outcomes()) <= {"ok", "preempted"}
    assert len(sweep.submissions()) > 1


@pytest.mark.fault("F9", "a cell allocates beyond --mem, and our watchdog sees it")
def test_a_cell_that_takes_too_much_memory_gets_its_row_and_its_siblings_go_on(sweep):
    sweep.add(1, do="grow", mib=300, ends="oom")
    sweep.add(2)
    assert sweep.run(ONE) == 0
    sweep.assert_whole()
    assert len(sweep.attempts()) == 3
    assert sweep.rows()[0]["cost"]["memory_limit_mib"] == 256


@pytest.mark.fault("F10", "a cell raises; another segfaults; another hangs in C; another returns NaN")
def test_cells_that_go_wrong_end_in_a_row_or_set_aside_and_harm_no_other(sweep):
    for do, ends in (("raise", "failed"), ("segfault", "failed"), ("hang", "timeout"), ("nan", "diverged")):
        sweep.add(1, do=do, ends=ends)
    sweep.add(2)
    assert sweep.run(replace(REQUEST, limits=Limits(cell_s=2.0))) == 4
    sweep.status(cause="signal 11")
    sweep.assert_whole()
    assert Counter(seed for seed, _ in sweep.starts()) == {0: 2, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1}


@pytest.mark.fault("F11", "a committed row is truncated, another gets a flipped bit, another is emptied")
def test_damaged_rows_alone_are_made_again(sweep):
    sweep.add(4)
    assert sweep.run() == 0
    rows = [sweep.store.spec_path(id).with_name("result.json") for id in sweep.ids]
    halved, flipped = lambda data: data[: len(data) // 2], lambda data: data[:80] + bytes([data[80] ^ 1]) + data[81:]
    for path, hurt in zip(rows, (halved, flipped, lambda _: b""), strict=False):
        path.write_bytes(hurt(path.read_bytes()))
        os.utime(path, (1, 1))  # an empty one may else be just being made
        sweep.witness.forget(path)
    told = sweep.status(cause="damaged")
    assert (told["code"], told["counts"]) == (5, {"corrupt": 3, "ok": 1})
    assert sweep.run() == 0
    sweep.assert_whole()
    assert Counter(seed for seed, _ in sweep.starts()) == {0: 2, 1: 2, 2: 2, 3: 1}
    assert len(list((sweep.store.root / "quarantine").iterdir())) == 3


@pytest.mark.fault("F13", "two sweeps with overlapping cells start in the same second")
def test_two_sweeps_at_once_both_end_and_run_no_cell_twice(sweep):
    sweep.add(8, seconds=0.5)
    other = Sweep(sweep.store.root)
    other.cells = sweep.cells[2:]
    first = Sweep(sweep.store.root)
    first.cells = sweep.cells[:6]
    both = [in_a_process(first), in_a_process(other)]
    assert [process.wait(60) for process in both] == [0, 0]
    sweep.assert_whole()
    assert Counter(seed for seed, _ in sweep.starts()) == dict.fromkeys(range(8), 1)


@pytest.mark.fault("F14", "kill -9 of the controller between its intent and sbatch")
def test_an_intent_that_reached_nobody_is_followed_by_another(sweep, lie, monkeypatch):
    sweep.add(3)
    path = os.environ["PATH"]
    lie("sbatch", "kill -9 $PPID; exit 1")
    assert in_a_process(sweep).wait(30) == -signal.SIGKILL
    monkeypatch.setenv("PATH", path)
    assert sweep.run() == 0
    sweep.assert_whole()
    assert len(sweep.attempts()) == 3


@pytest.mark.fault("F14", "kill -9 of the controller while jobs run")
def test_jobs_of_a_controller_killed_while_they_run_are_adopted(sweep):
    sweep.add(4, seconds=1)
    controller = in_a_process(sweep)
    sweep.until_running(2)
    controller.kill()
    controller.wait()
    assert sweep.run() == 0
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1
    assert sweep.outcomes() == ["ok"] * 4


@pytest.mark.fault("F16", "the scheduler forgets that it had let jobs go")
def test_jobs_that_are_held_again_after_their_release_are_released_again(sweep, cluster):
    sweep.add(2)
    with drained(cluster, "n1", "n2"):
        assert sweep.run(wait=False) == 3
        cluster.sh("scontrol", "hold", *(job.id for job in sweep.jobs()))
        assert all(job.held for job in sweep.jobs())
    assert sweep.run() == 0
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1


@pytest.mark.fault("F18", "60 cells for a queue that takes two jobs at once (AssocMaxSubmitJobLimit)")
def test_a_queue_that_is_full_gets_the_rest_later(sweep, lie):
    sweep.add(60, seconds=0.01)
    lie("sbatch", FULL_QUEUE)
    assert sweep.run(replace(REQUEST, resources=replace(REQUEST.resources, parallel=5))) == 0
    sweep.assert_whole()
    assert len(sweep.attempts()) == 60


@pytest.mark.fault("F19", "munged is dead for some seconds, and sacct is missing")
def test_nothing_is_lost_or_refused_while_authentication_fails(sweep, cluster, lie, tmp_path, monkeypatch):
    monkeypatch.setattr(_controller, "PATIENCE_S", 2.0)
    lie("sacct", f"touch {tmp_path}/asked; exit 127")
    sweep.add(4, seconds=1)
    with sweep.running() as codes:
        sweep.until_running(2)
        cluster.daemons["munged"].kill()
        cluster.daemons["munged"].wait()
        (cluster.home / "run" / "munge.sock").unlink(missing_ok=True)
        try:
            sweep.status(cause="SLURM does not answer")
        finally:
            cluster.start_munged()
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1
    assert not (tmp_path / "asked").exists()
