"""What the atlas compares on: smooth fields of known correlation, and tokens of a trained model."""

import numpy as np
import pytest

from attnbench.atlas import trained
from attnbench.atlas.compare import Place, compare
from attnbench.atlas.inputs import smooth
from attnbench.atlas.pairs import fresh
from mechanisms import Site
from tests.atlas_pairs import HEADS, SEQUENCE, grid


def test_smooth_tokens_have_the_variance_and_correlation_they_say():
    site, length = Site(channels=400, shape=(32, 24)), 0.1
    x = smooth(site, length=length, examples=4, seed=0)
    assert x.shape == (4, 32, 24, 400)
    assert float(x.square().mean()) == pytest.approx(1, abs=0.03)
    for step in (1, 3, 6):
        expected = np.exp(-((step / (length * 32)) ** 2) / 2)
        assert float((x[:, step:] * x[:, :-step]).mean()) == pytest.approx(expected, abs=0.03)
        assert float((x[:, :, step:] * x[:, :, :-step]).mean()) == pytest.approx(expected, abs=0.03)
    assert float((x[:, 0] * x[:, -1]).mean()) == pytest.approx(0, abs=0.03), "the ends do not touch"
    assert smooth(site, length=length, examples=1, seed=0).equal(smooth(site, length=length, examples=1, seed=0))
    with pytest.raises(ValueError, match=r"share of the side"):
        smooth(site, length=0.0, examples=1, seed=0)


@pytest.fixture
def short(monkeypatch):
    knobs = {"side": 8, "train": 8, "valid": 4, "test": 4, "epochs": 2, "batch": 4, "rate": 5e-3}
    monkeypatch.setattr(trained, "KNOBS", knobs)


@pytest.mark.usefixtures("short")
def test_trained_weights_are_made_once_and_the_same_again(tmp_path, monkeypatch):
    first = trained.trained(tmp_path / "one", channels=8, heads=2, seed=0)
    again = trained.trained(tmp_path / "other", channels=8, heads=2, seed=0)
    assert first.content == again.content
    assert trained.trained(tmp_path / "one", channels=8, heads=2, seed=1).content != first.content
    monkeypatch.setattr(trained, "train", None)  # whoever calls it fails
    kept = trained.trained(tmp_path / "one", channels=8, heads=2, seed=0)
    assert kept.content == first.content
    assert kept.weights.keys() == fresh(SEQUENCE, HEADS, seed=0).keys()
    assert 0 < kept.error < 2


@pytest.mark.usefixtures("short")
def test_trained_tokens_are_what_the_last_block_attends_over(tmp_path):
    found = trained.trained(tmp_path, channels=8, heads=2, seed=0)
    site = grid(10, 10)
    x = trained.tokens(found, site, 2, tmp_path, examples=2, seed=0)
    assert x.shape == (2, 10, 10, 8)
    assert float(x.std()) > 0.1
    assert not x[0].equal(x[1])
    assert float(x.mean(-1).abs().max()) < 3 * float(x.std()), "tokens come out of a norm over channels"
    row = trained.tokens(found, Site(channels=8, shape=(100,)), 2, tmp_path, examples=2, seed=0)
    assert row.equal(x.flatten(1, 2))
    for wrong in (Site(channels=8, shape=(100,), causal=True), grid(8, 10), Site(channels=8, shape=(99,))):
        with pytest.raises(ValueError, match="trained inputs"):
            trained.side_of(wrong)


@pytest.mark.usefixtures("short")
def test_a_trained_point_carries_the_hash_of_its_weights(tmp_path):
    place = Place(site=grid(8, 8), input="trained", seed=0)
    found = compare("pooled", {"heads": 2, "block": 2}, place, tmp_path)
    assert found.data["weights_hash"].startswith("sha256:")
    assert 0 < found.result["output_error"] < 2
    assert found.result["trained_error"] > 0
    assert compare("pooled", {"heads": 2, "block": 2}, place, tmp_path).result == found.result
    assert compare("full", {"heads": 2}, place, tmp_path).result["output_error"] == 0
