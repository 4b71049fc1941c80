"""Language modelling letter by letter: after each symbol of a text the next one is asked. Causal.

Four sources. `generated`: a made-up language in which verbs agree with far subjects (_language.py), whose entropy is
known; every example is a text of its own from its start. `python`: the sources of the Python library that is installed,
bytes. `enwik8`, `text8`: the published files and splits (_corpora.py), read from <data>/charlm/enwik8 and so on.
Examples of these three are windows: training windows start anywhere in the training split; those of the other splits
start at multiples of the stride, and each is read by itself, without what stands before it.

What counts: a window gives `length` symbols and asks for the `length` that follow each of them. In training all count.
In validation and test the last `stride` of each window count, so that each has at least length - stride + 1 symbols
before it and none counts twice; stride 0 counts all, with 1 to `length` symbols before them.

bits_per_byte: mean over the counted symbols of -log2 of the probability given to the right one, at least 0, lower is
better; bits a character where a source has fewer than 256 symbols. valid_bits_per_byte: on validation windows.
floor: bits that remain to the best predictor on average over the counted places, exactly; generated language only.
forgetful: the same for the best predictor that forgets every subject at once; generated language only.
agreement: share of verbs whose ending is the likeliest symbol where it stands, 0 to 1, higher is better; of the counted
places, without the last of a window; generated language only, and only where a verb is among them. It shows the reach
best, for endings are few among the symbols. agreement_chance: the same of always giving the commonest of them.
chance: bits_per_byte of giving each symbol its frequency in the training examples, one added to each count.
chance_accuracy: accuracy of always giving the commonest symbol of the training examples.
accuracy, loss (bits_per_byte in nats), valid_accuracy, valid_loss, train_loss, best_epoch, epochs: see
tasks/_labelled.py.

Departs from the published results on enwik8 and text8, which count the whole test split: as many windows as asked count
here, drawn from all of it by data_seed.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import NonNegativeInt, model_validator
from torch import Tensor

from tasks._checkpoint import Checkpoint
from tasks._labelled import BETTER, UNASKED, Answers, Arrays, Progress, chance
from tasks._language import ALPHABET, language
from tasks._port import Port
from tasks._registry import Better, Make, Trained, register
from tasks._texts import SYMBOLS, Text, TextKnobs, unigram


class Config(TextKnobs):
    source: Literal["generated", "python", "enwik8", "text8"] = "generated"
    """what text is read"""
    stride: NonNegativeInt = 0
    """symbols at the end of each validation and test window that count, 0 for all; windows lie this far apart"""

    cost_knobs: ClassVar[frozenset[str]] = frozenset({"source", "length", "batch"})

    def idle(self) -> set[str]:
        return set() if self.source == "generated" else {"distance"}

    @property
    def port(self) -> Port:
        symbols = SYMBOLS[self.source]
        return Port(inputs=symbols, outputs=symbols, shape=(self.length,), causal=True, symbols=True)

    @property
    def counted(self) -> int:
        """Symbols of a validation or test window that count."""
        return self.stride or self.length

    @model_validator(mode="after")
    def a_window_holds_what_counts(self) -> "Config":
        if self.stride > self.length:
            raise ValueError(f"stride is {self.stride}, more than the {self.length} symbols of a window; lower it.")
        return self


RANKS: Better = {"bits_per_byte": "lower", "valid_bits_per_byte": "lower", "agreement": "higher"}


@register("charlm", Config, better={**BETTER, **RANKS})
class CharLM(Text):
    """The task at one setting of its knobs."""

    name = "charlm"

    def generate(self, progress: Progress, workers: int) -> Arrays:
        del workers  # it takes seconds
        config, found = self.config, {}
        for split, window in self.cut(config.length + 1, config.counted).items():
            target = window[:, 1:].astype("int16")
            if split != "train":
                target[:, : config.length - config.counted] = UNASKED
            found[f"{split}_inputs"], found[f"{split}_target"] = window[:, :-1].copy(), target
        progress(1, 1)
        return found

    def told(self, splits: Mapping[str, tuple[Tensor, Tensor]], answers: Answers | Tensor) -> dict[str, float]:
        known, asked = splits["train"][1], splits["test"][1]
        found = {
            "chance": unigram(known, asked, self.config.port.outputs) / math.log(2),
            "chance_accuracy": chance(known, asked),
        }
        if self.config.source == "generated":
            found |= self.floors() | agreement(asked, answers)
        return found

    def floors(self) -> dict[str, float]:
        """The exact floors of the counted places, the first symbol of a text being given."""
        config = self.config
        languages = {"floor": language(config.distance), "forgetful": language(config.distance, agrees=False)}
        return {
            name: float(spoken.entropies(config.length + 1)[-config.counted :].mean())
            for name, spoken in languages.items()
        }

    def run(self, make: Make, *, seed: int, device: str, checkpoint: Checkpoint | None = None) -> Trained:
        trained = super().run(make, seed=seed, device=device, checkpoint=checkpoint)
        bits = {f"{split}bits_per_byte": trained.result[f"{split}loss"] / math.log(2) for split in ("", "valid_")}
        return replace(trained, result=trained.result | bits)


def agreement(asked: Tensor, answers: Answers | Tensor) -> dict[str, float]:
    """How often verbs' endings, the only symbols before a full stop, are right; nothing where there are none."""
    endings = (asked[:, 1:] == ALPHABET.index(".")) & (asked[:, :-1] != UNASKED)
    if not endings.any():
        return {}
    right = asked[:, :-1][endings]
    return {
        "agreement": (answers.argmax(-1)[:, :-1][endings] == right).double().mean().item(),
        "agreement_chance": (right == right.mode().values).double().mean().item(),
    }
