"""The one training loop of every trained task.

AdamW on the weights that learn, a linear warm-up of the rate and then a curve, gradients clipped; see _training.py.
After every epoch the model, or the running mean of its weights, is scored on validation data, and the weights of the
best epoch are what remains. Test data never come near it. With a checkpoint, a training that was killed goes on where
it stood: on a CPU, bit for bit as if nothing had been. Several processes may train together, see _parallel.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tasks import _parallel
from tasks._checkpoint import Checkpoint
from tasks._step import Loss, Pair, how, update
from tasks._training import Schedule


class Diverged(Exception):
    """A loss was not a finite number."""


@dataclass(frozen=True, kw_only=True)
class History:
    """One value an epoch, and the epoch whose weights were kept, counted from 1."""

    train_loss: list[float]
    valid_score: list[float]
    best_epoch: int


def train(model: nn.Module, data: Pair, **how: Any) -> History:
    """Trains on (inputs, targets), which lie on the model's device; leaves the weights of the best epoch in the model.

    how: what Training has beside them. Raises Diverged when a training loss or a score is not finite.
    """
    return Training(model=model, data=data, **how).run()


@dataclass(kw_only=True)
class Training:
    """A training between two of its steps.

    validate: the score of a model on validation data, lower is better; of equal scores the first counts.
    seed: of the order of the data, the same for all models, and of what the model draws while it trains.
    weigh: how many answers a batch's loss is the mean of, from its targets.
    """

    model: nn.Module
    data: Pair
    loss: Loss
    validate: Callable[[nn.Module], float]
    schedule: Schedule
    seed: int
    checkpoint: Checkpoint | None = None
    weigh: Callable[[Tensor], float] = len

    def __post_init__(self) -> None:
        _parallel.agree([*self.model.parameters(), *self.model.buffers()])
        torch.manual_seed(self.seed)  # else dropout would depend on how many numbers the weights took
        self.order = torch.Generator().manual_seed(self.seed)
        self.begun = self.order.get_state()  # of the order, when the epoch began
        schedule = self.schedule
        learning = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.late = old(self.model) if schedule.warm_up_new else []
        self.optimiser = torch.optim.AdamW(learning, lr=schedule.rate, weight_decay=schedule.weight_decay)
        self.average = averaged(self.model, schedule.average) if schedule.average else None
        self.how = replace(how(schedule), weigh=self.weigh)
        self.epoch = self.step = 0
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.seen: list[Tensor] = []  # of the steps of this epoch, loss times examples

    @property
    def scored(self) -> nn.Module:
        """The model that is validated and kept."""
        return self.average.module if self.average else self.model

    def run(self) -> History:
        if state := self.last():
            self.restore(state)
        while self.epoch < self.schedule.epochs:
            self.one_epoch()
        self.model.load_state_dict(self.best)
        return History(
            train_loss=self.losses, valid_score=self.scores, best_epoch=self.scores.index(min(self.scores)) + 1
        )

    def one_epoch(self) -> None:
        """What is left of an epoch, and its end."""
        self.model.train()
        for weight in self.late:
            weight.requires_grad_(self.epoch >= self.schedule.warm_up_new)
        examples, device = len(self.data[0]), self.data[0].device
        self.begun = self.order.get_state()
        parts = torch.randperm(examples, generator=self.order).to(device).split(self.schedule.batch)
        for chosen in parts[self.step :]:
            self.one_step(chosen, len(parts))
        self.losses.append(mean_loss(torch.stack(self.seen), examples, self.epoch))
        self.scores.append(_parallel.same(self.validate(self.scored)))
        if not math.isfinite(self.scores[-1]):
            raise Diverged(f"The validation score was {self.scores[-1]} after epoch {self.epoch + 1}.")
        if self.scores[-1] < min(self.scores[:-1], default=math.inf):
            self.best = {name: value.clone() for name, value in self.scored.state_dict().items()}
        self.epoch, self.step, self.seen, self.begun = self.epoch + 1, 0, [], self.order.get_state()
        self.save(epoch_ended=True)

    def one_step(self, chosen: Tensor, steps: int) -> None:
        rate = self.schedule.rate_at(self.epoch * steps + self.step, self.schedule.epochs * steps)
        batch = (self.data[0][chosen], self.data[1][chosen])
        _parallel.draw(self.seed, self.epoch * steps + self.step)
        self.seen.append(len(chosen) * update(self.model, batch, self.loss, self.optimiser, rate, self.how))
        if self.average:
            self.average.update_parameters(self.model)
        self.step += 1
        if self.step < steps:  # after the last one the epoch ends
            self.save()

    def last(self) -> dict[str, Any] | None:
        """What the checkpoint holds; of several processes the first looks at it first, for it may set it aside."""
        if self.checkpoint is None:
            return None
        with _parallel.after_the_first():
            return self.checkpoint.load()

    def save(self, *, epoch_ended: bool = False) -> None:
        """Writes a checkpoint if it is time; of several processes the first does."""
        if self.checkpoint and not _parallel.rank() and self.checkpoint.due(epoch_ended=epoch_ended):
            self.checkpoint.save(self.state())

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `restore` makes what follows the same."""
        on_cuda = self.data[0].is_cuda
        return {
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "scores": self.scores,
            "seen": torch.stack(self.seen) if self.seen else torch.empty(0),
            "best": self.best,
            "model": dict(self.model.state_dict()),
            "average": dict(self.average.state_dict()) if self.average else {},
            "optimiser": self.optimiser.state_dict(),
            "order": self.begun,
            "chance": torch.get_rng_state(),
            "chance_cuda": torch.cuda.get_rng_state() if on_cuda else torch.empty(0),
        }

    def restore(self, state: dict[str, Any]) -> None:
        device = self.data[0].device
        self.epoch, self.step = state["epoch"], state["step"]
        self.losses, self.scores = state["losses"], state["scores"]
        self.seen = list(state["seen"].to(device))
        self.best = {name: value.to(device) for name, value in state["best"].items()}
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.order.set_state(state["order"])
        torch.set_rng_state(state["chance"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["chance_cuda"])


def mean_loss(seen: Tensor, examples: int, epoch: int) -> float:
    """The mean over an epoch's examples of the losses of its steps. Raises Diverged at the first that is not finite."""
    wrong = (~seen.isfinite()).nonzero()
    if len(wrong):
        step = int(wrong[0])
        raise Diverged(f"The training loss was {seen[step].item()} in step {step + 1} of epoch {epoch + 1}.")
    return seen.sum().item() / examples


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows it slowly; after the first step they are equal."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def old(model: nn.Module) -> list[nn.Parameter]:
    """The weights that learn and came from elsewhere, as the model or a part of it tells by its `origin`.

    Raises ValueError where none of those that learn came from elsewhere, or none did not.
    """
    came = set()
    for place, part in model.named_modules():
        origin: Callable[[], dict[str, str]] | None = getattr(part, "origin", None)
        if origin is not None:
            names = (name for name, where in origin().items() if where == "pretrained")
            came |= {f"{place}.{name}" if place else name for name in names}
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found = [weight for name, weight in learning.items() if name in came]
    if not found or len(found) == len(learning):
        many = "none" if not found else "all"
        raise ValueError(f"warm_up_new trains new weights first; of the weights that learn here {many} are pretrained.")
    return found
