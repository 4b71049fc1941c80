"""Where targets are dealt to the wrong examples nothing is left to learn: every task must fall back to chance.

The level is computed here, from frequencies alone: the cross-entropy of the test answers under those of the training
answers at the same place; on Darcy fields the error of the mean training pressure. The same setting with true targets
must go well below it, else the comparison would say nothing; pathfinder, minutes long to learn, is left out.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tasks
from attnbench.models import maker
from mechanisms import configure
from tasks._labelled import UNASKED
from tests.splits import read

SMALL = {"valid": 100, "test": 300}
CASES = {
    "images": {"source": "digits", "side": 8, "train": 600, "epochs": 6},
    "segment": {"side": 8, "digits": 1, "clutter": 0, "train": 600, "epochs": 8, "rate": 5e-3},
    "charlm": {"length": 32, "train": 600, "epochs": 4, "rate": 5e-3},
    "mlm": {"length": 32, "train": 1500, "epochs": 8, "rate": 5e-3},
    "recall": {"length": 10, "pairs": 2, "symbols": 8, "train": 1500, "epochs": 8, "rate": 4e-3},
    "listops": {"length": 24, "min_length": 4, "depth": 3, "arguments": 3, "train": 2000, "epochs": 5, "rate": 4e-3},
}
PATCHES = {"images": 2, "segment": 2}

pytestmark = pytest.mark.usefixtures("one_thread")


def made(name: str, folder: Path) -> Any:
    task = tasks.find(name)
    made = task.cls(configure(task.config, {**SMALL, "batch": 32, **CASES[name]}, of=name), folder)
    made.prepare(lambda *_: None, 1)
    return made


def levels(known: Tensor, asked: Tensor) -> tuple[float, float]:
    """Cross-entropy of the answers asked under the frequencies of those known, place by place, and the share that the
    commonest of a place gets right. Frequencies of few answers lean on those of all, as if ten more were there."""
    known, asked = known.reshape(len(known), -1), asked.reshape(len(asked), -1)
    answers = int(max(known.max(), asked.max())) + 1
    overall = counted(known, answers)
    shares = [counted(known[:, place], answers) + 10 * overall / overall.sum() for place in range(known.shape[1])]
    pairs = [(own / own.sum(), asked[:, place]) for place, own in enumerate(shares)]
    losses = [-np.log(own[there[there != UNASKED].numpy()]) for own, there in pairs]
    right = [(there[there != UNASKED] == int(own.argmax())).numpy() for own, there in pairs]
    return float(np.concatenate(losses).mean()), float(np.concatenate(right).mean())


def counted(answers: Tensor, kinds: int) -> np.ndarray:
    return np.bincount(answers[answers != UNASKED].numpy(), minlength=kinds) + 1e-9


def trained(task: Any, patch: int = 1) -> dict[str, float]:
    model = {"channels": 32, "depth": 2, "patch": patch}
    return dict(task.run(maker("isotropic", model, ("full", {}), 0), seed=0, device="cpu").result)


def deal(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives every training and validation example another's target."""
    read = task.stored

    def dealt(split: str, device: str) -> tuple[Tensor, Tensor]:
        inputs, target = read(split, device)
        order = torch.randperm(len(target), generator=torch.Generator().manual_seed(3))
        return inputs, target if split == "test" else target[order]

    monkeypatch.setattr(task, "stored", dealt)


@pytest.mark.parametrize("name", CASES)
def test_with_shuffled_targets_nothing_is_learned_and_with_true_ones_much(name, tmp_path, monkeypatch):
    task = made(name, tmp_path)
    known, asked = (read(task, split)[1] for split in ("train", "test"))
    level, commonest = levels(known, asked)
    true = trained(task, PATCHES.get(name, 1))
    deal(task, monkeypatch)
    dealt = trained(task, PATCHES.get(name, 1))
    spread = math.sqrt(commonest * (1 - commonest) / SMALL["test"])  # of examples, which bounds that of their points
    assert true["loss"] < 0.9 * level
    assert true["accuracy"] > commonest + 3 * spread
    assert dealt["loss"] > 0.97 * level
    assert dealt["accuracy"] < commonest + 3 * spread


def test_with_shuffled_pressures_no_darcy_field_is_told_from_another(tmp_path, monkeypatch):
    darcy = tasks.find("darcy")
    knobs = {"side": 8, "refine": 2, "train": 128, "valid": 32, "test": 64, "epochs": 12, "batch": 8, "rate": 5e-3}
    task: Any = darcy.cls(configure(darcy.config, knobs, of="darcy"), tmp_path)
    task.prepare(lambda *_: None, 1)
    read = task.read
    pressure, test = read("train")[:, 1].mean(0), read("test")[:, 1]
    level = float((np.linalg.norm(test - pressure, axis=(1, 2)) / np.linalg.norm(test, axis=(1, 2))).mean())

    def dealt(split: str) -> np.ndarray:
        fields = read(split).copy()
        if split != "test":
            fields[:, 1] = np.random.default_rng(3).permutation(fields[:, 1])
        return fields

    true = trained(task)["rel_l2"]
    monkeypatch.setattr(task, "read", dealt)
    assert true < 0.7 * level
    assert trained(task)["rel_l2"] > 0.95 * level
