"""Weights that one cell keeps and another starts from: the file, its hash in both rows, and what is refused."""

import json
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from attnbench import run
from attnbench.cell import identity
from attnbench.models import maker
from tasks import Port
from tasks._weights import started, weights_of
from tests import tiny

pytestmark = pytest.mark.usefixtures("settings_put_back")


def place(store: Path, asked: dict[str, Any]) -> Path:
    """The folder of a cell in a store."""
    id = identity(asked)
    folder = store / "cells" / id[:2] / id
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def outcome(store: Path, **knobs: Any) -> dict[str, Any]:
    """What a cell with these knobs of its task comes to in this store."""
    asked = tiny.spec(task={"name": "darcy", "version": 1, "knobs": tiny.TASK | knobs})
    work = partial(run.train, cell=place(store, asked))
    return json.loads(json.dumps(run.execute(asked, store / "data", work))) | {"id": identity(asked)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def first(store: Path) -> dict[str, Any]:
    """A training that keeps its weights."""
    return outcome(store, keep_weights=True, rate=0.01)


def weights_file(store: Path, id: str) -> Path:
    return store / "cells" / id[:2] / id / "weights.safetensors"


def test_kept_weights_lie_beside_the_row_which_tells_their_hash(store, first):
    assert first["error"] is None
    file = weights_file(store, first["id"])
    assert first["data"]["weights"] == file.name
    assert first["data"]["weights_hash"] == f"sha256:{sha256(file.read_bytes()).hexdigest()}"
    assert not [path.name for path in file.parent.iterdir() if path.suffix == ".tmp"]
    own = maker("isotropic", tiny.MODEL, ("mano", {"levels": 2}), 0)(Port(inputs=3, outputs=1, shape=(8, 8)))
    assert load_file(file).keys() == own.state_dict().keys()


def test_where_nothing_is_to_be_kept_nothing_is_and_the_numbers_are_the_same(store, first):
    plain = outcome(store, rate=0.01)
    assert plain["result"] == first["result"]
    assert plain["data"].keys() == {"hash"}
    assert not weights_file(store, plain["id"]).exists()


@pytest.mark.parametrize("by", ["id", "file"])
def test_a_training_that_starts_from_a_cell_has_its_weights_and_says_so(store, first, by):
    file = weights_file(store, first["id"])
    start = {"id": first["id"], "file": str(file)}[by]
    again = outcome(store, start=start, rate=1e-12, weight_decay=0.0, keep_weights=True)
    assert again["error"] is None
    assert again["data"]["start"] == str(file)
    assert again["data"]["start_hash"] == first["data"]["weights_hash"]
    before, after = load_file(file), load_file(weights_file(store, again["id"]))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-9)
    assert again["result"]["rel_l2"] == pytest.approx(first["result"]["rel_l2"], rel=1e-5)
    assert outcome(store, rate=1e-12)["result"]["rel_l2"] != pytest.approx(first["result"]["rel_l2"], rel=1e-3)


def test_a_cell_without_weights_is_refused(store):
    found = outcome(store, start="0123456789abcdef0123")
    assert found["status"] == "error"
    assert "cell 0123456789abcdef0123 has left no weights.safetensors" in found["error"]["message"]


@pytest.fixture
def file(tmp_path) -> Path:
    save_file(weights_of(nn.Linear(3, 2)), path := tmp_path / "line.safetensors")
    return path


def test_weights_come_back_to_the_last_bit_buffers_too(tmp_path):
    torch.manual_seed(0)
    made, other = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    made(torch.randn(5, 3))
    save_file(weights_of(made), tmp_path / "made.safetensors")
    assert started(other, str(tmp_path / "made.safetensors")) is other
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nn.Linear(3, 5), r"weight is float32 \(2, 3\) in line.safetensors and float32 \(5, 3\) here"),
        (nn.Linear(3, 2, bias=False), r"bias is float32 \(2,\) in line.safetensors and absent here"),
        (nn.Sequential(nn.Linear(3, 2)), r"0.weight is absent in line.safetensors and float32 \(2, 3\) here"),
        (nn.Linear(3, 2).double(), r"weight is float32 \(2, 3\) in line.safetensors and float64 \(2, 3\) here"),
    ],
    ids=["shape", "more", "names", "type"],
)
def test_weights_of_another_model_are_refused_in_one_sentence_and_nothing_is_loaded(file, model, sentence):
    before = weights_of(model)
    with pytest.raises(ValueError, match=sentence) as refusal:
        started(model, str(file))
    assert "\n" not in str(refusal.value)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(model).items())


def test_a_missing_or_damaged_file_is_refused(file):
    with pytest.raises(ValueError, match=r"no file .*/none.safetensors"):
        started(nn.Linear(3, 2), str(file.with_name("none.safetensors")))
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"line.safetensors is damaged, or no safetensors file"):
        started(nn.Linear(3, 2), str(file))
