"""Which weights learn: frozen ones never move, and new ones may learn alone at first."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnbench.models import maker
from tasks import Port, _train
from tasks._train import train
from tasks._training import Schedule
from tests.test_train_knobs import EXAMPLES, PLAIN, fitted, net, squared, weights


def test_frozen_weights_stay_to_the_last_bit_and_no_optimiser_holds_them():
    model = net()
    model[0].requires_grad_(False)
    before, after = weights(model), fitted(model)
    assert all(torch.equal(before[name], after[name]) for name in ("0.weight", "0.bias"))
    assert not any(torch.equal(before[name], after[name]) for name in ("1.weight", "2.weight", "2.bias"))
    free = net()
    free.requires_grad_(False)
    with pytest.raises(ValueError, match="empty parameter list"):
        fitted(free)


def test_average_and_warm_up_leave_frozen_weights_alone_too():
    model = Started(net())
    model.net[1].requires_grad_(False)
    scores = iter((3.0, 2.0, 1.0))  # the last epoch is kept: in the first one only new weights learn
    knobs: dict[str, Any] = {"epochs": 3, "average": 0.9, "warm_up_new": 1}
    schedule, before = Schedule(**PLAIN | knobs), weights(model)
    train(model, EXAMPLES, loss=squared, validate=lambda _: next(scores), schedule=schedule, seed=0)
    after = weights(model)
    assert all(torch.equal(before[name], after[name]) for name in ("net.1.weight", "net.1.bias"))
    assert not torch.equal(before["net.0.weight"], after["net.0.weight"])


class Started(nn.Module):
    """A model whose first layer came from elsewhere."""

    def __init__(self, inner: nn.Sequential, came: str = "net.0"):
        super().__init__()
        self.net, self.came = inner, came

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def origin(self) -> dict[str, str]:
        return {name: "pretrained" if name.startswith(self.came) else "drawn" for name, _ in self.named_parameters()}


def test_new_weights_learn_alone_at_first_and_then_all_do():
    model, kept = nn.Sequential(Started(net())), []

    def validate(model: nn.Module) -> float:
        kept.append(weights(model))
        return -float(len(kept))

    knobs: dict[str, Any] = {"epochs": 4, "warm_up_new": 2}
    schedule, before = Schedule(**PLAIN | knobs), weights(model)
    train(model, EXAMPLES, loss=squared, validate=validate, schedule=schedule, seed=0)
    old, new = "0.net.0.weight", "0.net.2.weight"
    assert [torch.equal(before[old], epoch[old]) for epoch in kept] == [True, True, False, False]
    assert [torch.equal(before[new], epoch[new]) for epoch in kept] == [False] * 4
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(("came", "many"), [("net", "all"), ("nothing", "none")])
def test_a_warm_up_needs_weights_of_both_kinds(came, many):
    with pytest.raises(ValueError, match=f"of the weights that learn here {many} are pretrained"):
        fitted(Started(net(), came), warm_up_new=1)


def test_a_backbone_of_timm_tells_which_weights_came_from_elsewhere():
    model = maker("vit", {"size": "custom", "depth": 1, "patch": 4}, ("full", {}), 0)(
        Port(inputs=1, outputs=2, shape=(8, 8), once=True)
    )
    with pytest.raises(ValueError, match="here none are pretrained"):
        _train.old(model)
