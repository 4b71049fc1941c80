"""What tasks with right and wrong answers share: their numbers, and that labels without sense teach nothing."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attnbench.models import maker
from tasks import Port
from tasks._labelled import UNASKED, Answers, Arrays, Labelled, LabelledKnobs, Progress, accuracy, chance


class Config(LabelledKnobs):
    cost_knobs = frozenset({"batch"})
    shuffled: bool = False
    """whether labels have nothing to do with what is labelled"""

    @property
    def port(self) -> Port:
        return Port(inputs=2, outputs=3, shape=(6,), once=True)


class Toy(Labelled):
    """Which of three parts of a sequence holds the largest number."""

    name = "toy"

    def generate(self, progress: Progress, workers: int) -> Arrays:
        del progress, workers
        found = {}
        for number, split in enumerate(("train", "valid", "test")):
            draw = np.random.default_rng(number)
            inputs = draw.normal(size=(getattr(self.config, split), 6, 2)).astype(np.float32)
            target = inputs[..., 0].argmax(1) // 2
            found[f"{split}_inputs"] = inputs
            found[f"{split}_target"] = draw.permutation(target) if self.config.shuffled else target
        return found

    def told(self, splits: Any, answers: Answers | Tensor) -> dict[str, float]:
        return {"seen": float(len(splits["test"][0]) + len(answers))}


def result(tmp_path: Path, **knobs: Any) -> dict[str, float]:
    task = Toy(Config(train=512, valid=128, test=400, epochs=8, **knobs), tmp_path)
    task.prepare(lambda *_: None, 1)
    make = maker("isotropic", {"channels": 16, "depth": 2}, ("full", {"heads": 2}), 0)
    return task.run(make, seed=0, device="cpu").result


def test_a_model_learns_and_with_shuffled_labels_falls_to_chance(tmp_path):
    learned, nothing = result(tmp_path), result(tmp_path, shuffled=True)
    deviation = math.sqrt(1 / 3 * 2 / 3 / 400)
    assert learned["accuracy"] > 0.7
    assert abs(nothing["accuracy"] - 1 / 3) < 4 * deviation
    assert nothing["loss"] > math.log(3) - 0.05
    assert learned["seen"] == 800
    targets = [torch.from_numpy(Toy(Config(train=512, valid=128, test=400), tmp_path).generate(print, 1)[key])
               for key in ("train_target", "test_target")]  # fmt: skip
    commonest = max(range(3), key=lambda label: int((targets[0] == label).sum()))
    assert learned["chance"] == pytest.approx((targets[1] == commonest).double().mean().item())
    assert set(learned) - {"seen"} == {
        "accuracy", "loss", "valid_accuracy", "valid_loss", "chance", "train_loss", "best_epoch", "epochs"
    }  # fmt: skip


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    assert result(tmp_path) == result(tmp_path)


def test_loss_and_accuracy_leave_out_what_is_not_asked():
    answers, target = torch.randn(4, 5, 3), torch.randint(3, (4, 5))
    target[0] = UNASKED
    task = Toy(Config(), Path("nowhere"))
    each = -F.log_softmax(answers.double(), -1)[1:].reshape(-1, 3)[torch.arange(15), target[1:].flatten()]
    assert task.loss(answers, target).item() == pytest.approx(each.mean().item(), rel=1e-6)
    right = (answers[1:].argmax(-1) == target[1:]).double().mean().item()
    assert accuracy(answers, target) == pytest.approx(right)


def test_chance_is_the_commonest_known_answer_on_what_is_tested():
    known, target = torch.tensor([2, 2, 0, UNASKED, UNASKED, UNASKED]), torch.tensor([2, 0, 1, 2, UNASKED])
    assert chance(known, target) == 0.5
    tied = torch.tensor([3, 1, 1, 3, 2, UNASKED])
    assert chance(tied, torch.tensor([1, 1, 1, 2, UNASKED])) == (3 / 4 + 0) / 2


VALUES = {
    "epochs": 3,
    "batch": 4,
    "shuffled": True,
    "curve": "tanh",
    "accumulate": 2,
    "precision": "bfloat16",
    "warm_up_new": 1,
    "start": "a file",
    "keep_weights": True,
}


def test_data_have_a_folder_for_each_value_of_the_knobs_that_determine_them(tmp_path):
    plain = Toy(Config(), tmp_path).folder
    for knob in Config.model_fields:
        value: Any = VALUES.get(knob, 0.5 if knob in Config.training else 77)
        assert (Toy(Config(**{knob: value}), tmp_path).folder == plain) == (knob in Config.training)
