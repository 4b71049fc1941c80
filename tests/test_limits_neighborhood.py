"""Neighbourhood attention's exact limits: the whole grid, dilated grids apart, borders, and torch's flex attention."""

import pytest
import torch
from einops import rearrange
from torch.nn.attention.flex_attention import create_mask
from torch.nn.functional import scaled_dot_product_attention

import mechanisms
from mechanisms import Site
from tests.exact import CHANNELS, build, drawn, grid, mixing, same


def line(tokens: int, causal: bool = False) -> Site:
    return Site(channels=CHANNELS, shape=(tokens,), causal=causal)


@pytest.mark.parametrize("site", [grid(5, 5), line(5), line(5, causal=True)], ids=lambda site: site.setting)
def test_is_full_attention_when_the_window_is_the_grid(site):
    near, full = build("neighborhood", site, window=5), build("full", site)
    full.load_state_dict(near.state_dict())
    x = drawn(2, *site.shape, CHANNELS)
    same(near(x), full(x))


@pytest.mark.parametrize("site", [grid(8, 6), line(12), line(12, causal=True)], ids=lambda site: site.setting)
def test_dilation_two_is_attention_within_the_separate_grids(site):
    dilated = build("neighborhood", site, window=3, dilation=2)
    half = Site(channels=CHANNELS, shape=tuple(side // 2 for side in site.shape), causal=site.causal)
    apart = build("neighborhood", half, window=3)
    apart.load_state_dict(dilated.state_dict())
    x = drawn(2, *site.shape, CHANNELS)
    if len(site.shape) == 1:
        expected = rearrange(apart(rearrange(x, "b (n s) c -> (b s) n c", s=2)), "(b s) n c -> b (n s) c", s=2)
    else:
        grids = apart(rearrange(x, "b (i s) (j t) c -> (b s t) i j c", s=2, t=2))
        expected = rearrange(grids, "(b s t) i j c -> b (i s) (j t) c", s=2, t=2)
    same(dilated(x), expected)


@pytest.mark.parametrize("dilation", [1, 2])
def test_every_query_sees_equally_many_keys_also_at_borders(dilation):
    seen = mixing("neighborhood", grid(7, 9), window=3, dilation=dilation)
    assert ((seen > 0).sum(1) == 9).all()
    same(seen.max(1).values, torch.full((63,), 1 / 9, dtype=torch.float64))


def test_the_corner_sees_the_window_in_the_corner():
    """Not a window around it that is padded with zeros: that is another mechanism."""
    seen = mixing("neighborhood", grid(5, 6), window=3)[0].reshape(5, 6) > 0
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[:3, :3] = True
    assert seen.equal(expected)


@pytest.mark.parametrize("causal", [False, True])
def test_equals_attention_under_a_mask_that_says_who_is_near(causal):
    """The mask is a condition on places alone, as torch's flex attention takes it; it knows no lists of neighbours."""
    tokens, window = 19, 5
    near, x = build("neighborhood", line(tokens, causal), window=window), drawn(2, tokens, CHANNELS)

    def sees(_b: torch.Tensor, _h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        if causal:
            return (j <= i) & (i - j < window)
        middle = i.clamp(window // 2, tokens - 1 - window // 2)
        return (j - middle).abs() <= window // 2

    mask = create_mask(sees, None, None, tokens, tokens, device="cpu")
    q, k, v = (rearrange(near.get_submodule(name)(x), "b n (h d) -> b h n d", h=2) for name in ("q", "k", "v"))
    y = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    same(near(x), near.get_submodule("out")(rearrange(y, "b h n d -> b n (h d)")))


def test_a_bias_that_is_the_same_everywhere_changes_nothing():
    biased = build("neighborhood", grid(6, 7), window=5, position="relative")
    biased.get_parameter("bias").data.fill_(2.5)
    plain = build("neighborhood", grid(6, 7), window=5)
    plain.load_state_dict({key: value for key, value in biased.state_dict().items() if key != "bias"})
    x = drawn(2, 6, 7, CHANNELS)
    same(biased(x), plain(x))


@pytest.mark.parametrize(("knobs", "said"), [({"window": 4}, "odd"), ({"window": 7, "dilation": 2}, "7 x 2")])
def test_windows_that_do_not_fit_are_refused(knobs, said):
    with pytest.raises(ValueError, match=rf"^neighborhood\.window .*{said}.*"):
        mechanisms.build("neighborhood", grid(16, 12), **knobs)


def test_the_kernels_of_natten_take_the_same_weights():
    """Its module is built, though not run, without the package; on a GPU both are compared by existing."""
    natten, own = mechanisms.find("neighborhood_natten"), mechanisms.find("neighborhood")
    config = mechanisms.configure(natten.config, {}, of="neighborhood_natten")
    assert natten.reference == "neighborhood"
    assert natten.fits == own.fits
    kernels = natten.module(grid(8, 8), config)
    kernels.load_state_dict(build("neighborhood", grid(8, 8), heads=4).state_dict())
