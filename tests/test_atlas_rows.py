"""Attention rows of the atlas against planted ones and dense numpy."""

import numpy as np
import pytest
import torch

from attnbench.atlas.compare import attended, gradients
from attnbench.atlas.inputs import white
from attnbench.atlas.pairs import fresh, paired
from attnbench.atlas.rows import full_rows, rows
from mechanisms import Site
from tests.atlas_pairs import CAUSAL, CHANNELS, HEADS, SEQUENCE, Mixed, Planted, Unscaled, dense, errors, grid, planted


def test_rows_of_the_plain_mean_have_the_errors_that_numpy_gives():
    pair, x = planted(Planted(torch.full((6, 6), 1 / 6, dtype=torch.float64))), white(SEQUENCE, examples=1, seed=3)
    found, why = attended(pair, x)
    truth = dense(pair.full.state_dict(), x[0])
    frobenius, variation, missed = errors(np.full((HEADS, 6, 6), 1 / 6), truth)
    assert not why
    assert found["row_error"] == pytest.approx(frobenius, rel=1e-12)
    assert found["row_error_mean"] == pytest.approx(frobenius, rel=1e-12)
    assert found["row_tv"] == pytest.approx(variation, rel=1e-12)
    assert found["row_missed"] == pytest.approx(missed, rel=1e-12)
    assert found["rank"] == pytest.approx(1, rel=1e-9)
    assert found["row_entropy"] == pytest.approx(-(truth * np.log(truth)).sum(2).mean() / np.log(6), rel=1e-12)
    values = [np.linalg.svd(rows, compute_uv=False) for rows in truth]
    spectra = [np.linalg.norm(np.eye(6)[0] - own) / np.linalg.norm(own) for own in values]
    assert found["spectrum_error"] == pytest.approx(np.mean(spectra), rel=1e-9)


def test_a_token_that_reads_itself_alone_has_rank_of_all_tokens():
    pair, x = planted(Planted(torch.eye(6, dtype=torch.float64))), white(SEQUENCE, examples=1, seed=3)
    found, _ = attended(pair, x)
    truth = dense(pair.full.state_dict(), x[0])
    assert found["row_tv"] == pytest.approx((1 - np.diagonal(truth, axis1=1, axis2=2)).mean(), rel=1e-12)
    assert found["rank"] == pytest.approx(6, rel=1e-12)
    shares = np.stack([np.linalg.svd(rows, compute_uv=False) for rows in truth])
    shares /= shares.sum(1, keepdims=True)
    assert found["rank_full"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum(1)).mean(), rel=1e-9)


def test_a_forgotten_scale_is_seen():
    pair, x = planted(Unscaled(torch.zeros(1))), white(SEQUENCE, examples=2, seed=3)
    found, _ = attended(pair, x[:1])
    weights = pair.full.state_dict()
    frobenius, variation, _ = errors(dense(weights, x[0], scale=1.0), dense(weights, x[0]))
    assert found["row_error"] == pytest.approx(frobenius, rel=1e-10)
    assert found["row_tv"] == pytest.approx(variation, rel=1e-10)
    assert frobenius > 0.2
    assert gradients(pair, x, 0)["gradient_error"] > 0.2


def test_windows_read_the_softmax_over_their_tokens_alone():
    site = grid(4, 4)
    weights = fresh(site, HEADS, seed=1, sharpness=4.0)
    x = white(site, examples=1, seed=5)
    for name, knobs in (("swin", {"window": 2, "position": "none"}), ("mano", {"window": 2, "levels": 1})):
        pair = paired(name, {"heads": HEADS} | knobs, site, weights, seed=0)
        cell = [2 * (place // 8) + place % 4 // 2 for place in range(16)]
        allowed = np.equal.outer(cell, cell)
        found = rows(pair.mechanism, x, HEADS)
        np.testing.assert_allclose(found.weights.numpy(), dense(weights, x[0], allowed), atol=1e-13)
        numbers_found, _ = attended(pair, x)
        assert numbers_found["row_error"] == pytest.approx(
            errors(dense(weights, x[0], allowed), dense(weights, x[0]))[0], rel=1e-10
        )


@pytest.mark.parametrize("site", [SEQUENCE, CAUSAL], ids=lambda site: site.setting)
def test_full_rows_are_those_of_numpy(site):
    pair = paired("full", {"heads": HEADS}, site, fresh(site, HEADS, seed=2, sharpness=4.0), seed=0)
    x = white(site, examples=1, seed=2)
    allowed = np.tril(np.ones((6, 6), bool)) if site.causal else None
    truth = dense(pair.full.state_dict(), x[0], allowed)
    np.testing.assert_allclose(full_rows(pair.full, x, HEADS, causal=site.causal).numpy(), truth, atol=1e-14)
    np.testing.assert_allclose(rows(pair.mechanism, x, HEADS).weights.numpy(), truth, atol=1e-14)


@pytest.mark.parametrize("all_channels", [8192, 1], ids=["every channel", "a channel of each head"])
def test_rows_of_a_map_that_mixes_channels_are_its_nearest(all_channels, monkeypatch):
    monkeypatch.setattr("attnbench.atlas.rows.ALL_CHANNELS", all_channels)
    whole = white(Site(channels=CHANNELS * 6, shape=(48,)), examples=1, seed=8).reshape(6, CHANNELS, 6, CHANNELS)
    pair, x = planted(Mixed(whole)), white(SEQUENCE, examples=1, seed=3)
    found = rows(pair.mechanism, x, HEADS)
    own = np.einsum("icjc->cij", whole.numpy())  # what each channel reads of itself
    width = CHANNELS // HEADS
    picked = own.reshape(HEADS, width, 6, 6)[:, : width if all_channels > 1 else 1]
    np.testing.assert_allclose(found.weights.numpy(), picked.mean(1), atol=1e-12)
    assert found.kind == "mixing"
    nearest = np.repeat(found.weights.numpy(), width, 0)
    read = range(CHANNELS) if all_channels > 1 else range(0, CHANNELS, width)
    size = sum((whole.numpy()[:, :, :, c] ** 2).sum() for c in read)
    assert found.share == pytest.approx((nearest[list(read)] ** 2).sum() / size, rel=1e-10)


def test_channels_with_rows_of_their_own_are_told_from_mixed_ones():
    each = white(Site(channels=36, shape=(CHANNELS,)), examples=1, seed=8).reshape(CHANNELS, 6, 6)
    whole = torch.einsum("cij,cd->icjd", each, torch.eye(CHANNELS, dtype=torch.float64))
    found = rows(planted(Mixed(whole)).mechanism, white(SEQUENCE, examples=1, seed=3), HEADS)
    assert found.kind == "channels"
    mean = each.numpy().reshape(HEADS, -1, 6, 6).mean(1)
    np.testing.assert_allclose(found.weights.numpy(), mean, atol=1e-12)
    assert found.share == pytest.approx((mean**2).sum() * CHANNELS / HEADS / (each.numpy() ** 2).sum(), rel=1e-10)


def test_weights_come_back_after_rows_were_read():
    pair, x = planted(Unscaled(torch.zeros(1))), white(SEQUENCE, examples=1, seed=3)
    before = {name: tensor.clone() for name, tensor in pair.mechanism.state_dict().items()}
    rows(pair.mechanism, x, HEADS)
    assert all(tensor.equal(before[name]) for name, tensor in pair.mechanism.state_dict().items())
