"""Semantic segmentation: every pixel's class against another reading of the canvas, mean IoU against scikit-learn's."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import jaccard_score

from attnbench.models import maker
from mechanisms import configure
from tasks._canvas import Canvas
from tasks._data import load
from tasks._image_layouts import LAYOUTS
from tasks._labelled import SPLITS, UNASKED
from tasks.segment import Config, Segment, mean_iou
from tests import image_sets
from tests.splits import read

SMALL = {"train": 16, "valid": 4, "test": 4, "batch": 4}


def made(data: Path, **knobs: Any) -> Segment:
    task = Segment(configure(Config, SMALL | knobs, of="segment"), data)
    task.prepare(lambda *_: None, 1)
    return task


def arrays(task: Segment, split: str) -> tuple[np.ndarray, np.ndarray]:
    inputs, target = (load(task.folder, task.recipe, f"{split}_{part}") for part in ("inputs", "target"))
    return inputs, target


# --- canvases


def test_the_ink_of_whole_digits_has_their_class_and_all_else_is_background(tmp_path):
    images, kinds = load_digits(return_X_y=True)
    known = {image.astype(np.uint8).tobytes(): int(kind) for image, kind in zip(images, kinds, strict=True)}
    task = made(tmp_path, side=40, digits=4, clutter=4)
    used: dict[str, set[bytes]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for canvas, target in zip(*arrays(task, split), strict=True):
            expected, ink = np.zeros((40, 40), int), canvas[..., 0]
            for row, column in product(range(33), repeat=2):
                window = np.ascontiguousarray(ink[row : row + 8, column : column + 8])
                if window.tobytes() in known:
                    used[split].add(window.tobytes())
                    expected[row : row + 8, column : column + 8] = (window > 3) * (1 + known[window.tobytes()])
            np.testing.assert_array_equal(target, expected)
            assert (ink[target == 0] > 3).any()  # torn ones
    assert all(len(pixels) > 10 for pixels in used.values())
    assert not used["train"] & used["valid"] | used["train"] & used["test"] | used["valid"] & used["test"]


def test_a_canvas_is_the_same_however_many_are_made_and_differs_by_seed(tmp_path):
    few, many, other = (made(tmp_path, **change) for change in ({}, {"train": 30, "test": 9}, {"data_seed": 1}))
    for split in SPLITS:
        for part in (0, 1):
            least = len(arrays(few, split)[part])
            np.testing.assert_array_equal(arrays(many, split)[part][:least], arrays(few, split)[part])
        assert (arrays(few, split)[0] != arrays(other, split)[0]).any((1, 2, 3)).all()
    again = Segment(few.config, tmp_path / "again")
    assert again.prepare(lambda *_: None, 2) == few.prepare(lambda *_: None, 1) != other.prepare(lambda *_: None, 1)


@pytest.mark.parametrize("side", [8, 16, 23, 32, 38])
def test_as_many_digits_as_are_allowed_always_find_room_and_more_are_refused(side):
    most = max(digits for digits in range(1, 9) if fits(side, digits))
    chance = np.random.default_rng(side)
    for _ in range(200):
        canvas = Canvas(side)
        for _ in range(most):
            corner = canvas.room(chance)
            assert corner is not None
            where = canvas.put(np.full((8, 8), 5, np.uint8), corner)
            assert canvas.ink[where].shape == (8, 8)
        assert (canvas.ink > 0).sum() == 64 * most  # none touches another
    with pytest.raises(ValueError, match=f"surely has room for {most} digits; got {most + 1}"):
        configure(Config, {"side": side, "digits": most + 1}, of="segment")


def fits(side: int, digits: int) -> bool:
    try:
        Config(side=side, digits=digits)
    except ValueError:
        return False
    return True


# --- numbers


@pytest.mark.parametrize("unasked", [0.0, 0.2])
def test_mean_iou_is_scikits_over_the_classes_that_occur(unasked):
    chance = np.random.default_rng(0)
    target = chance.choice([0, 1, 2, 5], size=(4, 9, 9))
    given = np.where(chance.random(target.shape) < 0.6, target, chance.choice([0, 1, 3], size=target.shape))
    target = np.where(chance.random(target.shape) < unasked, UNASKED, target)
    asked = target != UNASKED
    labels = sorted({*target[asked].tolist(), *given[asked].tolist()})
    assert labels == [0, 1, 2, 3, 5]
    expected = jaccard_score(target[asked], given[asked], labels=labels, average="macro")
    assert mean_iou(torch.from_numpy(given), torch.from_numpy(target), 7) == pytest.approx(expected)


def test_chance_is_what_all_background_scores(tmp_path):
    task = made(tmp_path, test=40)
    splits = {split: read(task, split) for split in SPLITS}
    target = splits["test"][1]
    answers = torch.nn.functional.one_hot(torch.zeros_like(target), 11).float()
    told = task.told(splits, answers)
    share = (target == 0).double().mean().item()
    assert told["chance_miou"] == told["miou"] == pytest.approx(share / len(target.unique()))
    assert len(target.unique()) == 11
    assert task.told(splits, torch.nn.functional.one_hot(target, 11).float())["miou"] == 1


def test_a_small_model_finds_digits_better_than_chance(tmp_path):
    task = made(tmp_path, side=8, digits=1, clutter=0, train=300, valid=50, test=80, batch=16, epochs=6, rate=8e-3)
    make = maker("isotropic", {"channels": 32, "depth": 2, "patch": 2}, ("full", {"heads": 2}), 0)
    result = task.run(make, seed=0, device="cpu").result
    assert result["accuracy"] > result["chance"] + 0.08
    assert result["miou"] > 3 * result["chance_miou"]


# --- ADE20K


def photos(monkeypatch, data: Path, train: int = 20, test: int = 2) -> Path:
    """A small ADE20K: each photograph shows its number in red, each mask the same number, unlabelled in its left half.

    Photographs are twice as wide as high, and their outer quarters hold what the middle square does not.
    """
    root = data / "segment" / "ade20k"
    for split, size in (("training", train), ("validation", test)):
        for number in range(1, size + 1):
            photo, mask = np.full((16, 32, 3), 255), np.full((16, 32), 150)
            photo[:, 8:24] = (10 * number, 0, 200 if split == "validation" else 0)
            mask[:, 8:24] = number
            mask[:, 8:16] = 0
            image_sets.ade20k(root, split, number, photo, mask)
    layout = replace(LAYOUTS["ade20k"], counts={"train": train, "test": test})
    monkeypatch.setitem(LAYOUTS, "ade20k", layout)
    return root


def test_ade20k_is_read_with_its_middle_its_classes_from_0_and_the_unlabelled_unasked(tmp_path, monkeypatch):
    photos(monkeypatch, tmp_path)
    task = made(tmp_path, source="ade20k", side=8, train=18, valid=2, test=2)
    assert (task.config.port.inputs, task.config.port.outputs) == (3, 150)
    seen = {}
    for split in SPLITS:
        inputs, target = arrays(task, split)
        numbers = target[:, 0, -1] + 1
        seen[split] = numbers.tolist()
        assert (target == np.where(np.arange(8) < 4, UNASKED, numbers[:, None, None] - 1)).all()
        assert abs(inputs[:, 1:7, 1:7, 0] - 10.0 * numbers[:, None, None]).max() < 30  # a JPEG of few pixels
        assert ((inputs[:, 4, 4, 2] > 100) == (split == "test")).all()
    assert sorted(seen["train"] + seen["valid"]) == list(range(1, 21))
    assert sorted(seen["test"]) == [1, 2]


def test_a_mask_that_does_not_fit_its_photograph_is_named(tmp_path, monkeypatch):
    root = photos(monkeypatch, tmp_path)
    file = root / "ADEChallengeData2016" / "annotations" / "training" / "ADE_train_00000003.png"
    knobs = {"source": "ade20k", "side": 8, "train": 18, "valid": 2, "test": 2}
    for mask in (np.full((16, 32), 151), np.full((16, 31), 1), np.zeros((16, 32, 3))):
        Image.fromarray(mask.astype(np.uint8)).save(file)
        with pytest.raises(ValueError, match=r"ADE_train_00000003.png should hold classes 0 to 150 for \(32, 16\)"):
            made(tmp_path, **knobs)
    file.unlink()
    with pytest.raises(ValueError, match=r"no file .*ADE_train_00000003.png"):
        made(tmp_path, **knobs)


def test_a_missing_or_partial_ade20k_is_refused_with_where_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no folder .*segment/ade20k; get it from http://\S*ADEChallengeData2016.zip"):
        made(tmp_path, source="ade20k")
    counts = LAYOUTS["ade20k"].counts
    photos(monkeypatch, tmp_path)
    monkeypatch.setitem(LAYOUTS, "ade20k", replace(LAYOUTS["ade20k"], counts=counts))
    with pytest.raises(ValueError, match=r"should hold 20210 train, 2000 test images, it has 20 train, 2 test"):
        made(tmp_path, source="ade20k")


def test_a_mask_that_changed_since_is_named(tmp_path, monkeypatch):
    root = photos(monkeypatch, tmp_path)
    task = made(tmp_path, source="ade20k", side=8, train=18, valid=2, test=2)
    file = root / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000001.png"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"ADE_val_00000001.png has changed"):
        task.prepare(lambda *_: None, 1)


# --- knobs


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"digits": 4}, "side 32 surely has room for 3 digits; got 4"),
        ({"source": "ade"}, "Did you mean 'ade20k'"),
        ({"side": 7}, "segment.side should be greater than or equal to 8"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        configure(Config, knobs, of="segment")
    assert "\n" not in str(refusal.value)


def test_knobs_of_canvases_are_idle_for_photographs():
    assert Config().idle() == set()
    assert Config(source="ade20k", digits=3).idle() == {"digits", "clutter"}
