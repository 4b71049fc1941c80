"""Disks that fill up under a sweep on a real SLURM, and have room again later."""

from collections import Counter

import pytest

from tests.disks import ballast, small_disk
from tests.fake_cell import runs
from tests.slurm_cluster import until
from tests.slurm_sweep import REQUEST, Sweep

pytestmark = pytest.mark.slurm


@pytest.mark.fault("F15", "the disk of the store is full while cells run, and freed later")
def test_a_full_disk_holds_rows_back_until_there_is_room(cluster, tmp_path):
    until(60, cluster.idle, "the nodes are idle")
    with small_disk(tmp_path / "disk", mib=8) as disk:
        sweep = Sweep(disk / "results")
        sweep.add(4, seconds=1.5)
        sweep.manifest()
        with sweep.running() as codes:
            sweep.until_running(2)
            with ballast(disk):
                until(20, lambda: not any(runs(pid) for _, pid in sweep.starts()), "cells end")
                sweep.status(cause="is full")
                assert not sweep.rows()
        assert codes == [0]
        sweep.assert_whole()
        assert set(sweep.outcomes()) <= {"ok", "stopped"}
        assert max(Counter(seed for seed, _ in sweep.starts()).values()) <= 2  # a full disk may cost work, but no row


@pytest.mark.fault("F15", "the disk of the store is full before anything is submitted")
def test_nothing_is_submitted_to_a_full_disk(cluster, tmp_path):
    with small_disk(tmp_path / "disk", mib=8) as disk:
        sweep = Sweep(disk / "results")
        sweep.add(2)
        with ballast(disk), pytest.raises(TimeoutError):
            sweep._start(REQUEST, wait=True).result(3)
        assert not cluster.jobs()
        until(30, lambda: len(sweep.rows()) == 2, "it goes on by itself")
        sweep.assert_whole()
