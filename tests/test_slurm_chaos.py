"""The long faults on a real SLURM: daemons stopped and killed, time limits, preemption. Run with `pytest -m chaos`."""

import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from attnbench.engine.settings import SiteSettings
from tests.slurm_cluster import Cluster, until
from tests.slurm_sweep import REQUEST, Sweep

pytestmark = [pytest.mark.slurm, pytest.mark.chaos]


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Sweep:
    until(60, cluster.idle, "the nodes are idle again")
    return Sweep(tmp_path / "results")


@pytest.mark.fault("F12", "SIGSTOP of slurmctld for 14 s while sbatch runs")
def test_a_controller_that_stops_while_sbatch_runs_gets_the_jobs_once(sweep, cluster, lie, tmp_path):
    sweep.add(3)
    daemon = cluster.daemons["slurmctld"]
    lie("sbatch", f"mkdir {tmp_path}/once && kill -STOP {daemon.pid}")
    with sweep.running() as codes:
        try:
            until(20, (tmp_path / "once").exists, "sbatch is called")
            sweep.manifest()
            sweep.status(cause="SLURM does not answer")
            time.sleep(7)
        finally:
            daemon.send_signal(signal.SIGCONT)
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.attempts()) == 3


@pytest.mark.fault("F5", "a time limit of one minute over four cells of 15 s, one job at once")
def test_a_time_limit_drains_and_the_rest_follows(sweep):
    sweep.add(4, seconds=15)
    one = replace(REQUEST, resources=replace(REQUEST.resources, hours=1 / 60, parallel=1))
    sweep.cells = [replace(cell, estimate_s=1) for cell in sweep.cells]
    with sweep.running(one, seconds=200) as codes:
        pass
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1
    assert max(row["where"]["restart"] for row in sweep.rows()) >= 1
    assert {attempt.end["outcome"] for attempt in sweep.attempts() if attempt.end} <= {"ok", "time limit"}


@pytest.mark.fault("F5", "a cell that is longer than its job may be")
def test_a_cell_longer_than_its_job_becomes_a_timeout(sweep):
    sweep.add(1, seconds=300, ends="timeout")
    one = replace(REQUEST, resources=replace(REQUEST.resources, hours=1 / 60))
    with sweep.running(one, seconds=100) as codes:
        pass
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1


@pytest.mark.fault("F7", "a job of a higher partition preempts both nodes")
def test_preempted_jobs_come_back_by_themselves(sweep, cluster):
    sweep.add(4, seconds=4)
    with sweep.running(replace(REQUEST, site=SiteSettings(poll_s=1)), seconds=120) as codes:
        sweep.until_running(2)
        cluster.sh("sbatch", "-p", "high", "-N2", "--exclusive", "-t1", "-o", "/dev/null", "--wrap", "sleep 3")
        until(40, lambda: any(a.end and a.end["outcome"] == "preempted" for a in sweep.attempts()), "one is preempted")
    assert codes == [0]
    sweep.assert_whole()
    assert len(sweep.submissions()) == 1
    assert sweep.store.failed(sweep.ids[0]) is None


@pytest.mark.fault("F3", "kill -9 of slurmd alone: its job is requeued on the other node while its processes go on")
def test_a_node_behind_a_partition_makes_no_second_row(sweep, cluster):
    sweep.add(1, seconds=50)
    with sweep.running(seconds=150) as codes:
        sweep.until_running()
        node = sweep.jobs()[0].node
        cluster.daemons[node].kill()
        cluster.daemons[node].wait()
        until(60, lambda: sweep.jobs()[0].node not in ("", node), "the job runs on the other node")
    cluster.start_node(node)
    assert codes == [0]
    sweep.assert_whole()
    assert len([a for a in sweep.attempts() if a.end and a.end["outcome"] == "ok"]) == 1


@pytest.mark.fault("F4", "scontrol update state=down of a node; it stays down")
def test_a_node_that_goes_down_loses_no_cell(sweep, cluster):
    sweep.add(4, seconds=3)
    with sweep.running(seconds=120) as codes:
        sweep.until_running(2)
        node = sweep.jobs()[0].node
        cluster.sh("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    assert codes == [0]
    sweep.assert_whole()


@pytest.mark.fault("F16", "kill -9 of slurmctld right after a submission")
def test_a_controller_killed_after_a_submission_may_forget_it(sweep, cluster):
    sweep.add(4, seconds=2)
    with sweep.running(seconds=150) as codes:
        until(20, lambda: (sweep.store.root / "submissions").exists() and bool(sweep.jobs()), "jobs are in the queue")
        cluster.daemons["slurmctld"].kill()
        cluster.daemons["slurmctld"].wait()
        cluster.start_controller()
    assert codes == [0]
    sweep.assert_whole()
