"""Faults of the plan on this machine's own pool: the invariants are those on SLURM, with processes and files alone."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import pytest
import yaml
from click.testing import CliRunner

from attnbench.cli import main
from attnbench.engine._records import make_scratch, scratch
from attnbench.sweep import expand_text
from tests import fake_sweep, invariants, tiny
from tests.disks import ballast, small_disk
from tests.fake_cell import runs, until
from tests.fake_cells import FakeCells

HURTS = {
    "truncated": lambda data: data[: len(data) // 2],
    "flipped": lambda data: data[:80] + bytes([data[80] ^ 1]) + data[81:],
    "emptied": lambda _: b"",
}


class Pool(FakeCells):
    """Fake cells that run here, two at a time, under a process that can be killed."""

    def start(self, *, mib: float | None = None, cell_s: float | None = None) -> subprocess.Popen:
        os.environ["ATTNBENCH_TEST_LIMITS"] = json.dumps({"memory_mib": mib, "cell_s": cell_s})
        return fake_sweep.sweep(self.store, self.ids, workers=2)

    def run(self, **limits: float) -> int:
        process = self.start(**limits)
        said = process.communicate(timeout=120)
        assert process.returncode in (0, 4), said
        return process.returncode

    def again(self) -> int:
        return self.run()

    def hurt(self, id: str, how: Callable[[bytes], bytes]) -> None:
        """Changes the bytes of a committed row."""
        path = self.store.spec_path(id).with_name("result.json")
        self.witness.forget(path)
        path.write_bytes(how(path.read_bytes()))
        os.utime(path, (1, 1))  # an empty one may else be just being made


@pytest.fixture
def pool(tmp_path, monkeypatch) -> Pool:
    monkeypatch.setenv("ATTNBENCH_TEST_LIMITS", "{}")
    return Pool(fake_sweep.fake_store(tmp_path, monkeypatch).root)


@pytest.mark.fault("F1", "kill -9 of a running cell's process")
def test_a_cell_killed_from_outside_runs_again(pool):
    pool.add(4, seconds=1)
    process = pool.start()
    until(lambda: len(pool.starts()) == 2)
    os.kill(pool.starts()[0][1], signal.SIGKILL)
    until(lambda: "killed" in pool.outcomes())
    pool.status(cause="signal 9")
    process.communicate(timeout=30)
    assert process.returncode == 0
    pool.assert_whole()
    assert pool.outcomes() == ["killed", *["ok"] * 4]


@pytest.mark.fault("F2", "kill -9 of the supervisor, after 0, 1 or 3 rows")
@pytest.mark.fault("F14", "kill -9 of the controller, which here is the supervisor too")
@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_killed_pool_is_named_and_resumed(pool, done):
    pool.add(6, seconds=0.6)
    process = pool.start()
    until(lambda: len(pool.rows()) >= done and len(pool.starts()) > max(done, len(pool.rows())))  # one is running
    process.kill()
    process.communicate()
    until(lambda: not any(runs(pid) for _, pid in pool.starts()))
    pool.status(cause="no sign of it")
    assert pool.run() == 0
    pool.assert_whole()
    assert set(pool.outcomes()) == {"ok", "vanished"}


@pytest.mark.fault("F14", "kill -9 between the commit of a row and what is done after it")
def test_what_a_process_left_that_died_right_after_its_commit_goes_with_the_next_sweep(pool):
    pool.add(2)
    id = pool.ids[0]
    if (pid := os.fork()) == 0:
        attempt = pool.store.begin(id, where={})
        make_scratch(scratch(attempt.uuid))
        pool.store.commit(id, {"status": "ok", "result": {"score": 0.0}}, attempt.uuid)
        pool.store.spec_path(id).with_name(f"{attempt.uuid}.1.tmp").write_text("a draft that was linked")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert pool.run() == 0
    pool.assert_whole()
    assert pool.outcomes() == ["ok", "vanished"]


@pytest.mark.fault("F9", "a cell takes more memory than it may")
def test_a_cell_that_takes_too_much_memory_gets_its_row(pool):
    pool.add(1, do="grow", mib=150, ends="oom")
    pool.add(2)
    assert pool.run(mib=100.0) == 0
    pool.assert_whole()
    assert len(pool.attempts()) == 3


@pytest.mark.fault("F10", "a cell raises; another segfaults; another hangs in C; another returns NaN")
def test_cells_that_go_wrong_end_in_a_row_or_set_aside(pool):
    for do, ends in (("raise", "failed"), ("segfault", "failed"), ("hang", "timeout"), ("nan", "diverged")):
        pool.add(1, do=do, ends=ends)
    pool.add(2)
    assert pool.run(cell_s=2.0) == 4
    pool.status(cause="signal 11")
    pool.assert_whole()


@pytest.mark.fault("F10", "cells say what broken machines make them say: a disk's EIO, a GPU's ECC error")
def test_a_broken_machine_is_not_charged_as_the_cells_own_error(pool):
    pool.add(1, do="broken", message="[Errno 5] Input/output error: '/data/x'", times=3)
    pool.add(1, do="broken", message="CUDA error: uncorrectable ECC error encountered", times=3)
    process = pool.start()
    until(lambda: "machine" in pool.outcomes())
    pool.status(cause="[Errno 5]")
    process.communicate(timeout=60)
    assert process.returncode == 0
    pool.assert_whole()
    assert Counter(pool.outcomes()) == {"machine": 6, "ok": 2}


@pytest.mark.fault("F11", "committed rows are truncated, get a flipped bit, are emptied")
def test_damaged_rows_alone_are_made_again(pool):
    pool.add(4)
    assert pool.run() == 0
    for id, how in zip(pool.ids, HURTS.values(), strict=False):
        pool.hurt(id, how)
    assert pool.status(cause="damaged")["counts"] == {"corrupt": 3, "ok": 1}
    assert pool.run() == 0
    pool.assert_whole()
    assert Counter(seed for seed, _ in pool.starts()) == {0: 2, 1: 2, 2: 2, 3: 1}


@pytest.mark.fault("F13", "two sweeps with overlapping cells start in the same second")
def test_two_sweeps_at_once_both_end_and_run_no_cell_twice(pool):
    pool.add(8, seconds=0.2)
    both = [fake_sweep.sweep(pool.store, ids, workers=2) for ids in (pool.ids[:6], pool.ids[2:])]
    assert [(process.communicate(timeout=60), process.returncode)[1] for process in both] == [0, 0]
    pool.assert_whole()
    assert Counter(seed for seed, _ in pool.starts()) == dict.fromkeys(range(8), 1)


@pytest.mark.fault("F15", "a disk of 1 MB with the store is full while cells run, and freed later")
def test_a_full_disk_holds_rows_back_until_there_is_room(pool, tmp_path):
    with small_disk(tmp_path / "disk", mib=1) as disk:
        pool = Pool(disk / "results")
        pool.add(6, seconds=1)
        pool.manifest()
        process = pool.start()
        until(lambda: pool.logs() == 2)
        with ballast(disk):
            until(lambda: not any(runs(pid) for _, pid in pool.starts()))
            pool.status(cause="is full")
            time.sleep(1)
            assert not pool.rows()
        process.communicate(timeout=60)
        assert process.returncode == 0
        pool.assert_whole()
        assert Counter(seed for seed, _ in pool.starts()) == dict.fromkeys(range(6), 1)


ASKED = {
    "question": "?",
    "runs": 1,
    "tasks": [{"name": "darcy", **tiny.TASK}],
    "models": [{"name": "isotropic"}],
    "mechanisms": [{"name": "full"}],
    "seeds": [0],
}
BAD = {
    "unknown mechanism": {"mechanisms": [{"name": "fulll"}]},
    "unknown task": {"tasks": [{"name": "darci"}]},
    "unknown section": {"sedes": [0]},
    "unknown knob": {"mechanisms": [{"name": "full", "haeds": 2}]},
    "wrong type": {"seeds": "zero"},
    "wrong count": {"runs": 7},
    "misfit": {"mechanisms": [{"name": "full", "heads": 7}]},
}


@pytest.mark.fault("F18", "sweep files that are wrong: unknown names, wrong types, misfits")
@pytest.mark.parametrize("bad", BAD)
def test_a_wrong_file_is_one_sentence_and_starts_nothing(tmp_path, bad):
    (file := tmp_path / "bad.yaml").write_text(yaml.safe_dump(ASKED | BAD[bad]))
    said = CliRunner().invoke(main, ["sweep", str(file), "--results", str(tmp_path / "results"), "--launcher", "local"])
    assert said.exit_code == 1, said.output
    assert said.output.count("attnbench: ") == 1
    assert "Traceback" not in said.output
    assert not list(tmp_path.glob("results/cells/*/*"))
    invariants.note("", said.output.strip().splitlines()[-1][:160])


@pytest.mark.chaos
@pytest.mark.fault("F18", "a grid of 100,000 cells is expanded")
def test_a_hundred_thousand_cells_are_expanded(tmp_path):
    seeds = {"seeds": list(range(100_000)), "runs": 100_000}
    assert len(expand_text(tmp_path / "large.yaml", ASKED | seeds, device="cpu").trainings) == 100_000
    invariants.note("", "100,000 cells")
