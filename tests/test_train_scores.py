"""Labelled splits are scored batch after batch: the numbers of all logits at once, without ever holding them."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tasks
from mechanisms import configure
from tasks._labelled import SPLITS, UNASKED, Answers, asked
from tests.splits import read
from tests.test_labelled import Config, Toy


class Linear(nn.Module):
    """Logits from numbers; notes the largest number of its answers that lived at once, and of examples it was given."""

    def __init__(self, outputs: int):
        super().__init__()
        self.net, self.alive, self.most = nn.Linear(2, outputs), [], 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        self.alive = [*(one for one in self.alive if one() is not None), weakref.ref(y)]
        self.most = max(self.most, len(self.alive))
        return y


def split() -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    target = torch.randint(3, (37, 6), generator=chance)
    target[torch.rand(37, 6, generator=chance) < 0.4] = UNASKED
    target[:8] = UNASKED  # a whole batch
    return torch.randn(37, 6, 2, generator=chance), target


def test_scores_are_those_of_all_logits_at_once_and_two_batches_live_at_most():
    task, model = Toy(Config(batch=8), Path("nowhere")), Linear(3)
    inputs, target = split()
    found = task.score(model, (inputs, target))
    assert model.most <= 2
    whole = model(inputs).detach()
    places = target != UNASKED
    loss = F.cross_entropy(whole.double()[places], target[places]).item()
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert found.accuracy == (whole.argmax(-1)[places] == target[places]).double().mean().item()
    assert torch.equal(found.answers.argmax(-1), whole.argmax(-1))
    assert (len(found.answers), found.answers.shape) == (37, whole.shape)
    assert asked(target) == int(places.sum())


def told(name: str, tmp_path: Path, **knobs: Any) -> tuple[Any, dict[str, tuple[Tensor, Tensor]], Tensor]:
    """A task, its splits, and answers to its test split at random."""
    entry = tasks.find(name)
    task: Any = entry.cls(configure(entry.config, knobs, of=name), tmp_path)
    task.prepare(lambda *_: None, 1)
    splits = {word: read(task, word) for word in SPLITS}
    port = task.config.port
    shape = (len(splits["test"][0]), *(() if port.once else port.shape), port.outputs)
    return task, splits, torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("images", {"side": 8, "train": 60, "valid": 20, "test": 50}),
        ("images", {"source": "canvas", "train": 20, "batch": 10, "valid": 5, "test": 20}),
        ("segment", {"side": 8, "digits": 1, "clutter": 0, "train": 20, "batch": 10, "valid": 5, "test": 30}),
        ("charlm", {"train": 20, "batch": 10, "valid": 5, "test": 30, "length": 24}),
        ("mlm", {"train": 20, "batch": 10, "valid": 5, "test": 30, "length": 24}),
    ],
)
def test_a_task_tells_the_same_of_what_is_kept_as_of_all_logits(name, knobs, tmp_path):
    task, splits, logits = told(name, tmp_path, **knobs)

    class Given(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            return next(parts)

    parts = iter(logits.split(task.config.batch))
    kept = task.score(Given(), splits["test"]).answers
    assert isinstance(kept, Answers)
    assert task.told(splits, kept) == task.told(splits, logits) != {}
