"""Attempts: whose is alive, when a cell is given up, what a retry opens, and disks that behave oddly."""

import errno
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from attnbench.engine import _files
from attnbench.engine._records import AttemptInfo, born, charge, machine, scratch, set_aside
from attnbench.engine.store import AlreadyDone, Store
from tests.fake_cell import until
from tests.test_store import ROW, ask, finish, folder, in_child, leftovers

NOW = 1_000_000.0
HERE = AttemptInfo(
    **{"uuid": "a", "host": "h", "pid": os.getpid(), "started": NOW - 9, "heartbeat": NOW - 5, "rss_mib": 1.0},
    **{"end": None, "generation": 0, "where": {}, "machine": machine(), "born": born(os.getpid())},
)
GONE = replace(HERE, born="1")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def ended(outcome: str, signature: str | None = None) -> AttemptInfo:
    error = {"type": "T", "message": f"of {signature}"} if signature else None
    return replace(HERE, end={"outcome": outcome, "signature": signature, "error": error})


@pytest.mark.parametrize(
    ("info", "alive"),
    [
        (HERE, True),
        (GONE, False),  # the pid is another process's now
        (replace(HERE, pid=2**22 + 1), False),
        (replace(HERE, heartbeat=NOW - 599), True),
        (replace(HERE, heartbeat=NOW - 601), False),  # stopped or stuck
        (replace(HERE, machine="elsewhere", pid=1), True),
        (replace(HERE, machine="elsewhere", heartbeat=NOW - 59), True),
        (replace(HERE, machine="elsewhere", heartbeat=NOW - 61), False),
        (replace(HERE, machine="elsewhere", heartbeat=NOW + 60), True),  # clocks differ
        (replace(HERE, machine="elsewhere", heartbeat=NOW + 601), False),  # but not by as much
        (ended("ok"), False),
    ],
)
def test_an_attempt_lives_as_long_as_its_process_or_elsewhere_its_heartbeat(info, alive):
    assert info.alive(NOW) is alive


def test_a_process_that_ended_but_was_not_collected_is_dead():
    pid = in_child(lambda: None)
    until(lambda: born(pid) is None, seconds=2)
    os.waitpid(pid, 0)
    assert born(os.getpid())


@pytest.mark.parametrize(
    ("attempts", "signature", "tries"),
    [
        ([], None, 0),
        ([ended("error", "A")], None, 0),
        ([ended("error", "A"), ended("error", "B")], None, 0),
        ([ended("error", "A"), ended("error", "B"), ended("error", "A")], "A", 3),
        ([ended("error", "A"), ended("preempted"), ended("stopped"), ended("yielded"), ended("error", "A")], "A", 2),
        ([ended("error", word) for word in "ABCDE"], "A", 5),
        ([ended("killed", "signal 9")] * 4, None, 0),
        ([ended("killed", "signal 9")] * 5, "signal 9", 5),
        ([ended("killed", "signal 9")] * 3 + [GONE] * 2, "signal 9", 5),
        ([ended("preempted")] * 50, None, 0),
        ([GONE] * 4 + [HERE], None, 0),
        ([GONE] * 5, "lost", 5),
    ],
)
def test_a_cell_is_set_aside_for_the_same_error_twice_or_five_troubles(attempts, signature, tries):
    found = set_aside(attempts, NOW)
    assert (found and found["signature"], found["tries"] if found else 0) == (signature, tries)


def test_being_preempted_or_alive_is_not_charged():
    assert [charge(info, NOW) for info in (ended("preempted"), HERE, GONE)] == [None, None, "lost"]


def test_a_cell_that_was_set_aside_shows_its_error_until_it_is_retried(store):
    id = ask(store)
    for _ in range(2):
        store.begin(id, where={}).end("error", "E at f.py:3", {"type": "E", "message": "why"}, wall_s=0.1)
    failed = store.failed(id)
    assert failed == {"type": "E", "message": "why", "signature": "E at f.py:3", "tries": 2}
    assert store.scan([id])[id].failed == failed
    assert store.retry(id) == 1
    assert store.failed(id) is None
    assert len(store.attempts(id)) == 2
    assert finish(store, id) == "committed"


def test_a_retry_keeps_the_older_row_and_a_late_writer_of_it_touches_nothing(store):
    id = ask(store)
    late = store.begin(id, where={})
    finish(store, id, {"status": "timeout"})
    assert store.retry(id) == 1
    assert store.result(id) is None
    assert store.scan([id])[id].status is None
    assert store.commit(id, ROW, late.uuid) == "duplicate"
    assert store.result(id) is None
    finish(store, id)
    row = store.result(id)
    assert row is not None
    assert (row["status"], row["generation"]) == ("ok", 1)
    assert json.loads((folder(store, id) / "result.json").read_bytes())["status"] == "timeout"


def test_two_retries_at_once_open_one_generation(store, monkeypatch):
    id = ask(store)
    monkeypatch.setattr(store, "generation", lambda _: 0)  # both have looked before either wrote
    assert [store.retry(id), store.retry(id)] == [1, 1]
    assert [path.name for path in folder(store, id).glob("generation.*")] == ["generation.1"]


def test_torn_lines_spoil_no_other(store, monkeypatch):
    id, write = ask(store), os.write
    attempt = store.begin(id, where={})
    attempt.heartbeat(1.5)

    def half(fd, data):
        write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="full"):
            attempt.heartbeat(2.5)
    assert store.attempts(id)[0].rss_mib == 1.5
    attempt.heartbeat(3.5)
    attempt.end("error", "A", {"message": "why"})
    info = store.attempts(id)[0]
    assert (info.rss_mib, info.end and info.end["signature"]) == (3.5, "A")
    info_path = folder(store, id) / "attempts" / f"{'0' * 32}.jsonl"
    info_path.write_bytes(b'{"kind":"sta')
    assert len(store.attempts(id)) == 1


def test_what_dead_attempts_left_is_cleaned_and_what_living_ones_use_is_kept(store):
    id = ask(store)

    def dies() -> None:
        attempt = store.begin(id, where={})
        (folder(store, id) / f"{attempt.uuid}.1.tmp").write_text("half a row")
        scratch(attempt.uuid).mkdir()
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(in_child(dies), 0)
    living = store.begin(ask(store, 1), where={})
    dead = store.attempts(id)[0]
    living_file = folder(store, id) / f"{living.uuid}.1.tmp"
    assert scratch(dead.uuid).exists()
    mine = store.begin(id, where={})
    assert not scratch(dead.uuid).exists()
    assert not leftovers(store)
    mine_file = living_file.with_name(f"{mine.uuid}.1.tmp")
    mine_file.write_text("being written")
    store.tidy(id)
    assert leftovers(store) == [mine_file.name]
    mine.end("stopped")
    store.tidy(id)
    assert not leftovers(store)


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


def test_without_hard_links_a_marker_takes_the_name_and_nobody_can_take_it_again(store, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    id = ask(store)
    late = store.begin(id, where={})
    assert finish(store, id) == "committed"
    row = store.result(id)
    assert row is not None
    assert row["result"] == ROW["result"]
    assert store.commit(id, ROW | {"result": {}}, late.uuid) == "duplicate"
    assert store.result(id) == row
    assert not leftovers(store)
    with pytest.raises(AlreadyDone):
        store.begin(id, where={})
    kept = next(path for path in folder(store, id).glob("*.row") if not path.name.startswith("spec"))
    kept.write_bytes(kept.read_bytes()[:-9])
    assert store.result(id) is None
    assert finish(store, id) == "committed"


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO])
def test_a_link_whose_success_was_reported_as_failure_counts(store, monkeypatch, number):
    id, link = ask(store), os.link

    def unlucky(source, target):
        link(source, target)
        raise OSError(number, "asked twice, for the first answer was lost")

    monkeypatch.setattr(os, "link", unlucky)
    assert finish(store, id) == "committed"
    assert not list(store.root.rglob("*.dup.json"))


def test_a_disk_that_gives_back_other_bytes_gets_no_row(store, monkeypatch):
    id, write = ask(store), os.write
    attempt = store.begin(id, where={})
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data).replace(b'"ok"', b'"no"')))
    with pytest.raises(OSError, match="differently"):
        store.commit(id, ROW, attempt.uuid)
    assert not (folder(store, id) / "result.json").exists()
    assert not leftovers(store)


def test_a_row_with_a_number_that_is_none_is_refused(store):
    id = ask(store)
    attempt = store.begin(id, where={})
    with pytest.raises(ValueError, match="JSON compliant"):
        store.commit(id, {"status": "ok", "result": {"score": float("nan")}}, attempt.uuid)


def test_a_row_of_a_later_schema_is_refused_and_stays_where_it_is(store, monkeypatch):
    id = ask(store)
    monkeypatch.setattr("attnbench.engine.store.SCHEMA", 2)
    finish_raw = store.begin(id, where={})
    store.commit(id, ROW, finish_raw.uuid)
    with pytest.raises(ValueError, match="schema 2"):
        store.result(id)
    assert (folder(store, id) / "result.json").exists()


def test_a_thousand_cells_are_scanned_within_a_second(store):
    ids = [ask(store, seed) for seed in range(1000)]
    for id in ids[:20]:
        finish(store, id, ROW | {"raw": {"curve": [1 / 3] * 2000}})
    began = time.process_time()
    evidence = store.scan(ids)
    assert time.process_time() - began < 1.0
    assert sum(known.status == "ok" for known in evidence.values()) == 20


def test_scanning_changes_nothing(store):
    ids = [ask(store, seed) for seed in range(3)]
    finish(store, ids[0])
    finish(store, ids[1])
    (folder(store, ids[1]) / "result.json").write_bytes(b"{}")
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    store.scan([*ids, "f" * 20])
    assert before == {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


def test_a_folder_is_made_durable_from_the_top(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd)))
    _files.make_folder(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]


def test_tries_count_attempts_of_every_generation_and_not_what_they_printed(store):
    never, twice, nowhere = ask(store, 1), ask(store, 2), "f" * 20
    for _ in range(2):
        attempt = store.begin(twice, where={})
        attempt.path.with_suffix(".log").write_text("printed")
        attempt.end("error", "E at f.py:3", {"type": "E", "message": "why"}, wall_s=0.1)
        store.retry(twice)
    assert store.tries([never, twice, nowhere]) == {twice: 2}
