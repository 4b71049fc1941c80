"""Chaos on this machine's own pool, and kills of real trainings: what takes minutes. Run with `pytest -m chaos`."""

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests import fake_sweep
from tests.disks import ballast, small_disk
from tests.fake_cell import until
from tests.invariants import numbers_are_the_same
from tests.test_end_to_end import SWEEP, Place
from tests.test_faults_local import HURTS, Pool

SEED = int(os.environ.get("ATTNBENCH_CHAOS_SEED", "5"))


@pytest.fixture
def pool(tmp_path, monkeypatch) -> Pool:
    monkeypatch.setenv("ATTNBENCH_TEST_LIMITS", "{}")
    return Pool(fake_sweep.fake_store(tmp_path, monkeypatch).root)


class Chaos:
    """Faults by chance against a pool that is started again whenever it was killed."""

    def __init__(self, pool: Pool, disk: Path, seed: int) -> None:
        self.pool, self.disk, self.chance = pool, disk, random.Random(seed)
        self.process, self.struck = pool.start(), 0

    def child(self) -> None:
        os.kill(self.chance.choice(self.pool.starts()[-2:])[1], signal.SIGKILL)

    def controller(self) -> None:
        self.process.kill()

    def interrupt(self) -> None:
        self.process.send_signal(self.chance.choice([signal.SIGINT, signal.SIGTERM]))

    def stopped(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.random() * 3)
        self.process.send_signal(signal.SIGCONT)

    def damage(self) -> None:
        done = [id for id in self.pool.ids if self.pool.store.done(id)]
        self.pool.hurt(self.chance.choice(done), self.chance.choice(list(HURTS.values())))

    def full(self) -> None:
        with ballast(self.disk):
            time.sleep(self.chance.random() * 3)

    def see_through(self, seconds: float) -> None:
        ends, pause = time.monotonic() + seconds, time.monotonic() + 3
        faults = [self.child, self.controller, self.interrupt, self.stopped, self.damage, self.full]
        while (code := self.process.poll()) not in (0, 4) or self.damaged():
            assert time.monotonic() < ends
            if code is not None:
                self.process.communicate()
                self.process = self.pool.start()
            if time.monotonic() > pause:
                fault, self.struck = self.chance.choice(faults), self.struck + 1
                print(f"{time.strftime('%X')} {fault.__name__}", file=sys.stderr, flush=True)
                with suppress(ProcessLookupError, IndexError):
                    fault()
                pause = time.monotonic() + self.chance.uniform(5, 15)
            time.sleep(0.2)
        self.process.communicate()

    def damaged(self) -> bool:
        return any(self.pool.store.done(id) is None and not self.pool.store.failed(id) for id in self.pool.ids)


@pytest.mark.chaos
@pytest.mark.fault("F20", f"chaos, seed {SEED}: a random fault every 5 to 15 s over 200 cells of 1 s, on a small disk")
def test_chaos_costs_no_row_and_changes_no_number(pool, tmp_path):
    with small_disk(tmp_path / "disk", mib=16) as disk:
        pool = Pool(disk / "results")
        pool.add(200, seconds=1)
        pool.manifest()
        print(f"seed {SEED}; another with ATTNBENCH_CHAOS_SEED", file=sys.stderr)
        chaos = Chaos(pool, disk, SEED)
        chaos.see_through(600)
        pool.assert_whole()
        assert chaos.struck >= 5


@pytest.mark.chaos
@pytest.mark.fault("F1", "kill -9 of real trainings, and of the sweep that runs them")
def test_real_trainings_that_were_killed_give_the_numbers_of_a_run_without_faults(tmp_path):
    results = []
    for name, strikes in (("struck", 4), ("plain", 0)):
        place = Place(tmp_path / name)
        (place.folder / "scratch").mkdir(parents=True)
        (place.folder / "asked.yaml").write_text(SWEEP)
        words = ("sweep", "asked.yaml", "--device", "cpu", "--launcher", "local")
        for strike in range(strikes):
            process = place.start(*words)
            until(lambda place=place, strike=strike: sum(place.attempts().values()) > strike, seconds=200)
            time.sleep(1 + strike)
            for child in psutil.Process(process.pid).children():
                child.kill()
            time.sleep(0.5 * strike)
            process.kill()
            process.communicate()
        code, said = place.call(*words)
        assert code == 0, said
        rows = {id: json.loads(data) for id, data in place.rows().items()}
        results.append({id: row["result"] for id, row in rows.items() if row["spec"]["kind"] == "train"})
    assert len(results[0]) == 4
    numbers_are_the_same(results[0], results[1])
