"""A checkpoint that is damaged, foreign or wicked is set aside and never trusted; a full disk stops no training."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks import Checkpoint, _checkpoint
from tasks._checkpoint import ASIDE, NAME

OF = {"cell": "0123", "code": "abc"}
STATE = {"epoch": 3, "losses": [0.1, 1 / 3], "weights": {"w": torch.arange(5.0)}, "none": None}


def made(folder: Path, **of: str) -> Checkpoint:
    return Checkpoint(folder=folder / "checkpoint", of=OF | of)


@pytest.fixture
def saved(tmp_path) -> Checkpoint:
    checkpoint = made(tmp_path)
    checkpoint.save(STATE)
    return checkpoint


def names(checkpoint: Checkpoint) -> list[str]:
    return sorted(path.name for path in checkpoint.folder.iterdir())


def test_what_was_saved_comes_back_to_the_last_bit_and_the_file_stays(saved, tmp_path):
    for _ in range(2):
        found = made(tmp_path).load()
        assert found is not None
        assert torch.equal(found.pop("weights")["w"], torch.arange(5.0))
        assert found == {"epoch": 3, "losses": [0.1, 1 / 3], "none": None}
    assert names(saved) == [NAME]


def test_where_nothing_was_saved_there_is_nothing_and_no_folder_is_made(tmp_path):
    assert made(tmp_path).load() is None
    assert not list(tmp_path.iterdir())


def test_a_damaged_byte_anywhere_or_a_missing_end_is_seen_and_set_aside(saved, tmp_path, caplog):
    whole = saved.file.read_bytes()
    places = [*range(0, 200, 7), *range(200, len(whole), 97), len(whole) - 1]
    wrong = [whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :] for place in places]
    wrong += [whole[:length] for length in (0, 1, 64, 65, 100, len(whole) // 2, len(whole) - 1)] + [whole + b"\0"]
    for content in wrong:
        caplog.clear()
        saved.file.write_bytes(content)
        assert made(tmp_path).load() is None
        assert names(saved) == [ASIDE]
        assert (saved.folder / ASIDE).read_bytes() == content
        assert [record.getMessage() for record in caplog.records] == [
            "The checkpoint is damaged, so it is set aside and training starts anew."
        ]
    saved.file.write_bytes(whole)
    assert made(tmp_path).load() is not None


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        ({"cell": "4567"}, "of another cell: 0123, not 4567"),
        ({"code": "abd"}, "of another code: abc, not abd"),
        ({"start_hash": "sha256:1"}, "of another start_hash: None, not sha256:1"),
    ],
)
def test_a_checkpoint_of_something_else_is_set_aside_and_both_are_named(saved, tmp_path, caplog, of, sentence):
    assert made(tmp_path, **of).load() is None
    assert sentence in caplog.text
    assert names(saved) == [ASIDE]


def test_a_checkpoint_of_another_torch_is_set_aside(saved, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert made(tmp_path).load() is None
    assert "of another torch: " in caplog.text
    assert "not 1.0" in caplog.text
    assert names(saved) == [ASIDE]


class Wicked:
    """Would run a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def test_a_checkpoint_that_holds_code_runs_none_of_it(saved, tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved.save({"epoch": Wicked()})  # with the right checksum
    assert made(tmp_path).load() is None
    assert "more than weights and plain values" in caplog.text
    assert not (tmp_path / "evil").exists()
    assert names(saved) == [ASIDE]


def test_a_disk_that_is_full_keeps_the_checkpoint_before_and_stops_nothing(saved, tmp_path, caplog, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(_checkpoint.os, "fsync", full)
        saved.save(STATE | {"epoch": 4})
    assert "No space left on device" in caplog.text
    assert names(saved) == [NAME]
    found = made(tmp_path).load()
    assert found is not None
    assert found["epoch"] == 3


def test_the_one_before_stays_until_the_next_is_whole_and_synced(saved, monkeypatch):
    before, seen = saved.file.read_bytes(), []
    real = os.fsync

    def watched(handle: int) -> None:
        seen.append((saved.file.read_bytes() == before, names(saved)))
        real(handle)

    monkeypatch.setattr(_checkpoint.os, "fsync", watched)
    saved.save(STATE | {"epoch": 4})
    (draft_old, draft_names), (folder_old, folder_names) = seen
    assert (draft_old, len(draft_names)) == (True, 2)
    assert (folder_old, folder_names) == (False, [NAME])


def test_it_is_time_after_the_interval_and_at_the_end_of_an_epoch_after_a_tenth_of_it(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(_checkpoint.time, "monotonic", lambda: now[0])
    checkpoint = Checkpoint(folder=tmp_path, of=OF, every_s=60.0)
    for later, within, at_end in ((5.9, False, False), (6.1, False, True), (59.9, False, True), (60.1, True, True)):
        now[0] = 1000.0 + later
        assert (checkpoint.due(), checkpoint.due(epoch_ended=True)) == (within, at_end)
    checkpoint.save(STATE)
    assert not checkpoint.due(epoch_ended=True)


def test_seconds_of_all_attempts_add_up(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_checkpoint.time, "monotonic", lambda: now[0])
    for attempt in range(3):
        checkpoint = made(tmp_path)
        checkpoint.load()
        assert checkpoint.earlier_s == 10.0 * attempt
        now[0] += 10.0
        checkpoint.save(STATE)
        now[0] += 3.0  # after the last checkpoint, lost when it is killed
