"""What tasks with right and wrong answers share: their knobs of training, cross-entropy, accuracy, three splits.

A task's targets are whole numbers, the class of an example [B] or of every point [B, *shape]; UNASKED where no answer
is asked. It says how its data are made, in numpy arrays `train_inputs`, `train_target` and so on, and what more it
wants to tell. Numbers that every such task returns:
accuracy: share of right answers among those asked in the test examples, 0 to 1.
loss: mean cross-entropy of those answers, in nats, at least 0.
valid_accuracy, valid_loss: the same on validation examples; valid_loss chooses the epoch, test examples are read once.
train_loss: mean over training steps of the best epoch; best_epoch: from 1; epochs: how many were trained.
chance: accuracy of always giving the commonest answer of the training examples, on the test examples.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from tasks._data import content_key, keep, load
from tasks._port import Port
from tasks._registry import Make, TaskKnobs, Trained
from tasks._train import History, Schedule, predict, train

SPLITS = ("train", "valid", "test")  # the position is the split's stream of random numbers
UNASKED = -100  # a target where no answer is asked, as torch's cross-entropy has it
BETTER: Mapping[str, Literal["higher", "lower"]] = {
    "accuracy": "higher",
    "loss": "lower",
    "valid_accuracy": "higher",
    "valid_loss": "lower",
}
Progress = Callable[[int, int], None]
Arrays = Mapping[str, np.ndarray]


class LabelledKnobs(TaskKnobs):
    """Sizes of the splits and how to train. A task's own Config adds what its data are; it may change the defaults."""

    train: PositiveInt = 1024
    """training examples"""
    valid: PositiveInt = 256
    """validation examples, which choose the epoch"""
    test: PositiveInt = 256
    """test examples"""
    data_seed: NonNegativeInt = 0
    """seed of all examples; example i of a split is the same however many are made"""
    epochs: PositiveInt = 10
    """passes over the training examples"""
    batch: PositiveInt = 32
    """examples a training step"""
    rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """learning rate at its peak"""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-2
    """AdamW's, on all weights"""
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """share of all steps in which the rate rises"""

    training: ClassVar[frozenset[str]] = frozenset({"epochs", "batch", "rate", "weight_decay", "warm_up"})

    @property
    def examples(self) -> int:
        return self.epochs * self.train

    @property
    def examples_per_step(self) -> int:
        return self.batch

    @property
    def schedule(self) -> Schedule:
        names = ("epochs", "batch", "rate", "weight_decay", "warm_up")
        return Schedule(**{name: getattr(self, name) for name in names})

    @model_validator(mode="after")
    def a_batch_is_there(self) -> "LabelledKnobs":
        if self.batch > self.train:
            raise ValueError(f"batch is {self.batch}, more than the {self.train} training examples; lower it.")
        return self


class Labelled:
    """A task at one setting of its knobs. Subclasses set `name` and `version` and make the arrays.

    version: of how data are made; raised when they change, so that old folders are not taken for them.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    def __init__(self, config: Any, data: Path):
        self.config = config
        self.recipe = {"task": self.name, "version": self.version} | {
            knob: getattr(config, knob)
            for knob in type(config).model_fields
            if knob not in config.training and knob not in config.idle()
        }
        self.folder = data / self.name / content_key(self.recipe)

    def generate(self, progress: Progress, workers: int) -> Arrays:
        """`<split>_inputs` and `<split>_target` of every split, as the port has them."""
        raise NotImplementedError

    def told(self, splits: Mapping[str, tuple[Tensor, Tensor]], answers: Tensor) -> dict[str, float]:
        """What this task tells beside the common numbers, of the test examples' answers [B, ..., outputs]."""
        del splits, answers
        return {}

    def prepare(self, progress: Progress, workers: int) -> str:
        """Makes or finds the examples; returns their content hash, the same whatever the number of workers."""
        return keep(self.folder, self.recipe, lambda: self.generate(progress, workers))

    def batch(self, seed: int, device: str) -> tuple[Tensor, Tensor]:
        """Made-up inputs and targets of a training batch; needs no data."""
        port: Port = self.config.port
        chance, size = torch.Generator().manual_seed(seed), (self.config.batch, *port.shape)
        symbols = torch.randint(port.inputs, size, generator=chance)
        inputs = symbols if port.symbols else torch.rand(*size, port.inputs, generator=chance)
        target = torch.randint(port.outputs, size[:1] if port.once else size, generator=chance)
        return inputs.to(device), target.to(device)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of the answers that are asked."""
        return F.cross_entropy(prediction.flatten(0, -2), target.flatten(), ignore_index=UNASKED)

    def run(self, make: Make, *, seed: int, device: str) -> Trained:
        """Trains a model with the seed, which also draws its weights.

        Raises ValueError when the examples are not there, Diverged when a loss is not finite.
        """
        data, valid = self.read("train", device), self.read("valid", device)
        torch.manual_seed(seed)
        model = make(self.config.port).to(device)

        def answers(split: tuple[Tensor, Tensor]) -> Tensor:
            return predict(model, split[0], self.config.batch)

        def validate(_: torch.nn.Module) -> float:
            return self.loss(answers(valid), valid[1]).item()

        history = train(model, data, loss=self.loss, validate=validate, schedule=self.config.schedule, seed=seed)
        found = {"valid_accuracy": accuracy(answers(valid), valid[1]), "valid_loss": min(history.valid_score)}
        test = self.read("test", device)
        given = answers(test)
        found |= {"accuracy": accuracy(given, test[1]), "loss": self.loss(given, test[1]).item()}
        found |= {"chance": chance(data[1], test[1])} | curves(history)
        found |= self.told({"train": data, "valid": valid, "test": test}, given)
        return Trained(result=found, raw={"train_loss": history.train_loss, "valid_loss": history.valid_score})

    def read(self, split: str, device: str) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a split; small whole numbers on disk become what torch indexes with."""
        inputs, target = (
            torch.from_numpy(load(self.folder, self.recipe, f"{split}_{part}")) for part in ("inputs", "target")
        )
        inputs = inputs.long() if self.config.port.symbols else inputs.float()
        return inputs.to(device), target.long().to(device)


def accuracy(answers: Tensor, target: Tensor) -> float:
    """Share of right answers among those asked."""
    asked = target != UNASKED
    return (answers.argmax(-1)[asked] == target[asked]).double().mean().item()


def chance(known: Tensor, target: Tensor) -> float:
    """Accuracy of always giving the commonest answer of those known."""
    asked = known[known != UNASKED]
    return (target[target != UNASKED] == asked.mode().values).double().mean().item()


def curves(history: History) -> dict[str, float]:
    return {
        "train_loss": history.train_loss[history.best_epoch - 1],
        "best_epoch": float(history.best_epoch),
        "epochs": float(len(history.train_loss)),
    }


def streams(data_seed: int, split: str, count: int) -> list[np.random.Generator]:
    """A source of chance for each example of a split: example i is the same however many are made."""
    stream = SPLITS.index(split)
    return [
        np.random.default_rng(np.random.SeedSequence(data_seed, spawn_key=(stream, number))) for number in range(count)
    ]
