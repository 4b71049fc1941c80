"""What tasks with right and wrong answers share: their knobs of training, cross-entropy, accuracy, three splits.

A task's targets are whole numbers, the class of an example [B] or of every point [B, *shape]; UNASKED where no answer
is asked. It says how its data are made, in numpy arrays `train_inputs`, `train_target` and so on, and what more it
wants to tell. Numbers that every such task returns:
accuracy: share of right answers among those asked in the test examples, 0 to 1.
loss: mean cross-entropy of those answers, in nats, at least 0.
valid_accuracy, valid_loss: the same on validation examples; valid_loss chooses the epoch, test examples are read once.
train_loss: mean over training steps of the best epoch; best_epoch: from 1; epochs: how many were trained.
chance: accuracy of always giving the commonest answer of the training examples, on the test examples; where several are
equally common, the mean over them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from tasks._checkpoint import Checkpoint
from tasks._data import content_key, keep, load
from tasks._port import Port
from tasks._registry import Make, Trained
from tasks._step import predictions
from tasks._train import History, train
from tasks._training import TrainingKnobs
from tasks._weights import started, weights_of

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


class LabelledKnobs(TrainingKnobs):
    """Sizes of the splits and how to train. A task's own Config adds what its data are; it may change the defaults."""

    train: PositiveInt = 1024
    """training examples"""
    valid: PositiveInt = 256
    """validation examples, which choose the epoch"""
    test: PositiveInt = 256
    """test examples"""
    data_seed: NonNegativeInt = 0
    """seed of all examples; example i of a split is the same however many are made"""

    @property
    def examples(self) -> int:
        return self.epochs * self.train

    @model_validator(mode="after")
    def a_batch_is_there(self) -> "LabelledKnobs":
        if self.batch > self.train:
            raise ValueError(f"batch is {self.batch}, more than the {self.train} training examples; lower it.")
        return self


class Labelled:
    """A task at one setting of its knobs. Subclasses set `name` and `version` and make the arrays.

    version: of how data are made; raised when they change, so that old folders are not taken for them.
    ranks: how many of the likeliest classes `told` asks for.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    ranks: ClassVar[int] = 1

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

    def told(self, splits: Mapping[str, tuple[Tensor, Tensor]], answers: "Answers | Tensor") -> dict[str, float]:
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
        return F.cross_entropy(prediction.flatten(0, -2), target.flatten().long(), ignore_index=UNASKED)

    def run(self, make: Make, *, seed: int, device: str, checkpoint: Checkpoint | None = None) -> Trained:
        """Trains a model with the seed, which also draws its weights.

        Raises ValueError when the examples are not there, Diverged when a loss is not finite.
        """
        config = self.config
        data, valid = self.stored("train", device), self.stored("valid", device)
        torch.manual_seed(seed)
        model = Seeing(started(make(config.port), config.start), self.seen).to(device)
        history = train(
            model,
            data,
            loss=self.loss,
            validate=lambda model: self.score(model, valid).loss,
            schedule=config.schedule,
            seed=seed,
            checkpoint=checkpoint,
            weigh=asked,
        )
        found = {"valid_accuracy": self.score(model, valid).accuracy, "valid_loss": min(history.valid_score)}
        test = self.stored("test", device)
        scored = self.score(model, test)
        found |= {"accuracy": scored.accuracy, "loss": scored.loss}
        found |= {"chance": chance(data[1], test[1])} | curves(history)
        found |= self.told({"train": data, "valid": valid, "test": test}, scored.answers)
        raw = {"train_loss": history.train_loss, "valid_loss": history.valid_score}
        return Trained(result=found, raw=raw, weights=weights_of(model.net) if config.keep_weights else {})

    def score(self, model: nn.Module, split: tuple[Tensor, Tensor]) -> "Scored":
        """Loss and accuracy of a model on a split, batch after batch: all logits at once may not fit into memory."""
        total, first, best, ranks = 0.0, [], [], min(self.ranks, self.config.port.outputs)
        parts = predictions(model, split[0], self.config.batch, self.config.precision)
        for given, target in zip(parts, split[1].split(self.config.batch), strict=True):
            if count := asked(target):
                total += count * self.loss(given, target).item()
            first.append(given.argmax(-1))
            best.append(given.topk(ranks).indices if ranks > 1 else first[-1][..., None])
        answers = Answers(torch.cat(first), torch.cat(best), self.config.port.outputs)
        count = asked(split[1])
        return Scored(total / count if count else math.nan, accuracy(answers, split[1]), answers)

    def stored(self, split: str, device: str) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a split as they lie on disk, in small whole numbers: as floats, images would fill four
        times the memory. A target has at least 16 bits, for UNASKED is negative."""
        inputs, target = (
            torch.from_numpy(load(self.folder, self.recipe, f"{split}_{part}")) for part in ("inputs", "target")
        )
        return inputs.to(device), (target.short() if target.dtype == torch.uint8 else target).to(device)

    def seen(self, inputs: Tensor) -> Tensor:
        """Stored inputs as a model is given them."""
        return inputs.long() if self.config.port.symbols else inputs.float()


class Seeing(nn.Module):
    """A model that takes stored inputs: each batch is turned into what the model itself is given."""

    def __init__(self, net: nn.Module, seen: Callable[[Tensor], Tensor]):
        super().__init__()
        self.net, self.seen = net, seen

    def forward(self, stored: Tensor) -> Tensor:
        return self.net(self.seen(stored))


@dataclass(frozen=True)
class Answers:
    """What is kept of a model's answers [..., outputs]: the classes with the highest. It knows a tensor's words for it.

    first: the class with the highest [...]; of equal ones the first.
    best: as many of the highest as a task asks for, falling [..., ranks].
    """

    first: Tensor
    best: Tensor
    outputs: int

    def __len__(self) -> int:
        return len(self.first)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.first.shape, self.outputs))

    def argmax(self, dim: int) -> Tensor:
        assert dim == -1, dim
        return self.first

    def topk(self, k: int) -> "Top":
        assert k <= self.best.shape[-1], k
        return Top(self.best[..., :k])


class Top(NamedTuple):
    indices: Tensor


@dataclass(frozen=True)
class Scored:
    """A model on a split. loss: mean over the answers that are asked, in nats."""

    loss: float
    accuracy: float
    answers: Answers


def asked(target: Tensor) -> int:
    """How many answers are asked."""
    return int((target != UNASKED).sum())


def accuracy(answers: Answers | Tensor, target: Tensor) -> float:
    """Share of right answers among those asked."""
    places = target != UNASKED
    return (answers.argmax(-1)[places] == target[places]).double().mean().item()


def chance(known: Tensor, target: Tensor) -> float:
    """Accuracy of always giving the commonest answer of those known; the mean over them where several are."""
    kinds, counts = known[known != UNASKED].unique(return_counts=True)
    commonest = kinds[counts == counts.max()]
    return torch.isin(target[target != UNASKED], commonest).double().mean().item() / len(commonest)


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
