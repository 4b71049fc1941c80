"""Linear attention where it is something else or has a known value, and against other people's code."""

import importlib.util
import math
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

import mechanisms
from attnbench.oracles import linear as slow
from mechanisms import Site
from tests.exact import CHANNELS, build, differ, drawn, grid, same

SEQUENCE, CAUSAL = Site(channels=CHANNELS, shape=(150,)), Site(channels=CHANNELS, shape=(150,), causal=True)
BY_TOKEN = ["elu", "relu", "softplus", "favor"]  # those that have a causal form
POSITIVE = [
    *((site, feature) for site in (SEQUENCE, CAUSAL, grid(9, 9)) for feature in ("elu", "softplus", "favor")),
    *((site, "efficient") for site in (SEQUENCE, grid(9, 9))),
]


def of_values_one(mechanism: nn.Module) -> None:
    """Sets the values to one whatever the tokens, and lets them out unchanged."""
    state = {"v.weight": torch.zeros(CHANNELS, CHANNELS), "v.bias": torch.ones(CHANNELS)}
    state |= {"out.weight": torch.eye(CHANNELS), "out.bias": torch.zeros(CHANNELS)}
    mechanism.load_state_dict(state, strict=False)


def call(mechanism: nn.Module, method: str, *tensors: Tensor) -> Any:
    return getattr(mechanism, method)(*tensors)


@pytest.mark.parametrize(("site", "feature"), POSITIVE)
def test_values_of_one_come_out_as_one(site, feature):
    mechanism = build("linear", site, feature=feature)
    of_values_one(mechanism)
    same(mechanism(drawn(2, *site.shape, CHANNELS)), torch.ones(2, *site.shape, CHANNELS, dtype=torch.float64))


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 150])
@pytest.mark.parametrize("feature", BY_TOKEN)
def test_parallel_and_recurrent_form_are_one(feature, tokens):
    mechanism = build("linear", CAUSAL, feature=feature)
    x = drawn(2, tokens, CHANNELS)
    same(mechanism(x), call(mechanism, "recurrent", x))


@pytest.mark.parametrize("feature", BY_TOKEN)
def test_the_parallel_form_is_a_sum_over_pairs_and_a_recurrence(feature):
    chunked, x = build("linear", CAUSAL, feature=feature), drawn(150, CHANNELS)
    weights = chunked.state_dict()
    same(chunked(x[None])[0], slow.recurrent(x, weights, heads=2, feature=feature))
    same(chunked(x[None])[0], slow.quadratic(x, weights, heads=2, feature=feature, causal=True))


@pytest.mark.parametrize("feature", BY_TOKEN)
def test_at_the_last_token_the_causal_form_is_the_bidirectional_one(feature):
    """Of favor this shows that shifts by the largest key and shifts by constants both cancel."""
    both, causal = build("linear", SEQUENCE, feature=feature), build("linear", CAUSAL, feature=feature)
    causal.load_state_dict(both.state_dict())
    x = drawn(2, 150, CHANNELS)
    same(causal(x)[:, -1], both(x)[:, -1])


def test_the_recurrent_form_is_refused_where_nothing_is_causal():
    with pytest.raises(ValueError, match=r"^linear\.recurrent .*\.$"):
        call(build("linear", SEQUENCE), "recurrent", drawn(1, 150, CHANNELS))


@pytest.mark.parametrize("feature", ["l2vit", "efficient"])
def test_features_defined_over_all_tokens_are_refused_at_a_causal_site(feature):
    with pytest.raises(ValueError, match=rf"^linear\.feature .*{feature} .*\.$"):
        build("linear", CAUSAL, feature=feature)


def test_rows_of_l2vit_sum_to_tau_and_to_less_where_their_mass_is_below_100():
    mechanism, x = build("linear", SEQUENCE, feature="l2vit"), drawn(1, 150, CHANNELS)
    of_values_one(mechanism)
    tau = torch.tensor([0.7, 0.3], dtype=torch.float64)
    mechanism.load_state_dict({"tau": tau.view(2, 1, 1)}, strict=False)
    q, k = (rearrange(call(mechanism, name, x), "1 n (h d) -> h n d", h=2).relu() for name in ("q", "k"))
    mass = (q @ k.sum(1).unsqueeze(-1)).squeeze(-1)
    assert 0.1 < (mass > 100).double().mean() < 0.9
    rows = rearrange(mechanism(x), "1 n (h d) -> h n d", h=2)[..., 0]
    same(rows, tau.unsqueeze(1) * (mass / 100).clamp(max=1))


def test_tau_starts_at_one_over_the_root_of_the_heads_channels():
    tau = mechanisms.build("linear", grid(4, 4), heads=2, feature="l2vit").state_dict()["tau"]
    assert tau.shape == (2, 1, 1)
    assert tau.flatten().tolist() == [0.5, 0.5]


def test_random_features_are_orthogonal_in_groups_and_of_gaussian_length():
    torch.manual_seed(0)
    site = Site(channels=16, shape=(4,))
    rows = mechanisms.build("linear", site, heads=1, feature="favor", features=16 * 200).state_dict()["projection"]
    groups = rows.double().view(200, 16, 16)
    products = groups @ groups.mT
    off = products - torch.diag_embed(products.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 1e-4
    lengths = rows.double().square().sum(1)  # chi squared of 16 degrees: mean 16, variance 32
    assert abs(lengths.mean() - 16) < 5 * math.sqrt(32 / 3200)
    assert abs(lengths.var() - 32) < 5
    assert (rows.double().mean(0).abs() < 5 / math.sqrt(3200)).all()  # in no direction more than in its opposite


@pytest.mark.parametrize(("channels", "features", "rows"), [(8, 0, 16), (1, 0, 1), (2, 0, 1), (64, 0, 266), (8, 5, 5)])
def test_the_number_of_random_features_is_d_log_d_unless_given(channels, features, rows):
    site = Site(channels=channels, shape=(4,))
    state = mechanisms.build("linear", site, heads=1, feature="favor", features=features).state_dict()
    assert state["projection"].shape == (rows, channels)


def error_of_favor(features: int) -> float:
    """Against softmax, for short queries and keys (at length 2 the estimate is heavy-tailed), over 16 draws."""
    full, x = build("full", SEQUENCE), drawn(1, 150, CHANNELS)
    full.load_state_dict(
        {key: tensor / 10 if key[0] in "qk" else tensor for key, tensor in full.state_dict().items()},
    )
    total = 0.0
    for seed in range(16):
        torch.manual_seed(seed)
        favor = mechanisms.build("linear", SEQUENCE, heads=2, feature="favor", features=features).double()
        favor.load_state_dict(full.state_dict(), strict=False)
        total += float((favor(x) - full(x)).detach().square().mean())
    return math.sqrt(total / 16)


def test_the_error_of_random_features_against_softmax_falls_like_their_number_to_the_minus_half():
    few, more, many = (error_of_favor(features) for features in (16, 128, 1024))
    assert math.log2(few / more) / 3 == pytest.approx(0.5, abs=0.1)
    assert math.log2(more / many) / 3 == pytest.approx(0.5, abs=0.1)


def test_random_features_of_far_keys_lose_no_mass_in_float32():
    """Each feature is divided by its largest over the keys; without that all of them would be zero here."""
    mechanism = build("linear", SEQUENCE, feature="favor").float()
    of_values_one(mechanism)
    y = mechanism(100 * drawn(1, 150, CHANNELS).float())
    torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-5, atol=1e-5)


def test_causal_random_features_of_keys_along_their_own_direction_do_not_overflow_in_float32():
    """With 256 channels they reach exp(|w|^2 / 2), about exp(128); float32 ends at exp(88)."""
    torch.manual_seed(0)
    site = Site(channels=256, shape=(70,), causal=True)
    mechanism = mechanisms.build("linear", site, heads=1, feature="favor", features=70)
    eye, none, one = torch.eye(256), torch.zeros(256), torch.ones(256)
    state = {f"{name}.weight": eye for name in ("q", "k", "out")} | {"v.weight": torch.zeros(256, 256), "v.bias": one}
    mechanism.load_state_dict(state | {f"{name}.bias": none for name in ("q", "k", "out")}, strict=False)
    y = mechanism(mechanism.state_dict()["projection"].unsqueeze(0) * 256**0.25)
    torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-5, atol=1e-5)


def heads_of(mechanism: nn.Module, x: Tensor) -> list[Tensor]:
    """q, k and v [b, h, n, d]."""
    return [rearrange(call(mechanism, name, x), "b n (h d) -> b h n d", h=2) for name in ("q", "k", "v")]


def joined(mechanism: nn.Module, y: Tensor) -> Tensor:
    return call(mechanism, "out", rearrange(y, "b h n d -> b n (h d)"))


def performer() -> ModuleType:
    """The package performer-pytorch, which is not among the requirements; importing it warns of its old imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reason = "performer-pytorch is not installed: pip install performer-pytorch brings it"
        return pytest.importorskip("performer_pytorch.performer_pytorch", reason=reason)


@pytest.mark.parametrize("causal", [False, True])
def test_favor_is_performer_pytorch_without_its_epsilon(causal):
    peer = performer()
    mechanism, x = build("linear", CAUSAL if causal else SEQUENCE, feature="favor"), drawn(2, 150, CHANNELS)
    directions = mechanism.state_dict()["projection"]
    q, k, v = heads_of(mechanism, x)
    q, k = (
        peer.softmax_kernel(t, projection_matrix=directions, is_query=query, eps=0)
        for t, query in ((q, True), (k, False))
    )
    y = peer.causal_linear_attention_noncuda(q, k, v, eps=0) if causal else peer.linear_attention(q, k, v)
    same(mechanism(x), joined(mechanism, y))


def test_favor_is_performer_pytorch_as_it_comes_but_for_its_epsilon():
    """1e-4 beside features that are at most one, and of many keys a hundredth: an error of about a hundredth."""
    peer = performer()
    mechanism, x = build("linear", SEQUENCE, feature="favor"), 0.3 * drawn(2, 150, CHANNELS)
    attention = peer.FastAttention(CHANNELS // 2, nb_features=len(mechanism.state_dict()["projection"]))
    attention.projection_matrix.copy_(mechanism.state_dict()["projection"])
    torch.testing.assert_close(joined(mechanism, attention(*heads_of(mechanism, x))), mechanism(x), rtol=0, atol=2e-2)


def test_efficient_is_performer_pytorch_without_projection():
    attention = performer().FastAttention(CHANNELS // 2, no_projection=True)
    mechanism, x = build("linear", SEQUENCE, feature="efficient"), drawn(2, 150, CHANNELS)
    same(mechanism(x), joined(mechanism, attention(*heads_of(mechanism, x))))


def test_efficient_is_not_a_mean_of_keys_features():
    mechanism, x = build("linear", SEQUENCE, feature="efficient"), drawn(2, 150, CHANNELS)
    other = build("linear", SEQUENCE, feature="softplus")
    other.load_state_dict(mechanism.state_dict())
    differ(mechanism(x), other(x))


def naive(path: str) -> ModuleType:
    """A file of flash-linear-attention's plain torch operations, loaded alone: the package itself needs a GPU."""
    package = importlib.util.find_spec("fla")
    if package is None or not package.submodule_search_locations:
        pytest.skip("flash-linear-attention is not installed: pip install flash-linear-attention brings it")
    file = Path(package.submodule_search_locations[0]) / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("feature", ["elu", "softplus"])
def test_it_is_flash_linear_attentions_plain_form_normalised(feature):
    """Which works in float32, whatever comes."""
    mechanism, x = build("linear", CAUSAL, feature=feature), drawn(2, 150, CHANNELS)
    phi = slow.FEATURES[feature]
    q, k, v = (t.transpose(1, 2) for t in heads_of(mechanism, x))
    y, _ = naive("ops/linear_attn/naive.py").naive_recurrent_linear_attn(phi(q), phi(k), v, normalize=True)
    torch.testing.assert_close(mechanism(x), joined(mechanism, y.transpose(1, 2)), rtol=1e-4, atol=1e-4)
