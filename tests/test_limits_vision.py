"""Exact relations of pooled, agent and cross-covariance attention and of the controls pool and FNet."""

import pytest
import torch
from torch import nn

import mechanisms
from attnbench.models._timm import timm
from mechanisms import Site
from tests.exact import CHANNELS, build, drawn, grid, mixing, same

SITES = [Site(channels=CHANNELS, shape=(24,)), grid(6, 5)]


def build_plain(name: str, site: Site) -> nn.Module:
    """One without heads."""
    return mechanisms.build(name, site).double()


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.setting)
@pytest.mark.parametrize("knobs", [{"block": 1}, {"coarse": "fixed", "side": 24}], ids=str)
def test_pooled_with_nothing_pooled_is_full_attention(site, knobs):
    pooled, full, x = build("pooled", site, **knobs), build("full", site), drawn(2, *site.shape, CHANNELS)
    full.load_state_dict(pooled.state_dict())
    same(pooled(x), full(x))


def test_pooled_is_full_attention_where_blocks_hold_equal_tokens():
    """Two equal keys weigh as one of twice the mass, all alike, so their mean loses nothing."""
    pooled, full = build("pooled", grid(8, 8)), build("full", grid(8, 8))
    full.load_state_dict(pooled.state_dict())
    x = drawn(1, 4, 4, CHANNELS).repeat_interleave(2, 1).repeat_interleave(2, 2)
    same(pooled(x), full(x))


@pytest.mark.parametrize("shape", [(5, 5), (7, 4), (3, 9)])
def test_border_blocks_average_only_tokens_that_exist(shape):
    same(mixing("pooled", grid(*shape), block=2).sum(1), torch.ones(shape[0] * shape[1], dtype=torch.float64))


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.setting)
def test_agents_that_share_one_query_read_a_plain_mean(site):
    """Queries of zero, no convolution: both softmaxes are flat, and each token gets the mean of all."""
    expected = torch.full((site.tokens, site.tokens), 1 / site.tokens, dtype=torch.float64)
    same(mixing("agent", site, side=3, convolution=False), expected)


def test_as_many_agents_as_tokens_are_the_queries_themselves():
    """Then it is softmax(q q^T) softmax(q k^T) v, as can be written down."""
    site = Site(channels=CHANNELS, shape=(9,))
    mechanism, x = build("agent", site, heads=1, side=9, convolution=False), drawn(1, 9, CHANNELS)
    q, k, v = (mechanism.get_submodule(name)(x)[0] for name in ("q", "k", "v"))
    scale = CHANNELS**-0.5
    read = (scale * q @ k.T).softmax(-1) @ v
    same(mechanism(x)[0], mechanism.get_submodule("out")((scale * q @ q.T).softmax(-1) @ read))


def test_a_constant_position_bias_of_agents_changes_nothing():
    biased, free = build("agent", grid(6, 5), position="bilinear"), build("agent", grid(6, 5))
    for name, parameter in biased.named_parameters():
        if "bias." in name:
            parameter.data.fill_(1.5)
    free.load_state_dict({key: value for key, value in biased.state_dict().items() if "bias." not in key})
    x = drawn(1, 6, 5, CHANNELS)
    same(biased(x), free(x))


def test_xca_is_timms():
    timm()
    from timm.models.xcit import XCA

    site = Site(channels=CHANNELS, shape=(12,))
    mechanism, peer, x = build("xca", site), XCA(CHANNELS, num_heads=2, qkv_bias=True).double(), drawn(2, 12, CHANNELS)
    state = mechanism.state_dict()
    peer.load_state_dict(
        {
            "temperature": state["temperature"],
            "qkv.weight": torch.cat([state[f"{name}.weight"] for name in "qkv"]),
            "qkv.bias": torch.cat([state[f"{name}.bias"] for name in "qkv"]),
            "proj.weight": state["out.weight"],
            "proj.bias": state["out.bias"],
        }
    )
    same(mechanism(x), peer(x))


def test_xca_does_not_know_the_order_of_tokens():
    mechanism, x, order = build("xca", SITES[0]), drawn(1, 24, CHANNELS), torch.randperm(24)
    same(mechanism(x[:, order]), mechanism(x)[:, order])


@pytest.mark.parametrize("shape", [(8, 8), (5, 7), (2, 3)])
def test_pool_is_timms(shape):
    timm()
    from timm.models.metaformer import Pooling

    x = drawn(2, *shape, CHANNELS)
    same(build_plain("pool", grid(*shape))(x), Pooling(3)(x.movedim(-1, 1)).movedim(1, -1))


def test_pool_takes_a_constant_to_zero():
    x = torch.ones(1, 5, 7, CHANNELS, dtype=torch.float64)
    same(build_plain("pool", grid(5, 7))(x), torch.zeros_like(x))


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.setting)
def test_fnet_keeps_the_norm_of_even_inputs_and_is_linear(site):
    """The transform is unitary; of an input that equals its own reflection it is real, so the real part is all."""
    mechanism, x = build_plain("fnet", site), drawn(1, *site.shape, CHANNELS)
    axes = tuple(range(1, x.ndim))
    even = x + x.flip(axes).roll((1,) * len(axes), axes)
    same(mechanism(even).norm(), even.norm())
    same(mechanism(2 * x + even), 2 * mechanism(x) + mechanism(even))
    same(mechanism(mechanism(even)), even)
