"""The order in which multipole attention keeps tokens: which one it picks, and that it changes no number."""

from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mechanisms
from attnbench.models import maker
from mechanisms._layout import Nested, RowByRow, layout
from mechanisms._levels import DOWN, UP, Windows, resample
from mechanisms._project import project
from mechanisms._reorder import reorder
from mechanisms._site import Site
from mechanisms.mano import SMALL
from tasks import Port
from tests.exact import CHANNELS, build, drawn, same

Shape = tuple[int, ...]
# shape, window, rate and levels of sizes that nest
NESTED = [
    ((8,), 2, 2, 3),
    ((24,), 6, 2, 2),
    ((12,), 1, 2, 3),
    ((36,), 12, 3, 2),
    ((8, 12), 2, 2, 2),
    ((16, 8), 4, 2, 2),
    ((12, 24), 6, 2, 2),
    ((9, 18), 3, 3, 2),
    ((16, 32), 4, 4, 2),
    ((32, 32), 8, 4, 2),
    ((16, 32), 4, 2, 3),
    ((4, 6), 1, 2, 2),
    ((5, 10), 5, 2, 1),
]
EVERY = pytest.mark.parametrize(("shape", "window", "rate", "levels"), NESTED, ids=str)


def nested(shape: Shape, window: int, rate: int, levels: int) -> Nested:
    found = layout(shape, Windows(window=window), levels=levels, rate=rate)
    assert isinstance(found, Nested)
    return found


def cells(shape: Shape, side: int) -> Tensor:
    """For each token of a grid [*shape] the number of the square cell of this side that holds it."""
    number = torch.zeros(shape, dtype=torch.long)
    for axis, length in enumerate(shape):
        along = torch.arange(length) // side
        number = number * (length // side) + along.view(*(-1 if a == axis else 1 for a in range(len(shape))))
    return number


def carried(kept: Nested, x: Tensor, side: int) -> Tensor:
    """Tokens of a coarser grid [B, *grid, C], each for a cell of this side, in the order of the cells."""
    for axis in range(1, x.ndim - 1):
        x = x.repeat_interleave(side, axis)
    return kept.into(x)[:, :: side ** (x.ndim - 2)]


def gradients(y: Tensor, *leaves: Tensor) -> list[Tensor]:
    """An answer and what each leaf adds to a weighed sum of it."""
    return [y.detach(), *torch.autograd.grad((y * drawn(*y.shape, seed=9)).sum(), leaves)]


@EVERY
def test_the_order_goes_in_and_back(shape, window, rate, levels):
    kept, x = nested(shape, window, rate, levels), drawn(2, *shape, 3)
    y = kept.into(x)
    assert y.shape == (2, prod(shape), 3)
    assert torch.equal(kept.back(y), x)
    assert torch.equal(y[0, 0], x[0].flatten(0, -2)[0])


@EVERY
def test_windows_and_blocks_of_every_level_follow_one_another(shape, window, rate, levels):
    kept = nested(shape, window, rate, levels)
    for level, size in product(range(levels), (1, window)):
        side = size * rate**level
        held = kept.into(cells(shape, side).unsqueeze(-1).unsqueeze(0))[0, :, 0]
        runs = held.reshape(-1, side ** len(shape))
        assert bool((runs == runs[:, :1]).all())
        assert len(runs[:, 0].unique()) == len(runs)


@EVERY
def test_a_block_keeps_what_becomes_one_token_row_by_row(shape, window, rate, levels):
    kept, axes = nested(shape, window, rate, levels), len(shape)
    places = torch.arange(prod(shape)).view(1, *shape, 1)
    for level in range(1, levels):
        size = rate ** (axes * (level - 1))
        first = kept.into(places).reshape(-1, rate**axes, size)[:, :, 0]
        assert bool((first.diff(dim=1) > 0).all())


@pytest.mark.parametrize(
    ("window", "rate", "levels", "nests"),
    [
        (6, 2, 2, True),
        (6, 2, 3, False),  # a window of 6 holds no whole number of blocks of 4
        (12, 2, 3, True),
        (3, 2, 2, False),
        (3, 2, 1, True),
        (2, 3, 2, False),
        (9, 3, 3, True),
        (6, 3, 2, True),
        (6, 3, 3, False),
        (4, 2, 3, True),
        (2, 2, 5, True),
        (6, 4, 2, False),
        (8, 4, 2, True),
        (1, 3, 3, True),
    ],
)
def test_tokens_nest_exactly_where_sizes_do(window, rate, levels, nests):
    side = window * rate**levels
    for shape in ((side,), (side, 2 * side)):
        kept = layout(shape, Windows(window=window), levels=levels, rate=rate)
        assert isinstance(kept, Nested if nests else RowByRow)
        for stride in range(1, window):
            overlapping = layout(shape, Windows(window=window, stride=stride), levels=levels, rate=rate)
            assert isinstance(overlapping, RowByRow)


@pytest.mark.parametrize("name", [*DOWN, *UP])
@pytest.mark.parametrize(("shape", "rate"), [((8,), 2), ((18,), 3), ((8, 12), 2), ((9, 18), 3)], ids=str)
def test_nested_sampling_is_the_module_itself(name, shape, rate):
    torch.manual_seed(0)
    kept = nested(shape, rate, rate, 2)
    module = (DOWN | UP)[name](5, len(shape), rate).double()
    coarse = tuple(side // rate for side in shape)
    x = drawn(2, *(shape if name in DOWN else coarse), 5).requires_grad_()
    leaves = [x, *module.parameters()]
    if name in DOWN:
        found, expected = kept.resample(module, kept.into(x)), carried(kept, resample(module, x), rate)
    else:
        found, expected = kept.resample(module, carried(kept, x, rate)), kept.into(resample(module, x))
    for one, other in zip(gradients(found, *leaves), gradients(expected, *leaves), strict=True):
        same(one, other)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("shape", [(16,), (8, 16)], ids=str)
def test_nested_windows_of_every_level_are_cut_as_row_by_row(shape, level):
    windows = Windows(window=2)
    kept = nested(shape, 2, 2, 3)
    coarse = tuple(side // 2**level for side in shape)
    qkv = drawn(2, *coarse, 12).requires_grad_()
    found = kept.attend(carried(kept, qkv, 2**level), heads=2)
    expected = carried(kept, RowByRow(windows).attend(qkv, heads=2), 2**level)
    for one, other in zip(gradients(found, qkv), gradients(expected, qkv), strict=True):
        same(one, other)


def outcome(module: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    return gradients(module(x), x, *module.parameters())


MANO: list[tuple[Shape, dict[str, Any]]] = [
    ((8, 16), {"levels": 3}),
    ((16,), {"levels": 3, "combine": "published"}),
    ((12, 24), {"levels": 2, "window": 6, "combine": "gate"}),
    ((9, 18), {"levels": 2, "window": 3, "rate": 3, "samplers": "per_level"}),
    ((18,), {"levels": 2, "window": 3, "rate": 3, "attention": "per_level"}),
    ((8, 16), {"levels": 3, "samplers": "per_level", "attention": "per_level", "combine": "published"}),
    ((16, 8), {"levels": 3, "downsample": "average"}),
    ((16, 8), {"levels": 3, "upsample": "nearest"}),
    ((16,), {"levels": 3, "downsample": "average", "upsample": "nearest"}),
    ((16, 32), {"levels": 2, "window": 4, "rate": 4}),
    ((4, 8), {"levels": 3, "window": 1}),
    ((4, 8), {"levels": 1, "window": 4}),
]


@pytest.mark.parametrize("small", [0, SMALL], ids=["coarse levels together", "all levels together"])
@pytest.mark.parametrize(("shape", "knobs"), MANO, ids=str)
def test_multipole_attention_is_the_same_nested_and_row_by_row(monkeypatch, shape, knobs, small):
    monkeypatch.setattr("mechanisms.mano.SMALL", small)
    mano = build("mano", Site(channels=CHANNELS, shape=shape), **knobs)
    assert isinstance(mano.layout, Nested)
    x = drawn(2, *shape, CHANNELS)
    kept = outcome(mano, x)
    mano.layout = RowByRow(Windows(window=knobs.get("window", 2)))  # type: ignore[assignment]
    for one, other in zip(kept, outcome(mano, x), strict=True):
        same(one, other)


@pytest.mark.parametrize("shape", [(24,), (12, 24)], ids=str)
@pytest.mark.parametrize("sizes", [(2, 4, 2), (3, 6, 2), (2, 6, 2), (3, 2, 2)], ids=str)
def test_windows_between_blocks_in_size_change_no_number(shape, sizes):
    """Such windows would cut a block into cells, whose tokens are then not in the order of a filter's taps."""
    window, rate, levels = sizes
    shape = tuple(side // 12 * window * rate for side in shape)
    mano = build("mano", Site(channels=CHANNELS, shape=shape), window=window, rate=rate, levels=levels)
    x = drawn(2, *shape, CHANNELS)
    kept = outcome(mano, x)
    mano.layout = RowByRow(Windows(window=window))  # type: ignore[assignment]
    for one, other in zip(kept, outcome(mano, x), strict=True):
        same(one, other)


@pytest.mark.parametrize(
    ("shape", "knobs"),
    [
        ((8, 16), {"levels": 3}),
        ((8, 16), {"levels": 3, "sampling": "average"}),
        ((9, 18), {"window": 3, "rate": 3}),
        ((12, 12), {"window": 6, "levels": 2, "heads": 1, "head_channels": 8}),
    ],
    ids=str,
)
def test_the_published_network_is_the_same_nested_and_row_by_row(shape, knobs):
    sizes = {"channels": 8, "heads": 2, "head_channels": 3, "mlp": 8, "depth": 2} | knobs
    net = maker("mano_net", sizes, None, 0)(Port(inputs=3, outputs=1, shape=shape)).double()
    x = drawn(2, *shape, 3)
    kept = outcome(net, x)
    for depth in range(2):
        attention = net.get_submodule(f"blocks.{depth}.attention")
        assert isinstance(attention.layout, Nested)
        attention.layout = RowByRow(Windows(window=sizes.get("window", 2)))  # type: ignore[assignment]
    for one, other in zip(kept, outcome(net, x), strict=True):
        same(one, other)


@pytest.mark.parametrize("window", [2, 3])
def test_the_order_of_tokens_has_no_part_in_the_weights(window):
    """2 nests, 3 does not."""
    mano = mechanisms.build("mano", Site(channels=4, shape=(12, 12)), window=window, levels=2, heads=2)
    linear = {f"{layer}.{part}" for layer in ("q", "k", "v", "out") for part in ("weight", "bias")}
    assert set(mano.state_dict()) == linear | {"down.weight", "up.weight"}
    assert isinstance(mano.layout, Nested if window == 2 else RowByRow)
    assert {name for name, _ in mano.named_children()} == {"q", "k", "v", "out", "down", "up"}


@pytest.mark.parametrize("biases", list(product((True, False), repeat=3)), ids=str)
def test_projections_in_one_product_are_the_layers_one_by_one(biases):
    torch.manual_seed(0)
    layers = [nn.Linear(4, width, bias=has).double() for width, has in zip((4, 3, 5), biases, strict=True)]
    leaves = [drawn(2, 3, 4).requires_grad_(), *(p for layer in layers for p in layer.parameters())]
    apart = torch.cat([layer(leaves[0]) for layer in layers], -1)
    for one, other in zip(gradients(project(leaves[0], *layers), *leaves), gradients(apart, *leaves), strict=True):
        same(one, other)


def test_reordering_takes_tokens_by_their_places_and_so_do_its_derivatives():
    order = torch.tensor([3, 0, 4, 1, 2, 6, 5])  # no permutation that undoes itself
    inverse = order.argsort()
    x = drawn(2, 7, 3).requires_grad_()
    y = reorder(x, order, inverse)
    assert torch.equal(y, torch.stack([x[:, place] for place in order], 1))
    assert torch.equal(reorder(y, inverse, order), x)
    assert torch.autograd.gradcheck(lambda x: reorder(x, order, inverse), x)
    assert torch.autograd.gradgradcheck(lambda x: reorder(x, order, inverse).pow(3), x)
    weights = drawn(2, 7, 3, seed=9)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    assert torch.equal(gradient[:, order], weights)
    (first,) = torch.autograd.grad((reorder(x, order, inverse).pow(3) * weights).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    same(second, 6 * x.detach() * weights[:, inverse])
