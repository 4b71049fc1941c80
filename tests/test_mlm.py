"""Masked prediction: which places are asked and what hides them, perplexities, WikiText-103's files and tokens."""

import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnbench.models import maker
from mechanisms import configure
from tasks import _corpora, _wikitext
from tasks._labelled import UNASKED, streams
from tasks._language import ALPHABET, language
from tasks.mlm import MLM, Config, source_of_chance
from tests.splits import read

SMALL = {"train": 40, "valid": 10, "test": 10, "length": 40, "distance": 3}
HIDDEN = len(ALPHABET)  # the symbol that hides others in the generated language


def made(folder: Path, **knobs: object) -> MLM:
    task = MLM(configure(Config, {**SMALL, **knobs}, of="mlm"), folder)
    task.prepare(lambda *_: None, 1)
    return task


class Constant(nn.Module):
    """The same answer everywhere, whatever is given."""

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer.expand(*x.shape, -1)


# --- what is asked


def test_what_is_asked_is_the_text_and_what_is_not_asked_is_given_as_it_is(tmp_path):
    for split in ("train", "valid", "test"):
        inputs, target = (part.numpy() for part in read(made(tmp_path), split))
        texts = np.where(target == UNASKED, inputs, target)
        given = np.take_along_axis(language(3).distributions(texts), texts[:, :, None], 2)
        assert (given > 0).all()
        assert set((target != UNASKED).sum(1)) == {6}


@pytest.mark.parametrize(("asked", "count"), [(0.15, 6), (0.5, 20), (0.001, 1)])
def test_the_same_share_of_every_example_is_asked_one_place_at_least(tmp_path, asked, count):
    target = read(made(tmp_path, asked=asked), "valid")[1]
    assert set((target != UNASKED).sum(1).tolist()) == {count}


def test_of_what_is_asked_80_parts_in_100_are_hidden_10_random_and_10_kept(tmp_path):
    inputs, target = (part.numpy() for part in read(made(tmp_path, train=4000), "train"))
    asked = target != UNASKED
    given, right = inputs[asked], target[asked]
    symbols = len(ALPHABET)
    expected = {"hidden": 0.8, "kept": 0.1 + 0.1 / symbols, "other": 0.1 * (1 - 1 / symbols)}
    found = {"hidden": given == HIDDEN, "kept": given == right, "other": (given != HIDDEN) & (given != right)}
    for kind, share in expected.items():
        assert found[kind].mean() == pytest.approx(share, abs=4 * (share * (1 - share) / len(given)) ** 0.5)
    others = np.bincount(given[found["other"]], minlength=symbols)
    assert others.min() > 0.5 * others.mean()


def test_every_place_is_asked_as_often_as_another(tmp_path):
    asked = (read(made(tmp_path, train=4000), "train")[1] != UNASKED).double().mean(0)
    assert (asked - 0.15).abs().max() < 5 * (0.15 * 0.85 / 4000) ** 0.5


def test_places_are_fixed_by_the_data_seed_and_differ_between_examples(tmp_path):
    def target(split: str, **knobs: object) -> Tensor:
        return read(made(tmp_path, **knobs), split)[1]

    assert torch.equal(target("valid"), target("valid", valid=12)[:10])
    places = [tuple(row) for split in ("train", "valid", "test") for row in (target(split) != UNASKED).tolist()]
    assert len(set(places)) > 55
    assert not torch.equal(target("valid") != UNASKED, target("valid", data_seed=1) != UNASKED)
    assert made(tmp_path / "again").prepare(lambda *_: None, 1) == made(tmp_path).prepare(lambda *_: None, 1)


def test_the_places_do_not_follow_from_the_draws_that_made_the_text():
    text = [chance.random() for chance in streams(0, "valid", 20)]
    places = [source_of_chance(0, "valid", number).random() for number in range(20)]
    assert len({*text, *places}) == 40


# --- what is told


def test_perplexities_and_chances_are_what_counting_by_hand_gives(tmp_path):
    task = made(tmp_path, epochs=1, rate=1e-9, weight_decay=0.0)
    answer = torch.randn(len(ALPHABET), generator=torch.Generator().manual_seed(0))
    told = task.run(lambda _: Constant(answer), seed=0, device="cpu").result
    asked = {
        split: [symbol for symbol in read(task, split)[1].flatten().tolist() if symbol != UNASKED]
        for split in ("train", "valid", "test")
    }
    logs = (answer - answer.exp().sum().log()).tolist()
    for split, name in (("test", "perplexity"), ("valid", "valid_perplexity")):
        mean = -sum(logs[symbol] for symbol in asked[split]) / len(asked[split])
        assert told[name] == pytest.approx(math.exp(mean), rel=1e-4)
    known = Counter(asked["train"])
    mean = sum(math.log((known[symbol] + 1) / (known.total() + len(ALPHABET))) for symbol in asked["test"])
    assert told["chance_perplexity"] == pytest.approx(math.exp(-mean / len(asked["test"])))
    assert told["chance"] == pytest.approx(asked["test"].count(known.most_common(1)[0][0]) / len(asked["test"]))
    assert not {"floor", "word_perplexity"} & set(told)


def test_a_small_training_beats_chance(tmp_path):
    knobs = {
        "train": 1536,
        "valid": 64,
        "test": 64,
        "length": 24,
        "distance": 0,
        "asked": 0.2,
        "epochs": 3,
        "rate": 5e-3,
    }
    task = made(tmp_path, **knobs)
    make = maker("isotropic", {"channels": 32, "depth": 2}, ("full", {}), 0)
    told = task.run(make, seed=0, device="cpu").result
    assert told["perplexity"] < 0.8 * told["chance_perplexity"]
    assert told["accuracy"] > told["chance"] + 0.1


def test_the_symbol_that_hides_is_given_and_never_asked(tmp_path):
    task = made(tmp_path)
    assert (task.config.port.inputs, task.config.port.outputs) == (HIDDEN + 1, HIDDEN)
    assert not task.config.port.causal
    inputs, target = read(task, "train")
    assert inputs.max() == HIDDEN
    assert target.max() < HIDDEN


def test_files_are_looked_for_where_charlm_keeps_them(tmp_path):
    with pytest.raises(ValueError, match=f"no file {tmp_path}/charlm/enwik8"):
        made(tmp_path, source="enwik8")
    assert set(_corpora.FILES) == {"enwik8", "text8"}


# --- WikiText-103

LINES = {
    "train": "\n = Robert = \n\n The cat <unk> sat . \n" * 40,
    "valid": " The dog . \n" * 40,
    "test": " A cat @-@ dog \n" * 40,
}


def files(monkeypatch: pytest.MonkeyPatch, data: Path, ending: str = "tokens") -> Path:
    """The three files, small, with their numbers of words declared to be the published ones."""
    folder = data / "mlm" / "wikitext103"
    folder.mkdir(parents=True)
    for split, content in LINES.items():
        (folder / f"wiki.{split}.{ending}").write_text(content, encoding="utf-8")
    monkeypatch.setattr(_wikitext, "WORDS", {"train": 480, "valid": 160, "test": 200})
    return folder


def letter_by_letter(texts: dict[str, list[str]], vocabulary: int) -> dict[str, np.ndarray]:
    """Stands in for the tokenizer: every byte is a token."""
    assert vocabulary == 300
    return {split: np.frombuffer("".join(lines).encode(), np.uint8).astype(np.int32) for split, lines in texts.items()}


@pytest.mark.parametrize("ending", ["tokens", "raw"])
def test_windows_of_the_three_files_are_asked_and_perplexity_is_told_a_word_too(tmp_path, monkeypatch, ending):
    files(monkeypatch, tmp_path, ending)
    monkeypatch.setattr(_wikitext, "tokens", letter_by_letter)
    task = made(tmp_path, source="wikitext103", vocabulary=300, epochs=1, rate=1e-9, weight_decay=0.0, batch=8)
    assert (task.config.port.inputs, task.config.port.outputs) == (301, 300)
    for split, content in LINES.items():
        inputs, target = (part.numpy() for part in read(task, split))
        for row in np.where(target == UNASKED, inputs, target).astype(np.uint8):
            assert row.tobytes().decode() in content
    told = task.run(lambda _: Constant(torch.zeros(300)), seed=0, device="cpu").result
    assert told["perplexity"] == pytest.approx(300, rel=1e-4)
    assert told["word_perplexity"] == pytest.approx(300 ** (len(LINES["test"]) / 200), rel=1e-3)


def test_words_are_counted_as_they_are_published():
    assert _wikitext.words([" = Robert <unk> = \n", "\n", "end"]) == 7


def test_a_missing_file_says_what_was_looked_for_how_to_get_it_and_its_size(tmp_path):
    with pytest.raises(ValueError, match=r"mlm/wikitext103 should hold one of wiki.train.tokens .* found 0; .*0.5 GB"):
        made(tmp_path, source="wikitext103")


def test_files_of_both_kinds_are_refused(tmp_path, monkeypatch):
    folder = files(monkeypatch, tmp_path)
    (folder / "wiki.valid.raw").write_text(LINES["valid"])
    with pytest.raises(ValueError, match=r"one of wiki.valid.tokens and wiki.valid.raw, found 2"):
        made(tmp_path, source="wikitext103")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b" The dog . \n" * 39, "wiki.valid.tokens is not the published file: expected 160 words, found 156"),
        (b" The dog . \xff\n" * 40, "wiki.valid.tokens is damaged: byte 11 is no UTF-8"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path, monkeypatch, content, sentence):
    file = files(monkeypatch, tmp_path) / "wiki.valid.tokens"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        made(tmp_path, source="wikitext103")
    assert file.read_bytes() == content


def test_the_package_that_cuts_into_tokens_is_named_when_it_is_missing(tmp_path, monkeypatch):
    files(monkeypatch, tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match="pip install tokenizers"):
        made(tmp_path, source="wikitext103")


def test_learned_tokens_spell_the_text_again_and_are_learned_from_training_alone():
    library = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    texts = {split: content.splitlines(keepends=True) for split, content in LINES.items()}
    found = _wikitext.tokens(texts, 300)
    again = _wikitext.tokens(texts | {"test": ["nothing else\n"]}, 300)
    assert library
    assert np.array_equal(found["train"], again["train"])
    assert 0 < len(found["train"]) < len(LINES["train"])
    assert all(part.max() < 300 for part in found.values())
