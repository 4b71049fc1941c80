"""Exact relations of fast multipole attention: its cover, its counts, and where its summaries lose nothing."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

import mechanisms
from attnbench.oracles import fma
from mechanisms import Site
from tests.exact import CHANNELS, build, differ, drawn, grid, same

GRIDS = [(8, 2), (16, 2), (32, 2), (32, 4), (56, 7), (28, 7), (14, 7)]  # sides of grid and cell


def set_to(mechanism: nn.Module, **values: Tensor | float) -> None:
    """Sets the weight of each named projection to a matrix, or to that number times the identity; its bias to zero."""
    for name, value in values.items():
        projection = mechanism.get_submodule(name)
        weight = projection.get_parameter("weight")
        weight.data = value if isinstance(value, Tensor) else value * torch.eye(len(weight), dtype=weight.dtype)
        projection.get_parameter("bias").data.zero_()


def corners(side: int, cell: int) -> list[tuple[int, int]]:
    """The first token of every finest cell: all tokens of a cell have the same lists."""
    return [(row, column) for row in range(0, side, cell) for column in range(0, side, cell)]


@pytest.mark.parametrize(("side", "cell"), GRIDS)
def test_the_reference_covers_every_pair_once(side, cell):
    for place in corners(side, cell):
        times = torch.zeros(side * side, dtype=torch.long)
        times[fma.near(place, side=side, cell=cell)] += 1
        times = times.reshape(side, side)
        for level in range(1, fma.levels_of(side, cell) + 1):
            width = cell * 2 ** (level - 1)
            for row, column in fma.far(place, side=side, cell=cell, level=level):
                times[row * width : (row + 1) * width, column * width : (column + 1) * width] += 1
        assert (times == 1).all()


@pytest.mark.parametrize(("side", "cell"), [(32, 2), (32, 4), (56, 7)])
def test_a_level_lists_at_most_27_cells_and_the_coarsest_12(side, cell):
    levels = fma.levels_of(side, cell)
    for level in range(1, levels + 1):
        counts = [len(fma.far(place, side=side, cell=cell, level=level)) for place in corners(side, cell)]
        assert max(counts) <= (12 if level == levels else 27)


@pytest.mark.parametrize(("side", "cell"), GRIDS)
@pytest.mark.parametrize("parts", [1, 2])
def test_equal_scores_return_the_mean_of_the_values(side, cell, parts):
    """Every pair is covered once, and each summary counts as its tokens; random values would tell any other cover."""
    if cell % parts:
        return
    mechanism = build("fma", grid(side, side), cell=cell, rank=parts**2, basis="average")
    set_to(mechanism, q=0.0, v=1.0, out=1.0)
    x = drawn(1, side, side, CHANNELS)
    same(mechanism(x), x.mean((1, 2), keepdim=True).expand_as(x))


def test_without_size_weight_equal_scores_do_not_return_the_mean():
    mechanism, x = (
        build("fma", grid(16, 16), cell=2, rank=1, basis="average", size_weight=False),
        drawn(1, 16, 16, CHANNELS),
    )
    set_to(mechanism, q=0.0, v=1.0, out=1.0)
    differ(mechanism(x), x.mean((1, 2), keepdim=True))


@pytest.mark.parametrize("size_weight", [True, False])
@pytest.mark.parametrize(("side", "cell"), [(16, 2), (28, 7)])
def test_values_of_one_return_one(side, cell, size_weight):
    mechanism = build("fma", grid(side, side), cell=cell, rank=1, basis="average", size_weight=size_weight)
    set_to(mechanism, v=0.0, out=1.0)
    mechanism.get_submodule("v").get_parameter("bias").data.fill_(1.0)
    same(mechanism(drawn(2, side, side, CHANNELS)), torch.ones(2, side, side, CHANNELS, dtype=torch.float64))


@cache
def counted(side: int, cell: int) -> tuple[Tensor, Tensor]:
    """Near tokens and far summaries that a query of each cell reads [cells], told from the module's own output.

    With equal scores, summaries of rank one and no size weight, every key has weight 1 / keys: a near token enters with
    all of it, a token of a far cell with its share.
    """
    mechanism = build(
        "fma", grid(side, side, channels=1), heads=1, cell=cell, rank=1, basis="average", size_weight=False
    )
    set_to(mechanism, q=0.0, v=1.0, out=1.0)
    x = drawn(1, side, side, 1).requires_grad_()
    y, near, keys = mechanism(x), [], []
    for row, column in corners(side, cell):
        (gradient,) = torch.autograd.grad(y[0, row, column, 0], x, retain_graph=True)
        own = gradient[0, row, column, 0]
        near.append(torch.isclose(gradient, own, rtol=1e-9, atol=0.0).sum())
        keys.append(1 / own)
    return torch.stack(near).double(), torch.stack(keys) - torch.stack(near)


@pytest.mark.parametrize(("side", "cell"), [(8, 2), (16, 2), (32, 4), (56, 7), (28, 7), (14, 7)])
def test_keys_are_as_many_as_the_reference_lists(side, cell):
    near, far = counted(side, cell)
    levels = range(1, fma.levels_of(side, cell) + 1)
    for i, place in enumerate(corners(side, cell)):
        same(near[i], torch.tensor(len(fma.near(place, side=side, cell=cell))).double())
        listed = sum(len(fma.far(place, side=side, cell=cell, level=level)) for level in levels)
        assert float(far[i]) == pytest.approx(listed, abs=1e-6)


def test_keys_on_56_by_56_are_as_few_as_computed():
    near, far = counted(56, 7)
    assert float(near.mean()) == pytest.approx(370.6, abs=0.05)
    assert float(far.mean()) == pytest.approx(27.2, abs=0.05)
    assert float(near.max()) == 441
    assert float((near + far).max()) == pytest.approx(441 + 34)


@pytest.mark.parametrize(
    ("side", "cell", "levels", "filters"), [(56, 7, 2, 63232), (28, 7, 1, 12800), (32, 4, 2, 20992), (14, 7, 0, 0)]
)
def test_levels_and_filters_are_as_many_as_computed(side, cell, levels, filters):
    assert fma.levels_of(side, cell) == levels
    mechanism = build("fma", grid(side, side, channels=64), cell=cell, rank=4)
    weights = {name: parameter.numel() for name, parameter in mechanism.named_parameters()}
    assert sum(weights.values()) == 4 * (64**2 + 64) + filters
    assert len(weights) == 8 + 4 * levels


@pytest.mark.parametrize(
    ("side", "cell", "rank", "block"), [(16, 4, 4, 2), (16, 4, 1, 4), (16, 2, 4, 2), (32, 4, 4, 4)]
)
@pytest.mark.parametrize("size_weight", [True, False])
def test_keys_constant_on_blocks_lose_nothing_in_averages(side, cell, rank, block, size_weight):
    """Blocks of the coarsest sub-block's side; queries and values are arbitrary. Without size weights it is wrong."""
    mechanism = build("fma", grid(side, side), cell=cell, rank=rank, basis="average", size_weight=size_weight)
    full = build("full", grid(side, side))
    mechanism.get_submodule("k").get_parameter("weight").data[:, CHANNELS // 2 :] = 0  # keys read the first half
    full.load_state_dict(mechanism.state_dict())
    x = drawn(1, side, side, CHANNELS)
    coarse = drawn(1, side // block, side // block, CHANNELS // 2)
    x[..., : CHANNELS // 2] = coarse.repeat_interleave(block, 1).repeat_interleave(block, 2)
    if size_weight:
        same(mechanism(x), full(x))
    else:
        differ(mechanism(x), full(x))


def test_averages_do_lose_something_when_keys_vary():
    mechanism, full = build("fma", grid(16, 16), cell=4, rank=1, basis="average"), build("full", grid(16, 16))
    full.load_state_dict(mechanism.state_dict())
    x = drawn(1, 16, 16, CHANNELS)
    differ(mechanism(x), full(x))


@pytest.mark.parametrize("rank", [1, 4])
def test_filters_that_average_are_averages(rank):
    """rank / w^2 on its own sub-block and nothing elsewhere, on every level, for keys and values alike."""
    learned, means = (
        build("fma", grid(16, 16), cell=2, rank=rank),
        build("fma", grid(16, 16), cell=2, rank=rank, basis="average"),
    )
    state = learned.state_dict()
    for level, width in ((0, 2), (1, 4)):
        side = width // round(rank**0.5)
        for kind in ("k", "v"):
            weight = torch.zeros_like(state[f"{kind}_filters.{level}.weight"])
            for output in range(len(weight)):
                row, column = divmod(output % rank, round(rank**0.5))
                weight[output, 0, row * side : (row + 1) * side, column * side : (column + 1) * side] = side**-2
            state[f"{kind}_filters.{level}.weight"] = weight
            state[f"{kind}_filters.{level}.bias"] = torch.zeros(len(weight), dtype=torch.float64)
    learned.load_state_dict(state)
    means.load_state_dict({key: value for key, value in state.items() if "filters" not in key})
    x = drawn(1, 16, 16, CHANNELS)
    same(learned(x), means(x))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 6, 7, 8, 12, 14, 16, 20, 24, 28])
@pytest.mark.parametrize("cell", [1, 2, 3, 4, 7])
def test_fma_accepts_a_power_of_two_cells_a_side_and_refuses_the_rest(side, cell):
    if side in {cell * 2**power for power in range(6)}:
        assert build("fma", grid(side, side), cell=cell, rank=1)(drawn(1, side, side, CHANNELS)).isfinite().all()
    else:
        with pytest.raises(ValueError, match=rf"^fma.*{side} x {side}"):
            build("fma", grid(side, side), cell=cell, rank=1)


def test_a_grid_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"^fma.*16 x 8"):
        mechanisms.build("fma", Site(channels=8, shape=(16, 8)))


@pytest.mark.parametrize(("cell", "rank"), [(4, 2), (4, 3), (2, 9), (7, 4)])
def test_averages_over_squares_that_do_not_tile_a_cell_are_refused(cell, rank):
    with pytest.raises(ValueError, match=r"^fma.*rank"):
        build("fma", grid(4 * cell, 4 * cell), cell=cell, rank=rank, basis="average")
