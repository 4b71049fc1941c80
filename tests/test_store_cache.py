"""What a scan remembers of rows changes nothing of what it says, whatever becomes of the rows or of the cache."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnbench.engine import _cache, _evidence, _files
from attnbench.engine.store import Store
from tests.test_store import ROW, ask, finish, folder, in_child

NAME = "sweep"


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """A cache that remembers even a single row, and one that was written this very moment."""
    monkeypatch.setattr(_cache, "WORTH", 1)
    monkeypatch.setattr(_cache, "SETTLED_NS", 0)


@pytest.fixture
def filled(tmp_path) -> tuple[Store, list[str]]:
    """Four finished cells that a scan has remembered, and one that is open."""
    store = Store(tmp_path)
    ids = [ask(store, seed) for seed in range(5)]
    for id in ids[:4]:
        finish(store, id)
    store.scan(ids, cache=NAME)
    assert len(_cache.read(cache(store))) == 4
    return store, ids


def cache(store: Store) -> Path:
    return store.root / "cache" / f"{NAME}.json"


def agree(store: Store, ids: list[str]) -> None:
    """A scan with the cache says what one says that reads every row, and says it again."""
    plain = store.scan(ids)
    assert store.scan(ids, cache=NAME) == plain
    assert store.scan(ids, cache=NAME) == plain


def count_reads(monkeypatch) -> list[str]:
    """Fills with the path of every row that a scan reads from here on."""
    read, whole = [], _files.whole
    monkeypatch.setattr(_files, "whole", lambda path, size: (read.append(path), whole(path, size))[1])
    return read


def row_file(store: Store, id: str) -> Path:
    return folder(store, id) / "result.json"


def test_a_scan_reads_no_row_that_it_remembers(filled, monkeypatch):
    store, ids = filled
    plain = store.scan(ids)
    read = count_reads(monkeypatch)
    assert store.scan(ids, cache=NAME) == plain
    assert read == []
    store.scan(ids)
    assert len(read) == 4


def test_only_a_row_that_is_new_is_read(filled, monkeypatch):
    store, ids = filled
    read = count_reads(monkeypatch)
    finish(store, ids[4], ROW | {"status": "oom"})
    assert store.scan(ids, cache=NAME)[ids[4]].status == "oom"
    assert read == [str(row_file(store, ids[4]))]
    assert store.scan(ids, cache=NAME)[ids[4]].status == "oom"
    assert len(read) == 1


def truncate(store: Store, id: str) -> None:
    path = row_file(store, id)
    path.write_bytes(path.read_bytes()[:-7])


def flip_in_place(store: Store, id: str) -> None:
    """Same inode, same size, same time of the bytes; the time of the inode cannot be set back."""
    path = row_file(store, id)
    before, data = path.stat(), path.read_bytes()
    time.sleep(0.02)  # a tick of the file system's clock
    with path.open("r+b") as file:
        file.write(data[:99] + bytes([data[99] ^ 4]) + data[100:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)


def replace(store: Store, id: str) -> None:
    """Another cell's row in its place, with the times of the one that was there."""
    path, other = row_file(store, id), store.root / "other"
    before = path.stat()
    other.write_bytes(path.read_bytes().replace(id.encode(), b"f" * 20))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("hurt", [truncate, flip_in_place, replace])
def test_a_row_that_was_damaged_after_it_was_remembered_is_seen(hurt: Callable[[Store, str], None], filled):
    store, ids = filled
    hurt(store, ids[1])
    assert [known.corrupt for known in store.scan(ids, cache=NAME).values()] == [False, True, False, False, False]
    agree(store, ids)
    assert store.done(ids[1]) is None
    agree(store, ids)
    assert finish(store, ids[1]) == "committed"
    assert store.scan(ids, cache=NAME)[ids[1]].status == "ok"
    agree(store, ids)


def test_a_cell_that_was_opened_again_has_no_row_until_its_next_one(filled):
    store, ids = filled
    store.retry(ids[0])
    assert store.scan(ids, cache=NAME)[ids[0]].status is None
    agree(store, ids)
    finish(store, ids[0], ROW | {"status": "timeout"})
    told = store.scan(ids, cache=NAME)[ids[0]]
    assert (told.status, told.generation) == ("timeout", 1)
    agree(store, ids)


def test_a_row_that_is_gone_is_gone(filled):
    store, ids = filled
    row_file(store, ids[2]).unlink()
    assert store.scan(ids, cache=NAME)[ids[2]].status is None
    agree(store, ids)


def spoilt(text: bytes) -> dict[str, bytes]:
    head, rest = text.split(b"\n")
    later = json.dumps(json.loads(head) | {"schema": 99}).encode()
    short = json.dumps({name: [] if name == "status" else own for name, own in json.loads(rest).items()}).encode()
    return {
        "torn": text[: len(text) // 2],
        "empty": b"",
        "flipped": text.replace(b'"ok"', b'"no"', 1),
        "later": later + b"\n" + rest,
        "foreign": b'{"a": 1}\n[]',
        "bytes": bytes(range(256)),
        "uneven": json.dumps({"schema": 1, "crc": _cache.crc32(short)}).encode() + b"\n" + short,
    }


@pytest.mark.parametrize(
    "how", ["torn", "empty", "flipped", "later", "foreign", "bytes", "uneven", "deleted", "folder"]
)
def test_a_cache_that_is_none_is_ignored_and_written_anew(how, filled, monkeypatch):
    store, ids = filled
    plain, file = store.scan(ids), cache(store)
    good = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how != "deleted":
        file.write_bytes(spoilt(good)[how])
    read = count_reads(monkeypatch)
    assert store.scan(ids, cache=NAME) == plain
    assert len(read) == 4
    assert how == "folder" or file.read_bytes() == good
    assert list(file.parent.iterdir()) == [file]


def test_a_cache_that_cannot_be_written_harms_nothing(filled, monkeypatch):
    store, ids = filled

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    cache(store).unlink()
    monkeypatch.setattr(Path, "write_bytes", full)
    assert store.scan(ids, cache=NAME) == store.scan(ids)
    assert not cache(store).exists()


def test_few_rows_are_not_worth_a_cache_and_a_row_of_this_moment_is_not_remembered(tmp_path, monkeypatch):
    store = Store(tmp_path)
    finish(store, id := ask(store))
    monkeypatch.setattr(_cache, "WORTH", 2)
    store.scan([id], cache=NAME)
    assert not cache(store).parent.exists()
    monkeypatch.setattr(_cache, "WORTH", 1)
    monkeypatch.setattr(_cache, "SETTLED_NS", 60 * 10**9)
    store.scan([id], cache=NAME)
    assert _cache.read(cache(store)) == {}
    monkeypatch.setattr(_cache, "SETTLED_NS", 0)
    store.scan([id], cache=NAME)
    assert set(_cache.read(cache(store))) == {id}


def test_a_row_behind_a_marker_is_always_read(tmp_path, monkeypatch):
    def no_links(*_: object) -> None:
        raise OSError(1, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    store = Store(tmp_path)
    finish(store, id := ask(store))
    assert store.scan([id], cache=NAME)[id].status == "ok"
    kept = next(path for path in folder(store, id).glob("*.row") if not path.name.startswith("spec"))
    kept.write_bytes(kept.read_bytes()[:-9])
    assert store.scan([id], cache=NAME)[id].corrupt


def test_a_byte_that_turned_under_the_file_system_is_noticed_by_whoever_reads_the_row(filled):
    store, ids = filled
    flip_in_place(store, ids[0])
    entries = _cache.read(cache(store))
    told = _cache.mark(0, row_file(store, ids[0]).stat())
    _cache.write(cache(store), entries | {ids[0]: (told, ("ok", 1.0, None))})
    assert store.scan(ids, cache=NAME)[ids[0]].status == "ok"
    assert store.result(ids[0]) is None
    assert len(list((store.root / "quarantine").iterdir())) == 1
    assert store.scan(ids, cache=NAME)[ids[0]].corrupt
    agree(store, ids)


def test_what_killed_writers_left_beside_a_cache_is_removed_once_it_is_old(filled):
    store, ids = filled
    young, old = (cache(store).with_name(f".{NAME}.json.{word}") for word in ("young", "old"))
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    finish(store, ids[4])
    store.scan(ids, cache=NAME)
    assert young.exists()
    assert not old.exists()


def test_several_that_write_it_at_once_leave_a_whole_one(filled):
    store, ids = filled
    plain = store.scan(ids)

    def writes(own: list[str]) -> None:
        for _ in range(80):
            marks = {id: _cache.mark(0, row_file(store, id).stat()) for id in own}
            found = {id: (marks[id], ("ok", plain[id].wall_s or 0.0, plain[id].code)) for id in own}
            _cache.write(cache(store), found)

    pids = [in_child(lambda own=own: writes(own)) for own in (ids[:4], ids[:2], ids[2:4])]
    sizes = {len(_cache.read(cache(store))) for _ in range(300)}
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    assert sizes <= {2, 4}, "half a cache stood under its name"
    assert store.scan(ids, cache=NAME) == plain
    assert list(cache(store).parent.iterdir()) == [cache(store)]


def row_of(store: Store, id: str) -> Path:
    """Where the row of the newest generation is, or would be."""
    return folder(store, id) / _evidence.row_name(store.generation(id))


def tries(store: Store, id: str, outcome: str, status: str = "") -> None:
    """An attempt with this outcome, if the cell is open; with a row, if there is a status."""
    if not row_of(store, id).exists():
        attempt = store.begin(id, where={})
        if status:
            store.commit(id, ROW | {"status": status}, attempt.uuid)
        if outcome:
            attempt.end(outcome, signature="s", error={"message": "m"})


def shorten(path: Path) -> None:
    if path.exists():
        path.write_bytes(path.read_bytes()[:-9])


ACTS: dict[str, Callable[[Store, str], object]] = {
    "finish": lambda store, id: tries(store, id, "ok", "ok"),
    "run out": lambda store, id: tries(store, id, "oom", "oom"),
    "fail": lambda store, id: tries(store, id, "error"),
    "begin": lambda store, id: tries(store, id, ""),
    "open again": Store.retry,
    "cut": lambda store, id: shorten(row_of(store, id)),
    "drop": lambda store, id: row_of(store, id).unlink(missing_ok=True),
    "read": Store.result,
    "forget": lambda store, _: cache(store).unlink(missing_ok=True),
    "tear": lambda store, _: shorten(cache(store)),
}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(sorted(ACTS)), st.integers(0, 2)), max_size=14))
def test_with_and_without_a_cache_the_evidence_is_the_same(steps):
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place))
        ids = [ask(store, seed) for seed in range(3)]
        for word, number in steps:
            ACTS[word](store, ids[number])
            assert store.scan(ids, cache=NAME) == store.scan(ids)
