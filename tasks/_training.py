"""How long, how fast and in what way to train: the knobs that all tasks share, and the learning rate of every step.

Curves are those of the package timm with its defaults, a tenth after each third for `step`; written out here, since a
training that needs nothing else of timm should not wait for it. https://huggingface.co/docs/timm/reference/schedulers
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tasks._registry import TaskKnobs

CLIP = 1.0  # largest norm of the gradient of all weights together
Curve = Literal["cosine", "constant", "linear", "step", "tanh"]
Precision = Literal["float32", "bfloat16"]

CURVES: Mapping[Curve, Callable[[int, int], float]] = {  # the share of the peak in a step, of those after the warm-up
    "cosine": lambda step, steps: (1 + math.cos(math.pi * step / steps)) / 2,
    "constant": lambda *_: 1.0,
    "linear": lambda step, steps: 1 - step / steps,
    "step": lambda step, steps: 0.1 ** (3 * step // steps),
    "tanh": lambda step, steps: (1 - math.tanh(10 * step / steps - 7)) / 2,
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What a training loop goes by.

    rate: learning rate at its peak, reached after the share warm_up of all steps; after it follows the curve.
    The others are knobs of the same names, see TrainingKnobs.
    """

    epochs: int
    batch: int
    rate: float
    weight_decay: float
    warm_up: float
    curve: Curve = "cosine"
    clip: float = CLIP
    accumulate: int = 1
    precision: Precision = "float32"
    average: float = 0.0
    warm_up_new: int = 0

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of that many."""
        rising = round(self.warm_up * steps)
        if step < rising:
            return self.rate * (step + 1) / (rising + 1)
        return self.rate * CURVES[self.curve](step - rising, steps - rising)


class TrainingKnobs(TaskKnobs):
    """The knobs of a task that trains. A task's own Config adds what its data are; it may change the defaults."""

    neutral: ClassVar[Mapping[str, Any]] = {
        "curve": "cosine",
        "clip": CLIP,
        "accumulate": 1,
        "precision": "float32",
        "average": 0.0,
        "warm_up_new": 0,
        "start": "",
        "keep_weights": False,
    }

    epochs: PositiveInt = 10
    """passes over the training examples"""
    batch: PositiveInt = 32
    """examples a training step"""
    rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """learning rate at its peak"""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-2
    """AdamW's, on all weights that learn"""
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """share of all steps in which the rate rises"""
    curve: Curve = "cosine"
    """how the rate falls after that, as in timm; step takes a tenth after each third, constant does not fall"""
    clip: Annotated[float, Field(ge=0)] = CLIP
    """largest norm of the gradient of all weights together, above which it is shortened; 0 for none"""
    accumulate: PositiveInt = 1
    """parts into which a batch is cut, their gradients added up: less memory for the same step"""
    precision: Precision = "float32"
    """type of products in training and testing; bfloat16 is torch's autocast, weights and losses stay float32"""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of the old in a running mean of the weights after each step, which is then what is tested; 0 for none"""
    warm_up_new: NonNegativeInt = 0
    """epochs at first in which only weights that are not pretrained learn"""
    start: str = ""
    """weights to start from, all of them: a file that keep_weights left, or the id of its cell in this store"""
    keep_weights: bool = False
    """whether the final weights stay beside the row, as weights.safetensors"""

    training: ClassVar[frozenset[str]] = frozenset(
        {"epochs", "batch", "rate", "weight_decay", "warm_up"} | set(neutral)
    )

    step_knobs: ClassVar[frozenset[str]] = frozenset({"accumulate", "precision"})
    """knobs of training that change what a step costs, as cost_knobs do, where they are not neutral"""

    @property
    def examples_per_step(self) -> int:
        return self.batch

    @property
    def schedule(self) -> Schedule:
        return Schedule(**{name: getattr(self, name) for name in Schedule.__dataclass_fields__})

    @model_validator(mode="after")
    def parts_of_training_fit(self) -> "TrainingKnobs":
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate is {self.accumulate}, more than the {self.batch} examples of a batch.")
        if self.warm_up_new and self.warm_up_new >= self.epochs:
            raise ValueError(f"warm_up_new is {self.warm_up_new}; of {self.epochs} epochs fewer can be a warm-up.")
        return self
