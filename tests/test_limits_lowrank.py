"""Linformer and Nystromformer: where they are full attention, and that public packages say the same."""

import pytest
import torch
from linformer import LinformerSelfAttention
from nystrom_attention import NystromAttention
from torch import Tensor, nn

import mechanisms
from mechanisms import Site
from mechanisms.nystrom import pseudoinverse, segment_means
from tests.exact import CHANNELS, build, drawn, grid, same

SEQUENCE = Site(channels=CHANNELS, shape=(12,))
each_site = pytest.mark.parametrize("site", [SEQUENCE, grid(3, 4)], ids=lambda site: site.setting)


def without_biases(name: str, site: Site, **knobs: object) -> nn.Module:
    """The packages' projections of q, k and v have none."""
    mechanism = build(name, site, **knobs)
    for part in ("q", "k", "v"):
        mechanism.get_parameter(f"{part}.bias").data.zero_()
    return mechanism


def both(name: str, site: Site, mechanism: nn.Module) -> tuple[Tensor, Tensor]:
    """The outputs of a mechanism and of another with the same projections."""
    other = build(name, site)
    other.load_state_dict(mechanism.state_dict(), strict=False)
    x = drawn(2, *site.shape, CHANNELS)
    return mechanism(x), other(x)


@each_site
def test_linformer_is_full_attention_when_both_maps_are_the_identity(site):
    linformer = build("linformer", site, rank=12)
    for name in ("mix_k", "mix_v"):
        linformer.get_parameter(name).data = torch.eye(12, dtype=torch.float64)
    same(*both("full", site, linformer))


def test_a_shared_map_is_two_equal_maps():
    shared, apart = (build("linformer", SEQUENCE, rank=5, share=share) for share in ("key_value", "none"))
    apart.load_state_dict({**shared.state_dict(), "mix_v": shared.get_parameter("mix_k").detach()})
    x = drawn(2, 12, CHANNELS)
    same(shared(x), apart(x))
    assert sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in shared.parameters()) == 5 * 12


def test_linformer_equals_the_public_package():
    linformer = without_biases("linformer", SEQUENCE, rank=5)
    package = LinformerSelfAttention(CHANNELS, 12, k=5, heads=2).double()
    state = {f"to_{name}.weight": linformer.get_parameter(f"{name}.weight") for name in ("q", "k", "v", "out")}
    state["to_out.bias"] = linformer.get_parameter("out.bias")
    state |= {f"proj_{name}": linformer.get_parameter(f"mix_{name}").T for name in ("k", "v")}
    package.load_state_dict(state)
    x = drawn(2, 12, CHANNELS)
    same(linformer(x), package(x))


def test_linformer_starts_with_entries_of_variance_one_over_rank():
    """So that products of mixed tokens keep their mean, as in the paper's theorems."""
    torch.manual_seed(0)
    linformer = mechanisms.build("linformer", grid(32, 32), rank=64, heads=2)
    assert float(linformer.get_parameter("mix_k").detach().var()) == pytest.approx(1 / 64, rel=0.05)


@each_site
def test_nystrom_is_full_attention_when_every_token_is_a_landmark(site):
    """With enough steps to the inverse: A A^-1 A = A."""
    torch.testing.assert_close(*both("full", site, build("nystrom", site, landmarks=12, iterations=40)))


def test_the_iteration_ends_at_the_pseudoinverse():
    matrix = (2 * drawn(3, 7, 7)).softmax(-1)
    torch.testing.assert_close(pseudoinverse(matrix, 40), torch.linalg.pinv(matrix))


def test_segments_share_the_tokens_among_them():
    """All tokens once, in their order, the longer segments first."""
    x = torch.arange(11, dtype=torch.float64).reshape(1, 1, 11, 1)
    assert segment_means(x, 4).flatten().tolist() == [1.0, 4.0, 7.0, 9.5]
    assert segment_means(x, 11).equal(x)


@pytest.mark.parametrize("convolution", [0, 3, 7])
@pytest.mark.parametrize(("heads", "batch", "iterations"), [(1, 1, 6), (2, 2, 40)])
def test_nystrom_equals_the_public_package(heads, batch, iterations, convolution):
    """The package starts from the largest sums of all samples and heads, which shows until inverses converge."""
    own = without_biases("nystrom", SEQUENCE, heads=heads, landmarks=4, iterations=iterations, convolution=convolution)
    knobs = {"residual": convolution > 0, "residual_conv_kernel": max(convolution, 1)}
    package = NystromAttention(
        CHANNELS, dim_head=CHANNELS // heads, heads=heads, num_landmarks=4, pinv_iterations=iterations, **knobs
    ).double()
    state = {"to_qkv.weight": torch.cat([own.get_parameter(f"{name}.weight") for name in ("q", "k", "v")])}
    state |= {f"to_out.0.{kind}": own.get_parameter(f"out.{kind}") for kind in ("weight", "bias")}
    if convolution:
        state["res_conv.weight"] = own.get_parameter("convolution.weight")
    package.load_state_dict(state)
    x = drawn(batch, 12, CHANNELS)
    torch.testing.assert_close(own(x), package(x))


@pytest.mark.parametrize(("knobs", "said"), [({"landmarks": 13}, "at most 12"), ({"convolution": 4}, "odd, or 0")])
def test_what_nystrom_cannot_take_is_refused(knobs, said):
    with pytest.raises(ValueError, match=rf"^nystrom\.{next(iter(knobs))} .*{said}.*"):
        build("nystrom", SEQUENCE, **knobs)
