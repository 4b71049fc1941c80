"""The one training loop of every trained task.

AdamW, a linear warm-up and then a cosine to zero, gradients clipped to norm 1. After every epoch the model is scored on
validation data, and the weights of the best epoch are what remains. Test data never come near it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
CLIP = 1.0  # largest norm of the gradient of all weights together


class Diverged(Exception):
    """A loss was not a finite number."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    rate: learning rate at its peak, reached after the share warm_up of all steps.
    """

    epochs: int
    batch: int
    rate: float
    weight_decay: float
    warm_up: float

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of that many."""
        rising = round(self.warm_up * steps)
        if step < rising:
            return self.rate * (step + 1) / (rising + 1)
        return self.rate * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


@dataclass(frozen=True, kw_only=True)
class History:
    """One value an epoch, and the epoch whose weights were kept, counted from 1."""

    train_loss: list[float]
    valid_score: list[float]
    best_epoch: int


def train(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    loss: Loss,
    validate: Callable[[nn.Module], float],
    schedule: Schedule,
    seed: int,
) -> History:
    """Trains on (inputs, targets), which lie on the model's device; leaves the weights of the best epoch in the model.

    validate: the model's score on validation data, lower is better; of equal scores the first counts.
    seed: of the order of the data, the same for all models, and of what the model draws while it trains.
    Raises Diverged when a training loss or a score is not finite.
    """
    torch.manual_seed(seed)  # else dropout would depend on how many numbers the weights took
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=schedule.rate, weight_decay=schedule.weight_decay)
    examples, device = len(data[0]), data[0].device
    steps = math.ceil(examples / schedule.batch)
    losses, scores, best = [], [], {}
    for epoch in range(schedule.epochs):
        model.train()
        seen = []
        for step, chosen in enumerate(torch.randperm(examples, generator=order).to(device).split(schedule.batch)):
            rate = schedule.rate_at(epoch * steps + step, schedule.epochs * steps)
            seen.append(len(chosen) * update(model, (data[0][chosen], data[1][chosen]), loss, optimiser, rate))
        losses.append(mean_loss(torch.stack(seen), examples, epoch))
        scores.append(validate(model))
        if not math.isfinite(scores[-1]):
            raise Diverged(f"The validation score was {scores[-1]} after epoch {epoch + 1}.")
        if scores[-1] < min(scores[:-1], default=math.inf):
            best = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best)
    return History(train_loss=losses, valid_score=scores, best_epoch=scores.index(min(scores)) + 1)


def update(
    model: nn.Module, batch: tuple[Tensor, Tensor], loss: Loss, optimiser: torch.optim.Optimizer, rate: float
) -> Tensor:
    """One step at a learning rate; returns the loss before it, left on the device so that nothing waits for it.

    It ends without gradients, so that what a step needs is seen whole between its start and its end.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate
    value = loss(model(batch[0]), batch[1])
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimiser.step()
    optimiser.zero_grad()
    return value.detach()


def mean_loss(seen: Tensor, examples: int, epoch: int) -> float:
    """The mean over an epoch's examples of the losses of its steps. Raises Diverged at the first that is not finite."""
    wrong = (~seen.isfinite()).nonzero()
    if len(wrong):
        step = int(wrong[0])
        raise Diverged(f"The training loss was {seen[step].item()} in step {step + 1} of epoch {epoch + 1}.")
    return seen.sum().item() / examples


def predict(model: nn.Module, inputs: Tensor, batch: int) -> Tensor:
    """The model's answers in evaluation mode, without gradients, in batches of that many."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(part) for part in inputs.split(batch)])
