"""WikiText-103 as tokens: good and featured articles of Wikipedia, cut by a tokenizer learned from the training split.

Merity et al., "Pointer Sentinel Mixture Models", 2016, section 4. https://arxiv.org/abs/1609.07843
Read are wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens, whose rare words are <unk>, or the same three files
that end in .raw, whose words are whole; either is 0.5 GB in all. The tokenizer is byte-pair encoding on bytes, from the
library tokenizers.
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks._labelled import SPLITS

FOLDER = "wikitext103"
WORDS = {"train": 103_227_021, "valid": 217_646, "test": 245_569}  # as published, each end of a line being one
SLACK = 1e-3  # published counts differ in the last digit
BATCH = 10_000  # lines
ADDRESS = "https://huggingface.co/datasets/Salesforce/wikitext"


def read(folder: Path) -> Mapping[str, list[str]]:
    """The lines of each split. Raises ValueError where a file is missing, doubled, or not as long as published."""
    found = {}
    for split in SPLITS:
        files = [file for ending in ("tokens", "raw") if (file := folder / f"wiki.{split}.{ending}").is_file()]
        if len(files) != 1:
            raise ValueError(
                f"{folder} should hold one of wiki.{split}.tokens and wiki.{split}.raw, found {len(files)};"
                f" WikiText-103 is at {ADDRESS}, 0.5 GB."
            )
        found[split] = lines_of(files[0], WORDS[split])
    return found


def lines_of(file: Path, published: int) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is damaged: byte {error.start:,} is no UTF-8.") from None
    lines = [f"{line}\n" for line in lines[:-1]] + [line for line in lines[-1:] if line]
    if abs((count := words(lines)) - published) > SLACK * published:
        raise ValueError(f"{file} is not the published file: expected {published:,} words, found {count:,}.")
    return lines


def words(lines: list[str]) -> int:
    """Words between blanks, and the ends of lines."""
    return sum(len(line.split()) + line.endswith("\n") for line in lines)


def tokens(texts: Mapping[str, list[str]], vocabulary: int) -> Mapping[str, np.ndarray]:
    """The numbers of each split's tokens, int32. Raises ValueError where the library tokenizers is not installed."""
    try:
        library = importlib.import_module("tokenizers")
    except ModuleNotFoundError:
        raise ValueError(
            "The source wikitext103 needs the package tokenizers; install it: pip install tokenizers."
        ) from None
    pieces = library.pre_tokenizers.ByteLevel
    learned = library.Tokenizer(library.models.BPE())
    learned.pre_tokenizer = pieces(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=sorted(pieces.alphabet()), show_progress=False
    )
    learned.train_from_iterator(texts["train"], trainer)
    return {split: np.concatenate(list(cut(learned, lines))) for split, lines in texts.items()}


def cut(learned: Any, lines: list[str]) -> Iterator[np.ndarray]:
    """The tokens of the lines, some thousands at a time, as what the library tells of a line is large."""
    for first in range(0, len(lines), BATCH):
        told = learned.encode_batch(lines[first : first + BATCH])
        yield np.array([token for line in told for token in line.ids], np.int32)
