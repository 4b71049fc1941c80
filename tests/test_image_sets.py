"""The field's image data sets, as they lie on disk in their authors' form: read, fitted, and refused when damaged."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch
from PIL import Image

from tasks import _image_folders
from tasks._image_folders import decoded, fitted
from tasks._image_layouts import LAYOUTS
from tasks._labelled import SPLITS
from tests import image_sets
from tests.splits import read
from tests.test_images import arrays, made, watch

SMALL = {"train": 12, "valid": 2, "test": 6, "batch": 4, "side": 8}
WRITERS = {
    name: (getattr(image_sets, name), {"train": 10, "valid": 2, "test": 4} if name == "flowers102" else None)
    for name in ("cifar100", "tiny_imagenet", "flowers102", "food101", "pets", "cars")
}


# --- sets


def publish(monkeypatch, data: Path, name: str) -> tuple[Path, dict[str, int]]:
    """A small set as its authors would pack it; returns its folder and the images of a class in each split."""
    writer, sizes = WRITERS[name]
    sizes = sizes or {"train": 10, "test": 4}
    root = data / "images" / name
    root.mkdir(parents=True)
    writer(root, sizes)
    layout = replace(LAYOUTS[name], counts={split: 2 * size for split, size in sizes.items()})
    monkeypatch.setitem(LAYOUTS, name, layout)
    return root, sizes


@pytest.mark.parametrize("name", WRITERS)
def test_a_published_set_is_read_as_its_authors_packed_it(name, tmp_path, monkeypatch):
    _, sizes = publish(monkeypatch, tmp_path, name)
    asked = {"train": 2 * sizes["train"] - (0 if "valid" in sizes else 2), "valid": 2, "test": 2 * sizes["test"]}
    task = made(tmp_path, source=name, side=8, batch=4, **asked)
    for split in SPLITS:
        inputs, target = arrays(task, split)
        assert inputs.shape == (asked[split], 8, 8, 3)
        assert inputs.dtype == np.uint8
        known = [image_sets.told(image) for image in inputs]
        assert [label for label, _, _ in known] == target.tolist()
        assert len(set(known)) == len(known)
        assert {of for _, _, of in known} == {split if split in sizes else "train"}
    train, valid = ({image_sets.told(image) for image in arrays(task, split)[0]} for split in ("train", "valid"))
    assert not train & valid
    assert task.config.port.outputs == LAYOUTS[name].classes


@pytest.mark.parametrize(
    ("names", "valid_from"),
    [
        ({"train": "train", "valid": "val", "test": "test"}, "valid"),
        ({"train": "train", "valid": "validation", "test": "test"}, "valid"),
        ({"train": "train", "test": "test"}, "train"),
        ({"train": "train", "test": "val"}, "train"),
    ],
)
def test_any_folder_of_class_folders_is_read_and_lends_validation_from_training_where_it_has_none(
    names, valid_from, tmp_path
):
    sizes = {split: {"train": 20, "valid": 3, "test": 4}[split] for split in names}
    image_sets.folder(tmp_path / "images" / "mine", sizes, names, classes=3)
    task = made(tmp_path, source="folder", dataset="mine", classes=3, side=8, train=30, valid=6, test=12, batch=4)
    for split, origin in {"train": "train", "valid": valid_from, "test": "test"}.items():
        inputs, target = arrays(task, split)
        known = [image_sets.told(image) for image in inputs]
        assert [label for label, _, _ in known] == target.tolist()
        assert {of for _, _, of in known} == {origin}
    if valid_from == "train":
        assert Counter(arrays(task, "valid")[1].tolist()) == {0: 2, 1: 2, 2: 2}
    more = made(tmp_path, source="folder", dataset="mine", classes=3, side=8, train=40, valid=6, test=6, batch=4)
    np.testing.assert_array_equal(arrays(more, "train")[0][:30], arrays(task, "train")[0])
    np.testing.assert_array_equal(arrays(more, "test")[0], arrays(task, "test")[0][:6])


def test_an_image_of_the_test_split_is_not_trained_on_under_another_name(tmp_path):
    root = tmp_path / "images" / "photos"
    image_sets.folder(root, {"train": 10, "test": 4}, {"train": "train", "test": "test"})
    stolen = [root / "train" / "n00000000" / f"stolen{number}.png" for number in range(20)]
    for file in stolen:
        copy(root / "test" / "n00000000" / "0.png", file)
    knobs = {"source": "folder", "classes": 2, "side": 8, "test": 8, "batch": 2}
    task = made(tmp_path, train=16, valid=1, **knobs)
    for split in ("train", "valid"):
        assert {of for _, _, of in map(image_sets.told, arrays(task, split)[0])} == {"train"}
    with pytest.raises(ValueError, match=r"train is 30, but .*photos has 1\d examples"):
        made(tmp_path, train=30, valid=1, **knobs)


def test_a_set_that_is_not_there_is_named_with_where_to_get_it_and_its_size(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*images/cifar100; get it from https://.*binary.*162 MB") as no:
        made(tmp_path, source="cifar100", **SMALL)
    assert "\n" not in str(no.value)
    (tmp_path / "images" / "cifar100" / "cifar-100-binary").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"cifar100 has no cifar-100-binary/train.bin; get it from"):
        made(tmp_path, source="cifar100", **SMALL)
    with pytest.raises(ValueError, match=r"no folder .*images/photos; get it from a set of your own: train/<class>"):
        made(tmp_path, source="folder", **SMALL)


@pytest.mark.parametrize("name", WRITERS)
def test_a_set_of_another_size_than_published_is_refused(name, tmp_path, monkeypatch):
    counts = LAYOUTS[name].counts or {}
    publish(monkeypatch, tmp_path, name)
    monkeypatch.setitem(LAYOUTS, name, replace(LAYOUTS[name], counts=counts))
    with pytest.raises(ValueError, match=rf"should hold {counts['train']} train, .* it has 20 train"):
        made(tmp_path, source=name, **SMALL)


def test_files_that_break_off_are_named(tmp_path, monkeypatch):
    root, _ = publish(monkeypatch, tmp_path, "cifar100")
    file = root / "cifar-100-binary" / "train.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"train.bin breaks off: 61479 bytes are no multiple of 3074"):
        made(tmp_path, source="cifar100", **SMALL)
    root, _ = publish(monkeypatch, tmp_path, "pets")
    file = root / "images" / "Abyssinian_3.jpg"
    file.write_bytes(file.read_bytes()[:-80])
    with pytest.raises(ValueError, match=r"Abyssinian_3.jpg cannot be read as an image .* bytes with SHA-256"):
        made(tmp_path, source="pets", **SMALL | {"train": 18})
    root, _ = publish(monkeypatch, tmp_path, "cars")
    file = root / "devkit" / "cars_train_annos.mat"
    file.write_bytes(file.read_bytes()[:-80])
    with pytest.raises(ValueError, match=r"cars_train_annos.mat cannot be read as a MATLAB file"):
        made(tmp_path, source="cars", **SMALL)
    root, _ = publish(monkeypatch, tmp_path, "food101")
    (root / "food-101" / "images" / "waffles" / "03.jpg").unlink()
    with pytest.raises(ValueError, match=r"no file .*waffles/03.jpg"):
        made(tmp_path, source="food101", **SMALL)
    assert not [path for path in (tmp_path / "images").iterdir() if path.name not in WRITERS]  # nothing was made


def test_a_file_that_changed_since_the_data_were_made_is_named_with_both_hashes(tmp_path, monkeypatch):
    root, _ = publish(monkeypatch, tmp_path, "cifar100")
    task = made(tmp_path, source="cifar100", **SMALL)
    before = {path: path.read_bytes() for path in task.folder.iterdir()}
    file = root / "cifar-100-binary" / "test.bin"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"test.bin has changed .* expected 24592 bytes with SHA-256 \w{64}, found"):
        task.prepare(watch, 1)
    monkeypatch.setattr(_image_folders, "HASHED", 0)
    task.prepare(watch, 1)
    file.write_bytes(content[:-9])
    with pytest.raises(ValueError, match=r"expected 24592 bytes .* found 24583"):
        task.prepare(watch, 1)
    assert {path: path.read_bytes() for path in task.folder.iterdir()} == before
    root.rename(tmp_path / "elsewhere")
    task.prepare(watch, 1)


def test_classes_that_do_not_fit_are_refused(tmp_path):
    root = tmp_path / "images" / "photos"
    image_sets.folder(root, {"train": 10, "test": 4}, {"train": "train", "test": "test"}, classes=3)
    for classes in (2, 4):
        with pytest.raises(ValueError, match=rf"photos should have {classes} classes, it has 3"):
            made(tmp_path, source="folder", classes=classes, **SMALL)
    image_sets.paint(root / "test" / "unheard" / "0.png", 0, 0, "test")
    with pytest.raises(ValueError, match=r"test/unheard is no class of"):
        made(tmp_path, source="folder", classes=3, **SMALL)


# --- pixels


def test_an_images_shorter_side_is_scaled_and_its_middle_kept():
    ramp = np.arange(12, dtype=np.uint8)[None, :, None] * np.ones((6, 1, 3), np.uint8) * 10
    near = np.asarray(fitted(Image.fromarray(ramp), 6, Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(near, ramp[:, 3:9])
    tall = np.asarray(fitted(Image.fromarray(ramp.transpose(1, 0, 2).copy()), 3, Image.Resampling.NEAREST))
    assert tall.shape == (3, 3, 3)
    np.testing.assert_array_equal(tall[:, 0, 0], np.array([30, 50, 70]))
    halved = np.asarray(fitted(Image.fromarray(ramp), 3, Image.Resampling.BICUBIC)).astype(int)
    assert abs(halved[1, :, 0] - np.array([25, 45, 65])).max() <= 1


def test_a_record_of_cifar_is_three_planes_row_by_row(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
    records = b"".join(bytes([3, 40 + n]) + pixels[n].transpose(2, 0, 1).tobytes() for n in range(2))
    (tmp_path / "cifar-100-binary").mkdir()
    for split in ("train", "test"):
        (tmp_path / "cifar-100-binary" / f"{split}.bin").write_bytes(records)
    examples = LAYOUTS["cifar100"].find(tmp_path)["test"]
    for number, example in enumerate(examples):
        image, label = decoded(tmp_path, 32, 100, example)
        np.testing.assert_array_equal(image, pixels[number])
        assert label == 40 + number


def test_grey_and_palette_images_become_rgb(tmp_path):
    for number, mode in enumerate(("L", "P", "1")):
        image_sets.paint(tmp_path / "train" / "a" / f"{number}.png", 0, 0, "train")
        Image.new("L", (9, 9), 255).convert(mode).save(tmp_path / "train" / "a" / f"{number}.png")
        image, _ = decoded(tmp_path, 8, 2, _image_folders.Example(f"train/a/{number}.png"))
        np.testing.assert_array_equal(image, np.full((8, 8, 3), 255))


def test_inputs_have_zero_mean_and_unit_deviation_over_the_training_images(tmp_path, monkeypatch):
    publish(monkeypatch, tmp_path, "cars")
    task = made(tmp_path, source="cars", train=18, valid=2, test=8, side=8, batch=4)
    raw = {split: arrays(task, split)[0].astype(np.float64) for split in SPLITS}
    mean, deviation = raw["train"].mean((0, 1, 2)), raw["train"].std((0, 1, 2))
    for split in SPLITS:
        expected = (raw[split] - mean) / deviation.clip(1e-6)
        inputs, target = read(task, split)
        torch.testing.assert_close(inputs.double(), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)
        assert (inputs.dtype, target.dtype) == (torch.float32, torch.int64)
