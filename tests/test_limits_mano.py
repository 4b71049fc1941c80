"""Exact relations of multipole attention: its sum over levels, its overlaps, who sees whom, and the sizes it takes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mechanisms
from mechanisms import Site
from tests.exact import CHANNELS, build, drawn, grid, mixing, same


def seen_by(mechanism: nn.Module, site: Site, place: tuple[int, int]) -> Tensor:
    """Which tokens [H, W] move the output at a place, by gradient."""
    x = drawn(1, *site.shape, site.channels).requires_grad_()
    (gradient,) = torch.autograd.grad(mechanism(x)[0][place].sum(), x)
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


def fits_mano(side: int, window: int, stride: int, levels: int) -> bool:
    sides = [side / 2**level for level in range(levels)]
    return all(s == int(s) and s >= window and (s - window) % stride == 0 for s in sides)


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
