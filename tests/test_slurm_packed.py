"""Inside a SLURM job training cells run side by side, as many as it has processors; cost cells have it alone."""

from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest

from attnbench.engine._child import cores
from tests.slurm_cluster import Cluster
from tests.slurm_sweep import REQUEST, Sweep

pytestmark = pytest.mark.slurm


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Sweep:
    assert cluster.idle()
    return Sweep(tmp_path / "results")


def at_once(sweep: Sweep) -> int:
    """The most cells that were at work together."""
    marks = [mark for row in sweep.rows() for mark in ((row["started"], 1), (row["finished"], -1))]
    return max(accumulate(step for _, step in sorted(marks)))


@pytest.mark.parametrize(("cpus", "kind", "most"), [(2, "train", 2), (1, "train", 1), (2, "cost", 1)])
def test_a_job_runs_as_many_trainings_at_once_as_it_has_processors_and_costs_alone(sweep, cpus, kind, most):
    sweep.add(4, 0.6, kind=kind)
    resources = replace(REQUEST.resources, cpus=cpus, memory_gib=3, parallel=1)
    assert sweep.run(replace(REQUEST, resources=resources)) == 0
    sweep.assert_whole()
    assert len({row["where"]["job"] for row in sweep.rows()}) == 1
    assert at_once(sweep) == min(most, cores())


def test_a_jobs_cells_see_one_each_of_the_jobs_own_gpus(sweep):
    sweep.add(4, do="environment", names=["CUDA_VISIBLE_DEVICES"], device="cuda")
    resources = replace(REQUEST.resources, cpus=2, memory_gib=3, parallel=1)
    site = replace(REQUEST.site, setup=("export CUDA_VISIBLE_DEVICES=GPU-3,MIG-4",))
    assert sweep.run(replace(REQUEST, resources=resources, site=site)) == 0
    assert {row["host"]["CUDA_VISIBLE_DEVICES"] for row in sweep.rows()} == {"GPU-3", "MIG-4"}
    assert all(row["where"]["gpus"] == [row["host"]["CUDA_VISIBLE_DEVICES"]] for row in sweep.rows())


def test_the_end_of_all_cells_is_seen_in_the_store_before_the_scheduler_is_asked_again(sweep):
    sweep.add(2)
    sweep.add(1, do="raise")
    assert sweep.run(replace(REQUEST, site=replace(REQUEST.site, poll_s=600))) == 4  # it waits for a minute at most


def test_a_jobs_memory_bounds_how_many_run_at_once(sweep):
    sweep.add(2, 1.0)
    resources = replace(REQUEST.resources, cpus=2, memory_gib=0.5, parallel=1)
    assert sweep.run(replace(REQUEST, resources=resources)) == 0
    assert at_once(sweep) == 1
