"""List operations: the value of nested minima, maxima, medians and sums over digits, read as a sequence of symbols.

Nangia and Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", 2018. https://arxiv.org/abs/1804.06028
As in Tay et al., "Long Range Arena", 2020, section 2.2.1. https://arxiv.org/abs/2011.04006
[MAX 2 9 [MIN 4 7 ] 0 ] is 9: MIN, MAX, the whole part of the MEDian, and the SuM modulo 10, nested. An operator and its
bracket are one symbol, parentheses are left out, and a padding symbol, one as any other, fills what is left.

accuracy, loss, valid_accuracy, valid_loss, train_loss, best_epoch, epochs, chance: see tasks/_labelled.py; an answer is
one of ten digits. Minima and maxima make 0 and 9 the commonest, so `chance` is above 1 / 10: near 0.16. What needs no
tree gets further: with the default knobs the first operator alone tells 0.31, and with the digits right below it 0.53.

Sources: `generated` draws trees by the arena's rule; its sizes are length 2000, min_length 500, depth 10, arguments 10
and 96,000, 2,000 and 2,000 examples. `lra` reads its files basic_train.tsv, basic_val.tsv and basic_test.tsv in the
data folder's listops/lra/, of each the first that many examples, and evaluates every one.

Departs from the arena: an expression's hash says to which split it may belong, eight tenths of all to training, so that
splits share none; the same one may come twice within a split, which very short ones do.
"""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from tasks._labelled import BETTER, SPLITS, Arrays, Labelled, LabelledKnobs, Progress, streams
from tasks._listops import END, arena, expression, padded, value
from tasks._port import Port
from tasks._registry import register

SHORTEST = 4  # an operator, two digits and the bracket


class Config(LabelledKnobs):
    source: Literal["generated", "lra"] = "generated"
    """expressions drawn here, or Long Range Arena's files in the data folder's listops/lra/"""
    length: Annotated[int, Field(gt=SHORTEST)] = 128
    """symbols of an example, padding too; an expression has fewer"""
    min_length: Annotated[int, Field(ge=1)] = 16
    """a drawn expression has more symbols than this"""
    depth: Annotated[int, Field(ge=2)] = 10
    """levels of a drawn expression, digits too"""
    arguments: Annotated[int, Field(ge=2)] = 10
    """most arguments of an operator; the least is 2"""
    nesting: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """chance that an argument is an operator again, above the deepest level"""

    cost_knobs: ClassVar[frozenset[str]] = frozenset({"length", "batch"})

    def idle(self) -> set[str]:
        return {"min_length", "depth", "arguments", "nesting", "data_seed"} if self.source == "lra" else set()

    @property
    def port(self) -> Port:
        return Port(inputs=END + 1, outputs=10, shape=(self.length,), symbols=True, once=True)

    @model_validator(mode="after")
    def expressions_fit(self) -> "Config":
        if self.source == "lra":
            return self
        if self.min_length + 1 >= self.length:
            raise ValueError(
                f"no expression has more than min_length {self.min_length} and fewer than length {self.length} symbols."
            )
        if self.longest <= self.min_length:
            raise ValueError(
                f"the longest expression of depth {self.depth} with {self.arguments} arguments has {self.longest}"
                f" symbols; min_length {self.min_length} asks for more."
            )
        return self

    @property
    def longest(self) -> int:
        """Symbols of the longest expression, as far as length allows."""
        symbols = 1
        for _ in range(1, self.depth):
            symbols = min(2 + self.arguments * symbols, self.length - 1)
        return symbols


@register("listops", Config, better=BETTER)
class ListOps(Labelled):
    """The task at one setting of its knobs."""

    name = "listops"
    config: Config

    def __init__(self, config: Config, data: Path):
        super().__init__(config, data)
        self.files = data / self.name / "lra"

    def generate(self, progress: Progress, workers: int) -> Arrays:
        del workers  # it is Python's own work, which threads do not share
        total, numbers = sum(getattr(self.config, split) for split in SPLITS), count(1)
        take = self.drawn if self.config.source == "generated" else self.given
        found: dict[str, np.ndarray] = {}
        for split in SPLITS:
            found[f"{split}_inputs"], found[f"{split}_target"] = take(split, lambda: progress(next(numbers), total))
        return found

    def drawn(self, split: str, done: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
        """Expressions of a split, padded, and what they are worth."""
        inputs, target = [], []
        for chance in streams(self.config.data_seed, split, getattr(self.config, split)):
            symbols = expression(chance, self.config, split)
            inputs.append(padded(symbols, self.config.length))
            target.append(value(symbols))
            done()
        return np.stack(inputs), np.array(target, np.uint8)

    def given(self, split: str, done: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
        """The same from Long Range Arena's files."""
        return arena(self.files, split, getattr(self.config, split), self.config.length, done)
