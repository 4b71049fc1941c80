"""Data on disk: whole or not there, the same whoever makes them, refused when damaged."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tasks import _data
from tasks._data import keep, load
from tasks.darcy import Config, Darcy

RECIPE = {"task": "toy", "seed": 3}


def toy() -> dict[str, np.ndarray]:
    return {"train": np.arange(12.0).reshape(3, 4), "test": np.ones(5, np.float32)}


def test_kept_data_come_back_and_are_made_once(tmp_path):
    folder = tmp_path / "toy" / "key"
    first = keep(folder, RECIPE, toy)
    assert first.startswith("sha256:")
    assert keep(folder, RECIPE, lambda: pytest.fail("made again")) == first
    for name, array in toy().items():
        back = load(folder, RECIPE, name)
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_the_note_beside_the_data_carries_each_files_hash_and_the_recipe(tmp_path):
    keep(tmp_path / "key", RECIPE, toy)
    note = json.loads((tmp_path / "key" / "meta.json").read_text())
    assert note["recipe"] == RECIPE
    assert note["files"] == {file.name: sha256(file.read_bytes()).hexdigest() for file in tmp_path.glob("*/*.npy")}
    assert sorted(note["files"]) == ["test.npy", "train.npy"]


def test_other_data_have_another_content_hash(tmp_path):
    other = {"train": toy()["train"] + 1, "test": toy()["test"]}
    assert keep(tmp_path / "a", RECIPE, toy) != keep(tmp_path / "b", RECIPE, lambda: other)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("train.npy", flip),
        ("train.npy", lambda file: file.write_bytes(file.read_bytes()[:-8])),
        ("train.npy", Path.unlink),
        ("meta.json", Path.unlink),
        ("meta.json", lambda file: file.write_text("{")),
        ("meta.json", lambda file: file.write_text(file.read_text().replace('"seed": 3', '"seed": 4'))),
    ],
)
def test_damaged_data_are_refused_in_one_sentence(tmp_path, file, damage):
    folder = tmp_path / "key"
    keep(folder, RECIPE, toy)
    damage(folder / file)
    for attempt in (lambda: keep(folder, RECIPE, toy), lambda: load(folder, RECIPE, "train")):
        with pytest.raises(ValueError, match=rf"{file} .*; delete that folder") as refusal:
            attempt()
        assert str(folder) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_data_that_are_not_there_are_asked_for_by_name(tmp_path):
    with pytest.raises(ValueError, match="attnbench data darcy"):
        Darcy(Config(), tmp_path).run(lambda _: nn.Linear(3, 1), seed=0, device="cpu")


def test_data_show_under_their_name_only_when_they_are_whole(tmp_path, monkeypatch):
    folder, original, seen = tmp_path / "key", _data.write, []

    def write(path: Path, content: bytes) -> str:
        seen.append(folder.exists())
        return original(path, content)

    monkeypatch.setattr(_data, "write", write)
    keep(folder, RECIPE, toy)
    assert seen == [False] * 3


def test_a_maker_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(_data, "npy", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        keep(tmp_path / "key", RECIPE, toy)
    assert not list(tmp_path.iterdir())


MAKER = """
import sys, time
from pathlib import Path
from tasks.darcy import Config, Darcy
folder, me, other = map(Path, sys.argv[1:])
task = Darcy(Config(side=4, refine=2, train=4, valid=2, test=2, batch=2), folder)
def meet(done, total):
    if done == total:
        me.touch()
        late = time.monotonic() + 50
        while not other.exists() and time.monotonic() < late:
            time.sleep(0.01)
print(task.prepare(meet, 2))
"""


def test_two_processes_that_make_the_same_data_end_in_one_good_folder(tmp_path):
    flags, root = (tmp_path / "a", tmp_path / "b"), Path(__file__).parent.parent
    commands = [[sys.executable, "-c", MAKER, tmp_path / "data", me, other] for me, other in (flags, flags[::-1])]
    makers = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for command in commands]
    said = [maker.communicate(timeout=60)[0].strip() for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0]
    assert said[0] == said[1]
    task = Darcy(Config(side=4, refine=2, train=4, valid=2, test=2, batch=2), tmp_path / "data")
    assert task.prepare(lambda _, __: pytest.fail("made again"), 1) == said[0]
    assert list((tmp_path / "data" / "darcy").iterdir()) == [task.folder]


def test_progress_is_told_of_every_field(tmp_path):
    told: list[tuple[int, int]] = []
    task = Darcy(Config(side=4, refine=2, train=4, valid=2, test=1, batch=2), tmp_path)
    task.prepare(lambda done, total: told.append((done, total)), 2)
    assert told == [(done, 7) for done in range(1, 8)]
