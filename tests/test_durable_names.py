"""What a cell waits for on the disk: every name above its first record, once, nothing that its row says too; and what
it leaves there."""

import errno
import os
from collections import defaultdict
from pathlib import Path

import pytest

from attnbench.engine.shard import Supervisor
from attnbench.engine.store import Store
from tests.fake_cell import command, spec
from tests.fake_sweep import fake_store, supervisor


@pytest.fixture
def synced(monkeypatch) -> list[Path]:
    """The files and folders that were waited for, in order."""
    seen: list[Path] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(Path(f"/proc/self/fd/{fd}").readlink()), fsync(fd)))
    return seen


def neighbours(store: Store, count: int) -> list[str]:
    """Cells whose ids begin alike, so that they lie in one folder."""
    found = defaultdict(list)
    for seed in range(9999):
        id = store.ask({"seed": seed, "threads": 1})
        found[id[:2]].append(id)
        if len(found[id[:2]]) == count:
            return found[id[:2]]
    raise AssertionError("no ids begin alike")


def place(store: Store, id: str) -> Path:
    return store.spec_path(id).parent


def test_names_that_were_synced_with_another_cells_are_not_waited_for_again(tmp_path, synced):
    store = Store(tmp_path / "results")
    first, second = neighbours(store, 2)
    store.begin(first, where={})
    shared = [place(store, first).parent, store.root / "cells", store.root]
    assert [folder for folder in synced if folder in shared] == shared
    synced.clear()
    attempt = store.begin(second, where={})
    assert synced == [attempt.path, attempt.path.parent, place(store, second)]


def test_a_cell_that_came_after_a_sync_has_its_name_synced_too(tmp_path, synced):
    store, ids = Store(tmp_path / "results"), neighbours(Store(tmp_path / "elsewhere"), 2)
    asked = [Store(tmp_path / "elsewhere").spec(id) for id in ids]
    first = store.ask(asked[0])
    store.begin(first, where={})
    second = store.ask(asked[1])
    synced.clear()
    store.begin(second, where={})
    assert place(store, second).parent in synced
    assert store.root not in synced


def test_a_sync_that_failed_further_up_is_made_good_by_the_next_cell(tmp_path, synced, monkeypatch):
    store = Store(tmp_path / "results")
    first, second = neighbours(store, 2)
    fsync, broken = os.fsync, [True]

    def failing(fd: int) -> None:
        if broken and Path(f"/proc/self/fd/{fd}").readlink() == store.root / "cells":
            raise OSError(errno.EIO, "the disk is ill")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="ill"):
        store.begin(first, where={})
    broken.clear()
    synced.clear()
    store.begin(second, where={})
    assert {place(store, second).parent, store.root / "cells", store.root} <= set(synced)


def test_only_an_end_that_no_row_tells_is_waited_for(tmp_path, synced, monkeypatch):
    monkeypatch.setattr(Supervisor, "command", command)
    store = Store(tmp_path / "results")
    for seed, (do, waited) in enumerate([("ok", 1), ("diverged", 1), ("raise-once", 3)]):  # two starts and one end
        synced.clear()
        supervisor(store).run([store.ask(spec(tmp_path / "trace", seed, do))])
        assert len([path for path in synced if path.suffix == ".jsonl"]) == waited


def test_a_supervisor_that_is_killed_right_after_a_commit_leaves_no_folder_for_temporary_files(tmp_path, monkeypatch):
    store, seen = fake_store(tmp_path, monkeypatch), []
    commit = store.commit
    monkeypatch.setattr(
        store, "commit", lambda *given: (seen.append([*(tmp_path / "scratch").iterdir()]), commit(*given))[1]
    )
    supervisor(store).run([store.ask(spec(tmp_path / "trace", 0))])
    assert seen == [[]]
