"""Whole models of timm and neuraloperator: the packages' own outputs, the order of axes, what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnbench import flops
from attnbench.models import find, maker
from attnbench.models._timm import timm
from tasks import Port, update

IMAGE = Port(inputs=1, outputs=4, shape=(32, 32), once=True)
FIELD = Port(inputs=3, outputs=2, shape=(8, 12))
OPERATORS: dict[str, dict[str, Any]] = {
    "tfno": {"modes": 4, "channels": 6, "depth": 2, "rank": 0.5},
    "uno": {"modes": 4, "channels": 4, "levels": 2},
}
each_operator = pytest.mark.parametrize("name", OPERATORS)


def made(name: str, knobs: dict[str, Any], port: Port) -> Any:
    return maker(name, knobs, None, 0)(port)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def channels_first(x: Tensor) -> Tensor:
    return torch.stack(list(x.unbind(-1)), 1)


# --- timm


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_model_of_timm_is_its_own_with_channels_brought_to_the_front(name):
    model, x = made("timm_whole", {"timm": name}, IMAGE).eval(), drawn(2, 32, 32, 1)
    sized = {"img_size": 32} if name == "test_vit" else {}
    theirs = timm().create_model(name, in_chans=1, num_classes=4, **sized).eval()
    theirs.load_state_dict(model.net.state_dict())
    torch.testing.assert_close(model(x), theirs(channels_first(x)))  # axes in another order in memory round otherwise
    assert model(x).shape == (2, 4)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
@pytest.mark.parametrize("train", ["all", "head"])
def test_a_model_of_timm_starts_from_a_file_and_draws_a_head_for_other_classes(name, train, tmp_path):
    sized = {"img_size": 64} if name == "test_vit" else {}
    theirs = timm().create_model(name, in_chans=1, num_classes=9, **sized)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    knobs = {"timm": name, "pretrained": str(tmp_path / "weights.pth"), "train": train}
    model = made("timm_whole", knobs, IMAGE)
    new = {name for name, source in model.origin().items() if source == "drawn"}
    assert new == {f"net.{name}" for name, weight in theirs.named_parameters() if 9 in weight.shape}
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == (
        new if train == "head" else set(model.origin())
    )
    state, own = theirs.state_dict(), model.net.state_dict()
    kept = [name for name in state if state[name].shape == own[name].shape]
    assert len(kept) > 20
    assert all(torch.equal(own[name], state[name]) for name in kept)


def test_a_last_layer_that_is_trained_alone_sees_features_as_in_evaluation():
    model, x = made("timm_whole", {"timm": "test_resnet", "train": "head"}, IMAGE), drawn(2, 32, 32, 1)
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    expected = model.eval()(x)
    assert torch.equal(model.train()(x), expected)
    update(model, (x, torch.tensor([0, 3])), nn.functional.cross_entropy, torch.optim.AdamW(model.parameters()), 0.1)
    changed = {name for name, value in model.net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_drop_path_reaches_timm():
    model = made("timm_whole", {"timm": "test_vit", "drop_path": 0.5}, IMAGE)
    assert {getattr(module, "drop_prob", None) for module in model.modules()} >= {0.5}


@pytest.mark.parametrize(
    ("knobs", "port", "words"),
    [
        ({"timm": "vit_tiny_patch16_225"}, IMAGE, "timm_whole.timm should be a model of timm, such as 'vit_tiny"),
        ({}, FIELD, "timm_whole gives one answer an example"),
        ({}, Port(inputs=3, outputs=2, shape=(64,), once=True), "timm_whole serves grids"),
        ({}, Port(inputs=3, outputs=2, shape=(8, 8), symbols=True, once=True), "timm_whole serves images"),
    ],
)
def test_what_timm_does_not_serve_is_refused(knobs, port, words):
    with pytest.raises(ValueError, match=words):
        made("timm_whole", knobs, port)


# --- neuraloperator


@each_operator
def test_an_operator_is_the_packages_own_with_channels_brought_to_the_front(name, capsys):
    model, x = made(name, OPERATORS[name], FIELD), drawn(2, 8, 12, 3)
    inner = model.net[1]
    assert type(inner).__name__ == name.upper()
    theirs = inner(channels_first(x))
    torch.testing.assert_close(model(x), torch.stack(list(theirs.unbind(1)), -1))
    assert model(x).shape == (2, 8, 12, 2)
    assert not capsys.readouterr().out


@each_operator
def test_each_channel_goes_into_an_operator_as_itself(name):
    x = drawn(1, 8, 12, 3).requires_grad_()
    made(name, OPERATORS[name], FIELD)(x)[0, 2, 3, 0].backward()
    assert x.grad is not None
    assert (x.grad.abs().amax((0, 1, 2)) > 0).all()


@each_operator
def test_weights_of_an_operator_can_be_kept_and_put_back(name, tmp_path):
    model, x = made(name, OPERATORS[name], FIELD), drawn(2, 8, 12, 3)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    before, optimiser = model(x).detach(), torch.optim.AdamW(model.parameters())
    update(model, (x, drawn(2, 8, 12, 2)), nn.functional.mse_loss, optimiser, 0.01)
    assert not torch.equal(model(x), before)
    model.load_state_dict(torch.load(Path(tmp_path / "weights.pth"), weights_only=True))
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", [*OPERATORS, "timm_whole"])
def test_shapes_alone_are_enough_to_count_the_work(name):
    port = IMAGE if name == "timm_whole" else FIELD
    knobs = {"timm": "test_vit"} if name == "timm_whole" else OPERATORS[name]
    work = flops.count(maker(name, knobs, None, 0), port)
    reals = sum(flops.reals(weight) for weight in made(name, knobs, port).parameters())
    assert work.params == reals
    assert work.matmul_flops > 0
    assert (work.fft_flops > 0) == (name != "timm_whole")


def test_a_tensorised_operator_has_about_its_share_of_the_spectral_weights():
    def spectral(rank: float) -> int:
        model = made(
            "tfno", {"modes": 12, "channels": 16, "depth": 1, "rank": rank}, Port(inputs=1, outputs=1, shape=(16, 16))
        )
        return sum(flops.reals(weight) for name, weight in model.named_parameters() if "convs" in name)

    dense = 2 * 16 * 16 * 12 * (12 // 2 + 1)  # complex, and of a real field's spectrum half is kept
    assert 0.05 < spectral(0.1) / dense < 0.2
    assert 0.4 < spectral(0.5) / dense < 0.7


def test_the_u_shaped_operator_halves_the_grid_and_joins_what_it_kept_at_the_same_size():
    model = made("uno", OPERATORS["uno"], FIELD)
    seen: list[tuple[int, ...]] = []
    for block in model.net[1].fno_blocks:
        block.register_forward_hook(lambda _, given, out: seen.append((*given[0].shape[1:], *out.shape[1:])))
    model(drawn(1, 8, 12, 3))
    whole, half, quarter = (8, 12), (4, 6), (2, 3)
    assert seen == [
        (4, *whole, 4, *whole),
        (4, *whole, 8, *half),
        (8, *half, 16, *quarter),
        (16, *quarter, 8, *half),
        (8 + 8, *half, 4, *whole),
        (4 + 4, *whole, 4, *whole),
    ]


@pytest.mark.parametrize(
    ("name", "knobs", "port", "words"),
    [
        ("tfno", {"modes": 9}, FIELD, "tfno.modes is at most 8"),
        ("tfno", {"modes": 4}, Port(inputs=3, outputs=1, shape=(64,)), "tfno serves grids"),
        ("uno", {"modes": 4}, Port(inputs=3, outputs=1, shape=(8, 8), once=True), "uno serves fields.* one answer"),
        (
            "uno",
            {"modes": 4},
            Port(inputs=3, outputs=1, shape=(9, 8)),
            r"uno.levels: a grid \(9, 8\) cannot be halved 2",
        ),
        ("uno", {"modes": 6}, FIELD, "uno: modes must be a multiple of 4, for 2 halvings; got 6"),
    ],
)
def test_an_operator_that_does_not_fit_is_refused(name, knobs, port, words):
    with pytest.raises(ValueError, match=words):
        made(name, knobs, port)


def test_which_models_are_whole():
    assert {name: find(name).socket for name in ("swinv2", "vit", "timm_whole", "tfno", "uno")} == {
        "swinv2": True,
        "vit": True,
        "timm_whole": False,
        "tfno": False,
        "uno": False,
    }
