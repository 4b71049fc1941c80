"""The knobs of training that all tasks share: each against a computation of its own, and none at its neutral value."""

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tasks
from attnbench import measure
from attnbench._cells import cost_spec
from attnbench._entries import Chosen
from attnbench.cell import identity
from attnbench.models import maker
from attnbench.models._timm import timm
from mechanisms import configure, resolved
from tasks import Port, _train
from tasks._labelled import UNASKED, asked
from tasks._step import How, predict, update
from tasks._train import train
from tasks._training import CURVES, Curve, Schedule, TrainingKnobs
from tasks.darcy import relative_errors

PLAIN: dict[str, Any] = {"epochs": 2, "batch": 4, "rate": 0.05, "weight_decay": 0.1, "warm_up": 0.25}
CHANCE = torch.Generator().manual_seed(5)
EXAMPLES = (torch.randn(10, 3, generator=CHANCE), torch.randn(10, 2, generator=CHANCE))


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().mean()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def fitted(model: nn.Module, **knobs: Any) -> dict[str, Tensor]:
    """The weights after a training on the examples."""
    schedule = Schedule(**PLAIN | knobs)
    train(model, EXAMPLES, loss=squared, validate=lambda _: 0.0, schedule=schedule, seed=0)
    return weights(model)


# --- knobs


def test_what_changes_a_step_has_a_cost_cell_of_its_own_and_old_ones_keep_theirs():
    def cost_id(**knobs: Any) -> str:
        entry = tasks.find("darcy")
        task = Chosen(
            name="darcy", entry=entry, config=configure(entry.config, knobs, of="darcy"), written=(), line=None
        )
        return identity(cost_spec({"task": task.spec, "model": {"name": "fno"}}, task))

    plain = cost_id()
    assert cost_id(curve="linear", clip=0.5, average=0.9, epochs=3, precision="float32", accumulate=1) == plain
    assert len({plain, cost_id(precision="bfloat16"), cost_id(accumulate=2)}) == 3


def test_a_measured_step_is_made_as_the_knobs_say():
    seen = []

    class Noted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            seen.append((len(x), self.layer(x).dtype))
            return self.layer(x).float()

    task: Any = type("Task", (), {"loss": staticmethod(squared)})
    x = torch.ones(6, 4)
    measure.training(Noted(), task, x, x, How(accumulate=3, precision="bfloat16"))()
    measure.inference(Noted(), x, How(precision="bfloat16"))()
    measure.training(Noted(), task, x, x)()
    half, single = torch.bfloat16, torch.float32
    assert seen == [(2, half), (2, half), (2, half), (6, half), (6, single)]


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_has_the_knobs_and_at_their_neutral_values_none_is_in_an_id(name):
    config = tasks.find(name).config
    assert issubclass(config, TrainingKnobs)
    assert config.neutral.items() >= TrainingKnobs.neutral.items()
    assert not set(TrainingKnobs.neutral) & set(resolved(config()))
    made = configure(config, {"average": 0.9, "curve": "tanh"}, of=name)
    assert set(TrainingKnobs.neutral) & set(resolved(made)) == {"average", "curve"}
    assert (made.schedule.average, made.schedule.curve) == (0.9, "tanh")


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"curve": "cosin"}, "Did you mean 'cosine'"),
        ({"precision": "float16"}, "darcy.precision is one of 'float32' or 'bfloat16'"),
        ({"accumulate": 17}, "accumulate is 17, more than the 16 examples of a batch"),
        ({"average": 1.0}, "darcy.average should be less than 1"),
        ({"warm_up_new": 20}, "warm_up_new is 20; of 20 epochs fewer can be a warm-up"),
        ({"clip": -1.0}, "darcy.clip should be"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        configure(tasks.find("darcy").config, knobs, of="darcy")
    assert "\n" not in str(refusal.value)


# --- curves


@pytest.mark.parametrize("curve", CURVES)
def test_the_rates_are_those_of_timms_schedulers(curve: Curve):
    timm()
    made = importlib.import_module("timm.scheduler")
    steps, rising, rate = 57, 6, 0.3
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    cls, more = {
        "cosine": (made.CosineLRScheduler, {"t_initial": steps - rising}),
        "constant": (made.StepLRScheduler, {"decay_t": 1, "decay_rate": 1.0}),
        "linear": (made.PolyLRScheduler, {"t_initial": steps - rising, "power": 1.0}),
        "step": (made.StepLRScheduler, {"decay_t": 17, "decay_rate": 0.1}),
        "tanh": (made.TanhLRScheduler, {"t_initial": steps - rising}),
    }[curve]
    start = rate / (rising + 1)
    scheduler = cls(optimiser, warmup_t=rising, warmup_lr_init=start, warmup_prefix=True, t_in_epochs=False, **more)
    schedule = Schedule(epochs=1, batch=1, rate=rate, weight_decay=0.0, warm_up=0.1, curve=curve)
    theirs = []
    for step in range(steps):
        scheduler.step_update(step)
        theirs.append(optimiser.param_groups[0]["lr"])
    assert [schedule.rate_at(step, steps) for step in range(steps)] == pytest.approx(theirs, rel=1e-12)


# --- accumulate


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(prediction.flatten(0, -2), target.flatten(), ignore_index=UNASKED)


def uneven() -> tuple[Tensor, Tensor]:
    """Examples with 0 to 6 answers asked, those of the first three without any."""
    target = torch.randint(4, (11, 6), generator=torch.Generator().manual_seed(1))
    target[torch.arange(6) >= torch.arange(11)[:, None] % 7] = UNASKED
    target[:3] = UNASKED
    return torch.randn(11, 6, 3, generator=torch.Generator().manual_seed(2)).double(), target


FIELDS = (torch.randn(11, 4, 4, 3, generator=CHANCE).double(), torch.randn(11, 4, 4, 1, generator=CHANCE).double())


@pytest.mark.parametrize("parts", [2, 3, 4, 11])
@pytest.mark.parametrize(
    ("batch", "loss", "weigh"),
    [
        (uneven(), cross_entropy, asked),
        (FIELDS, lambda given, truth: relative_errors(given, truth).mean(), len),
    ],
    ids=["answers", "fields"],
)
def test_parts_of_a_batch_make_the_step_of_the_whole(batch, loss, weigh, parts):
    found, seen = [], []
    for accumulate in (1, parts):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4 if loss is cross_entropy else 1)).double()
        model.register_forward_pre_hook(lambda _, came: seen.append(len(came[0])))
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        value = update(model, batch, loss, optimiser, 1.0, How(0.0, accumulate, "float32", weigh))
        found.append((value.item(), weights(model)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-12)
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, rtol=1e-11, atol=1e-13)
    assert seen[0] == 11
    assert max(seen[1:]) == -(-11 // parts)  # so that less memory is needed
    assert sum(seen[1:]) >= 7  # a part that asks nothing is left out


# --- precision


class Typed(nn.Module):
    """Notes the type of its products."""

    def __init__(self):
        super().__init__()
        self.net, self.types = nn.Linear(3, 2), []

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        self.types.append((self.training, y.dtype))
        return y


def test_in_bfloat16_products_are_short_and_weights_losses_and_answers_are_not():
    model, losses = Typed(), []

    def loss(given: Tensor, truth: Tensor) -> Tensor:
        losses.append(given.dtype)
        return squared(given, truth)

    def validate(model: nn.Module) -> float:
        answers = predict(model, EXAMPLES[0], 4, "bfloat16")
        losses.append(answers.dtype)
        return squared(answers, EXAMPLES[1]).item()

    schedule = Schedule(**PLAIN, precision="bfloat16")
    train(model, EXAMPLES, loss=loss, validate=validate, schedule=schedule, seed=0)
    assert set(model.types) == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert set(losses) == {torch.float32}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert predict(Typed().double(), EXAMPLES[0].double(), 4).dtype == torch.float64


def test_a_task_trains_and_tests_in_its_precision(tmp_path):
    entry, found = tasks.find("recall"), {}
    for precision in ("float32", "bfloat16"):
        knobs = {"train": 32, "valid": 8, "test": 8, "epochs": 1, "length": 24, "precision": precision}
        task = entry.cls(configure(entry.config, knobs, of="recall"), tmp_path)
        task.prepare(lambda *_: None, 1)
        make = maker("isotropic", {"channels": 8, "depth": 1}, ("full", {"heads": 2}), 0)
        types: list[torch.dtype] = []

        def noted(port: Port, make=make, types=types) -> nn.Module:
            model = make(port)
            model.register_forward_hook(lambda _, __, y: types.append(y.dtype))
            return model

        found[precision] = task.run(noted, seed=0, device="cpu").result["loss"]
        assert set(types) == {getattr(torch, precision)}
    assert found["float32"] != found["bfloat16"] == pytest.approx(found["float32"], rel=0.02)


# --- average


def test_what_is_scored_and_kept_is_the_running_mean_of_the_weights(monkeypatch):
    seen, scored, real = [], [], _train.update

    def watched(model: nn.Module, *given: Any) -> Tensor:
        value = real(model, *given)
        seen.append(weights(model))
        return value

    monkeypatch.setattr(_train, "update", watched)
    model, schedule = net(), Schedule(**PLAIN, average=0.7)

    def validate(model: nn.Module) -> float:
        scored.append(weights(model))
        return -float(len(scored))

    train(model, EXAMPLES, loss=squared, validate=validate, schedule=schedule, seed=0)
    means = {name: value.double() for name, value in seen[0].items()}
    for number, step in enumerate(seen[1:], 2):
        learned = [name for name in step if name.endswith(("weight", "bias"))]
        means = {n: 0.7 * means[n] + 0.3 * v.double() if n in learned else v.double() for n, v in step.items()}
        if number in (3, 6):  # the ends of the epochs
            for name, value in means.items():
                torch.testing.assert_close(scored[number // 3 - 1][name].double(), value, rtol=1e-5, atol=1e-7)
    assert len(seen) == 6
    assert all(torch.equal(value, scored[1][name]) for name, value in weights(model).items())
    assert not torch.equal(seen[-1]["0.weight"], scored[1]["0.weight"])


# --- clip


@pytest.mark.parametrize(("clip", "norm"), [(0.0, None), (0.5, 0.5), (1e9, None)])
def test_a_gradient_is_shortened_to_the_norm_that_is_asked_and_not_at_all_at_0(clip, norm):
    model = net()
    before = weights(model)
    squared(1e3 * model(EXAMPLES[0]), EXAMPLES[1]).backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    model = net()
    optimiser = torch.optim.SGD(model.parameters(), lr=9.0)
    update(model, EXAMPLES, lambda given, truth: squared(1e3 * given, truth), optimiser, 1e-3, How(clip=clip))
    moved = torch.cat([(before[name] - value).flatten() for name, value in model.named_parameters()]) / 1e-3
    expected = gradient if norm is None else gradient * norm / gradient.norm()
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
