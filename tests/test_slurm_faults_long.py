"""Faults of the plan on a real SLURM that take minutes, chaos among them. Run with `pytest -m chaos`."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from attnbench.engine import _controller, _upkeep
from attnbench.engine.settings import SiteSettings
from tests.slurm_cluster import NODES, Cluster, until
from tests.slurm_sweep import REQUEST, Sweep, in_a_process

pytestmark = [pytest.mark.slurm, pytest.mark.chaos]
SEED = int(os.environ.get("ATTNBENCH_CHAOS_SEED", "5"))
BLIND = """\
import attnbench.engine._job as job
import attnbench.engine.shard as shard
job.FULL = shard.FULL = 99.0
shard.Timing.__init__.__kwdefaults__["beat_s"] = 0.3
"""


def preempt(cluster: Cluster, seconds: int = 3) -> None:
    """A job that wants both nodes for itself and goes first."""
    cluster.sh("sbatch", "-p", "high", "-N2", "--exclusive", "-t1", "-o", "/dev/null", "--wrap", f"sleep {seconds}")


def high(cluster: Cluster) -> str:
    """Jobs that still preempt."""
    return cluster.sh("squeue", "-h", "-p", "high")


def crash(cluster: Cluster, name: str) -> None:
    cluster.daemons[name].kill()
    cluster.daemons[name].wait()


@pytest.mark.fault("F5", "a time limit of one minute over six cells of 20 s, two jobs at once")
def test_jobs_drain_at_their_time_limit_and_the_rest_follows(sweep):
    sweep.add(6, seconds=20)
    sweep.cells = [replace(cell, estimate_s=1) for cell in sweep.cells]
    with sweep.running(replace(REQUEST, resources=replace(REQUEST.resources, hours=1 / 60)), seconds=300) as codes:
        until(120, lambda: "time limit" in sweep.outcomes(), "one is drained")
        sweep.status(cause="'time limit'")
    assert codes == [0]
    sweep.assert_whole()
    assert set(sweep.outcomes()) == {"ok", "time limit"}


@pytest.mark.fault("F8", "preempted four times (seven without requeue) with a limit of five minutes")
@pytest.mark.parametrize(("option", "times"), [("requeue", 4), ("no-requeue", 7)])  # more than vain submissions may be
def test_preemption_is_never_charged_and_never_a_time_out(sweep, cluster, option, times):
    sweep.add(2, seconds=25)
    asked = replace(REQUEST, resources=replace(REQUEST.resources, hours=1 / 12))
    with sweep.running(replace(asked, site=SiteSettings(poll_s=0.25, options={option: True})), seconds=400) as codes:
        for _ in range(times):
            until(60, lambda: any(a.alive(time.time()) for a in sweep.attempts()), "a cell runs")
            time.sleep(1)
            before = sweep.outcomes().count("preempted")
            preempt(cluster)
            until(60, lambda before=before: sweep.outcomes().count("preempted") > before, "it is preempted")
            until(60, lambda: not high(cluster), "the others are done")
        sweep.status(cause="'preempted'")
    assert codes == [0]
    sweep.assert_whole()
    assert set(sweep.outcomes()) == {"ok", "preempted"}
    assert sweep.outcomes().count("preempted") >= times


@pytest.mark.fault("F9", "a cell allocates beyond --mem, our watchdog is off, and SLURM kills the job")
def test_without_the_watchdog_the_last_heartbeat_names_the_cause(sweep, tmp_path):
    (tmp_path / "blind").mkdir()
    (tmp_path / "blind" / "sitecustomize.py").write_text(BLIND)
    sweep.add(1, do="creep", mib=430, ends="failed")
    sweep.add(1)
    asked = replace(REQUEST, resources=replace(REQUEST.resources, memory_gib=0.5))
    site = SiteSettings(poll_s=0.25, setup=(f"export PYTHONPATH={tmp_path}/blind",))
    with sweep.running(replace(asked, site=site), seconds=200) as codes:
        until(60, lambda: any(not a.alive(time.time()) and not a.end for a in sweep.attempts()), "the job is killed")
        sweep.status(cause="ran out of memory")
    assert codes == [4]
    sweep.assert_whole()
    assert "probably ran out of memory" in sweep.store.failed(sweep.ids[0])["message"]


@pytest.mark.fault("F16", "the controller's state is wiped while jobs run, and ids are given out again")
def test_a_scheduler_that_forgot_all_jobs_is_given_them_again(sweep, cluster):
    sweep.add(6, seconds=4)
    with sweep.running(seconds=200) as codes:
        sweep.until_running(2)
        first = {job.id for job in sweep.jobs()}
        crash(cluster, "slurmctld")
        shutil.rmtree(cluster.home / "state")
        (cluster.home / "state").mkdir()
        sweep.status(cause="SLURM does not answer")
        cluster.start_controller()
    assert codes == [0]
    sweep.assert_whole()
    assert first & {row["where"]["job"] for row in sweep.rows()}


@pytest.mark.fault("F19", "munged is dead for 30 s")
def test_authentication_may_be_gone_for_half_a_minute(sweep, cluster, monkeypatch):
    monkeypatch.setattr(_controller, "PATIENCE_S", 5.0)
    sweep.add(8, seconds=3)
    with sweep.running(seconds=200) as codes:
        sweep.until_running(2)
        crash(cluster, "munged")
        (cluster.home / "run" / "munge.sock").unlink(missing_ok=True)
        sweep.status(cause="SLURM does not answer")
        time.sleep(28)
        cluster.start_munged()
    assert codes == [0]
    sweep.assert_whole()


class Chaos:
    """Faults by chance, each undone at once, against one sweep whose controller is a process."""

    def __init__(self, sweep: Sweep, cluster: Cluster, seed: int) -> None:
        self.sweep, self.cluster, self.chance = sweep, cluster, random.Random(seed)
        self.done: list[str] = []
        self.controller = in_a_process(sweep)

    def strike(self) -> None:
        fault = self.chance.choice(self.faults())
        self.done.append(fault.__name__)
        print(f"{time.strftime('%X')} {fault.__name__}", file=sys.stderr, flush=True)
        with suppress(ProcessLookupError, subprocess.CalledProcessError, subprocess.TimeoutExpired, IndexError):
            fault()

    def faults(self) -> list[Callable[[], None]]:
        some = [self.child, self.supervisor, self.own_controller, self.slurmctld, self.slurmd, self.munged]
        return [*some, self.frozen, self.preempted, self.requeued, self.down, self.step]

    def child(self) -> None:
        os.kill(self.chance.choice(self.sweep.starts())[1], signal.SIGKILL)

    def supervisor(self) -> None:
        os.kill(self.at_work()[0], signal.SIGKILL)

    def step(self) -> None:
        pid = self.at_work()[0]
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if Path(f"/proc/{parent}/comm").read_text() == "slurmstepd\n":
            os.kill(parent, signal.SIGKILL)

    def own_controller(self) -> None:
        self.controller.kill()
        self.controller.wait()

    def slurmctld(self) -> None:
        crash(self.cluster, "slurmctld")
        time.sleep(self.chance.random())
        self.cluster.start_controller()

    def slurmd(self) -> None:
        node = self.chance.choice(NODES)
        crash(self.cluster, node)
        time.sleep(self.chance.random())
        self.cluster.start_node(node)

    def munged(self) -> None:
        crash(self.cluster, "munged")
        (self.cluster.home / "run" / "munge.sock").unlink(missing_ok=True)
        time.sleep(self.chance.random() * 3)
        self.cluster.start_munged()

    def frozen(self) -> None:
        daemon = self.cluster.daemons["slurmctld"]
        daemon.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.random() * 8)
        daemon.send_signal(signal.SIGCONT)

    def preempted(self) -> None:
        preempt(self.cluster, 1)

    def requeued(self) -> None:
        self.cluster.sh("scontrol", "requeue", self.chance.choice(self.sweep.jobs()).id)

    def down(self) -> None:
        node = f"nodename={self.chance.choice(NODES)}"
        self.cluster.sh("scontrol", "update", node, "state=down", "reason=chaos")
        time.sleep(1)
        self.cluster.sh("scontrol", "update", node, "state=resume")

    def at_work(self) -> list[int]:
        return [a.pid for a in self.sweep.attempts() if a.alive(time.time())]

    def see_through(self, seconds: float) -> int:
        """Until the sweep has ended; a controller that was killed or gave up is called again, as a person would."""
        ends = time.monotonic() + seconds
        pause = time.monotonic() + 5
        while time.monotonic() < ends:
            if (code := self.controller.poll()) in (0, 4):
                return code
            if code is not None:
                self.controller = in_a_process(self.sweep)
            if time.monotonic() > pause:
                self.strike()
                pause = time.monotonic() + self.chance.uniform(5, 15)
            time.sleep(0.2)
        raise TimeoutError(f"The sweep did not end within {seconds:g} s.")


@pytest.mark.fault("F20", f"chaos, seed {SEED}: a random fault every 5 to 15 s over 200 cells of 1 s")
def test_chaos_costs_no_row_and_changes_no_number(sweep, cluster, monkeypatch):
    monkeypatch.setenv("ATTNBENCH_TEST_DEAF_S", "20")
    monkeypatch.setattr(_upkeep, "DEAF_S", 20.0)
    sweep.add(200, seconds=1.0)
    sweep.manifest()
    print(f"seed {SEED}; another with ATTNBENCH_CHAOS_SEED", file=sys.stderr)
    chaos = Chaos(sweep, cluster, SEED)
    try:
        assert chaos.see_through(900) == 0
    finally:
        chaos.controller.kill()
        chaos.controller.wait()
    until(60, cluster.idle, "the nodes are idle again")
    sweep.assert_whole()
    assert len(chaos.done) >= 5
