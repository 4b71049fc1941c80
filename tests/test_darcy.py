"""Darcy's splits and training: what a field depends on, what the model sees, and its numbers worked out by hand."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tasks.darcy
from mechanisms import configure
from tasks import Port
from tasks.darcy import Config, Darcy, Scales, relative_errors

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"side": 8, "refine": 4, "train": 32, "valid": 12, "test": 12, "epochs": 3, "batch": 8}


def quiet(done: int, total: int) -> None:
    assert done <= total


def made(folder: Path, **knobs: float) -> Darcy:
    task = Darcy(configure(Config, {**SMALL, **knobs}, of="darcy"), folder)
    task.prepare(quiet, workers=2)
    return task


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Darcy:
    return made(tmp_path_factory.mktemp("data"))


def share(error: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(error) / np.linalg.norm(truth))


class Net(nn.Sequential):
    """A small convolutional model for a port; keeps what it was shown while training."""

    def __init__(self, port: Port, channels: int = 24):
        super().__init__(
            nn.Conv2d(port.inputs, channels, 5, padding=2),
            nn.GELU(),
            nn.Conv2d(channels, channels, 5, padding=2),
            nn.GELU(),
            nn.Conv2d(channels, port.outputs, 5, padding=2),
        )
        self.shown: list[torch.Tensor] = []

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.shown.append(input)
        return super().forward(input.movedim(-1, 1)).movedim(1, -1)


class Constant(nn.Module):
    """Answers the same number everywhere, whatever it is taught."""

    def __init__(self, value: float):
        super().__init__()
        self.value, self.idle = value, nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x[..., :1], self.value) + 0 * self.idle


def test_a_field_does_not_depend_on_how_many_are_made_nor_by_how_many_workers(task, tmp_path):
    more = Darcy(task.config.model_copy(update={"train": 40, "valid": 5}), tmp_path)
    more.prepare(quiet, workers=1)
    np.testing.assert_array_equal(more.read("train")[:32], task.read("train"))
    np.testing.assert_array_equal(more.read("valid"), task.read("valid")[:5])
    np.testing.assert_array_equal(more.read("test"), task.read("test"))


def test_the_content_hash_does_not_depend_on_the_number_of_workers(task, tmp_path):
    again = Darcy(task.config, tmp_path)
    assert again.prepare(quiet, workers=3) == task.prepare(quiet, workers=1)


def test_no_field_is_in_two_splits_nor_under_two_data_seeds(task, tmp_path):
    other = made(tmp_path, data_seed=1)
    fields = [field for one in (task, other) for split in ("train", "valid", "test") for field in one.read(split)]
    assert len({sha256(field.tobytes()).hexdigest() for field in fields}) == len(fields) == 2 * (32 + 12 + 12)


def trained(task: Darcy, make: Callable[[Port], nn.Module] = Net, seed: int = 0) -> tasks.Trained:
    return task.run(make, seed=seed, device="cpu")


def test_relative_errors_are_those_worked_out_by_hand():
    truth = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).view(2, 1, 2, 1)
    guess = torch.tensor([[3.0, 3.0], [1.0, 2.0]]).view(2, 1, 2, 1)
    assert relative_errors(guess, truth).tolist() == pytest.approx([1 / 5, 1 / 2])
    assert Darcy(Config(), Path()).loss(guess, truth).item() == pytest.approx((1 / 5 + 1 / 2) / 2)


def test_the_numbers_of_a_constant_answer_are_those_worked_out_by_hand(task):
    pressures = {split: task.read(split)[:, 1].astype(float) for split in ("train", "valid", "test")}
    mean, deviation = pressures["train"].mean(), pressures["train"].std()
    shares = {split: np.array([share(u - (mean + 0.5 * deviation), u) for u in us]) for split, us in pressures.items()}
    result = trained(task, lambda _: Constant(0.5)).result
    assert result["rel_l2"] == pytest.approx(shares["test"].mean(), rel=1e-5)
    assert result["rel_mse"] == pytest.approx((shares["test"] ** 2).mean(), rel=1e-5)
    assert result["valid_rel_l2"] == pytest.approx(shares["valid"].mean(), rel=1e-5)
    assert result["valid_rel_mse"] == pytest.approx((shares["valid"] ** 2).mean(), rel=1e-5)
    assert result["train_loss"] == pytest.approx(shares["train"].mean(), rel=1e-5)
    assert (result["best_epoch"], result["epochs"]) == (1, 3)


def test_predicting_zero_scores_one(task):
    pressure = task.read("train")[:, 1].astype(float)
    result = trained(task, lambda _: Constant(-pressure.mean() / pressure.std())).result
    assert [result[name] for name in ("rel_l2", "rel_mse", "valid_rel_l2")] == pytest.approx([1, 1, 1], abs=1e-5)


def test_scales_are_those_of_the_training_fields_alone(task, tmp_path):
    training = task.read("train").astype(float)
    scales = Scales(task.read("train"))
    assert scales.mean == pytest.approx([training[:, 0].mean(), training[:, 1].mean()])
    assert scales.deviation == pytest.approx([training[:, 0].std(), training[:, 1].std()])
    other = made(tmp_path, valid=3, test=5)
    assert trained(other).raw["train_loss"] == trained(task).raw["train_loss"]


def test_the_model_sees_a_normalised_coefficient_and_the_places_of_the_nodes(task):
    nets: list[Net] = []
    trained(task, lambda port: nets.append(Net(port)) or nets[0])
    epoch = torch.cat(nets[0].shown[:4])
    assert epoch.shape == (32, *task.config.port.shape, task.config.port.inputs)
    assert epoch[..., 0].mean().item() == pytest.approx(0, abs=1e-5)
    assert epoch[..., 0].std(correction=0).item() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(epoch[3, :, 5, 1], np.arange(8) / 7, rtol=1e-6)
    np.testing.assert_allclose(epoch[3, 5, :, 2], np.arange(8) / 7, rtol=1e-6)


def test_the_test_fields_are_read_once_and_after_training(task, monkeypatch):
    nets: list[Net] = []
    reads: list[tuple[str, int]] = []

    def watched(folder: Path, recipe: dict, name: str) -> np.ndarray:
        reads.append((name, len(nets[0].shown) if nets else 0))
        return original(folder, recipe, name)

    original = tasks.darcy.load
    monkeypatch.setattr(tasks.darcy, "load", watched)
    trained(task, lambda port: nets.append(Net(port)) or nets[0])
    assert reads == [("train", 0), ("valid", 0), ("test", 3 * 32 // 8)]


def test_the_same_seed_gives_the_same_numbers_bit_for_bit_and_another_does_not(task):
    first, second, other = trained(task, seed=1), trained(task, seed=1), trained(task, seed=2)
    assert first == second
    assert first.result["rel_l2"] != other.result["rel_l2"]


def test_the_seed_draws_the_weights(task):
    def start(seed: int) -> torch.Tensor:
        drawn = []
        trained(task, lambda _: drawn.append(torch.rand(4)) or Constant(0), seed)
        return drawn[0]

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_the_knobs_reach_the_training_loop(task, monkeypatch):
    told, original = [], tasks.darcy.train
    monkeypatch.setattr(tasks.darcy, "train", lambda *_, **given: told.append(given) or original(*_, **given))
    knobs = {"epochs": 2, "batch": 5, "rate": 0.03, "weight_decay": 0.2, "warm_up": 0.4}
    trained(Darcy(task.config.model_copy(update=knobs), task.folder.parents[1]), seed=7)
    (given,) = told
    assert vars(given["schedule"]).items() >= knobs.items()
    assert given["seed"] == 7


def test_what_is_reported_on_validation_fields_is_the_best_of_the_curve(task):
    answer = trained(made(task.folder.parents[1], rate=0.05, epochs=6, warm_up=0.9))
    curve = answer.raw["valid_rel_l2"]
    assert answer.result["valid_rel_l2"] == min(curve) < curve[-1]
    assert curve[int(answer.result["best_epoch"]) - 1] == min(curve)


def test_a_tiny_model_beats_zero_and_the_mean_field_within_seconds(tmp_path):
    task = made(tmp_path, train=96, epochs=25, rate=1e-2)
    mean = task.read("train")[:, 1].mean(0)
    floor = np.mean([share(u - mean, u) for u in task.read("test")[:, 1]])
    assert trained(task).result["rel_l2"] < 0.8 * floor < 0.8
