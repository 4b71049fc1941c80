"""Several supervisors on one store, dead and alive, and disks that take nothing: one row per cell all the same."""

import json
import logging
import resource
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from attnbench.engine._records import born, machine
from attnbench.engine.shard import Event
from attnbench.engine.store import Store
from tests import invariants
from tests.fake_cell import runs, spec, starts, until
from tests.fake_sweep import clean, row, supervisor, sweep


def start_elsewhere(store: Store, id: str, **fields: object) -> Path:
    """The record of an attempt by some other process."""
    path = store.begin(id, where={}).path
    start = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(start) + "\n")
    return path


def test_a_cell_at_work_elsewhere_is_deferred_and_looked_at_again(store, trace):
    ids = [store.ask(spec(trace, seed)) for seed in range(2)]
    other = subprocess.Popen(["sleep", "60"])
    start_elsewhere(store, ids[0], pid=other.pid, born=born(other.pid), machine=machine())
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if event.kind == "end":
            other.kill()
            other.wait()

    assert supervisor(store, watch).run(ids) == Counter(ok=2)
    assert [(event.kind, event.id) for event in events[:3]] == [("wait", ids[0]), ("start", ids[1]), ("end", ids[1])]


def test_of_two_that_began_before_they_saw_each_other_the_later_yields(store, trace, monkeypatch):
    id = store.ask(spec(trace, 0))
    other = subprocess.Popen(["sleep", "60"])
    path = start_elsewhere(store, id, pid=other.pid, born=born(other.pid), machine=machine())
    rivals, looks = store.rivals, []
    monkeypatch.setattr(store, "rivals", lambda id: rivals(id) if looks else looks.append(id) or [])

    def watch(event: Event) -> None:
        if event.kind == "wait":
            path.write_text(path.read_text() + '{"kind":"end","at":1,"outcome":"stopped","signature":null}\n')

    assert supervisor(store, watch).run([id]) == Counter(ok=1)
    other.kill()
    other.wait()
    assert sorted(str(info.end and info.end["outcome"]) for info in store.attempts(id)) == ["ok", "stopped", "yielded"]
    assert len(starts(trace)) == 1


def test_of_two_that_began_before_they_saw_each_other_the_earlier_goes_on(store, trace, monkeypatch):
    id = store.ask(spec(trace, 0))
    with subprocess.Popen(["sleep", "60"]) as other:
        start_elsewhere(store, id, pid=other.pid, born=born(other.pid), machine=machine(), at=time.time() + 60)
        rivals, looks = store.rivals, []
        monkeypatch.setattr(store, "rivals", lambda id: rivals(id) if looks else looks.append(id) or [])
        events: list[Event] = []
        assert supervisor(store, events.append, cell_s=5.0).run([id]) == Counter(ok=1)
        other.kill()
    assert [event.kind for event in events] == ["start", "end"]


def test_a_row_that_came_from_elsewhere_meanwhile_stays_and_ours_is_kept_beside_it(store, trace):
    id = store.ask(spec(trace, 0))
    theirs = store.begin(id, where={})
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if event.kind == "start":
            store.commit(id, {"status": "ok", "result": {"score": 5}}, theirs.uuid)

    assert supervisor(store, watch).run([id]) == Counter(done=1)
    assert row(store, id)["result"] == {"score": 5}
    twin = json.loads(next(store.root.rglob("*.dup.json")).read_text())
    assert (twin["result"], twin["equal"]) == ({"score": 0.0}, False)


@pytest.mark.fault("F15", "no file may grow beyond 2000 bytes (RLIMIT_FSIZE), then it may again")
def test_a_row_the_disk_does_not_take_is_held_and_logged_until_it_does_and_nothing_else_starts(store, trace, caplog):
    ids = [store.ask(spec(trace, seed, sleep=0.1, points=5000)) for seed in range(3)]
    before, events = resource.getrlimit(resource.RLIMIT_FSIZE), []

    def watch(event: Event) -> None:
        events.append((event.kind, event.id))
        if events == [("start", ids[0])]:
            until(lambda: len(starts(trace)) == 1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        if events.count(("wait", ids[0])) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    try:
        with caplog.at_level(logging.ERROR, "attnbench.held"):
            assert supervisor(store, watch).run(ids) == Counter(ok=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert events[:5] == [("start", ids[0]), *[("wait", ids[0])] * 3, ("end", ids[0])]
    assert [seed for seed, _ in starts(trace)] == [0, 1, 2]
    assert [len(row(store, id)["raw"]["curve"]) for id in ids] == [5000] * 3
    assert [json.loads(said.getMessage().split(" ", 1)[1])["id"] for said in caplog.records] == [ids[0]]
    assert clean(store)
    invariants.every_cell_has_one_row_or_is_set_aside(store, dict.fromkeys(ids, "ok"))
    invariants.note("I5", "3 rows; 3 attempts: 3 ok, one held and tried again three times")


def test_a_disk_that_refuses_the_start_only_lets_time_pass(store, trace, monkeypatch):
    id, begin, refused = store.ask(spec(trace, 0)), store.begin, []

    def full(id, *, where):
        if len(refused) < 2:
            refused.append(id)
            raise OSError(28, "No space left on device")
        return begin(id, where=where)

    monkeypatch.setattr(store, "begin", full)
    assert supervisor(store).run([id]) == Counter(ok=1)
    monkeypatch.setattr(
        store, "begin", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(PermissionError):
        supervisor(store).run([store.ask(spec(trace, 1))])


def test_two_sweeps_at_once_make_one_row_per_cell_and_both_end(store, trace):
    ids = [store.ask(spec(trace, seed, sleep=0.05)) for seed in range(8)]
    both = [sweep(store, ids[:6], workers=2), sweep(store, ids[2:][::-1], workers=2)]
    told = [process.communicate(timeout=30)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert [row(store, id)["result"]["score"] for id in ids] == [seed / 7 for seed in range(8)]
    assert Counter(seed for seed, _ in starts(trace)) == dict.fromkeys(range(8), 1)
    assert clean(store)


@pytest.mark.parametrize("third", ["ok", "hang-once"])
def test_a_killed_supervisor_takes_its_children_along_and_no_finished_cell_is_repeated(store, trace, third):
    cells = ["ok", "ok", "ok", third, third, "ok", "ok", "ok"]
    ids = [store.ask(spec(trace, seed, do, sleep=0.1)) for seed, do in enumerate(cells)]
    process = sweep(store, ids, workers=2)
    until(lambda: len(starts(trace)) >= 5)
    process.kill()
    process.communicate()
    until(lambda: not any(runs(pid) for _, pid in starts(trace)), seconds=2)
    rows = {path: path.read_bytes() for path in store.root.rglob("result.json")}
    finished = {json.loads(data)["spec"]["seed"] for data in rows.values()}
    assert 3 <= len(finished) < 8
    begun = len(starts(trace))
    assert supervisor(store).run(ids) == Counter(done=len(finished), ok=8 - len(finished))
    assert not finished & {seed for seed, _ in starts(trace)[begun:]}
    assert {path: path.read_bytes() for path in rows} == rows
    assert clean(store)
