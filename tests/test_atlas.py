"""The atlas against known truth: limits in which a mechanism is full attention, and finite differences."""

import numpy as np
import pytest
import torch

from attnbench.atlas import numbers
from attnbench.atlas.compare import Place, compare, gradients
from attnbench.atlas.inputs import white
from attnbench.atlas.pairs import PARTS, fresh, paired
from mechanisms import Site, build, find, names
from tests.atlas_pairs import CAUSAL, CHANNELS, HEADS, SEQUENCE, Planted, grid, planted, point


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


def test_levels_that_are_summed_have_rows_that_sum_to_their_number(tmp_path):
    found = point("mano", grid(4, 4), tmp_path, window=2, levels=2, downsample="average", upsample="nearest")
    assert found["row_sum"] == pytest.approx(2, abs=1e-12)
    assert found["output_scale"] < 0.8
    assert found["output_error_scaled"] < found["output_error"]


def test_what_the_plain_mean_would_get_stands_beside(tmp_path):
    """Planted rows that are the plain mean have the very error that every mechanism is held against."""
    ones = torch.ones(6, 6, dtype=torch.float64)
    whole, past = ones / 6, ones.tril() / torch.arange(1, 7).unsqueeze(1)
    for site, weights in ((SEQUENCE, whole), (CAUSAL, past)):
        x, full = white(site, examples=2, seed=0), build("full", site, heads=HEADS).double()
        full.load_state_dict(fresh(site, HEADS, seed=0, sharpness=4.0))
        mean = Planted(weights).double()
        mean.load_state_dict(full.state_dict())
        with torch.no_grad():
            each = [numbers.relative(one, other) for one, other in zip(mean(x), full(x), strict=True)]
        found = point("linear", site, tmp_path)
        assert found["output_error_mean"] == pytest.approx(sum(each) / 2, rel=1e-12)


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
    found = numbers.outputs(2 * truth + 3, truth, 0 * truth)
    size = np.linalg.norm(truth.numpy())
    assert found["output_error"] == pytest.approx(np.linalg.norm(truth.numpy() + 3) / size)
    assert found["output_error_centred"] == pytest.approx(1), "a constant is no difference"
    scaled = numbers.outputs(2 * truth, truth, 0 * truth)
    assert scaled["output_scale"] == pytest.approx(0.5)
    assert scaled["output_error_mean"] == 1
    assert scaled["output_error"] == pytest.approx(1)
    assert scaled["output_error_scaled"] == pytest.approx(0, abs=1e-12)


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


def test_work_is_that_of_one_pass(tmp_path):
    place = Place(site=SEQUENCE, input="random", seed=0)
    tokens, width = 6, CHANNELS
    flops = 4 * 2 * tokens * width**2 + 4 * tokens**2 * width
    assert compare("full", {"heads": HEADS}, place, tmp_path).cost["matmul_flops"] == flops
