"""Next-symbol prediction: what is asked, what counts, the floors beside it, the real files and their damage."""

import math
import sysconfig
from collections import Counter
from hashlib import md5, sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnbench.models import maker
from mechanisms import configure
from tasks import _corpora
from tasks._labelled import UNASKED, streams
from tasks._language import ALPHABET, language
from tasks.charlm import CharLM, Config, agreement
from tests.splits import read

SMALL = {"train": 40, "valid": 10, "test": 10, "length": 24, "distance": 3}


def made(folder: Path, **knobs: object) -> CharLM:
    task = CharLM(configure(Config, {**SMALL, **knobs}, of="charlm"), folder)
    task.prepare(lambda *_: None, 1)
    return task


class Oracle(nn.Module):
    """Gives every next symbol its true probability; a weight that does nothing, as optimisers need one."""

    def __init__(self, distance: int, *, agrees: bool = True):
        super().__init__()
        self.weight, self.language = nn.Parameter(torch.zeros(())), language(distance, agrees=agrees)

    def forward(self, x: Tensor) -> Tensor:
        texts = np.pad(x.numpy(), ((0, 0), (0, 1)), constant_values=ALPHABET.index(" "))
        given = torch.from_numpy(self.language.distributions(texts)[:, 1:]).float()
        return given.clamp_min(1e-30).log() + 0 * self.weight


# --- what is asked


def test_every_place_asks_for_the_symbol_after_it_and_only_what_the_stride_says_counts(tmp_path):
    task = made(tmp_path, stride=5)
    for split in ("train", "valid", "test"):
        inputs, target = read(task, split)
        asked = target != UNASKED
        assert asked.sum(1).unique().tolist() == [24 if split == "train" else 5]
        assert asked[:, -5:].all()
        assert torch.equal(inputs[:, 1:][asked[:, :-1]], target[:, :-1][asked[:, :-1]])
    assert (read(made(tmp_path), "test")[1] != UNASKED).all()


def test_generated_examples_are_texts_of_the_language_from_their_start(tmp_path):
    inputs, target = read(made(tmp_path), "test")
    texts = torch.cat([inputs, target[:, -1:]], 1).numpy()
    given = np.take_along_axis(language(3).distributions(texts), texts[:, :, None], 2)
    assert (given > 0).all()
    drawn = np.stack([chance.random(25) for chance in streams(0, "test", 10)])
    assert np.array_equal(texts, language(3).texts(drawn))


def test_an_example_stays_the_same_however_many_are_made_and_splits_never_meet(tmp_path):
    few, many = made(tmp_path), made(tmp_path, train=50, valid=12)
    assert torch.equal(read(few, "train")[0], read(many, "train")[0][:40])
    rows = {split: {tuple(row) for row in read(few, split)[0].tolist()} for split in ("train", "valid", "test")}
    assert [len(rows[split]) for split in rows] == [40, 10, 10]
    assert len(set.union(*rows.values())) == 60
    assert made(tmp_path, data_seed=1).prepare(lambda *_: None, 1) != few.prepare(lambda *_: None, 1)
    assert made(tmp_path / "again").prepare(lambda *_: None, 1) == few.prepare(lambda *_: None, 1)


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"stride": 25}, "stride is 25, more than the 24 symbols of a window"),
        ({"source": "enwik9"}, "Did you mean 'enwik8'"),
        ({"length": 1}, "charlm.length should be"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        configure(Config, {**SMALL, **knobs}, of="charlm")
    assert "\n" not in str(refusal.value)


def test_the_distance_names_other_data_only_where_it_makes_them(tmp_path):
    def folder(**knobs: object) -> Path:
        return CharLM(configure(Config, knobs, of="charlm"), tmp_path).folder

    assert folder(distance=3) != folder(distance=4)
    assert folder(distance=3, source="text8") == folder(distance=4, source="text8") != folder(source="enwik8")


# --- what is told


@pytest.mark.parametrize("stride", [0, 16])
def test_the_exact_predictors_reach_their_floors_and_no_more(tmp_path, stride):
    task = made(tmp_path, train=32, test=1000, length=64, stride=stride, epochs=1)
    best = task.run(lambda _: Oracle(3), seed=0, device="cpu").result
    blind = task.run(lambda _: Oracle(3, agrees=False), seed=0, device="cpu").result
    assert best["floor"] + 0.05 < best["forgetful"] < best["chance"]
    assert best["agreement"] == 1 > 0.5 > blind["agreement"] > blind["agreement_chance"] - 0.05
    assert best["bits_per_byte"] == pytest.approx(best["floor"], abs=0.02)
    assert blind["bits_per_byte"] == pytest.approx(best["forgetful"], abs=0.02)


def test_floors_are_means_over_the_counted_places_alone(tmp_path):
    whole, end = made(tmp_path).floors(), made(tmp_path, stride=1).floors()
    assert end["floor"] == pytest.approx(language(3).entropies(25)[24])
    assert whole["floor"] == pytest.approx(language(3).entropies(25)[1:].mean())
    assert made(tmp_path, length=6000, train=32, valid=1, test=1, stride=3000).floors()["floor"] == pytest.approx(
        language(3).floor(), abs=1e-6
    )


def test_bits_and_chances_are_what_counting_by_hand_gives(tmp_path):
    task = made(tmp_path, epochs=1, stride=7)
    told = task.run(lambda _: Oracle(3), seed=0, device="cpu").result
    known = Counter(read(task, "train")[1].flatten().tolist())
    asked = [symbol for symbol in read(task, "test")[1].flatten().tolist() if symbol != UNASKED]
    share = {symbol: (known[symbol] + 1) / (known.total() + len(ALPHABET)) for symbol in range(len(ALPHABET))}
    assert told["chance"] == pytest.approx(-sum(math.log2(share[symbol]) for symbol in asked) / len(asked))
    assert told["chance_accuracy"] == pytest.approx(asked.count(known.most_common(1)[0][0]) / len(asked))
    inputs, target = read(task, "test")
    given = Oracle(3)(inputs).gather(2, target.clamp_min(0)[..., None])[..., 0][target != UNASKED]
    assert told["bits_per_byte"] == pytest.approx(-given.mean().item() / math.log(2), rel=1e-5)
    assert told["valid_bits_per_byte"] == pytest.approx(told["valid_loss"] / math.log(2))


def test_agreement_is_told_of_the_symbols_before_full_stops_and_left_out_where_there_are_none():
    def numbers(text: str) -> Tensor:
        return torch.tensor([[ALPHABET.index(letter) for letter in text]])

    given = nn.functional.one_hot(numbers("beo. bia. bea"), len(ALPHABET)).float()
    assert agreement(numbers("bea. bia. bea"), given) == {"agreement": 0.5, "agreement_chance": 1.0}
    part = numbers("bea. bia. bea")
    part[:, :3] = UNASKED
    assert agreement(part, given)["agreement"] == 1
    assert agreement(numbers("bea bia bea a"), given) == {}


def test_a_small_training_beats_chance(tmp_path):
    task = made(tmp_path, train=256, valid=32, test=64, length=32, epochs=3, rate=1e-2)
    make = maker("isotropic", {"channels": 16, "depth": 1}, ("full", {}), 0)
    told = task.run(make, seed=0, device="cpu").result
    assert told["floor"] < told["bits_per_byte"] < told["chance"] - 0.3
    assert told["accuracy"] > told["chance_accuracy"] + 0.1


# --- windows of long texts


def test_windows_of_a_split_count_each_symbol_once_at_most_and_start_at_multiples_of_the_stride():
    text = np.arange(200, dtype=np.int32)
    found = _corpora.windows(text, "valid", 36, size=21, stride=5, data_seed=0)
    assert (np.diff(found) == 1).all()
    assert sorted(found[:, 0]) == list(range(0, 180, 5))
    counted = found[:, -5:].flatten()
    assert len(set(counted)) == len(counted) == 180
    assert np.array_equal(_corpora.windows(text, "valid", 9, size=21, stride=5, data_seed=0), found[:9])
    assert not np.array_equal(_corpora.windows(text, "valid", 36, size=21, stride=5, data_seed=1), found)


def test_training_windows_start_anywhere():
    starts = _corpora.windows(np.arange(30), "train", 400, size=21, stride=5, data_seed=0)[:, 0]
    assert set(starts) == set(range(10))


@pytest.mark.parametrize(("split", "size"), [("valid", 37), ("test", 37), ("train", 201)])
def test_a_text_too_short_for_the_windows_is_refused(split, size):
    with pytest.raises(ValueError, match=f"{split} split has 200 symbols, .* windows of {size}; 40 are asked"):
        _corpora.windows(np.zeros(200), split, 40, size=size, stride=5, data_seed=0)


# --- the Python library


def test_the_library_is_parted_by_whole_files_in_order_of_their_names_without_tests(tmp_path):
    contents = {f"{name:03}/a.py": f"file {name % 70}\n".encode() for name in range(100)}
    left_out = ("test/a.py", "b/tests/c.py", "site-packages/d.py", "notes.txt")
    for name, content in {**contents, **dict.fromkeys(left_out, b"left out\n")}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    expected = {"train": b"", "valid": b"", "test": b""}
    for content in contents.values():
        part = int(sha256(content).hexdigest()[:16], 16) % 20
        expected[{0: "test", 1: "valid"}.get(part, "train")] += content
    found = _corpora.library(tmp_path)
    assert {split: text.tobytes() for split, text in found.items()} == expected
    lines = [set(text.tobytes().splitlines()) for text in found.values()]
    assert sum(map(len, lines)) == len(set.union(*lines)) == 70


def test_the_installed_library_is_read_as_bytes_and_other_splits_are_other_files(tmp_path):
    task = made(tmp_path, source="python", length=64)
    parts = {split: text.tobytes() for split, text in _corpora.library(Path(sysconfig.get_paths()["stdlib"])).items()}
    assert task.config.port.inputs == 256
    for split, text in parts.items():
        for row in read(task, split)[0].numpy().astype(np.uint8)[:5]:
            assert row.tobytes() in text
    assert len(parts["train"]) > 5e6
    assert 0.02 < len(parts["test"]) / sum(map(len, parts.values())) < 0.12


# --- the published files


def planted(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, content: bytes) -> Path:
    """A small file in the place of a published one, its size and sum declared to be the published."""
    size = len(content)
    known = _corpora.Published(
        size, md5(content, usedforsecurity=False).hexdigest(), "https://a.b/c", (size - 200, 100, 100)
    )
    monkeypatch.setitem(_corpora.FILES, name, known)
    file = folder / "charlm" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def some_bytes(count: int) -> bytes:
    return np.random.default_rng(0).integers(256, size=count).astype(np.uint8).tobytes()


def test_enwik8_is_parted_in_order_and_its_windows_stay_within_their_splits(tmp_path, monkeypatch):
    content = some_bytes(2000)
    planted(monkeypatch, tmp_path, "enwik8", content)
    task = made(tmp_path, source="enwik8", valid=4, test=4)
    for split, part in (("train", content[:1800]), ("valid", content[1800:1900]), ("test", content[1900:])):
        inputs, target = read(task, split)
        for row, last in zip(inputs.numpy().astype(np.uint8), target[:, -1].tolist(), strict=True):
            assert row.tobytes() + bytes([last]) in part
    assert "floor" not in task.told({"train": read(task, "train"), "test": read(task, "test")}, torch.ones(1))


def test_text8_has_the_blank_and_26_letters(tmp_path, monkeypatch):
    letters = _corpora.TEXT8 * 40
    planted(monkeypatch, tmp_path, "text8", letters.encode())
    found = np.concatenate(list(_corpora.corpus("text8", tmp_path).values()))
    assert "".join(_corpora.TEXT8[symbol] for symbol in found) == letters
    assert made(tmp_path, source="text8", valid=2, test=2).config.port.inputs == 27


def test_a_file_in_a_folder_of_its_name_is_found(tmp_path, monkeypatch):
    content = some_bytes(500)
    file = planted(monkeypatch, tmp_path, "enwik8", content)
    file.rename(tmp_path / "moved")
    file.mkdir()
    (tmp_path / "moved").rename(file / "enwik8")
    assert b"".join(part.tobytes() for part in _corpora.corpus("enwik8", tmp_path).values()) == content


@pytest.mark.parametrize(("name", "zipped"), [("enwik8", "enwik8.zip"), ("text8", "text8.zip")])
def test_a_missing_file_says_what_was_looked_for_how_to_get_it_and_its_size(tmp_path, name, zipped):
    with pytest.raises(ValueError, match=f"no file {tmp_path}/charlm/{name}; .*{zipped}.*100,000,000 bytes"):
        made(tmp_path, source=name)
    assert not list(tmp_path.iterdir())


def test_a_truncated_file_is_named_with_both_sizes_and_left_alone(tmp_path):
    file = tmp_path / "charlm" / "enwik8"
    file.parent.mkdir()
    file.write_bytes(b"<mediawiki")
    with pytest.raises(ValueError, match=r"charlm/enwik8 is not .* expected 100,000,000 bytes, found 10\."):
        made(tmp_path, source="enwik8")
    assert file.read_bytes() == b"<mediawiki"
    assert [each.name for each in file.parent.iterdir()] == ["enwik8"]


def test_an_altered_file_of_the_right_size_is_named_with_both_sums(tmp_path, monkeypatch):
    content = some_bytes(2000)
    file = planted(monkeypatch, tmp_path, "enwik8", content)
    altered = content[:-1] + bytes([content[-1] ^ 1])
    file.write_bytes(altered)
    sums = [md5(each, usedforsecurity=False).hexdigest() for each in (content, altered)]
    with pytest.raises(ValueError, match=f"expected MD5 {sums[0]}, found {sums[1]}"):
        made(tmp_path, source="enwik8", valid=4, test=4)
    assert file.read_bytes() == altered


def test_the_published_sizes_are_90_5_and_5_million():
    for known in _corpora.FILES.values():
        assert (known.size, known.splits) == (10**8, (90 * 10**6, 5 * 10**6, 5 * 10**6))
