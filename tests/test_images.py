"""Image classification: what the splits hold, what a canvas tells and does not tell, the numbers and the knobs."""

from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, f_oneway
from sklearn.datasets import load_digits
from sklearn.metrics import top_k_accuracy_score
from torch import nn

from attnbench.models import maker
from mechanisms import configure
from tasks import Port
from tasks._canvas import pools
from tasks._data import load
from tasks._image_layouts import LAYOUTS
from tasks._labelled import SPLITS, streams
from tasks._train import History, train
from tasks.images import Config, Images, among, pair


def watch(done: int, total: int) -> None:
    assert 0 < done <= total


def made(data: Path, **knobs: Any) -> Images:
    task = Images(configure(Config, knobs, of="images"), data)
    task.prepare(watch, 1)
    return task


def arrays(task: Images, split: str) -> tuple[np.ndarray, np.ndarray]:
    inputs, target = (load(task.folder, task.recipe, f"{split}_{part}") for part in ("inputs", "target"))
    return inputs, target


@cache
def all_digits() -> dict[bytes, int]:
    images, kinds = load_digits(return_X_y=True)
    return {image.astype(np.uint8).tobytes(): int(kind) for image, kind in zip(images, kinds, strict=True)}


def digits_on(canvas: np.ndarray) -> list[tuple[int, tuple[int, int], bytes]]:
    """Kind, corner and pixels of every whole digit on a canvas, by comparing each window with all digits there are."""
    known = all_digits()
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (8, 8))
    corners = product(range(windows.shape[0]), range(windows.shape[1]))
    found = ((windows[corner].tobytes(), corner) for corner in corners)
    return [(known[pixels], corner, pixels) for pixels, corner in found if pixels in known]


# --- digits


def test_digits_are_scikits_own_enlarged_and_every_split_is_balanced(tmp_path):
    task = made(tmp_path, side=24)
    known = all_digits()
    for split in SPLITS:
        inputs, target = arrays(task, split)
        assert inputs.shape == (getattr(task.config, split), 24, 24, 1)
        small = inputs[:, 1::3, 1::3, 0]
        assert np.array_equal(np.kron(small, np.ones((1, 3, 3), np.uint8)), inputs[..., 0])
        assert [known[image.tobytes()] for image in small] == target.tolist()
        counts = np.bincount(target, minlength=10)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("data_seed", range(4))
def test_no_two_splits_hold_images_that_are_nearly_the_same(data_seed):
    parts = {split: np.concatenate(pool).reshape(-1, 64).astype(float) for split, pool in pools(data_seed).items()}
    for one, other in combinations(SPLITS, 2):
        nearest = min(((parts[other] - image) ** 2).mean(1).min() for image in parts[one])
        assert nearest >= 1  # level of ink, squared


@pytest.mark.parametrize("source", ["digits", "canvas"])
def test_an_example_is_the_same_however_many_are_made_and_differs_by_seed(source, tmp_path):
    knobs = {"source": source, "side": 16, "train": 40, "valid": 20, "test": 20}
    few, many, other = (
        made(tmp_path, **knobs | change) for change in ({}, {"train": 60, "test": 30}, {"data_seed": 1})
    )
    for split in SPLITS:
        for part in (0, 1):
            least = len(arrays(few, split)[part])
            np.testing.assert_array_equal(arrays(many, split)[part][:least], arrays(few, split)[part])
        assert (arrays(few, split)[0] != arrays(other, split)[0]).any((1, 2, 3)).mean() > 0.9
    again = Images(few.config, tmp_path / "again")
    assert again.prepare(watch, 3) == few.prepare(watch, 1) != other.prepare(watch, 1)


def test_more_digits_than_there_are_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"images.test is 900, but there are 4\d0 digits"):
        made(tmp_path, test=900)


# --- canvases


@pytest.mark.parametrize("question", ["sum", "same"])
def test_the_answer_of_a_canvas_is_what_its_two_whole_digits_say(question, tmp_path):
    task = made(tmp_path, source="canvas", question=question, side=32, kinds=7, train=60, valid=40, test=40)
    used = {}
    for split in SPLITS:
        inputs, target = arrays(task, split)
        used[split] = set()
        for canvas, answer in zip(inputs[..., 0], target.tolist(), strict=True):
            (one, here, pixels), (other, there, others) = digits_on(canvas)
            assert answer == ((one + other) % 7 if question == "sum" else int(one == other))
            assert max(abs(here[0] - there[0]), abs(here[1] - there[1])) >= 16
            assert pixels != others or question == "sum"
            used[split] |= {pixels, others}
        assert (inputs > 0).sum((1, 2, 3)).mean() > 2.5 * 32  # torn ones beside them
    assert not used["train"] & used["valid"] | used["train"] & used["test"] | used["valid"] & used["test"]


@pytest.mark.parametrize("question", ["sum", "same"])
def test_neither_digit_alone_depends_on_the_answer(question):
    pool, answers = pools(0)["train"], 10 if question == "sum" else 2
    known = {image.tobytes(): kind for kind, images in enumerate(pool) for image in images}
    tables = np.zeros((2, answers, 10))
    for number, chance in enumerate(streams(0, "train", 4000)):
        for place, image in enumerate(pair(chance, pool, question, number % answers)):
            tables[place, number % answers, known[image.tobytes()]] += 1
    for table in tables:
        assert table.sum(1).min() == table.sum(1).max() == 4000 / answers
        assert float(chisquare(table.ravel()).pvalue) > 0.01  # all kinds equally likely under every answer
    zeros = [pair(chance, pool, question, 0) for chance in streams(0, "test", 1500)]
    both = {(known[one.tobytes()], known[other.tobytes()]) for one, other in zeros}
    assert len(both) == {"sum": 10, "same": 90}[question]  # all that there are with this answer


@pytest.mark.parametrize("question", ["sum", "same"])
def test_no_pixel_of_a_canvas_tells_the_answer(question, tmp_path):
    task = made(tmp_path, source="canvas", question=question, kinds=2, side=16, train=2000, valid=2, test=2)
    inputs, target = arrays(task, "train")
    pixels = inputs.reshape(len(inputs), -1).astype(float)
    apart = f_oneway(*(pixels[target == answer] for answer in (0, 1)))
    assert np.nanmin(apart.pvalue) > 0.01 / pixels.shape[1]
    inputs, target = arrays(made(tmp_path, side=16), "train")
    pixels = inputs.reshape(len(inputs), -1).astype(float)
    apart = f_oneway(*(pixels[target == answer] for answer in (0, 1)))
    assert np.nanmin(apart.pvalue) < 1e-50  # single digits: the test has power


# --- numbers, knobs, training


def test_top5_is_scikits():
    chance = np.random.default_rng(0)
    scores, target = chance.normal(size=(300, 12)), chance.integers(12, size=300)
    expected = top_k_accuracy_score(target, scores, k=5, labels=np.arange(12))
    given = torch.from_numpy(scores).topk(5).indices
    assert among(given, torch.from_numpy(target)) == pytest.approx(expected)


def test_a_small_model_learns_digits_and_tells_its_chance_levels(tmp_path):
    task = made(tmp_path, side=8, train=400, valid=50, test=100, epochs=5, rate=0.01, batch=16)
    make = maker("isotropic", {"channels": 32, "depth": 1, "patch": 4}, ("full", {"heads": 2}), 0)
    result = task.run(make, seed=0, device="cpu").result
    assert result["accuracy"] > 0.5
    assert result["top5"] > 0.85
    assert result["chance"] == pytest.approx(0.1)
    assert result["chance_top5"] == pytest.approx(0.5)
    assert {"accuracy", "loss", "valid_accuracy", "valid_loss", "top5"} <= set(result)


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"side": 20}, "multiple of 8 pixels; side is 20"),
        ({"source": "canvas", "side": 12}, "need a side of 16; it is 12"),
        ({"source": "cifar10"}, "Did you mean 'cifar100'"),
        ({"source": "folder", "dataset": "../up"}, "name of one folder, such as photos; got '../up'"),
        ({"question": "summ"}, "Did you mean 'sum'"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        configure(Config, knobs, of="images")
    assert "\n" not in str(refusal.value)


def test_knobs_of_other_sources_stay_out_of_a_cells_id():
    assert Config().idle() == {"question", "kinds", "clutter", "dataset", "classes"}
    assert Config(source="canvas").idle() == {"dataset", "classes"}
    assert Config(source="folder").idle() == {"question", "kinds", "clutter"}
    ports = {
        source: configure(Config, {"source": source}, of="images").port for source in LAYOUTS if source != "ade20k"
    }
    assert all(port.inputs == 3 and port.once for port in ports.values())
    assert {source: port.outputs for source, port in ports.items()} == {
        "cifar100": 100,
        "tiny_imagenet": 200,
        "flowers102": 102,
        "food101": 101,
        "pets": 37,
        "cars": 196,
        "imagenet": 1000,
    }


def test_a_training_keeps_images_as_bytes_and_a_model_sees_them_scaled(tmp_path, monkeypatch):
    kept, seen = [], []

    class Net(nn.Module):
        def __init__(self, port: Port):
            super().__init__()
            self.head = nn.Linear(port.shape[0] * port.shape[1], port.outputs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return self.head(x.flatten(1))

    def spied(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor], **how: Any) -> History:
        kept.append(data)
        return train(model, data, **how)

    monkeypatch.setattr("tasks._labelled.train", spied)
    task = made(tmp_path, source="digits", side=8, train=50, valid=20, test=20, epochs=1, batch=50)
    trained = task.run(Net, seed=0, device="cpu")
    ((inputs, _),) = kept
    assert inputs.dtype == torch.uint8
    assert abs(seen[0].mean().item()) < 1e-5
    assert abs(seen[0].std(correction=0).item() - 1) < 1e-5
    assert 0 <= trained.result["accuracy"] <= 1
