"""The atlas against known truth: limits in which a mechanism is full attention, planted rows, and dense numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from attnbench.atlas import numbers, trained
from attnbench.atlas.compare import Place, attended, compare, gradients
from attnbench.atlas.inputs import smooth, white
from attnbench.atlas.pairs import PARTS, Pair, fresh, paired
from attnbench.atlas.rows import full_rows, rows
from mechanisms import Site, build, find, names

CHANNELS, HEADS = 8, 2
SEQUENCE, CAUSAL = Site(channels=CHANNELS, shape=(6,)), Site(channels=CHANNELS, shape=(6,), causal=True)


def grid(*shape):
    return Site(channels=CHANNELS, shape=shape)


def point(name, site, tmp_path, **knobs):
    place = Place(site=site, input="random", seed=0, sharpness=4.0)
    return compare(name, {"heads": HEADS} | knobs, place, tmp_path).result


class Planted(nn.Module):
    """out(A v(x)) for rows A that a test knows; of q and k it has the weights and no use."""

    def __init__(self, weights):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(CHANNELS, CHANNELS) for _ in range(4))
        self.weights = weights

    def forward(self, x):
        return self.out(torch.einsum("ij,bjc->bic", self.weights, self.v(x)))


class Mixed(Planted):
    """The same with weights [N, C, N, C], over tokens and channels."""

    def forward(self, x):
        return self.out(torch.einsum("icjd,bjd->bic", self.weights, self.v(x)))


class Unscaled(Planted):
    """Softmax attention whose author forgot to divide by the root of a head's width."""

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


def planted(module, *, sharpness=4.0):
    """A pair of a planted module and full attention, with the same four projections."""
    full = build("full", SEQUENCE, heads=HEADS).double()
    full.load_state_dict(fresh(SEQUENCE, HEADS, seed=0, sharpness=sharpness))
    module = module.double()
    module.load_state_dict(full.state_dict())
    return Pair(site=SEQUENCE, heads=HEADS, mechanism=module.eval(), full=full.eval(), shared=PARTS, own=0)


def dense(weights, x, allowed=None, scale=None):
    """Softmax rows [heads, N, N] in numpy, from weights by name and tokens [N, C]."""
    parts = {name: tensor.numpy() for name, tensor in weights.items()}
    x = x.reshape(-1, x.shape[-1]).numpy()
    q, k = (x @ parts[f"{part}.weight"].T + parts[f"{part}.bias"] for part in "qk")
    width, found = CHANNELS // HEADS, []
    for head in range(HEADS):
        mine = slice(head * width, (head + 1) * width)
        scores = q[:, mine] @ k[:, mine].T * (width**-0.5 if scale is None else scale)
        scores = scores if allowed is None else np.where(allowed, scores, -np.inf)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        found.append(shares / shares.sum(1, keepdims=True))
    return np.stack(found)


def errors(found, truth):
    """Frobenius, total variation and missed mass, in numpy, head by head."""
    frobenius = [np.sqrt(((a - b) ** 2).sum()) / np.sqrt((b**2).sum()) for a, b in zip(found, truth, strict=True)]
    missed = np.where(truth > found, truth - found, 0).sum(2)
    return np.mean(frobenius), 0.5 * np.abs(found - truth).sum(2).mean(), missed.mean()


def test_full_attention_is_no_distance_from_itself(tmp_path):
    for site in (grid(4, 4), SEQUENCE, CAUSAL):
        found = point("full", site, tmp_path)
        zero = ("output_error", "output_error_centred", "output_error_scaled", "gradient_error")
        assert [found[name] for name in (*zero, "gradient_error_weights")] == [0.0] * 5
        near = [found[name] for name in ("row_error", "row_tv", "row_missed", "spectrum_error")]
        assert near == pytest.approx([0] * 4, abs=1e-14)
        assert found["rank"] == pytest.approx(found["rank_full"], rel=1e-12)
        assert found["row_sum"] == pytest.approx(1, abs=1e-12)
        assert found["row_error_mean"] > 0.2, "the test is steep enough to tell anything"


LIMITS = [
    ("mano", grid(4, 4), {"window": 4, "levels": 1}),
    ("swin", grid(4, 4), {"window": 4, "position": "none"}),
    ("pooled", grid(4, 4), {"block": 1}),
    ("fma", grid(8, 8), {"cell": 4}),
    ("muse", SEQUENCE, {"query_clusters": 6, "key_clusters": 6, "iterations": 0}),
    ("nystrom", SEQUENCE, {"landmarks": 6, "iterations": 60}),
    ("htransformer", SEQUENCE, {"block": 6}),
    ("neighborhood", Site(channels=CHANNELS, shape=(5,)), {"window": 5, "position": "none"}),
    ("sliding", CAUSAL, {"window": 6}),
    ("neighborhood", Site(channels=CHANNELS, shape=(5,), causal=True), {"window": 5, "position": "none"}),
]


@pytest.mark.parametrize(("name", "site", "knobs"), LIMITS, ids=lambda item: getattr(item, "setting", None))
def test_a_limit_that_is_full_attention_has_no_error(name, site, knobs, tmp_path):
    found = point(name, site, tmp_path, **knobs)
    for column in ("output_error", "row_error", "row_tv", "spectrum_error", "gradient_error", "gradient_error_weights"):
        assert found[column] == pytest.approx(0, abs=1e-8), column
    assert found["rows_kind"] == "heads"
    assert found["row_share"] == 1


def test_linear_attention_is_never_nearer_than_the_rounding_and_its_rows_are_shares(tmp_path):
    found = point("linear", grid(4, 4), tmp_path)
    assert found["row_sum"] == pytest.approx(1, abs=1e-12)
    assert found["row_negative"] == 0
    assert 0.05 < found["row_tv"] < 1
    assert found["row_missed"] == pytest.approx(found["row_tv"]), "two distributions miss what they differ by"


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


def test_levels_that_are_summed_have_rows_that_sum_to_their_number(tmp_path):
    found = point("mano", grid(4, 4), tmp_path, window=2, levels=2, downsample="average", upsample="nearest")
    assert found["row_sum"] == pytest.approx(2, abs=1e-12)
    assert found["output_scale"] < 0.8
    assert found["output_error_scaled"] < found["output_error"]


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


@pytest.mark.parametrize(
    ("name", "site", "why"),
    [
        ("deltanet", CAUSAL, "not linear in the values"),
        ("galerkin", grid(4, 4), "not linear in the values"),
        ("pool", grid(4, 4), "does not share q, k, v, out"),
        ("fnet", grid(4, 4), "does not share q, k, v, out"),
        ("identity", grid(4, 4), "does not share q, k, v, out"),
    ],
)
def test_where_there_are_no_rows_it_is_said_why(name, site, why, tmp_path):
    knobs = {"heads": HEADS} if name in ("deltanet", "galerkin") else {}
    place = Place(site=site, input="random", seed=0)
    found = compare(name, knobs, place, tmp_path).result
    assert why in found["no_rows"]
    assert "row_error" not in found
    assert "spectrum_error" not in found
    assert found["output_error"] > 0


def test_every_mechanism_here_has_a_place_in_the_atlas(tmp_path):
    for name in names():
        entry = find(name)
        if entry.absence("cpu"):
            continue
        site = next(site for site in (grid(8, 8), SEQUENCE, CAUSAL) if site.setting in entry.fits)
        knobs = {"window": 3} if name in ("pool", "neighborhood") else {}
        site = Site(channels=8, shape=(16,), causal=site.causal) if name in ("htransformer", "sliding", "gla") else site
        found = compare(name, knobs, Place(site=site, input="random", seed=0, examples=1), tmp_path).result
        assert found["output_error"] >= 0, name
        assert ("row_error" in found) != ("no_rows" in found), name


def test_gradients_are_those_of_finite_differences():
    pair, x = planted(Planted(torch.full((6, 6), 1 / 6, dtype=torch.float64))), white(SEQUENCE, examples=1, seed=3)
    chance = torch.Generator().manual_seed(2)
    cotangent = torch.randn(x.shape, generator=chance, dtype=torch.float64)

    def total(module):
        with torch.no_grad():
            return float((module(x) * cotangent).sum())

    def differences(module, tensor):
        flat, found = tensor.data.view(-1), []
        for i in range(len(flat)):
            kept, ends = float(flat[i]), []
            for step in (1e-5, -1e-5):
                flat[i] = kept + step
                ends.append(total(module))
            flat[i] = kept
            found.append((ends[0] - ends[1]) / 2e-5)
        return np.array(found)

    found = gradients(pair, x, 0)
    mine, theirs = (differences(module, x) for module in (pair.mechanism, pair.full))
    assert found["gradient_error"] == pytest.approx(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs), rel=1e-6)
    weights = [f"{part}.{kind}" for part in PARTS for kind in ("weight", "bias")]
    both = [
        np.concatenate([differences(module, module.get_parameter(name)) for name in weights])
        for module in (pair.mechanism, pair.full)
    ]
    assert found["gradient_error_weights"] == pytest.approx(
        np.linalg.norm(both[0] - both[1]) / np.linalg.norm(both[1]), rel=1e-6
    )


def test_outputs_are_compared_as_they_are_centred_and_scaled():
    truth = white(SEQUENCE, examples=1, seed=1)[0]
    found = numbers.outputs(2 * truth + 3, truth)
    size = np.linalg.norm(truth.numpy())
    assert found["output_error"] == pytest.approx(np.linalg.norm(truth.numpy() + 3) / size)
    assert found["output_error_centred"] == pytest.approx(1), "a constant is no difference"
    scaled = numbers.outputs(2 * truth, truth)
    assert scaled["output_scale"] == pytest.approx(0.5)
    assert scaled["output_error"] == pytest.approx(1)
    assert scaled["output_error_scaled"] == pytest.approx(0, abs=1e-12)


def test_weights_come_back_after_rows_were_read():
    pair, x = planted(Unscaled(torch.zeros(1))), white(SEQUENCE, examples=1, seed=3)
    before = {name: tensor.clone() for name, tensor in pair.mechanism.state_dict().items()}
    rows(pair.mechanism, x, HEADS)
    assert all(tensor.equal(before[name]) for name, tensor in pair.mechanism.state_dict().items())


def test_what_is_shared_is_shared_at_every_level_and_what_is_not_is_counted():
    site = grid(8, 8)
    weights = fresh(site, HEADS, seed=0)
    pair = paired("mano", {"heads": HEADS, "levels": 2, "attention": "per_level"}, site, weights, seed=0)
    assert pair.shared == PARTS
    assert all(pair.mechanism.get_parameter(f"k.{m}.weight").equal(weights["k.weight"]) for m in (0, 1))
    assert pair.own == 2 * 4 * CHANNELS**2, "one learned sampler down and one up"
    assert paired("identity", {}, site, weights, seed=0).shared == ()
    cosine = paired("swin", {"heads": HEADS, "window": 4, "version": "v2"}, site, weights, seed=0)
    assert not cosine.full.get_parameter("k.bias").any(), "version 2 has no bias of keys"


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


def test_work_is_that_of_one_pass(tmp_path):
    place = Place(site=SEQUENCE, input="random", seed=0)
    tokens, width = 6, CHANNELS
    flops = 4 * 2 * tokens * width**2 + 4 * tokens**2 * width
    assert compare("full", {"heads": HEADS}, place, tmp_path).cost["matmul_flops"] == flops
