"""Long Range Arena's Pathfinder: hand-made folders in its format are read in order, damaged ones refused by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mechanisms import configure
from tasks._pathfinder_lra import listed
from tasks.pathfinder import Config, Pathfinder
from tests.splits import read

ARENA = {"source": "lra", "train": 8, "valid": 1, "test": 1, "batch": 4}
LEVEL = "curv_contour_length_14"
SPLITS = ("train", "valid", "test")


def made(tmp_path: Path, **knobs: object) -> Pathfinder:
    task = Pathfinder(configure(Config, {**ARENA, **knobs}, of="pathfinder"), tmp_path)
    task.prepare(lambda *_: None, 1)
    return task


def arena(folder: Path, level: str = LEVEL, sides: int = 32) -> Path:
    """Ten small PNG files and three lists in the arena's format, made by hand; image i has brightness 10 i."""
    where = folder / "pathfinder" / "lra" / f"pathfinder{sides}" / level
    (where / "metadata").mkdir(parents=True)
    for name, numbers in (("0", range(4)), ("2", range(4, 8)), ("10", range(8, 10))):
        (where / "imgs" / name).mkdir(parents=True)
        rows = []
        for place, number in enumerate(numbers):
            pixels = np.full((sides, sides), 10 * number, np.uint8)
            pixels[0, 1] = 255
            Image.fromarray(pixels).save(where / "imgs" / name / f"sample_{place}.png")
            rows.append(f"imgs/{name} sample_{place}.png {place} {number % 3 % 2} 1.0 14 4 2 0.5 1 1\n")
        (where / "metadata" / f"{name}.npy").write_text("".join(rows))
    return where


def test_the_arenas_images_are_shared_in_the_order_of_its_lists(tmp_path):
    arena(tmp_path)
    task = made(tmp_path)
    order = [(read(task, split)[0][:, 5, 5, 0] * 25.5).round().int().tolist() for split in SPLITS]
    assert order == [[0, 1, 2, 3, 4, 5, 6, 7], [8], [9]]
    answers = [answer for split in SPLITS for answer in read(task, split)[1].tolist()]
    assert answers == [0, 1, 0, 0, 1, 0, 0, 1, 0, 0]
    inputs, _ = read(task, "train")
    assert inputs.shape == (8, 32, 32, 1)
    assert (inputs[:, 0, 1, 0] == 1).all()
    assert inputs[3, 1, 0, 0].item() == pytest.approx(30 / 255)


def test_other_sides_and_levels_have_folders_of_their_own(tmp_path):
    arena(tmp_path, "curv_baseline", 64)
    assert read(made(tmp_path, side=64, level="curv_baseline"), "test")[0].shape == (1, 64, 64, 1)
    with pytest.raises(ValueError, match=r"no lists .*pathfinder64.curv_contour_length_9.metadata"):
        made(tmp_path, side=64, level="curv_contour_length_9")


def test_only_the_image_that_the_release_has_empty_is_left_out(tmp_path):
    where = arena(tmp_path, "curv_baseline")
    known, rows = where / "imgs" / "0" / "sample_172.png", where / "metadata" / "0.npy"
    known.touch()
    rows.write_text(rows.read_text().replace("sample_3.png", "sample_172.png"))
    task = made(tmp_path, train=7, level="curv_baseline")
    assert (read(task, "train")[0][:, 5, 5, 0] * 25.5).round().int().tolist() == [0, 1, 2, 4, 5, 6, 7]
    (where / "imgs" / "0" / "sample_1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sample_1.png is damaged: it cannot be read as an image"):
        made(tmp_path, train=6, level="curv_baseline")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("imgs/2/sample_1.png", cut, "sample_1.png is damaged: it cannot be read as an image"),
        ("imgs/2/sample_1.png", Path.unlink, "There is no image .*sample_1.png, which the arena's lists name"),
        (
            "imgs/2/sample_1.png",
            lambda file: Image.fromarray(np.zeros((32, 31), np.uint8)).save(file),
            "should have 32 x 32 pixels; found 32 x 31",
        ),
        ("metadata/2.npy", lambda file: file.write_text("imgs/2 sample_0.png 0 2 1.0\n"), r"2.npy, line 1 is damaged"),
        ("metadata/2.npy", lambda file: file.write_text("imgs/2 sample_0.png\n"), r"2.npy, line 1 is damaged"),
        ("metadata/2.npy", lambda file: np.save(file, np.zeros(3)), r"2.npy is damaged: .* plain text"),
        ("metadata/2.npy", Path.unlink, "lists have 5 images for train; train asks for 8"),
    ],
)
def test_a_damaged_release_is_named_and_nothing_is_written(tmp_path, name, damage, sentence):
    where = arena(tmp_path)
    damage(where / name)
    before = {file: file.read_bytes() for file in where.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=sentence) as refusal:
        made(tmp_path)
    assert "\n" not in str(refusal.value)
    assert {file: file.read_bytes() for file in where.rglob("*") if file.is_file()} == before
    assert sorted(one.name for one in (tmp_path / "pathfinder").iterdir()) == ["lra"]


def test_a_missing_release_says_where_it_should_be_where_it_comes_from_and_its_size(tmp_path):
    with pytest.raises(ValueError, match=r"pathfinder32.*metadata.*https://.*lra_release.gz, about 8 GB"):
        made(tmp_path)


def test_answers_of_the_lists_belong_to_their_images(tmp_path):
    entries = listed(arena(tmp_path).parent, LEVEL)
    assert [(one.file.parent.name, one.file.name) for one in entries[3:6]] == [
        ("0", "sample_3.png"), ("2", "sample_0.png"), ("2", "sample_1.png")
    ]  # fmt: skip
    assert [one.answer for one in entries[3:6]] == [0, 1, 0]
