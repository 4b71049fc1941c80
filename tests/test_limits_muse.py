"""MuSe's exact limits: with clusters of one token it is softmax attention, elsewhere it errs in the right order."""

import pytest
import torch
from torch import Tensor

from mechanisms import Site
from mechanisms._clusters import centres
from tests.exact import CHANNELS, build, drawn, grid, mixing, same

SEQUENCE = Site(channels=CHANNELS, shape=(21,))
each_order = pytest.mark.parametrize("order", ["monopole", "dipole"])


def causal(tokens: int) -> Site:
    return Site(channels=CHANNELS, shape=(tokens,), causal=True)


def both(site: Site, **knobs: object) -> tuple[Tensor, Tensor]:
    """The outputs of muse and of full attention with the same weights."""
    muse, full = build("muse", site, **knobs), build("full", site)
    full.load_state_dict(muse.state_dict())
    x = drawn(2, *site.shape, CHANNELS)
    return muse(x), full(x)


@each_order
@pytest.mark.parametrize("site", [SEQUENCE, grid(3, 7)], ids=lambda site: site.setting)
@pytest.mark.parametrize("key_clusters", [1, 4, 21])
def test_is_full_attention_when_every_query_is_its_own_cluster(site, key_clusters, order):
    same(*both(site, query_clusters=21, key_clusters=key_clusters, order=order))


@each_order
@pytest.mark.parametrize("query_clusters", [1, 4])
def test_is_full_attention_when_every_key_is_its_own_cluster(query_clusters, order):
    same(*both(SEQUENCE, query_clusters=query_clusters, key_clusters=21, order=order))


@each_order
@pytest.mark.parametrize("tokens", [5, 8, 13, 16])
def test_is_causal_attention_when_every_key_of_the_far_segment_is_its_own_cluster(tokens, order):
    same(*both(causal(tokens), query_clusters=2, key_clusters=8, block=8, order=order))


@pytest.mark.parametrize(("tokens", "block"), [(1, 4), (16, 4), (37, 4), (40, 1)])
def test_causal_segments_cover_every_past_token_once(tokens, block):
    """With equal scores every past token weighs the same."""
    expected = torch.ones(tokens, tokens, dtype=torch.float64).tril()
    found = mixing("muse", causal(tokens), query_clusters=1, key_clusters=1, block=block)
    same(found, expected / expected.sum(1, keepdim=True))


@each_order
@pytest.mark.parametrize("site", [SEQUENCE, causal(37)], ids=lambda site: site.setting)
def test_weights_sum_to_one(site, order):
    muse = build("muse", site, query_clusters=3, key_clusters=3, block=4, order=order)
    muse.get_parameter("v.weight").data.zero_()
    expected = muse.get_submodule("out")(muse.get_parameter("v.bias"))
    same(muse(drawn(1, *site.shape, CHANNELS)), expected.expand(1, *site.shape, -1))


@pytest.mark.parametrize(("order", "power"), [("monopole", 1), ("dipole", 2)])
def test_error_falls_with_the_distance_of_queries_from_their_centre(order, power):
    """To the first power with monopoles and to the second with dipoles; single keys are read exactly all the while."""
    muse, full = build("muse", SEQUENCE, query_clusters=1, key_clusters=4, order=order), build("full", SEQUENCE)
    x, errors = drawn(2, *SEQUENCE.shape, CHANNELS), []
    for factor in (1e-3, 5e-4):
        muse.get_parameter("q.weight").data *= factor / muse.get_parameter("q.weight").detach().abs().max()
        full.load_state_dict(muse.state_dict())
        errors.append(float((muse(x) - full(x)).detach().norm()))
    assert errors[0] / errors[1] == pytest.approx(2**power, rel=0.02)


def test_a_centre_that_no_token_is_nearest_to_stays_in_place():
    x = torch.tensor([3.0, 3.0, 5.0, 6.0]).reshape(1, 4, 1)
    assert centres(x, 4, 2).equal(x)


@each_order
@pytest.mark.parametrize("clusters", [(21, 4), (4, 21)])
def test_clusters_that_stay_empty_change_nothing(clusters, order):
    """Equal tokens are nearest to one of their equal centres, and the others are nobody's."""
    muse = build("muse", SEQUENCE, query_clusters=clusters[0], key_clusters=clusters[1], order=order)
    full = build("full", SEQUENCE)
    full.load_state_dict(muse.state_dict())
    x = drawn(2, 7, CHANNELS).repeat_interleave(3, 1)
    same(muse(x), full(x))


@pytest.mark.parametrize("site", [SEQUENCE, causal(64)], ids=lambda site: site.setting)
@pytest.mark.parametrize("knob", ["query_clusters", "key_clusters"])
def test_more_clusters_than_tokens_are_refused(site, knob):
    with pytest.raises(ValueError, match=rf"^muse\.{knob} must be at most \d+, the tokens of .*; got 22\.$"):
        build("muse", site, **{"query_clusters": 2, "key_clusters": 2, "block": 16, knob: 22})
