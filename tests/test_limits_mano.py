"""Exact relations of multipole attention: its sum over levels, its overlaps, who sees whom, and the sizes it takes."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mechanisms
from mechanisms import Site, configure
from tests.exact import CHANNELS, build, drawn, grid, mixing, same


def sequence(tokens: int, channels: int = CHANNELS) -> Site:
    return Site(channels=channels, shape=(tokens,))


def fits_mano(side: int, window: int, stride: int, levels: int, rate: int = 2) -> bool:
    sides = [side / rate**level for level in range(levels)]
    return all(s == int(s) and s >= window and (s - window) % stride == 0 for s in sides)


def seen_by(mechanism: nn.Module, site: Site, place: Sequence[int]) -> Tensor:
    """Which tokens [*shape] move the output at a place, by gradient."""
    x = drawn(1, *site.shape, site.channels).requires_grad_()
    (gradient,) = torch.autograd.grad(mechanism(x)[0][tuple(place)].sum(), x)
    return gradient[0].abs().sum(-1) > 0


@pytest.mark.parametrize("shape", [(8, 8), (4, 12)])
def test_mano_with_one_level_is_window_attention(shape):
    swin = build("swin", grid(*shape), window=4, shift=False, position="none")
    mano = build("mano", grid(*shape), window=4, levels=1)
    mano.load_state_dict(swin.state_dict())
    x = drawn(2, *shape, CHANNELS)
    same(mano(x), swin(x))


PUBLISHED = {  # weights of levels 0, 1, 2, ... in the released code's sum
    1: [1],
    2: [1, 1],
    3: [1, 1 / 2, 1 / 2],
    4: [1, 1 / 3, 1 / 6, 1 / 6],
    5: [1, 1 / 4, 1 / 12, 1 / 24, 1 / 24],
}


@pytest.mark.parametrize("levels", PUBLISHED)
@pytest.mark.parametrize("combine", ["sum", "published"])
def test_mano_is_a_weighted_sum_over_levels(levels, combine):
    """Level m on its own: sample down m times, one-level attention of the same weights, sample up m times."""
    mano = build("mano", grid(32, 32), window=2, levels=levels, combine=combine)
    state, x = mano.state_dict(), drawn(1, 32, 32, CHANNELS)
    expected, coarse = torch.zeros_like(x), x
    for m, weight in enumerate(PUBLISHED[levels] if combine == "published" else [1] * levels):
        alone = build("mano", grid(32 // 2**m, 32 // 2**m), window=2, levels=1)
        alone.load_state_dict({key: state[key] for key in alone.state_dict()})
        part = alone(coarse).movedim(-1, 1)
        for _ in range(m):
            part = F.conv_transpose2d(part, state["up.weight"], stride=2)
        expected = expected + weight * part.movedim(1, -1)
        if levels > 1:
            coarse = F.conv2d(coarse.movedim(-1, 1), state["down.weight"], stride=2).movedim(1, -1)
    same(mano(x), expected)


EACH = {"samplers": "per_level", "attention": "per_level"}


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("site", [grid(16, 32), sequence(32)], ids=["grid", "sequence"])
def test_a_gate_starts_as_the_plain_sum_and_can_become_the_published_one(site, levels):
    gated, x = build("mano", site, levels=levels, combine="gate"), drawn(2, *site.shape, CHANNELS)
    gate = mechanisms.build("mano", site, levels=levels, combine="gate").get_parameter("gate")
    assert gate.tolist() == [1] * levels
    for combine, factors in (("sum", [1] * levels), ("published", PUBLISHED[levels])):
        gated.get_parameter("gate").data = torch.tensor(factors, dtype=torch.float64)
        other = build("mano", site, levels=levels, combine=combine)
        other.load_state_dict({name: tensor for name, tensor in gated.state_dict().items() if name != "gate"})
        same(gated(x), other(x))


@pytest.mark.parametrize("combine", ["sum", "published", "gate", "softmax"])
@pytest.mark.parametrize("site", [grid(8, 8), sequence(16)], ids=["grid", "sequence"])
def test_levels_with_weights_of_their_own_equal_shared_ones_where_those_are_alike(site, combine):
    shared, own = build("mano", site, combine=combine), build("mano", site, combine=combine, **EACH)
    weights = shared.state_dict()
    alike = {
        name: weights[".".join(part for part in name.split(".") if not part.isdigit())] for name in own.state_dict()
    }
    own.load_state_dict(alike)
    x = drawn(2, *site.shape, CHANNELS)
    same(own(x), shared(x))


@pytest.mark.parametrize("knobs", [{"combine": "gate"}, {"combine": "softmax"}, EACH])
def test_a_single_level_is_window_attention_however_levels_are_made_and_combined(knobs):
    x = drawn(1, 8, 8, CHANNELS)
    assert build("mano", grid(8, 8), levels=1, **knobs)(x).equal(build("mano", grid(8, 8), levels=1)(x))


@pytest.mark.parametrize(("site", "window"), [(grid(8, 16), 2), (sequence(24), 3), (grid(8, 8), 1)])
def test_one_softmax_over_levels_counts_a_token_once_for_each_level_that_shows_it(site, window):
    """With all scores equal, a level weighs as much as the tokens that its window stands for."""
    knobs = {"downsample": "average", "upsample": "nearest", "window": window}
    levels, axes = 3, len(site.shape)
    places = torch.cartesian_prod(*(torch.arange(side) for side in site.shape)).reshape(-1, axes)
    seen = torch.zeros(site.tokens, site.tokens, dtype=torch.float64)
    for m in range(levels):
        cell = places // (window * 2**m)
        seen += (cell[:, None] == cell[None]).all(-1)
    got = mixing("mano", site, levels=levels, combine="softmax", **knobs)
    same(got, seen / sum((window * 2**m) ** axes for m in range(levels)))


def test_one_softmax_over_levels_listens_to_the_level_whose_keys_answer():
    """A query that answers to nothing in its own fine window but strongly to the mean of a farther one reads that."""
    knobs = {"downsample": "average", "upsample": "nearest", "levels": 2, "combine": "softmax", "heads": 1}
    mano = build("mano", sequence(4, channels=1), **knobs)
    for name, parameter in mano.named_parameters():
        parameter.data = torch.full_like(parameter, float(name.endswith("weight")))
    x = torch.tensor([40.0, 40.0, -40.0, -40.0]).double().reshape(1, 4, 1)
    same(mano(x), x)
    y = mano(torch.tensor([1.0, 1.0, 60.0, 60.0]).double().reshape(1, 4, 1))
    same(y, torch.full_like(y, 60.0))
    plain = build("mano", sequence(4, channels=1), **(knobs | {"combine": "sum"}))
    plain.load_state_dict(mano.state_dict())
    same(plain(x), 2 * x)


@pytest.mark.parametrize("knobs", [{}, {"stride": 1}, {"combine": "gate"}, {"upsample": "nearest"}, EACH])
def test_a_sequence_is_a_grid_of_one_row_with_a_row_sampler(knobs):
    """A grid of equal rows gives in every row what the sequence gives, where its samplers do not tell rows apart."""
    levels, rows = 3, 8
    line = build("mano", sequence(16), levels=levels, **knobs)
    field = build("mano", grid(rows, 16), levels=levels, **knobs)
    weights = dict(line.state_dict())
    for name, tensor in weights.items():
        if name.startswith("down"):
            weights[name] = tensor.unsqueeze(2).expand(-1, -1, 2, -1) / 2
        if name.startswith("up"):
            weights[name] = tensor.unsqueeze(2).expand(-1, -1, 2, -1)
    field.load_state_dict(weights)
    x = drawn(2, 16, CHANNELS)
    same(field(x.unsqueeze(1).expand(-1, rows, -1, -1)), line(x).unsqueeze(1).expand(-1, rows, -1, -1))


REACHES = [
    (shape, {"window": window, "stride": stride, "levels": levels, "rate": rate})
    for shape in ((4,), (9,), (12,), (16,), (27,), (4, 4), (4, 8), (16, 16), (9, 27))
    for window, stride in ((1, 1), (2, 2), (2, 1), (3, 3), (3, 2), (4, 4), (4, 2))
    for levels in (1, 2, 3, 4)
    for rate in (2, 3, 4)
    if all(fits_mano(side, window, stride, levels, rate) for side in shape) and (levels, rate) != (1, 3)
]


def test_the_declared_reach_is_what_gradients_show():
    entry, found = mechanisms.find("mano"), set()
    for shape, knobs in REACHES:
        site = Site(channels=1, shape=shape)
        mano = build("mano", site, heads=1, **knobs)
        x = drawn(1, *shape, 1).expand(site.tokens, *shape, 1).clone().requires_grad_()  # a copy for each reader
        (gradient,) = torch.autograd.grad(mano(x).flatten(1).diagonal().sum(), x)
        seen = gradient.flatten(1) != 0
        shown = "global" if seen.all() else "token" if seen.equal(torch.eye(site.tokens).bool()) else "local"
        assert entry.reach_at(site, configure(entry.config, {"heads": 1, **knobs}, of="mano")) == shown, (shape, knobs)
        found.add(shown)
    assert found == {"global", "local", "token"}


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"attention": "per_level"}, 4 * 66_048 + 131_072),
        ({"samplers": "per_level"}, 66_048 + 3 * 131_072),
        ({"combine": "gate"}, 66_048 + 131_072 + 4),
        ({"combine": "softmax"}, 66_048 + 131_072),
        ({"combine": "softmax", "attention": "per_level"}, 3 * 4 * 16_512 + 16_512 + 131_072),
    ],
)
def test_what_levels_of_their_own_add(knobs, expected):
    """At 128 channels, four levels and rate 2; under one softmax the last projection stays one for all."""
    with torch.device("meta"):
        mechanism = mechanisms.build("mano", grid(16, 16, channels=128), levels=4, **knobs)
    assert sum(parameter.numel() for parameter in mechanism.parameters()) == expected


@pytest.mark.parametrize("levels", [1, 2])
def test_both_rules_of_combining_coincide_up_to_two_levels(levels):
    x = drawn(1, 8, 8, CHANNELS)
    one, other = (build("mano", grid(8, 8), levels=levels, combine=rule)(x) for rule in ("sum", "published"))
    assert one.equal(other)


def test_mano_with_two_levels_is_affine_in_its_upsampling():
    mano, x = build("mano", grid(8, 8), levels=2), drawn(1, 8, 8, CHANNELS)
    up = mano.get_submodule("up").get_parameter("weight")
    first, second = up.data.clone(), drawn(*up.shape)
    outputs = []
    for weight in (torch.zeros_like(up), first, second, 2 * first - 3 * second):
        up.data = weight
        outputs.append(mano(x))
    nothing, one, other, both = outputs
    same(both - nothing, 2 * (one - nothing) - 3 * (other - nothing))


@pytest.mark.parametrize(
    ("channels", "rate", "samplers"), [(128, 2, 131072), (128, 4, 524288), (64, 2, 32768), (32, 2, 8192)]
)
def test_mano_has_the_same_number_of_weights_whatever_the_levels(channels, rate, samplers):
    projections = 4 * (channels**2 + channels)
    for levels, expected in ((1, projections), (2, projections + samplers), (3, projections + samplers)):
        site = grid(64, 64, channels=channels)
        with torch.device("meta"):
            mechanism = mechanisms.build("mano", site, levels=levels, rate=rate, window=2, stride=1)
        assert sum(parameter.numel() for parameter in mechanism.parameters()) == expected


def test_mano_without_learned_sampling_has_projections_alone():
    mechanism = build("mano", grid(8, 8), levels=3, downsample="average", upsample="nearest")
    assert sum(parameter.numel() for parameter in mechanism.parameters()) == 4 * (CHANNELS**2 + CHANNELS)


def test_overlapping_windows_are_averaged_by_their_number_over_each_token():
    """Two tokens that share a single window mix with weight 1/4 over the number of windows that the reader lies in."""
    weights = mixing("mano", grid(4, 4), window=2, stride=1, levels=1)
    least = torch.where(weights > 0, weights, torch.inf).amin(1)
    counts = (1 / (4 * least)).reshape(4, 4)
    same(counts, torch.tensor([[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]).double())
    same(weights.sum(1), torch.ones(16, dtype=torch.float64))


@pytest.mark.parametrize(("levels", "tokens"), [(1, 4), (2, 16), (3, 64), (4, 256)])
def test_pixels_that_touch_across_the_midline_meet_only_at_the_coarsest_level(levels, tokens):
    site = grid(16, 16)
    seen = seen_by(build("mano", site, window=2, levels=levels), site, (7, 7))
    assert int(seen.sum()) == tokens
    assert bool(seen[8, 8]) == (levels == 4)
    assert seen[6:8, 6:8].all()


@pytest.mark.parametrize(("stride", "tokens"), [(2, 1024), (1, 2304)])
def test_three_levels_at_rate_four_are_not_global(stride, tokens):
    site = grid(64, 64, channels=2)
    assert int(seen_by(build("mano", site, window=2, stride=stride, levels=3, rate=4), site, (31, 31)).sum()) == tokens


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7, 8, 12, 14, 16])
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 2), (2, 1), (3, 3), (3, 2), (4, 4), (4, 2), (4, 3), (8, 8)])
def test_mano_accepts_what_windows_cover_and_refuses_the_rest(side, window, stride):
    for levels in (1, 2, 3):
        knobs = {"window": window, "stride": stride, "levels": levels}
        for shape in ((side, side), (side, 16)):
            if all(fits_mano(length, window, stride, levels) for length in shape):
                assert build("mano", grid(*shape), **knobs)(drawn(1, *shape, CHANNELS)).isfinite().all()
            else:
                with pytest.raises(ValueError, match=rf"^mano.*{shape[0]} x {shape[1]}.*[^\n]$"):
                    build("mano", grid(*shape), **knobs)


@pytest.mark.parametrize(("side", "window", "stride"), [(85, 2, 2), (421, 2, 2), (16, 3, 2), (14, 8, 8), (4, 8, 8)])
def test_sizes_at_which_the_published_code_gives_nan_or_fails_are_refused(side, window, stride):
    with pytest.raises(ValueError, match="mano"):
        build("mano", grid(side, side), window=window, stride=stride, levels=1)


def test_a_stride_that_skips_tokens_is_refused():
    with pytest.raises(ValueError, match="stride"):
        build("mano", grid(8, 8), window=2, stride=3, levels=1)
