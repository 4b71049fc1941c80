"""Counted work: what the counter says against what is written down by hand, at two sizes, and what it must not miss."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mechanisms
from attnbench import flops
from attnbench.models import maker
from mechanisms import Site
from tasks import Port

HALF = {"channels": 16, "depth": 1}
SIDES = pytest.mark.parametrize("side", [8, 16])


def counted(side: int, mechanism: str, **knobs: object) -> int:
    """Forward work of the mechanism alone, of 16 channels on a square grid: a model with it less one without."""
    port = Port(inputs=3, outputs=1, shape=(side, side))
    work = [
        flops.count(maker("isotropic", HALF, inside, 0), port).matmul_flops
        for inside in ((mechanism, knobs), ("identity", {}))
    ]
    return work[0] - work[1]


def projections(tokens: int) -> int:
    """q, k, v and out of 16 channels."""
    return 4 * 2 * tokens * 16 * 16


@SIDES
def test_full_attention_is_four_products_of_tokens_and_two_of_pairs(side):
    n = side**2
    assert counted(side, "full") == projections(n) + 2 * 2 * n * n * 16


@SIDES
@pytest.mark.parametrize("shift", [True, False])
def test_window_attention_is_full_attention_within_each_window(side, shift):
    n = side**2
    assert counted(side, "swin", window=4, shift=shift) == projections(n) + (n // 16) * 2 * 2 * 16 * 16 * 16


@SIDES
def test_linear_attention_sums_keys_and_values_once(side):
    n, heads, width = side**2, 4, 4
    memories = 2 * n * heads * width * width  # keys times values
    assert counted(side, "linear") == projections(n) + 2 * memories + 2 * n * heads * width


@SIDES
def test_mano_is_window_attention_on_every_level_and_the_way_there_and_back(side):
    sizes = [(side // 2**level) ** 2 for level in range(3)]
    attention = sum(projections(n) + (n // 4) * 2 * 2 * 4 * 4 * 16 for n in sizes)
    sampling = sum(2 * (2 * n * 16 * 16 * 4) for n in sizes[1:])  # a kernel of 2 x 2 down and one up
    assert counted(side, "mano", window=2, levels=3) == attention + sampling
    assert counted(side, "mano", window=2, levels=3, downsample="average", upsample="nearest") == attention


@SIDES
def test_fma_is_attention_to_the_listed_keys_and_their_summaries(side):
    n, cell, rank, levels = side**2, 2, 3, {8: 1, 16: 2}[side]
    grids = [side // (cell * 2**level) for level in range(levels)]
    keys = 9 * cell**2 + sum(rank * (12 if cells == 4 else 27) for cells in grids)
    summaries = sum(2 * cells**2 * rank * (side // cells) ** 2 * 16 for cells in grids)  # one filter a channel and rank
    assert counted(side, "fma", cell=cell, rank=rank) == projections(n) + 2 * 2 * n * keys * 16 + 2 * summaries


@pytest.mark.parametrize("shape", [(16, 16), (16, 32)])
def test_the_fourier_operator_counts_complex_products_fourfold_and_its_transforms(shape):
    n, width, modes, depth = shape[0] * shape[1], 12, 8, 3
    kept = modes * (modes // 2 + 1)
    make = maker("fno", {"modes": modes, "channels": width, "depth": depth}, None, 0)
    work = flops.count(make, Port(inputs=3, outputs=1, shape=shape))
    lifting = 3 * 2 * width + 2 * width * width  # the package's two pointwise layers, twice as wide between
    projection = width * 2 * width + 2 * width * 1
    layer = width * width + 2 * width * (width // 2)  # its skip, and its MLP of half the width
    spectral = 8 * kept * width * width  # a complex multiplication and addition are eight real ones
    assert work.matmul_flops == 2 * n * (lifting + projection + depth * layer) + depth * spectral
    assert work.fft_flops == depth * 2 * width * 5 * n * np.log2(n) / 2  # there and back, half for real fields


class Transforms(nn.Module):
    def __init__(self, how: Callable[[Tensor], Tensor]):
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(x)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda x: torch.fft.fft2(x.to(torch.complex64), dim=(1, 2)), 5 * 2 * 8 * 4 * 5),
        (lambda x: torch.fft.rfft(x, dim=1), 5 * 2 * 8 * 4 * 3 / 2),
        (lambda x: torch.fft.rfft(x, dim=2), 5 * 2 * 8 * 4 * 2 / 2),
        (lambda x: torch.fft.ifft(x.to(torch.complex64), dim=2), 5 * 2 * 8 * 4 * 2),
    ],
)
def test_a_transform_of_n_points_is_five_n_log_n_and_half_of_it_for_real_ones(how, expected):
    work = flops.count(lambda _: Transforms(how), Port(inputs=2, outputs=2, shape=(8, 4)))
    assert (work.fft_flops, work.matmul_flops, work.params) == (expected, 0, 0)


def test_a_complex_matrix_product_is_four_real_ones():
    def product(x: Tensor) -> Tensor:
        return x @ torch.empty(2, 7, dtype=x.dtype)

    port = Port(inputs=2, outputs=7, shape=(8, 4))
    real = flops.count(lambda _: Transforms(product), port)
    complex_ = flops.count(lambda _: Transforms(lambda x: product(x.to(torch.complex64))), port)
    assert real.matmul_flops == 2 * 32 * 2 * 7
    assert complex_.matmul_flops == 4 * real.matmul_flops


def test_a_complex_weight_is_two_real_ones():
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(3, 5, dtype=torch.complex64))
            self.real = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.real(x)

    assert flops.count(lambda _: Spectral(), Port(inputs=3, outputs=2, shape=(4,))).params == 2 * 15 + 8


def test_weights_without_counted_work_are_refused():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    with pytest.raises(ValueError, match="Scale has 3 weights"):
        flops.count(lambda _: Scale(), Port(inputs=3, outputs=3, shape=(4,)))


@pytest.mark.parametrize("name", mechanisms.usable("cpu"))
def test_no_mechanism_with_weights_counts_as_no_work(name):
    setting = "grid" if "grid" in mechanisms.find(name).fits else min(mechanisms.find(name).fits)
    site = Site(channels=8, shape=(16, 16) if setting == "grid" else (16,), causal=setting == "causal")
    with torch.device("meta"), FlopCounterMode(display=False, custom_mapping=flops.formulas()) as counter:
        module = mechanisms.build(name, site)
        module(torch.empty(1, *site.shape, 8))
    assert counter.get_total_flops() > 0 or not list(module.parameters())
