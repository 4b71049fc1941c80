"""What the tasks on texts share: where a text comes from, how it is cut into examples."""

from collections.abc import Mapping
from pathlib import Path
from platform import python_version
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor
from torch.nn import functional as F

from tasks._corpora import BYTES, TEXT8, corpus, windows
from tasks._data import content_key
from tasks._labelled import SPLITS, UNASKED, Labelled, LabelledKnobs, streams
from tasks._language import ALPHABET, language

SYMBOLS = {"generated": len(ALPHABET), "python": BYTES, "enwik8": BYTES, "text8": len(TEXT8)}


class TextKnobs(LabelledKnobs):
    """A task's own Config says what its sources are, in a knob `source`."""

    length: Annotated[int, Field(ge=2)] = 128
    """symbols of an example"""
    distance: NonNegativeInt = 8
    """words between a subject and its verb in the generated language, on average; elsewhere it does nothing"""


class Text(Labelled):
    """A task on texts: its data stand in a folder named after the knobs that are not idle."""

    def __init__(self, config: Any, data: Path):
        super().__init__(config, data)
        self.data = data
        self.recipe = {knob: value for knob, value in self.recipe.items() if knob not in config.idle()}
        if config.source == "python":
            self.recipe["python"] = python_version()
        self.folder = data / self.name / content_key(self.recipe)

    def cut(self, size: int, stride: int) -> Mapping[str, np.ndarray]:
        """Windows [examples, size] of every split."""
        config = self.config
        counts = {split: getattr(config, split) for split in SPLITS}
        if config.source == "generated":
            return {split: self.made(split, count, size) for split, count in counts.items()}
        texts = self.texts()
        return {
            split: windows(texts[split], split, count, size=size, stride=stride, data_seed=config.data_seed)
            for split, count in counts.items()
        }

    def texts(self) -> Mapping[str, np.ndarray]:
        """The symbols of each split of a source that is not generated."""
        return corpus(self.config.source, self.data)

    def made(self, split: str, count: int, size: int) -> np.ndarray:
        """Texts of the generated language, each from its start."""
        drawn = [chance.random(size) for chance in streams(self.config.data_seed, split, count)]
        return language(self.config.distance).texts(np.stack(drawn))


def unigram(known: Tensor, target: Tensor, symbols: int) -> float:
    """Mean cross-entropy in nats of giving each symbol its frequency among those known, one added to each count."""
    counts = torch.bincount(known[known != UNASKED], minlength=symbols).double() + 1
    asked = target[target != UNASKED]
    return F.nll_loss((counts / counts.sum()).log().expand(len(asked), -1), asked.long()).item()
