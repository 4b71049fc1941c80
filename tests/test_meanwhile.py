"""Work in a second process: the same answers as without one, also when that process cannot do it or is gone."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnbench.engine.store import Store
from attnbench.reports import meanwhile
from tests.asked import plan
from tests.test_finished_sweep import ROW, checked

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Python forks on Linux alone.")


def where(word: str) -> tuple[str, int]:
    return word, os.getpid()


def spoiled(here: int) -> str:
    """Can be done in this process alone."""
    if os.getpid() != here:
        raise RuntimeError("not here")
    return "done"


class Thrown(Exception):
    pass


def thrown() -> None:
    raise Thrown


class Stuck:
    """Goes out and does not come in, as an object of a class that only the second process knows."""

    def __reduce__(self):
        return thrown, ()


def stuck() -> str | Stuck:
    return "here" if multiprocessing.parent_process() is None else Stuck()


def kept() -> Callable[[], int]:
    return lambda: 3


def wrong() -> None:
    raise ValueError("never")


@pytest.fixture
def second(monkeypatch) -> None:
    monkeypatch.setattr(meanwhile, "room", lambda: True)


@LINUX
@pytest.mark.usefixtures("second")
def test_works_and_questions_are_answered_elsewhere_in_any_order():
    with meanwhile.begun(partial(where, "a"), partial(where, "b")) as (first, other):
        answers = [meanwhile.asked(where, "c"), other(), meanwhile.asked(where, "d"), first(), other()]
    assert [word for word, _ in answers] == ["c", "b", "d", "a", "b"]
    assert len({place for _, place in answers}) == 1
    assert answers[0][1] != os.getpid()
    assert meanwhile.asked(where, "e") == ("e", os.getpid())
    assert not multiprocessing.active_children()


@LINUX
@pytest.mark.usefixtures("second")
def test_what_the_second_process_cannot_do_is_done_here_and_raises_here():
    with meanwhile.begun(partial(spoiled, os.getpid()), wrong) as (fine, bad):
        assert fine() == meanwhile.asked(spoiled, os.getpid()) == "done"
        for work in (bad, partial(meanwhile.asked, wrong)):
            with pytest.raises(ValueError, match="never"):
                work()


@LINUX
@pytest.mark.usefixtures("second")
def test_what_cannot_go_from_one_to_the_other_is_done_here(capfd):
    with meanwhile.begun(stuck, kept, partial(where, "a")) as (first, second, third):
        assert first() == meanwhile.asked(stuck) == "here"
        assert second()() == meanwhile.asked(kept)() == meanwhile.asked(lambda: 3) == 3
        assert third()[1] != os.getpid()
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("second")
def test_where_no_process_can_be_started_works_are_done_here(monkeypatch):
    class Full:
        def __init__(self, **_: object):
            pass

        def start(self) -> None:
            raise OSError("no more processes")

    monkeypatch.setattr(meanwhile, "get_context", lambda _: SimpleNamespace(Process=Full))
    before = open_files()
    with meanwhile.begun(partial(where, "a")) as (first,):
        assert first() == ("a", os.getpid())
    assert open_files() == before


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else 0


@LINUX
@pytest.mark.usefixtures("second")
def test_a_second_process_that_is_gone_is_not_missed():
    with meanwhile.begun(partial(where, "a")) as (first,):
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        assert first() == meanwhile.asked(where, "a") == ("a", os.getpid())


@LINUX
@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 if sys.platform == "linux" else True, reason="On one core none is made."
)
def test_what_a_killed_report_had_started_ends_with_it(tmp_path):
    """The second process, and those that draw."""
    text = f"""
import os, signal, time
from pathlib import Path
from attnbench.reports import meanwhile
from attnbench.reports.saving import MUCH, save_all

def draw():
    Path({str(tmp_path)!r}, f"{{os.getpid()}}").touch()
    time.sleep(60)

with meanwhile.begun(os.getpid) as (other,):
    Path({str(tmp_path)!r}, f"{{other()}}").touch()
    with save_all({{Path("a"): draw, Path("b"): draw}}, MUCH):
        while len(list(Path({str(tmp_path)!r}).iterdir())) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", text], check=False, timeout=60)
    pids, until = [int(path.name) for path in tmp_path.iterdir()], time.monotonic() + 20
    assert len(pids) == 3
    while any(map(running, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(running, pids))


def running(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_without_a_second_process_works_are_done_when_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(meanwhile, "room", lambda: False)
    done: list[str] = []
    with meanwhile.begun(partial(done.append, "a"), partial(done.append, "b")) as (_, other):
        assert done == []
        other()
    assert done == ["b"]


@LINUX
def test_a_report_of_a_store_is_the_same_with_and_without_and_leaves_torch_to_the_second(tmp_path):
    """Stale rows are told, and how often a cell was tried, which the second process counts."""
    store, found = Store(tmp_path / "results"), plan(tmp_path)
    for cell in found.cells:
        attempt = store.begin(store.ask(cell.spec), where={})
        store.commit(cell.id, {**ROW, "code": {"fingerprint": "0123456789ab"}}, attempt.uuid)
        attempt.end("ok")
    checked(store, found).manifest.write(store.root / found.name / "cells.json")
    told, files = {}, {}
    for cores in (1, 2):
        text = f"""
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])
from pathlib import Path
from attnbench import reading
reading.report([{found.name!r}], Path({str(store.root)!r}), quiet=False, mixed=False)
print("torch" in sys.modules)
"""
        ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=120)
        shown, _, torch = ran.stdout.rstrip().rpartition("\n")
        assert torch == str(cores == 1 or len(os.sched_getaffinity(0)) == 1)
        told[cores] = shown, ran.stderr
        folder = store.root / found.name
        files[cores] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert told[1] == told[2]
    assert f"{len(found.cells)} rows are stale" in told[2][1]
    assert files[1] == files[2]
    assert "rows.csv" in files[2]
    assert b'"tries":{"0":1' in files[2]["report.html"]
