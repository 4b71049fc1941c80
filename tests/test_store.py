"""The store keeps its promises when its writers are killed, race, come late, or when its files are hurt."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from attnbench.engine import _files, _records
from attnbench.engine._records import Damaged, decode, encode
from attnbench.engine.store import AlreadyDone, Store
from tests import invariants

ROW = {
    "status": "ok",
    "result": {"score": 0.1 + 0.2},
    "code": {"fingerprint": "c0de", "dirty": False},
    "raw": {"curve": [1 / 3] * 50},
}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def ask(store: Store, seed: int = 0) -> str:
    return store.ask({"seed": seed, "threads": 1})


def finish(store: Store, id: str, row: dict | None = None) -> str:
    """One attempt that commits; returns the word of the store."""
    attempt = store.begin(id, where={})
    said = store.commit(id, row or ROW, attempt.uuid)
    attempt.end(said)
    return said


def folder(store: Store, id: str) -> Path:
    return store.root / "cells" / id[:2] / id


def in_child(action) -> int:
    """Forks; the child acts and ends without a trace of pytest. Returns its pid."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        action()
        code = 0
    finally:
        os._exit(code)


def leftovers(store: Store) -> list[str]:
    return [path.name for path in store.root.rglob("*.tmp")]


def test_asking_twice_is_asking_once(store):
    assert ask(store) == ask(store)
    assert store.spec(ask(store)) == {"seed": 0, "threads": 1}
    assert len(list(store.root.rglob("spec.json"))) == 1


def test_a_damaged_spec_is_refused_then_moved_away_and_written_anew(store):
    id = ask(store)
    (folder(store, id) / "spec.json").write_text('{"seed":1,"threads":1}\n')
    with pytest.raises(ValueError, match="damaged"):
        store.spec(id)
    assert ask(store) == id
    assert store.spec(id)["seed"] == 0
    assert [path.read_text() for path in (store.root / "quarantine").iterdir()] == ['{"seed":1,"threads":1}\n']


def test_a_row_holds_what_was_asked_what_came_out_and_where(store):
    id = ask(store)
    attempt = store.begin(id, where={"launcher": "local"})
    store.commit(id, ROW | {"wall_s": 1.5, "cost": {"params": 3}}, attempt.uuid)
    row = store.result(id)
    assert row is not None
    assert {name: row[name] for name in ("id", "status", "wall_s", "attempt", "generation", "error")} == {
        **{"id": id, "status": "ok", "wall_s": 1.5, "attempt": attempt.uuid, "generation": 0, "error": None},
    }
    assert (row["result"], row["raw"], row["cost"]) == (ROW["result"], ROW["raw"], {"params": 3})
    assert row["spec"] == {"seed": 0, "threads": 1}
    assert row["where"] == {"host": os.uname().nodename, "pid": os.getpid(), "launcher": "local"}
    assert row["started"] <= row["finished"] <= time.time() + 1


def test_a_late_writer_cannot_replace_a_row_and_its_own_is_kept_and_compared(store):
    id = ask(store)
    late, later, first = (store.begin(id, where={}) for _ in range(3))
    assert store.commit(id, ROW, first.uuid) == "committed"
    before = (folder(store, id) / "result.json").read_bytes()
    assert store.commit(id, ROW | {"wall_s": 9.0}, late.uuid) == "duplicate"
    assert store.commit(id, ROW | {"result": {"score": 0.5}}, later.uuid) == "duplicate"
    assert (folder(store, id) / "result.json").read_bytes() == before
    twins = [json.loads((folder(store, id) / f"attempts/{a.uuid}.dup.json").read_text()) for a in (late, later)]
    assert [(twin["equal"], twin["result"]["score"]) for twin in twins] == [(True, 0.1 + 0.2), (False, 0.5)]


def test_committing_again_after_an_error_that_came_late_is_no_duplicate(store):
    id = ask(store)
    attempt = store.begin(id, where={})
    assert [store.commit(id, ROW, attempt.uuid) for _ in range(2)] == ["committed", "committed"]
    assert not list(store.root.rglob("*.dup.json"))


def test_no_attempt_starts_after_a_commit_even_one_that_comes_in_between(store, monkeypatch):
    id, other = ask(store), Store(store.root)
    first, write, once = store.begin(id, where={}), _files.write, []

    def write_and_lose(path, data, flag, **more):
        write(path, data, flag, **more)
        if path.suffix == ".jsonl" and not once:
            once.append(path)
            other.commit(id, ROW, first.uuid)

    monkeypatch.setattr(_records, "write", write_and_lose)
    with pytest.raises(AlreadyDone):
        store.begin(id, where={})
    ends = {info.uuid: info.end and info.end["outcome"] for info in store.attempts(id)}
    assert ends == {first.uuid: None, once[0].stem: "done"}


def test_a_start_is_on_the_disk_before_a_row_is_looked_for(store, monkeypatch):
    id, seen = ask(store), []
    fsync, look = os.fsync, store._row
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(Path(f"/proc/self/fd/{fd}").readlink()), fsync(fd)))
    monkeypatch.setattr(store, "_row", lambda *a, **k: (seen.append("look"), look(*a, **k))[1])
    attempt = store.begin(id, where={})
    place = attempt.path
    assert seen.index(place) < seen.index(place.parent) < seen.index("look")
    assert {place.parent.parent, place.parents[2], place.parents[3]} < set(seen[: seen.index("look")])


@pytest.mark.parametrize("row", [ROW, {"status": "oom"}], ids=["ok", "oom"])
def test_every_flipped_bit_and_every_missing_byte_is_noticed(row):
    whole = {"schema": 1, "id": "a" * 20, "generation": 0, "attempt": "b", "started": 1.5, "finished": 2.5}
    blocks = dict.fromkeys(("spec", "result", "cost", "host", "data", "code", "raw", "error", "where"))
    data = encode({**blocks, **whole, "wall_s": 1.0, **row})
    assert decode(data, id="a" * 20)["status"] == row["status"]
    hurt = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
    for text in (*hurt, *(data[:at] for at in range(len(data))), data + b"\n"):
        with pytest.raises(Damaged):
            decode(text, id="a" * 20)
    with pytest.raises(Damaged):
        decode(data, id="c" * 20)


@pytest.mark.parametrize(
    "hurt",
    [lambda data: data[: len(data) // 2], lambda data: data[:99] + bytes([data[99] ^ 4]) + data[100:], lambda _: b""],
    ids=["truncated", "flipped", "empty"],
)
def test_a_damaged_row_goes_to_the_quarantine_and_that_cell_alone_is_open_again(store, hurt, monkeypatch):
    monkeypatch.setattr(_files, "FRESH_S", 0.0)
    ids = [ask(store, seed) for seed in range(3)]
    for id in ids:
        finish(store, id)
    path = folder(store, ids[1]) / "result.json"
    path.write_bytes(damaged := hurt(path.read_bytes()))
    assert [known.corrupt for known in store.scan(ids).values()] == [False, True, False]
    assert [store.result(id) is None for id in ids] == [False, True, False]
    assert [moved.read_bytes() for moved in (store.root / "quarantine").glob(f"{ids[1]}.*.json")] == [damaged]
    assert store.scan(ids)[ids[1]].corrupt
    assert finish(store, ids[1]) == "committed"
    assert [known.corrupt for known in store.scan(ids).values()] == [False] * 3


@pytest.mark.parametrize("size", [0, 1, 70_000, 99_999, 100_000, 100_001, 10**6])
def test_all_bytes_of_a_file_are_read_whatever_its_size_was_a_moment_ago(size, tmp_path):
    (file := tmp_path / "file").write_bytes(data := os.urandom(100_000))
    assert _files.whole(str(file), size) == data


def test_a_good_row_that_took_the_place_of_a_damaged_one_is_put_back(store):
    id = ask(store)
    finish(store, id)
    path = folder(store, id) / "result.json"
    good = path.read_bytes()
    assert not _files.quarantine(path, b"what a slower reader saw", store.root / "quarantine" / "x.json")
    assert path.read_bytes() == good
    assert not list((store.root / "quarantine").iterdir())


def kill_points() -> list[tuple[str, int]]:
    """Before which call to the operating system a writer is killed, and how many of it come before."""
    return [(name, at) for name in ("open", "write", "fsync", "close", "link", "unlink") for at in range(4)]


def die_before(name: str, at: int) -> None:
    """Arms this process to kill itself instead of making the call."""
    call, calls = getattr(os, name), iter(range(1000))

    def armed(*args, **more):
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **more)

    setattr(os, name, armed)


@pytest.mark.parametrize(("call", "at"), kill_points())
def test_a_commit_killed_at_any_call_leaves_the_whole_row_or_none(store, call, at):
    id = ask(store)

    def writer():
        attempt = store.begin(id, where={})
        die_before(call, at)
        store.commit(id, ROW, attempt.uuid)

    os.waitpid(in_child(writer), 0)
    check_and_resume(store, id)


def kill_at_random(store: Store, rounds: int) -> None:
    """Writers of large rows, killed some time after they began."""
    chance, row = random.Random(0), ROW | {"raw": {"curve": [1 / 3] * 20_000}}
    began = time.perf_counter()
    os.waitpid(in_child(lambda: finish(store, ask(store, rounds), row)), 0)
    longest_s = 1.2 * (time.perf_counter() - began)  # so that some come to their end
    for number in range(rounds):
        id = ask(store, number)
        pid = in_child(lambda id=id: finish(store, id, row))
        time.sleep(chance.random() * longest_s)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        check_and_resume(store, id)


def check_and_resume(store: Store, id: str) -> None:
    """After a kill: no torn row; what was committed stays as it is; else the next attempt commits; nothing is left."""
    path = folder(store, id) / "result.json"
    before = path.read_bytes() if path.exists() else None
    if before is None:
        assert finish(store, id) == "committed"
    else:
        decode(before, id=id)
        with pytest.raises(AlreadyDone):
            store.begin(id, where={})
        assert path.read_bytes() == before
    assert store.result(id)
    assert not (store.root / "quarantine").exists()
    assert not leftovers(store)


@pytest.mark.fault("F11", "kill -9 at a random moment of a commit, 40 times")
def test_a_commit_killed_at_random_leaves_the_whole_row_or_none(store):
    kill_at_random(store, 40)
    for name in ("I1", "I2", "I3", "I5"):
        invariants.note(name, "40 kills: each left the whole row or none")


@pytest.mark.fault("F11", "kill -9 at a random moment of a commit, 300 times")
@pytest.mark.chaos
def test_a_commit_killed_at_random_three_hundred_times(store):
    kill_at_random(store, 300)
    for name in ("I1", "I2", "I3", "I5"):
        invariants.note(name, "300 kills: each left the whole row or none")


def test_of_many_that_commit_at_once_one_wins_and_the_others_are_kept(store):
    id, go = ask(store), store.root / "go"

    def writer(score: int) -> None:
        attempt = store.begin(id, where={})
        (store.root / f"{score}.ready").touch()
        while not go.exists():
            time.sleep(0.001)
        attempt.end(store.commit(id, ROW | {"result": {"score": score}}, attempt.uuid))

    pids = [in_child(lambda score=score: writer(score)) for score in range(8)]
    while len(list(store.root.glob("*.ready"))) < 8:
        time.sleep(0.01)
    go.touch()
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    ends = [info.end["outcome"] for info in store.attempts(id) if info.end]
    assert sorted(ends) == ["committed", *["duplicate"] * 7]
    row = store.result(id)
    assert row is not None
    others = {json.loads(path.read_text())["result"]["score"] for path in store.root.rglob("*.dup.json")}
    assert others == set(range(8)) - {row["result"]["score"]}
