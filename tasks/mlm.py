"""Masked language modelling: some symbols of a text are hidden, and every one of them is asked. Not causal.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018, section 3.1 and appendix A.1.
https://arxiv.org/abs/1810.04805
In each example a share of the places, 15 % by default, is drawn and asked. Of these a symbol that stands for nothing
else takes the place of 80 % on average, a random symbol that of 10 %, and 10 % are left as they are.
The sources are those of charlm.py, its files found where charlm finds them, and `wikitext103`: tokens of WikiText-103
(_wikitext.py), read from <data>/mlm/wikitext103/. Examples are windows, or made texts, as there; those of validation
and test do not overlap.

perplexity: exp of the mean of -log of the probability given to the right symbol over the places that are asked, at
least 1, lower is better. valid_perplexity: on validation examples.
accuracy: share of these places where the likeliest symbol is the right one, 0 to 1. No floor is stated: with both sides
seen, the generated language's is not the one that charlm states.
chance_perplexity: perplexity of giving each symbol its frequency among those asked in training, one added to each.
word_perplexity, for wikitext103 alone: perplexity to the power of tokens a word in the test split, words lying between
blanks and each end of a line being one; so that vocabularies can be compared.
loss, valid_accuracy, valid_loss, train_loss, best_epoch, epochs, chance: see tasks/_labelled.py.

Departs from the paper: the places are drawn once, not anew in each epoch, and their number is the same in every
example; words of one sentence pair are not joined, and no second task is trained.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from tasks import _wikitext
from tasks._checkpoint import Checkpoint
from tasks._data import load
from tasks._labelled import BETTER, SPLITS, UNASKED, Answers, Arrays, Progress
from tasks._port import Port
from tasks._registry import Better, Make, Trained, register
from tasks._texts import SYMBOLS, Text, TextKnobs, unigram

RANKS: Better = {"perplexity": "lower", "valid_perplexity": "lower"}
MASKED, RANDOM = 0.8, 0.1  # shares of the asked places; the rest is left as it is


class Config(TextKnobs):
    source: Literal["generated", "python", "enwik8", "text8", "wikitext103"] = "generated"
    """what text is read"""
    asked: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """share of the places of an example that are asked, one at least"""
    vocabulary: Annotated[int, Field(ge=257, le=2**20)] = 8192
    """different tokens of wikitext103, learned from its training split; elsewhere it does nothing"""

    cost_knobs: ClassVar[frozenset[str]] = frozenset({"source", "length", "vocabulary", "batch"})

    def idle(self) -> set[str]:
        used = {"generated": "distance", "wikitext103": "vocabulary"}
        return set(used.values()) - {used.get(self.source)}

    @property
    def symbols(self) -> int:
        """Different symbols of the text; the one that hides others is the next number."""
        return self.vocabulary if self.source == "wikitext103" else SYMBOLS[self.source]

    @property
    def port(self) -> Port:
        return Port(inputs=self.symbols + 1, outputs=self.symbols, shape=(self.length,), symbols=True)


@register("mlm", Config, better={**BETTER, **RANKS})
class MLM(Text):
    """The task at one setting of its knobs."""

    name = "mlm"

    @cached_property
    def wikitext(self) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        """The tokens of each split, and how many tokens and words the test split has."""
        lines = _wikitext.read(self.data / self.name / _wikitext.FOLDER)
        tokens = _wikitext.tokens(lines, self.config.vocabulary)
        return tokens, np.array([len(tokens["test"]), _wikitext.words(lines["test"])])

    def texts(self) -> Mapping[str, np.ndarray]:
        return self.wikitext[0] if self.config.source == "wikitext103" else super().texts()

    def generate(self, progress: Progress, workers: int) -> Arrays:
        del workers  # a tokenizer takes all cores by itself, the rest takes seconds
        config, found = self.config, {}
        for split, window in self.cut(config.length, config.length).items():
            hidden = [
                hide(symbols, source_of_chance(config.data_seed, split, number), config)
                for number, symbols in enumerate(window)
            ]
            found[f"{split}_inputs"], found[f"{split}_target"] = (np.stack(part) for part in zip(*hidden, strict=True))
        if config.source == "wikitext103":
            found["counts"] = self.wikitext[1]
        progress(1, 1)
        return found

    def told(self, splits: Mapping[str, tuple[Tensor, Tensor]], answers: Answers | Tensor) -> dict[str, float]:
        del answers
        return {"chance_perplexity": math.exp(unigram(splits["train"][1], splits["test"][1], self.config.symbols))}

    def run(self, make: Make, *, seed: int, device: str, checkpoint: Checkpoint | None = None) -> Trained:
        trained = super().run(make, seed=seed, device=device, checkpoint=checkpoint)
        told = {f"{split}perplexity": math.exp(trained.result[f"{split}loss"]) for split in ("", "valid_")}
        if self.config.source == "wikitext103":
            tokens, words = load(self.folder, self.recipe, "counts").tolist()
            told["word_perplexity"] = math.exp(trained.result["loss"] * tokens / words)
        return replace(trained, result=trained.result | told)


def hide(symbols: np.ndarray, chance: np.random.Generator, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """An example's inputs and targets [length]."""
    kind = np.int16 if config.symbols < 2**15 else np.int32
    inputs, target = symbols.astype(kind), np.full(len(symbols), UNASKED, np.int32)
    places = chance.permutation(len(symbols))[: max(1, round(config.asked * len(symbols)))]
    target[places] = symbols[places]
    lot, other = chance.random(len(places)), chance.integers(config.symbols, size=len(places))
    instead = np.where(lot < MASKED, config.symbols, np.where(lot < MASKED + RANDOM, other, symbols[places]))
    inputs[places] = instead
    return inputs, target


def source_of_chance(data_seed: int, split: str, number: int) -> np.random.Generator:
    """For the places of an example; apart from the one that draws its text."""
    return np.random.default_rng(np.random.SeedSequence(data_seed, spawn_key=(SPLITS.index(split), number, 1)))
