"""Exact relations: limits in which one mechanism is another, sums that must come out, and who depends on whom.

The names q, k, v, out are common to all, so weights can be carried from one mechanism to another.
"""

import pytest
import torch
from torch.nn import functional as F

import mechanisms
from attnbench.oracles import _dense as dense
from mechanisms import Site
from tests.exact import CHANNELS, build, drawn, grid, mixing, same

SEQUENCE, CAUSAL = Site(channels=CHANNELS, shape=(150,)), Site(channels=CHANNELS, shape=(150,), causal=True)
PLACES_OF_8 = [(row, column) for row in range(8) for column in range(8)]


@pytest.mark.parametrize("site", [SEQUENCE, CAUSAL, grid(4, 4)], ids=lambda site: site.setting)
def test_identity_returns_its_input(site):
    x, mechanism = drawn(2, *site.shape, CHANNELS), mechanisms.build("identity", site)
    assert mechanism(x).equal(x)
    assert not list(mechanism.parameters())


@pytest.mark.parametrize(
    ("name", "site", "knobs"),
    [
        ("swin", grid(6, 6), {"window": 6, "position": "none"}),
        ("swin", grid(6, 6, block=1), {"window": 6, "position": "none"}),
        ("swin", grid(5, 6, block=1), {"window": 8, "position": "none", "pad": True}),
        ("mano", grid(6, 6), {"window": 6, "levels": 1}),
        ("mano", grid(6, 6), {"window": 6, "levels": 1, "stride": 1}),
        ("fma", grid(7, 7), {"cell": 7, "rank": 3}),
        ("fma", grid(14, 14), {"cell": 7, "rank": 3}),
        ("fma", grid(8, 8), {"cell": 4, "rank": 4, "basis": "average"}),
    ],
)
def test_is_full_attention_when_everything_is_near(name, site, knobs):
    mechanism, full = build(name, site, **knobs), build("full", site)
    full.load_state_dict(mechanism.state_dict())
    x = drawn(2, *site.shape, CHANNELS)
    same(mechanism(x), full(x))


def test_a_position_bias_that_is_the_same_everywhere_changes_nothing():
    swin, full = build("swin", grid(6, 6), window=6), build("full", grid(6, 6))
    swin.get_parameter("bias").data.fill_(2.5)
    full.load_state_dict({key: value for key, value in swin.state_dict().items() if key != "bias"})
    x = drawn(2, 6, 6, CHANNELS)
    same(swin(x), full(x))


def test_a_position_bias_starts_near_zero():
    torch.manual_seed(0)
    bias = mechanisms.build("swin", grid(16, 16), window=16, heads=2).get_parameter("bias").detach()
    assert bias.shape == (31**2, 2)
    assert float(bias.std()) == pytest.approx(0.02, rel=0.1)
    assert abs(float(bias.mean())) < 0.002


@pytest.mark.parametrize(("shape", "window"), [((8, 8), 8), ((4, 8), 8), ((6, 6), 8)])
def test_windows_are_not_shifted_along_an_axis_that_one_covers(shape, window):
    even, odd = (build("swin", grid(*shape, block=block), window=window, pad=True) for block in (0, 1))
    odd.load_state_dict(even.state_dict())
    x = drawn(1, *shape, CHANNELS)
    assert odd(x).equal(even(x))


def test_a_shifted_window_is_cut_at_the_border():
    """Windows of 4 shifted by 2: along an axis of 8, places 0 1 | 2 3 4 5 | 6 7; unshifted 0 1 2 3 | 4 5 6 7."""
    for block, groups in ((1, (0, 0, 1, 1, 1, 1, 2, 2)), (0, (0, 0, 0, 0, 1, 1, 1, 1)), (2, (0, 0, 0, 0, 1, 1, 1, 1))):
        weights = mixing("swin", grid(8, 8, block=block), window=4, position="none")
        for i, (row, column) in enumerate(PLACES_OF_8):
            visible = [groups[row] == groups[r] and groups[column] == groups[c] for r, c in PLACES_OF_8]
            same(weights[i], torch.tensor(visible) / torch.tensor(visible).sum().double())


def test_without_shift_odd_blocks_are_like_even_ones():
    even, odd = (build("swin", grid(8, 8, block=block), window=4, shift=False) for block in (0, 1))
    odd.load_state_dict(even.state_dict())
    x = drawn(1, 8, 8, CHANNELS)
    assert odd(x).equal(even(x))


def test_a_token_alone_in_a_padded_window_sees_itself_only():
    weights = mixing("swin", grid(5, 5), window=4, pad=True, position="none")
    same(weights[24], F.one_hot(torch.tensor(24), 25).double())
    same(weights.sum(1), torch.ones(25, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (4, 4), (4, 6), (7, 8), (8, 12), (13, 5)])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 8])
def test_swin_accepts_what_windows_tile_and_the_rest_only_padded(shape, window):
    x = drawn(1, *shape, CHANNELS)
    for block in (0, 1):
        assert build("swin", grid(*shape, block=block), window=window, pad=True)(x).isfinite().all()
        if any(side % window for side in shape):
            with pytest.raises(ValueError, match=r"^swin.*pad"):
                build("swin", grid(*shape, block=block), window=window)
        else:
            build("swin", grid(*shape, block=block), window=window)


@pytest.mark.parametrize("name", ["full", "linear"])
def test_at_the_last_token_causal_attention_sees_all(name):
    both, causal = build(name, SEQUENCE), build(name, CAUSAL)
    causal.load_state_dict(both.state_dict())
    x = drawn(2, 150, CHANNELS)
    same(causal(x)[:, -1], both(x)[:, -1])


def test_full_attention_of_one_token_is_its_value():
    mechanism, x = build("full", Site(channels=CHANNELS, shape=(1,))), drawn(1, 1, CHANNELS)
    weights = mechanism.state_dict()
    same(mechanism(x), dense.project(weights, "out", dense.project(weights, "v", x)))


@pytest.mark.parametrize("name", ["full", "linear"])
def test_permuting_tokens_permutes_outputs(name):
    mechanism, x, order = build(name, SEQUENCE), drawn(1, 150, CHANNELS), torch.randperm(150)
    same(mechanism(x[:, order]), mechanism(x)[:, order])


@pytest.mark.parametrize("name", ["full", "linear", "swin", "fma", "mano"])
def test_the_order_of_heads_does_not_matter(name):
    """Heads swapped in q, k, v and in what `out` reads: the same output, so whatever heads share, they share truly."""
    mechanism, twin = (build(name, grid(16, 16), heads=4) for _ in range(2))
    x, order = drawn(1, 16, 16, CHANNELS), torch.tensor([4, 5, 0, 1, 6, 7, 2, 3])
    state = mechanism.state_dict()
    state |= {key: state[key][order] for key in ("q.weight", "k.weight", "v.weight", "q.bias", "k.bias", "v.bias")}
    state["out.weight"] = state["out.weight"][:, order]
    if name == "swin":
        state["bias"] = state["bias"][:, [2, 0, 3, 1]]
    twin.load_state_dict(state)
    same(twin(x), mechanism(x))
