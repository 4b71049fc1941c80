"""Event files hold every epoch once and the right one: whatever was cut short, tried again or ended in between."""

import math
import time
from pathlib import Path
from typing import Any

import pytest

from attnbench import boards
from attnbench.engine.store import Store
from tests.test_boards import LOSSES, SCORES, asked, board, numbered, shown, trained, training


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_score_that_alone_is_another_voids_what_stood_there(store: Store):
    manifest = asked(store)
    cell = manifest.cells[0]
    training(store, cell.id, LOSSES[:2], [2.0, 9.0])
    board(store).update(manifest)
    training(store, cell.id, LOSSES, SCORES)
    assert board(store).update(manifest) == 4  # epochs 2 and 3 of both
    found = shown(board(store).folder / boards.place(cell))
    assert found == {"train_loss": numbered(LOSSES), "valid_score": numbered(SCORES)}


def test_wherever_a_killed_writer_left_its_file_the_next_one_completes_it(store: Store):
    manifest = asked(store)
    trained(store, manifest.cells[0].id, LOSSES, SCORES)
    folder = boards.write(store, manifest) / boards.place(manifest.cells[0])
    (file,) = folder.glob("events*")
    whole = file.read_bytes()
    for size in range(0, len(whole), 9):
        for other in folder.glob("events*"):
            other.unlink()
        file.write_bytes(whole[:size])
        boards.write(store, manifest)
        assert shown(folder) == {"train_loss": numbered(LOSSES), "valid_score": numbered(SCORES)}, size


def test_what_a_full_disk_has_cut_short_is_written_once_there_is_room(store: Store, monkeypatch: pytest.MonkeyPatch):
    manifest, alive, append = asked(store), board(store), boards.append
    cell = manifest.cells[0]
    folder = alive.folder / boards.place(cell)
    training(store, cell.id, LOSSES[:1], SCORES[:1])
    alive.update(manifest)

    def full(file: Path, *given: Any, **more: Any) -> None:
        append(file, *given, **more)
        file.write_bytes(file.read_bytes()[:-20])
        raise OSError("No space left on device")

    trained(store, cell.id, LOSSES, SCORES)
    with monkeypatch.context() as during:
        during.setattr(boards, "append", full)
        with pytest.raises(OSError, match="No space left"):
            alive.update(manifest)
    alive.update(manifest)  # though nothing of the cell has changed since
    assert shown(folder) == {"train_loss": numbered(LOSSES), "valid_score": numbered(SCORES)}
    assert alive.update(manifest) == 0


def test_a_training_that_ends_while_its_checkpoint_is_read_is_looked_at_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    manifest, alive, checkpoint = asked(store), board(store), boards.checkpoint
    cell = manifest.cells[0]
    training(store, cell.id, LOSSES[:2], SCORES[:2])

    def slow(file: Path) -> dict[str, Any]:
        found = checkpoint(file)
        trained(store, cell.id, LOSSES, SCORES)
        return found

    monkeypatch.setattr(boards, "checkpoint", slow)
    assert alive.update(manifest) == 4
    assert alive.update(manifest) == 2
    assert shown(alive.folder / boards.place(cell))["train_loss"] == numbered(LOSSES)


def test_a_training_that_failed_and_is_tried_again_is_followed(store: Store):
    manifest, alive = asked(store), board(store)
    cell = manifest.cells[0]
    attempt = store.begin(cell.id, where={})
    store.commit(cell.id, {"status": "diverged", "result": {}, "raw": {}}, attempt.uuid)
    attempt.end("ok")
    assert alive.update(manifest) == 0
    store.retry(cell.id)
    trained(store, cell.id, LOSSES, SCORES)
    assert alive.update(manifest) == 6


def test_more_than_ten_files_are_read_in_the_order_in_which_they_were_written(store: Store):
    manifest = asked(store)
    values = [1 / epoch for epoch in range(1, 13)]
    for epochs in range(1, 13):
        training(store, manifest.cells[0].id, values[:epochs], values[:epochs])
        assert board(store).update(manifest) == 2
    found = shown(board(store).folder / boards.place(manifest.cells[0]))
    assert found == {"train_loss": numbered(values), "valid_score": numbered(values)}


def test_an_epoch_without_a_number_is_not_a_zero(store: Store):
    manifest = asked(store)
    trained(store, manifest.cells[0].id, [1.0, None, 0.5], [1.0, 2.0, None])
    found = shown(boards.write(store, manifest) / boards.place(manifest.cells[0]))
    assert [math.isnan(value) for _, value in found["train_loss"]] == [False, True, False]
    assert [math.isnan(value) for _, value in found["valid_score"]] == [False, False, True]


def test_a_process_beside_the_sweep_looks_once_more_when_the_sweep_ends(store: Store):
    manifest = asked(store, seeds=2)
    manifest.write(store.root / "made" / "cells.json")
    first, last = (store.root / "made" / boards.FOLDER / boards.place(cell) for cell in manifest.cells)
    trained(store, manifest.cells[0].id, LOSSES, SCORES)
    with boards.watching(store.root, "made", asked=True):
        until = time.monotonic() + 60
        while not any(file.stat().st_size for file in first.glob("events*")):
            assert time.monotonic() < until
            time.sleep(0.05)
        trained(store, manifest.cells[1].id, LOSSES, SCORES)
    assert shown(last)["train_loss"] == numbered(LOSSES)
