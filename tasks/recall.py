"""Multi-query associative recall: after pairs of keys and values, every key that comes again asks for its value.

Arora et al., "Zoology: Measuring and Improving Recall in Efficient Language Models", 2023, section 3.
https://arxiv.org/abs/2312.04927
An example opens with `pairs` different keys, each followed by its value; after it keys come again at places drawn by a
power law, near ones more often, among padding; at each, and nowhere else, its value is asked. Causal.

accuracy, loss, valid_accuracy, valid_loss, train_loss, best_epoch, epochs, chance: see tasks/_labelled.py; an answer is
one queried value, chance is about 1 / values. A model that never looks back stays at chance; attention reaches 1.

Departs from the paper: keys and values are drawn from vocabularies of their own, of equal size, as in its code; the
padding between queries is one symbol instead of random ones.
"""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from tasks._labelled import BETTER, SPLITS, UNASKED, Arrays, Labelled, LabelledKnobs, Progress, streams
from tasks._port import Port
from tasks._registry import register

PAD = 0


class Config(LabelledKnobs):
    length: PositiveInt = 64
    """symbols of an example"""
    pairs: PositiveInt = 8
    """keys, each with its value, at the start of an example; all are asked for once"""
    symbols: Annotated[int, Field(ge=2)] = 64
    """different keys, and as many different values"""
    power: Annotated[float, Field(gt=0, le=1)] = 0.1
    """exponent of the law by which queries are placed; less puts more of them right after the pairs"""

    cost_knobs: ClassVar[frozenset[str]] = frozenset({"length", "symbols", "batch"})

    @property
    def port(self) -> Port:
        return Port(inputs=2 * self.symbols + 1, outputs=self.symbols, shape=(self.length,), causal=True, symbols=True)

    @model_validator(mode="after")
    def fits(self) -> "Config":
        if 3 * self.pairs > self.length:
            raise ValueError(
                f"{self.pairs} pairs and a query for each take {3 * self.pairs} symbols; length is {self.length}."
            )
        if self.pairs > self.symbols:
            raise ValueError(f"{self.pairs} pairs need as many different keys; symbols is {self.symbols}.")
        return self


@register("recall", Config, better=BETTER)
class Recall(Labelled):
    """The task at one setting of its knobs."""

    name = "recall"

    def generate(self, progress: Progress, workers: int) -> Arrays:
        del workers  # it takes less than a second
        found: dict[str, np.ndarray] = {}
        for split in SPLITS:
            size = getattr(self.config, split)
            drawn = [example(chance, self.config) for chance in streams(self.config.data_seed, split, size)]
            found[f"{split}_inputs"], found[f"{split}_target"] = (np.stack(part) for part in zip(*drawn, strict=True))
        progress(1, 1)
        return found


def example(chance: np.random.Generator, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and targets [length]: 0 pads, keys are 1 to symbols, values follow; a target is a value's number."""
    keys = chance.choice(config.symbols, config.pairs, replace=False)
    values = chance.integers(config.symbols, size=config.pairs)
    inputs = np.full(config.length, PAD, np.int16 if config.symbols < 2**14 else np.int32)
    target = np.full(config.length, UNASKED, np.int32)
    inputs[: 2 * config.pairs : 2], inputs[1 : 2 * config.pairs : 2] = 1 + keys, 1 + config.symbols + values
    room = np.arange(1, config.length - 2 * config.pairs + 1)
    law = room ** (config.power - 1.0)
    places = 2 * config.pairs + chance.choice(len(room), config.pairs, replace=False, p=law / law.sum())
    inputs[places], target[places] = 1 + keys, values
    return inputs, target
