"""Exact relations of fast multipole attention on sequences, causal or not, and of its pooled queries and phantoms."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import mechanisms
from attnbench.oracles import at, fma
from mechanisms import Site
from tests.exact import CHANNELS, build, differ, drawn, grid, same
from tests.test_limits_fma import set_to

LENGTHS = [(8, 4), (16, 4), (64, 4), (96, 12), (128, 16), (256, 1), (256, 16), (512, 64), (768, 12), (1024, 64)]
both_ways = pytest.mark.parametrize("causal", [False, True])


def line(tokens: int, *, causal: bool = False, channels: int = CHANNELS) -> Site:
    return Site(channels=channels, shape=(tokens,), causal=causal)


@both_ways
@pytest.mark.parametrize(("tokens", "cell"), LENGTHS)
def test_every_allowed_pair_is_covered_once(tokens, cell, causal):
    """Equal scores, means that count as their tokens: the output is the mean of all values, or of those so far."""
    mechanism = build("fma", line(tokens, causal=causal), cell=cell, rank=1, basis="average")
    set_to(mechanism, q=0.0, v=1.0, out=1.0)
    x = drawn(1, tokens, CHANNELS)
    seen = x.cumsum(1) / torch.arange(1, tokens + 1).unsqueeze(1) if causal else x.mean(1, keepdim=True).expand_as(x)
    same(mechanism(x), seen)


@both_ways
@pytest.mark.parametrize(("tokens", "cell"), LENGTHS[:8])
def test_the_slow_forms_lists_cover_every_allowed_pair_once(tokens, cell, causal):
    for place in [(i,) for i in range(0, tokens, max(1, cell // 2))]:
        times = torch.zeros(tokens, dtype=torch.long)
        times[fma.near(place, side=tokens, cell=cell, causal=causal)] += 1
        for level in range(1, fma.levels_of(tokens, cell) + 1):
            width = cell * 2 ** (level - 1)
            for (other,) in fma.far(place, side=tokens, cell=cell, level=level, causal=causal):
                times[other * width : (other + 1) * width] += 1
        allowed = torch.arange(tokens) <= place[0] if causal else torch.ones(tokens, dtype=torch.bool)
        assert times.equal(allowed.long())


@both_ways
@pytest.mark.parametrize(("tokens", "cell"), [(7, 7), (14, 7)])
def test_where_all_is_near_it_is_full_attention(tokens, cell, causal):
    site = line(tokens, causal=causal)
    mechanism, full, x = build("fma", site, cell=cell, rank=3), build("full", site), drawn(2, tokens, CHANNELS)
    full.load_state_dict(mechanism.state_dict())
    same(mechanism(x), full(x))


@both_ways
def test_means_of_single_tokens_are_full_attention(causal):
    site = line(16, causal=causal)
    mechanism, full = build("fma", site, cell=4, rank=4, basis="average"), build("full", site)
    full.load_state_dict(mechanism.state_dict())
    same(mechanism(drawn(1, 16, CHANNELS)), full(drawn(1, 16, CHANNELS)))


@pytest.mark.parametrize("size_weight", [True, False])
def test_the_slow_form_with_a_basis_that_loses_nothing_is_softmax_attention(size_weight):
    for site in (at(16), at(16, causal=True), at(8, 8)):
        mechanism, x = mechanisms.build("full", site, heads=2).double(), drawn(*site.shape, 6)
        config = SimpleNamespace(
            heads=2, cell=1, rank=1, far=True, queries="fine", phantom=False, size_weight=size_weight
        )
        weights = dict(mechanism.named_parameters())
        lossless = fma.fma(x, weights, config, summarise=fma.every_token, causal=site.causal)
        same(lossless, mechanism(x[None])[0])


@both_ways
@pytest.mark.parametrize("size_weight", [True, False])
def test_keys_constant_on_blocks_lose_nothing_in_averages(causal, size_weight):
    site = line(64, causal=causal)
    mechanism = build("fma", site, cell=4, rank=2, basis="average", size_weight=size_weight)
    full = build("full", site)
    mechanism.get_submodule("k").get_parameter("weight").data[:, CHANNELS // 2 :] = 0
    full.load_state_dict(mechanism.state_dict())
    x = drawn(1, 64, CHANNELS)
    x[..., : CHANNELS // 2] = drawn(1, 8, CHANNELS // 2).repeat_interleave(8, 1)  # n / (4 p) tokens alike
    (same if size_weight else differ)(mechanism(x), full(x))


@pytest.mark.parametrize("site", [line(64), grid(16, 16)], ids=lambda site: site.setting)
def test_pooled_queries_lose_nothing_where_queries_and_keys_are_constant_on_blocks(site):
    """On blocks of the coarsest part; values are arbitrary."""
    mechanism = build("fma", site, cell=4, rank=4, basis="average", queries="pooled")
    full = build("full", site)
    for name in "qk":
        mechanism.get_submodule(name).get_parameter("weight").data[:, CHANNELS // 2 :] = 0
    full.load_state_dict(mechanism.state_dict())
    x = drawn(1, *site.shape, CHANNELS)
    axes = range(1, x.ndim - 1)
    block = {1: 4, 2: 2}[len(axes)]
    coarse = drawn(1, *(side // block for side in site.shape), CHANNELS // 2)
    for axis in axes:
        coarse = coarse.repeat_interleave(block, axis)
    x[..., : CHANNELS // 2] = coarse
    same(mechanism(x), full(x))


def test_pooled_queries_do_lose_something_when_queries_vary():
    pooled, fine = (build("fma", line(64), basis="average", queries=queries) for queries in ("pooled", "fine"))
    fine.load_state_dict(pooled.state_dict())
    differ(pooled(drawn(1, 64, CHANNELS)), fine(drawn(1, 64, CHANNELS)))


def near_only(causal: bool) -> Tensor:
    """Which tokens meet within neighbouring blocks of four, of 32 [32, 32]."""
    block = torch.arange(32) // 4
    apart = block.unsqueeze(1) - block.unsqueeze(0)
    past = torch.arange(32).unsqueeze(1) >= torch.arange(32).unsqueeze(0)
    return (apart.abs() <= 1) & (past if causal else torch.ones_like(past))


@both_ways
def test_without_far_cells_it_is_attention_to_neighbouring_blocks(causal):
    mechanism, x = build("fma", line(32, causal=causal), heads=1, far=False), drawn(1, 32, CHANNELS)
    q, k, v = (mechanism.get_submodule(name)(x)[0] for name in "qkv")
    scores = (q @ k.T * CHANNELS**-0.5).masked_fill(~near_only(causal), -torch.inf)
    same(mechanism(x)[0], mechanism.get_submodule("out")(scores.softmax(-1) @ v))


def ones_with_equal_scores(tokens: int, cell: int, rank: int, *, size_weight: bool) -> Tensor:
    """What phantoms leave of values of one when all scores are zero [tokens]."""
    site = line(tokens, causal=True)
    mechanism = build("fma", site, cell=cell, rank=rank, basis="average", phantom=True, size_weight=size_weight)
    set_to(mechanism, q=0.0, v=0.0, out=1.0)
    mechanism.get_submodule("v").get_parameter("bias").data.fill_(1.0)
    return mechanism(drawn(1, tokens, CHANNELS))[0, :, 0]


@pytest.mark.parametrize(("tokens", "cell", "rank"), [(64, 4, 2), (1024, 64, 4), (96, 12, 3)])
def test_phantoms_that_count_as_tokens_weigh_half_the_sequence_until_its_middle(tokens, cell, rank):
    place = torch.arange(tokens, dtype=torch.float64)
    expected = torch.where(place < tokens // 2, (place + 1) / (place + 1 + tokens // 2), torch.ones_like(place))
    same(ones_with_equal_scores(tokens, cell, rank, size_weight=True), expected)


def test_phantoms_that_count_once_are_as_many_as_computed():
    """n = 1024, m = 64, p = 4: 76 before 64, then 16, 12, 8 up to 128, 256, 512, then none."""
    y = ones_with_equal_scores(1024, 64, 4, size_weight=False)
    for place in (0, 63, 64, 127, 128, 255, 256, 511, 512, 1023):
        phantoms = next(count for end, count in ((64, 76), (128, 16), (256, 12), (512, 8), (1024, 0)) if place < end)
        near = place % 64 + 1 + (64 if place >= 64 else 0)
        far = 4 * sum(len(fma.far((place,), side=1024, cell=64, level=level, causal=True)) for level in (1, 2, 3))
        same(y[place], torch.tensor((near + far) / (near + far + phantoms), dtype=torch.float64))


@pytest.mark.parametrize(
    ("tokens", "cell", "rank", "width", "grouped", "dense"),
    [
        (512, 32, 4, 64, 116_224, 7_341_568),
        (1024, 32, 4, 64, 247_808, 15_730_688),
        (1024, 64, 4, 64, 230_912, 14_681_600),
        (4096, 64, 4, 64, 1_018_368, 65_014_272),
        (64, 4, 2, 8, 992, 7_264),
        (64, 8, 4, 16, 3_328, 49_408),
    ],
)
def test_filters_have_as_many_weights_as_computed(tokens, cell, rank, width, grouped, dense):
    site = line(tokens, channels=2 * width)
    for basis, expected in (("grouped", grouped), ("dense", dense)):
        with torch.device("meta"):
            module = mechanisms.build("fma", site, heads=2, cell=cell, rank=rank, basis=basis)
        assert filters(module) == expected


def filters(module: nn.Module) -> int:
    return sum(weight.numel() for name, weight in module.named_parameters() if "filters" in name)


def test_dense_filters_that_do_not_mix_channels_are_grouped_ones():
    grouped, dense = (build("fma", line(32), cell=4, rank=2, basis=basis) for basis in ("grouped", "dense"))
    state = grouped.state_dict()
    for name in [name for name in state if "filters" in name and name.endswith("weight")]:
        wide = torch.zeros_like(dense.get_parameter(name))
        for output in range(len(wide)):
            wide[output, output // 2] = state[name][output, 0]
        state[name] = wide
    dense.load_state_dict(state)
    same(dense(drawn(1, 32, CHANNELS)), grouped(drawn(1, 32, CHANNELS)))


@pytest.mark.parametrize(
    ("site", "knobs", "words"),
    [
        (line(24), {}, "24 with cell 4"),
        (line(32, causal=True), {"queries": "pooled"}, "fine"),
        (line(32), {"phantom": True}, "sequence"),
        (line(32), {"rank": 5}, "at most the 4"),
        (line(36), {"cell": 9, "rank": 4, "basis": "average"}, "9"),
    ],
)
def test_what_a_sequence_cannot_take_is_refused(site, knobs, words):
    with pytest.raises(ValueError, match=rf"^fma[^\n]*{words}[^\n]*\.$"):
        mechanisms.build("fma", site, **({"heads": 2} | knobs))
