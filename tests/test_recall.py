"""Associative recall: every query has one answer that a reader of the pairs knows, and nothing else gives it away."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attnbench.models import maker
from mechanisms import configure
from tasks._labelled import UNASKED, accuracy
from tasks._step import predict
from tasks.recall import PAD, Config, Recall
from tests.splits import read

SMALL = {"train": 40, "valid": 10, "test": 10, "length": 24, "pairs": 4, "symbols": 8}


def made(tmp_path: Path, **knobs: object) -> Recall:
    task = Recall(configure(Config, {**SMALL, **knobs}, of="recall"), tmp_path)
    task.prepare(lambda *_: None, 1)
    return task


def read_aloud(row: list[int], pairs: int) -> dict[int, int]:
    """What a reader knows after the pairs: each key's value."""
    return {row[2 * i]: row[2 * i + 1] for i in range(pairs)}


def test_every_query_asks_for_the_value_that_stood_behind_its_key(tmp_path):
    task = made(tmp_path)
    for split in ("train", "valid", "test"):
        inputs, target = read(task, split)
        for row, asked in zip(inputs.tolist(), target.tolist(), strict=True):
            known = read_aloud(row, 4)
            assert len(known) == 4
            places = [i for i, answer in enumerate(asked) if answer != UNASKED]
            assert sorted(row[i] for i in places) == sorted(known)
            assert all(known[row[i]] == 1 + 8 + asked[i] for i in places)
            assert min(places) >= 8
            assert all(row[i] == PAD for i in range(8, 24) if i not in places)


def test_an_example_stays_the_same_however_many_are_made_and_splits_differ(tmp_path):
    few, many = made(tmp_path / "few"), made(tmp_path / "many", train=50, valid=12)
    assert torch.equal(read(few, "train")[0], read(many, "train")[0][:40])
    assert not torch.equal(read(few, "valid")[0], read(few, "test")[0])
    assert few.folder != many.folder
    assert made(tmp_path / "few", epochs=1, rate=0.5).folder == few.folder


def test_near_queries_are_more_frequent_by_the_power_law(tmp_path):
    task = made(tmp_path, train=2000, length=64, pairs=1, power=0.01)
    _, target = read(task, "train")
    place = (target != UNASKED).int().argmax(1).numpy() - 2
    law = np.arange(1, 63) ** -0.99
    found = np.bincount(place, minlength=62) / len(place)
    assert np.abs(found - law / law.sum()).max() < 0.03


def test_attention_recalls_what_a_model_without_it_cannot(tmp_path):
    knobs = {"train": 1500, "valid": 100, "test": 200, "epochs": 8, "pairs": 2, "length": 10, "rate": 4e-3}
    task = made(tmp_path, **knobs)
    model = {"channels": 32, "depth": 2}
    full = task.run(maker("isotropic", model, ("full", {}), 0), seed=0, device="cpu").result
    blind = task.run(maker("isotropic", model, ("identity", {}), 0), seed=0, device="cpu").result
    assert blind["accuracy"] < 0.25
    assert full["accuracy"] > 0.95
    assert abs(blind["chance"] - 1 / 8) < 0.08


def test_windows_recall_no_more_than_lies_within_their_reach(tmp_path):
    knobs = {"train": 1500, "valid": 100, "test": 400, "epochs": 8, "pairs": 2, "length": 12, "rate": 4e-3}
    task = made(tmp_path, **knobs)
    inputs, target = (tensor.numpy() for tensor in read(task, "test"))
    near = []
    for symbols, asked in zip(inputs, target, strict=True):
        keys = symbols[:4:2].tolist()
        near += [place - (2 * keys.index(symbols[place]) + 1) <= 2 for place in np.flatnonzero(asked != UNASKED)]
    model, share = {"channels": 32, "depth": 2}, float(np.mean(near))
    short = task.run(maker("isotropic", model, ("sliding", {"window": 2, "sinks": 0}), 0), seed=0, device="cpu").result
    far = task.run(maker("isotropic", model, ("sliding", {"window": 12}), 0), seed=0, device="cpu").result
    ceiling = share + (1 - share) / 8  # two blocks of windows of two see two symbols back; the rest is guessed
    assert short["accuracy"] < ceiling + 3 * (0.25 / len(near)) ** 0.5
    assert 0.05 < share < 0.5
    assert far["accuracy"] > 0.95


def test_only_what_is_asked_counts_as_right():
    answers = torch.eye(3)[[0, 1, 2, 0]]
    assert accuracy(answers, torch.tensor([0, 2, UNASKED, 0])) == pytest.approx(2 / 3)


def test_a_recall_that_looks_ahead_is_not_what_a_causal_port_gives(tmp_path):
    task = made(tmp_path)
    model = maker("isotropic", {"channels": 16, "depth": 1}, ("full", {}), 0)(task.config.port)
    inputs, _ = read(task, "test")
    changed = inputs.clone()
    changed[:, 20:] = PAD
    assert torch.equal(predict(model, inputs, 10)[:, :20], predict(model, changed, 10)[:, :20])


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"pairs": 9}, "9 pairs and a query for each take 27 symbols; length is 24"),
        ({"pairs": 8, "symbols": 4}, "8 pairs need as many different keys; symbols is 4"),
        ({"batch": 64}, "batch is 64, more than the 40 training examples"),
        ({"lenght": 8}, "Did you mean 'length'"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError, match=sentence):
        configure(Config, {**SMALL, **knobs}, of="recall")
