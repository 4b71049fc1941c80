"""One step of a training, and the answers of a model in batches, in a precision.

A step is the same however its batch is cut: into parts of which memory holds one at a time, or among processes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tasks import _parallel
from tasks._training import CLIP, Precision, Schedule

Loss = Callable[[Tensor, Tensor], Tensor]
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class How:
    """How a step is made; see the knobs of the same names, and Training for `weigh`."""

    clip: float = CLIP
    accumulate: int = 1
    precision: Precision = "float32"
    weigh: Callable[[Tensor], float] = len


AS_USUAL = How()


def how(schedule: Schedule) -> How:
    """The part of a schedule that says what a step does."""
    return How(schedule.clip, schedule.accumulate, schedule.precision)


def update(
    model: nn.Module,
    batch: Pair,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    rate: float,
    how: How = AS_USUAL,
) -> Tensor:
    """One step at a learning rate; returns the loss before it, left on the device so that nothing waits for it.

    It ends without gradients, so that what a step needs is seen whole between its start and its end.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate
    value = gradient(model, batch, loss, how)
    if how.clip:
        nn.utils.clip_grad_norm_(model.parameters(), how.clip)
    optimiser.step()
    optimiser.zero_grad()
    return value


def gradient(model: nn.Module, batch: Pair, loss: Loss, how: How) -> Tensor:
    """Leaves the gradient of a batch's loss in the weights; returns the loss."""
    if _parallel.size() > 1:
        return shared(model, batch, loss, how)
    if how.accumulate == 1:
        return whole(model, batch, loss, how)
    return torch.stack(in_parts(model, batch, loss, how, how.weigh(batch[1]))).sum()


def shared(model: nn.Module, batch: Pair, loss: Loss, how: How) -> Tensor:
    """The same in each of several processes, which hold the same batch and work on their shares of it."""
    total, own = how.weigh(batch[1]), (_parallel.share(batch[0]), _parallel.share(batch[1]))
    values = in_parts(model, own, loss, how, total) if total else []
    nothing = torch.tensor(0.0 if total else math.nan, device=batch[0].device)  # no mean where no answer is asked
    value = _parallel.add_up(model, torch.stack(values).sum() if values else nothing)
    _parallel.agree(model.buffers())
    return value


def whole(model: nn.Module, batch: Pair, loss: Loss, how: How) -> Tensor:
    """The same of all at once."""
    with products(how.precision, batch[0].device):
        answers = model(batch[0])
    value = loss(plain(answers), batch[1])
    value.backward()
    return value.detach()


def in_parts(model: nn.Module, batch: Pair, loss: Loss, how: How, total: float) -> list[Tensor]:
    """The same, part after part; parts count by the answers they ask of that many, so that the sum of all is a mean."""
    values = []
    for inputs, target in zip(*(tensor.tensor_split(how.accumulate) for tensor in batch), strict=True):
        if len(target) and (share := how.weigh(target) / total):
            part = whole(model, (inputs, target), lambda given, asked, share=share: share * loss(given, asked), how)
            values.append(part)
    return values


def predict(model: nn.Module, inputs: Tensor, batch: int, precision: Precision = "float32") -> Tensor:
    """The model's answers in evaluation mode, without gradients, in batches of that many."""
    with torch.inference_mode():
        return torch.cat(list(predictions(model, inputs, batch, precision)))


def predictions(model: nn.Module, inputs: Tensor, batch: int, precision: Precision = "float32") -> Iterator[Tensor]:
    """The same, batch after batch, for those who need not hold all of them."""
    model.eval()
    for part in inputs.split(batch):
        with torch.inference_mode(), products(precision, inputs.device):
            answers = plain(model(part))
        yield answers


def products(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """In which matrix products have that type."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, torch.bfloat16)


def plain(answers: Tensor) -> Tensor:
    """Answers at the precision in which errors are taken."""
    return answers.float() if answers.dtype == torch.bfloat16 else answers
