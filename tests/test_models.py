"""Models: what a mechanism is handed and where, runs of one seed that are paired, and the order of the axes."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mechanisms
from attnbench import models
from attnbench.models import fno, isotropic, maker
from mechanisms import Site
from tasks import Port

FIELD = Port(inputs=3, outputs=1, shape=(16, 16))
SMALL = {"channels": 8, "depth": 3}
ON_GRIDS = [name for name in mechanisms.usable("cpu") if "grid" in mechanisms.find(name).fits]
OTHERS = [name for name in ON_GRIDS if name != "identity"]
PROJECTIONS = [f"{part}.{kind}" for part in ("q", "k", "v", "out") for kind in ("weight", "bias")]


def weights(name: str, seed: int = 0, port: Port = FIELD) -> dict[str, Tensor]:
    return maker("isotropic", SMALL, (name, {}), seed)(port).state_dict()


def projecting() -> list[str]:
    """Mechanisms that project all channels of tokens to queries, keys, values and back."""
    shapes = {"weight": (8, 8), "bias": (8,)}
    wanted = {f"blocks.0.mechanism.{part}": shapes[part.partition(".")[2]] for part in PROJECTIONS}
    found = {name: {key: tuple(value.shape) for key, value in weights(name).items()} for name in OTHERS}
    return [name for name in OTHERS if wanted.items() <= found[name].items()]


def around(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that are no mechanism's."""
    return {name: value for name, value in found.items() if ".mechanism." not in name}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "port",
    [
        Port(inputs=3, outputs=1, shape=(4, 6)),
        Port(inputs=1, outputs=2, shape=(10,)),
        Port(inputs=1, outputs=2, shape=(10,), causal=True),
    ],
)
def test_build_is_called_once_a_block_with_the_site_of_that_block(port):
    sites: list[Site] = []

    def build(site: Site) -> nn.Module:
        sites.append(site)
        return nn.Identity()

    isotropic.Isotropic(port, isotropic.Config(channels=8, depth=3), build)
    expected = [Site(channels=8, shape=port.shape, causal=port.causal, stage=1, block=block) for block in (0, 1, 2)]
    assert sites == expected


@pytest.mark.parametrize(
    ("port", "knobs", "shape"),
    [
        (Port(inputs=7, outputs=5, shape=(6,), symbols=True, causal=True), {}, (2, 6, 5)),
        (Port(inputs=7, outputs=5, shape=(6,), symbols=True, once=True), {"position": "learned"}, (2, 5)),
        (Port(inputs=3, outputs=5, shape=(4, 6), once=True), {"patch": 2}, (2, 5)),
        (Port(inputs=3, outputs=2, shape=(4, 6)), {"patch": 2, "position": "none"}, (2, 4, 6, 2)),
        (Port(inputs=3, outputs=2, shape=(6,)), {"patch": 3}, (2, 6, 2)),
    ],
)
def test_the_backbone_answers_as_the_port_asks(port, knobs, shape):
    model = maker("isotropic", SMALL | knobs, ("full", {}), 0)(port)
    x = torch.randint(port.inputs, (2, *port.shape)) if port.symbols else drawn(2, *port.shape, port.inputs)
    assert model(x).shape == shape


def test_a_patch_goes_in_and_comes_out_at_its_own_place():
    """With nothing between lift and head but the identity, a point of another patch changes nothing."""
    port = Port(inputs=1, outputs=1, shape=(4, 6), places=True)
    model = maker("isotropic", {"channels": 8, "depth": 1, "patch": 2}, ("identity", {}), 0)(port)
    x = drawn(1, 4, 6, 1)
    changed = x.clone()
    changed[0, 1, 3] += 1  # of the patch of rows 0 and 1, columns 2 and 3
    moved = (model(x) != model(changed))[0, ..., 0]
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[:2, 2:4] = True
    assert torch.equal(moved, expected)


def test_one_answer_is_read_from_all_tokens_alike():
    port = Port(inputs=1, outputs=2, shape=(4, 3), places=True, once=True)
    model = maker("isotropic", {"channels": 8, "depth": 1}, ("identity", {}), 0)(port)
    x = drawn(1, 4, 3, 1)
    alone = [model(x[:, i : i + 1, j : j + 1].expand(1, 4, 3, 1)) for i in range(4) for j in range(3)]
    torch.testing.assert_close(model(x), torch.stack(alone).mean(0))


def test_places_are_told_unless_the_task_tells_them():
    told = Port(inputs=1, outputs=1, shape=(4, 6), places=True)
    for port, knobs, permuted_alike in (
        (told, {}, True),
        (replace(told, places=False), {}, False),
        (replace(told, places=False), {"position": "none"}, True),
        (told, {"position": "learned"}, False),
    ):
        model = maker("isotropic", SMALL | knobs, ("full", {}), 0)(port)
        x = drawn(1, 4, 6, 1)
        alike = torch.allclose(model(x.flip(1)), model(x).flip(1), atol=1e-5)
        assert alike == permuted_alike


def test_symbols_start_no_smaller_than_the_sines_of_their_places():
    model: Any = maker("isotropic", SMALL, ("full", {}), 0)(Port(inputs=500, outputs=2, shape=(64,), symbols=True))
    assert model.lift.weight.square().mean() > model.places.square().mean()


def test_sines_tell_every_place_apart_and_are_those_of_the_paper():
    waves = isotropic.sinusoids((5, 7), 16)
    assert len({tuple(w) for w in waves.reshape(35, 16).tolist()}) == 35
    for row, column, pair in ((3, 2, 1), (4, 6, 3)):
        speed = 10_000 ** (-pair / 4)
        assert waves[row, column, pair].item() == pytest.approx(math.sin(row * speed), abs=1e-6)
        assert waves[row, column, 4 + pair].item() == pytest.approx(math.cos(row * speed), abs=1e-6)
        assert waves[row, column, 8 + pair].item() == pytest.approx(math.sin(column * speed), abs=1e-6)
        assert waves[row, column, 12 + pair].item() == pytest.approx(math.cos(column * speed), abs=1e-6)


@pytest.mark.parametrize(
    ("port", "patch", "sentence"),
    [
        (Port(inputs=1, outputs=1, shape=(4, 6)), 4, r"must divide the task's shape \(4, 6\); got 4"),
        (Port(inputs=1, outputs=1, shape=(8,), causal=True), 2, "would see its own later points; got 2"),
        (Port(inputs=9, outputs=1, shape=(8,), symbols=True), 2, "holds symbols, which no linear map merges; got 2"),
    ],
)
def test_patches_that_cannot_be_are_refused(port, patch, sentence):
    with pytest.raises(ValueError, match=sentence):
        maker("isotropic", {"patch": patch}, ("full", {}), 0)(port)


@pytest.mark.parametrize("model", ["fno", "mano_net"])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"symbols": True}, "this task gives symbols"),
        ({"once": True}, "asks for one answer an example"),
        ({"shape": (8,)}, r"serves grids \(H, W\)"),
    ],
)
def test_a_model_of_fields_refuses_what_is_none(model, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        maker(model, {}, None, 0)(replace(Port(inputs=3, outputs=1, shape=(16, 16)), **changes))


@pytest.mark.parametrize("name", OTHERS)
def test_another_mechanism_leaves_all_weights_around_it_alike(name):
    control = around(weights("identity"))
    assert len(control) == 4 + 3 * 8 + 2  # lift, norm and head; two norms and two layers in each of three blocks
    assert equal(around(weights(name)), control)


@pytest.mark.parametrize("name", projecting())
def test_projections_that_mechanisms_share_start_alike(name):
    full, other = weights("full"), weights(name)
    for block in range(3):
        for part in PROJECTIONS:
            place = f"blocks.{block}.mechanism.{part}"
            assert torch.equal(other[place], full[place])


def test_every_block_and_every_seed_has_weights_of_its_own():
    one, other = weights("full", 0), weights("full", 1)
    places = [f"blocks.{block}.mechanism.q.weight" for block in range(3)]
    drawings = [found[place] for found in (one, other) for place in places] + [
        found["blocks.0.mlp.1.weight"] for found in (one, other)
    ]
    assert len({tuple(drawing.flatten().tolist()) for drawing in drawings}) == 8


def test_a_maker_draws_the_same_again_and_leaves_everyone_elses_chance_alone():
    make = maker("isotropic", SMALL, ("mano", {}), 5)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = make(FIELD).state_dict()
    assert torch.equal(torch.rand(3), expected)
    assert equal(first, make(FIELD).state_dict())


@pytest.mark.parametrize(
    ("model", "mechanism", "sentence"),
    [
        ("fno", ("full", {}), "fno is a whole model and takes no mechanism; got full."),
        ("isotropic", None, "isotropic needs a mechanism; got none."),
        ("isotropc", ("full", {}), "Did you mean 'isotropic'?"),
    ],
)
def test_a_model_and_a_mechanism_that_do_not_belong_together_are_refused(model, mechanism, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole sentence is compared below
        maker(model, {}, mechanism, 0)
    assert sentence in str(caught.value)


def test_a_wrong_knob_of_a_mechanism_is_refused_when_the_model_is_made():
    with pytest.raises(ValueError, match="Did you mean 'levels'"):
        maker("isotropic", SMALL, ("mano", {"levles": 2}), 0)(FIELD)


def test_a_block_adds_the_mechanism_and_then_the_mlp_each_after_a_norm():
    port = Port(inputs=2, outputs=3, shape=(5, 7), places=True)
    model = maker("isotropic", {"channels": 6, "depth": 2, "mlp_ratio": 3}, ("identity", {}), 0)(port).double()
    weight, x = model.state_dict(), drawn(4, 5, 7, 2).double()

    def norm(y: Tensor, name: str) -> Tensor:
        y = y - y.mean(-1, keepdim=True)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return y * weight[f"{name}.weight"] + weight[f"{name}.bias"]

    def linear(y: Tensor, name: str) -> Tensor:
        return torch.einsum("...i,oi->...o", y, weight[f"{name}.weight"]) + weight[f"{name}.bias"]

    y = linear(x, "lift")
    for block in ("blocks.0", "blocks.1"):
        y = y + norm(y, f"{block}.norm")
        hidden = linear(norm(y, f"{block}.mlp.0"), f"{block}.mlp.1")
        y = y + linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, f"{block}.mlp.3")
    torch.testing.assert_close(model(x), linear(norm(y, "norm"), "head"), rtol=1e-10, atol=1e-12)
    assert weight["blocks.0.mlp.1.weight"].shape == (18, 6)


@pytest.mark.parametrize("mechanism", [("full", {}), ("swin", {"window": 4}), ("mano", {"levels": 2})])
def test_a_grid_that_is_not_square_keeps_its_axes(mechanism):
    port = Port(inputs=3, outputs=2, shape=(8, 12))
    model = maker("isotropic", SMALL, mechanism, 0)(port)
    assert model(drawn(2, 8, 12, 3)).shape == (2, 8, 12, 2)


@pytest.fixture(scope="module")
def operator() -> nn.Module:
    """A Fourier operator on a grid that is not square."""
    return maker("fno", {"modes": 4, "channels": 5, "depth": 2}, None, 0)(Port(inputs=3, outputs=2, shape=(8, 12)))


def test_the_fourier_operator_is_the_packages_own_with_channels_brought_to_the_front(operator):
    assert isinstance(operator, fno.Fno)
    x, inner = drawn(2, 8, 12, 3), operator.net[1]
    expected = torch.stack([inner(torch.stack(list(one.unbind(-1)))[None])[0] for one in x])  # [B, outputs, H, W]
    torch.testing.assert_close(operator(x), torch.stack(list(expected.unbind(1)), -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("axis", "steps"), [(1, 3), (2, 5)])
def test_moving_the_input_round_moves_the_output_of_the_fourier_operator(operator, axis, steps):
    x = drawn(2, 8, 12, 3)
    y = operator(x)
    torch.testing.assert_close(operator(x.roll(steps, axis)), y.roll(steps, axis), rtol=1e-4, atol=1e-5)
    assert y.shape == (2, 8, 12, 2)
    assert float((y.roll(steps, axis) - y).detach().abs().max()) > 1e-3


def test_each_channel_goes_into_the_fourier_operator_as_itself(operator):
    x = drawn(1, 8, 12, 3).requires_grad_()
    operator(x)[0, 2, 3, 0].backward()
    assert x.grad is not None
    assert (x.grad.abs().amax((0, 1, 2)) > 0).all()
    assert not torch.allclose(x.grad[..., 0], x.grad[..., 1])


@pytest.mark.parametrize(
    ("port", "modes", "word"),
    [
        (Port(inputs=3, outputs=1, shape=(8, 12)), 9, "fno.modes is at most 8"),
        (Port(inputs=3, outputs=1, shape=(64,)), 4, "fno serves grids"),
    ],
)
def test_a_fourier_operator_that_does_not_fit_is_refused(port, modes, word):
    with pytest.raises(ValueError, match=word):
        maker("fno", {"modes": modes}, None, 0)(port)


def test_backbones_have_a_socket_and_whole_models_have_none():
    assert models.find("isotropic").socket
    assert not models.find("fno").socket
    assert {"isotropic", "fno"} <= set(models.names())
