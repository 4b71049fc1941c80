"""Exact relations of the mechanisms of operator learning: Galerkin, physics attention, spectral convolution."""

from typing import Any

import pytest
import torch
from torch import Tensor

import mechanisms
from mechanisms import Site
from tests.exact import CHANNELS, build, drawn, grid, same

SEQUENCE = Site(channels=CHANNELS, shape=(24,))


def let_through(mechanism: torch.nn.Module, *names: str) -> None:
    """Makes linear maps hand on what they get."""
    for name in names:
        layer = mechanism.get_submodule(name)
        layer.get_parameter("weight").data = torch.eye(CHANNELS, dtype=torch.float64)
        layer.get_parameter("bias").data.zero_()


def smooth(tokens: int) -> Tensor:
    """Channels that are smooth functions on [0, 1], at the middles of equal cells [1, N, C]."""
    place = (torch.arange(tokens, dtype=torch.float64) + 0.5) / tokens
    return torch.stack([torch.sin((c + 1) * place) + c * place**2 for c in range(CHANNELS)], -1).unsqueeze(0)


@pytest.mark.parametrize("kind", ["galerkin", "fourier"])
def test_galerkin_without_norms_is_two_matrix_products(kind):
    mechanism, x = build("galerkin", SEQUENCE, heads=1, kind=kind, norm=False), drawn(1, 24, CHANNELS)
    let_through(mechanism, "q", "k", "v", "out")
    scale = 24 if kind == "galerkin" else 24 * CHANNELS**0.5
    same(mechanism(x)[0], x[0] @ x[0].T @ x[0] / scale)


@pytest.mark.parametrize("kind", ["galerkin", "fourier"])
def test_galerkin_converges_when_the_mesh_is_refined(kind):
    """Sums over tokens divided by their number are integrals: a third of the cell, a ninth of the error."""
    coarse, middle, fine = (
        build("galerkin", Site(channels=CHANNELS, shape=(n,)), kind=kind)(smooth(n)).detach() for n in (64, 192, 576)
    )
    first, second = (coarse - middle[:, 1::3]).norm(), (middle - fine[:, 1::3]).norm() / 3**0.5
    assert second < 1.2 * first / 9
    assert first < 1e-2 * coarse.norm()


def test_galerkins_two_kinds_are_the_same_product_without_norms():
    galerkin, fourier = (build("galerkin", SEQUENCE, kind=kind, norm=False) for kind in ("galerkin", "fourier"))
    fourier.load_state_dict(galerkin.state_dict())
    fourier.get_parameter("out.weight").data *= (CHANNELS / 2) ** 0.5  # of two heads
    same(fourier(drawn(2, 24, CHANNELS)), galerkin(drawn(2, 24, CHANNELS)))


def test_transolver_on_a_sequence_does_not_know_the_order_of_tokens():
    mechanism, x, order = build("transolver", SEQUENCE), drawn(1, 24, CHANNELS), torch.randperm(24)
    same(mechanism(x[:, order]), mechanism(x)[:, order])


@pytest.mark.parametrize("slices", [1, 5])
def test_a_hot_transolver_gives_every_token_the_same(slices):
    """All shares alike: every slice is the mean of all tokens, so every token gets the same mean back."""
    mechanism = build("transolver", SEQUENCE, slices=slices)
    mechanism.get_parameter("temperature").data.fill_(1e12)
    x = drawn(1, 24, CHANNELS)
    y = mechanism(x)
    torch.testing.assert_close(y, y[:, :1].expand_as(y), rtol=1e-6, atol=1e-6)
    content = mechanism.get_submodule("what")(x).mean(1) / (1 + slices * 1e-5 / 24)
    heads = [mechanism.get_submodule("v")(part) for part in content.split(CHANNELS // 2, -1)]
    torch.testing.assert_close(y[:, 0], mechanism.get_submodule("out")(torch.cat(heads, -1)), rtol=1e-6, atol=1e-6)


def test_the_temperature_is_held_within_bounds_on_grids_and_free_on_sequences():
    for site, same_beyond in ((grid(6, 6), True), (SEQUENCE, False)):
        mechanism, x = build("transolver", site), drawn(1, *site.shape, CHANNELS)
        outputs = []
        for temperature in (0.1, 0.01, 5.0, 50.0):
            mechanism.get_parameter("temperature").data.fill_(temperature)
            outputs.append(mechanism(x))
        assert outputs[0].equal(outputs[1]) == same_beyond
        assert outputs[2].equal(outputs[3]) == same_beyond


def test_slices_start_orthogonal_and_half_warm():
    mechanism = mechanisms.build("transolver", Site(channels=32, shape=(24,)), heads=2, slices=8)
    rows = mechanism.get_parameter("slices.weight").detach()
    torch.testing.assert_close(rows @ rows.T, torch.eye(8), rtol=0, atol=1e-5)
    assert mechanism.get_parameter("temperature").detach().eq(0.5).all()


def spectral(site: Site, modes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return mechanisms.build("fourier", site, modes=modes).double()


@pytest.mark.parametrize("site", [Site(channels=CHANNELS, shape=(9,)), grid(8, 8), grid(7, 7)], ids=str)
def test_all_modes_with_unit_matrices_are_the_identity(site):
    mechanism, x = spectral(site, site.shape[0]), drawn(2, *site.shape, CHANNELS)
    weight = mechanism.get_parameter("weight").data.zero_()
    weight.movedim((0, 1), (-2, -1))[..., 0, :, :] = torch.eye(CHANNELS, dtype=torch.float64)
    mechanism.get_parameter("bias").data.zero_()
    same(mechanism(x), x)


def test_a_band_limited_input_gives_the_same_at_two_resolutions():
    coarse, fine = spectral(grid(8, 8), 5), spectral(grid(24, 24), 5)
    fine.load_state_dict(coarse.state_dict())
    row, column = torch.meshgrid(*(torch.arange(24, dtype=torch.float64) / 24,) * 2, indexing="ij")
    waves = [torch.cos(2 * torch.pi * (a * row + b * column) + a + b) for a in (-2, 0, 1, 2) for b in (0, 2)]
    x = torch.stack(waves, -1).unsqueeze(0)
    same(coarse(x[:, ::3, ::3]), fine(x)[:, ::3, ::3])


def test_shifting_the_tokens_shifts_the_output():
    mechanism, x = spectral(grid(8, 6), 4), drawn(1, 8, 6, CHANNELS)
    same(mechanism(x.roll((3, 2), (1, 2))), mechanism(x).roll((3, 2), (1, 2)))


@pytest.mark.parametrize(("shape", "modes"), [((16,), 7), ((12, 12), 12), ((8, 16), 5), ((10, 8), 8), ((15,), 6)])
def test_the_spectral_convolution_is_neuraloperators(shape, modes):
    """Sides but the last even: on odd ones the package shifts its modes back to another place than they came from."""
    from neuralop.layers.spectral_convolution import SpectralConv

    mechanism = mechanisms.build("fourier", Site(channels=4, shape=shape), modes=modes)
    peer: Any = SpectralConv(4, 4, (modes,) * len(shape))
    mechanism.get_parameter("bias").data.normal_()
    with torch.no_grad():
        peer.weight.tensor.copy_(torch.view_as_complex(mechanism.get_parameter("weight").data))
        peer.bias.copy_(mechanism.get_parameter("bias").data.reshape(-1, *(1,) * len(shape)))
        x = torch.randn(2, *shape, 4)
        torch.testing.assert_close(mechanism(x), peer(x.movedim(-1, 1)).movedim(1, -1), rtol=1e-4, atol=1e-5)
