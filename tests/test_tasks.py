"""What all tasks share: the registry, strict knobs, and the training loop."""

from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tasks
from mechanisms import configure
from tasks import Diverged, darcy
from tasks._step import predict, update
from tasks._train import Schedule, mean_loss, train
from tasks.darcy import Config, Darcy

EXAMPLES = (torch.arange(10.0)[:, None], torch.arange(10.0)[:, None] / 10)
SCHEDULE = Schedule(epochs=3, batch=4, rate=0.01, weight_decay=0.0, warm_up=0.25)


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().mean()


class Watched(nn.Linear):
    """A weight and a bias, more weights that do nothing, and as many draws a step; keeps what it was trained on."""

    def __init__(self, extra: int = 0):
        super().__init__(1, 1)
        self.more = nn.Parameter(torch.randn(extra))
        self.shown: list[list[float]] = []

    def forward(self, input: Tensor) -> Tensor:
        torch.rand(len(self.more))
        if self.training:
            self.shown.append(input[:, 0].tolist())
        return super().forward(input)


# --- the registry and the knobs


def test_every_task_is_found_by_its_file_name_and_has_what_the_bench_asks_for():
    for name in tasks.names():
        task = tasks.find(name)
        config = task.config()
        assert task.name == name
        assert task.better
        assert type(config).cost_knobs <= set(type(config).model_fields)
        assert all(field.description for field in type(config).model_fields.values())


def test_a_wrong_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'darcy'"):
        tasks.find("dracy")


@pytest.mark.parametrize("name", tasks.names())
def test_a_batch_fits_port_and_loss_and_needs_no_data(name, tmp_path):
    task = tasks.find(name)
    config = configure(task.config, {"batch": 3}, of=name)
    made = task.cls(config, tmp_path / "absent")
    inputs, target = made.batch(0, "cpu")
    port, blank = config.port, config.port.blank(3)
    assert (inputs.shape, inputs.dtype) == (blank.shape, blank.dtype)
    places = (3,) if port.once else (3, *port.shape)
    assert target.shape == (places if target.dtype == torch.long else (*places, port.outputs))
    assert made.loss(torch.zeros(*places, port.outputs), target).isfinite()
    assert torch.equal(inputs, made.batch(0, "cpu")[0])
    assert not torch.equal(inputs, made.batch(1, "cpu")[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"sides": 16}, "Did you mean 'side'"),
        ({"side": 16.0}, "darcy.side should be"),
        ({"faces": "harmonical"}, "Did you mean 'harmonic'"),
        ({"side": 256}, "2040 intervals .* lower refine"),
        ({"batch": 64, "train": 32}, "batch is 64, more than the 32 training fields"),
        ({"rate": float("nan")}, "darcy.rate should be"),
        ({"warm_up": 1.0}, "darcy.warm_up should be"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        configure(Config, knobs, of="darcy")
    assert "\n" not in str(refusal.value)


def test_data_have_a_folder_for_each_value_of_the_knobs_that_determine_them(tmp_path, monkeypatch):
    changes = {
        "side": 10,
        "refine": 3,
        "faces": "arithmetic",
        "train": 20,
        "valid": 4,
        "test": 5,
        "data_seed": 1,
        "source": "fno",
    }
    folders = {Darcy(Config(**{knob: value}), tmp_path).folder for knob, value in changes.items()}
    plain = Darcy(Config(), tmp_path).folder
    idle = {"epochs": 2, "batch": 2, "rate": 0.5, "weight_decay": 0.0, "warm_up": 0.0}
    idle |= {"curve": "tanh", "clip": 0.5, "accumulate": 2, "precision": "bfloat16", "average": 0.5}
    idle |= {"warm_up_new": 1, "start": "a file", "keep_weights": True}
    assert set(changes) | set(idle) == set(Config.model_fields)
    assert len(folders | {plain}) == len(changes) + 1
    assert {Darcy(Config(**{knob: value}), tmp_path).folder for knob, value in idle.items()} == {plain}
    monkeypatch.setattr(darcy, "VERSION", 0)
    assert Darcy(Config(), tmp_path).folder != plain


# --- the training loop


def test_the_weights_of_the_best_epoch_remain():
    torch.manual_seed(0)
    model, kept = nn.Linear(1, 1), []

    def validate(model: nn.Module) -> float:
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        return [3.0, 1.0, 1.0][len(kept) - 1]

    history = train(model, EXAMPLES, loss=squared, validate=validate, schedule=SCHEDULE, seed=0)
    assert (history.best_epoch, history.valid_score) == (2, [3.0, 1.0, 1.0])
    assert all(torch.equal(value, kept[1][name]) for name, value in model.state_dict().items())
    assert not torch.equal(kept[1]["weight"], kept[2]["weight"])


def test_every_epoch_shows_each_example_once_in_an_order_that_only_the_seed_decides():
    def shown(seed: int, extra: int) -> list[list[float]]:
        model = Watched(extra)
        train(model, EXAMPLES, loss=squared, validate=lambda _: 0.0, schedule=SCHEDULE, seed=seed)
        return model.shown

    one = shown(0, extra=0)
    assert one == shown(0, extra=7) != shown(1, extra=0)
    assert [len(batch) for batch in one] == [4, 4, 2] * 3
    epochs = [list(chain(*one[3 * epoch : 3 * epoch + 3])) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_what_a_model_draws_while_training_does_not_depend_on_what_was_drawn_before():
    def losses(drawn: int) -> list[float]:
        torch.rand(drawn)
        line = nn.Linear(1, 1)
        line.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
        model = nn.Sequential(nn.Dropout(0.5), line)
        return train(model, EXAMPLES, loss=squared, validate=lambda _: 0.0, schedule=SCHEDULE, seed=4).train_loss

    assert losses(0) == losses(17)


def test_the_training_loss_is_the_mean_over_examples_not_over_batches():
    frozen = Schedule(epochs=1, batch=4, rate=0.0, weight_decay=0.0, warm_up=0.0)
    model = nn.Linear(1, 1)
    whole = squared(model(EXAMPLES[0]), EXAMPLES[1]).item()
    history = train(model, EXAMPLES, loss=squared, validate=lambda _: 0.0, schedule=frozen, seed=0)
    assert history.train_loss == pytest.approx([whole], rel=1e-5)


def test_the_rate_rises_to_its_peak_and_falls_to_zero_as_a_cosine():
    schedule = Schedule(epochs=1, batch=1, rate=2.0, weight_decay=0.0, warm_up=0.3)
    rates = [schedule.rate_at(step, 10) for step in range(11)]
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[-1] == pytest.approx(0)
    assert rates[5] == pytest.approx(1 + np.cos(np.pi * 2 / 7))
    steady = Schedule(epochs=1, batch=1, rate=2.0, weight_decay=0.0, warm_up=0.0)
    assert steady.rate_at(0, 10) == 2.0


def test_an_update_uses_the_rate_it_is_given_and_a_gradient_of_norm_one_at_most():
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    before = [weight.detach().clone() for weight in model.parameters()]
    optimiser = torch.optim.SGD(model.parameters(), lr=9.0)
    update(model, EXAMPLES, lambda p, t: 1e4 * squared(p, t), optimiser, 0.25)
    moved = torch.cat([(new - old).flatten() for new, old in zip(model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.25, rel=1e-4)  # of plain descent: rate times clipped gradient
    assert all(weight.grad is None for weight in model.parameters())


def test_a_loss_that_is_no_number_is_divergence_with_its_place():
    calls = []

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        return squared(prediction, target) * (float("nan") if len(calls) == 5 else 1.0)

    with pytest.raises(Diverged, match="nan in step 2 of epoch 2"):
        train(nn.Linear(1, 1), EXAMPLES, loss=loss, validate=lambda _: 0.0, schedule=SCHEDULE, seed=0)
    with pytest.raises(Diverged, match="inf in step 1 of epoch 1"):
        mean_loss(torch.tensor([torch.inf, 1.0]), examples=2, epoch=0)


def test_a_validation_score_that_is_no_number_is_divergence():
    with pytest.raises(Diverged, match="validation score was nan after epoch 1"):
        train(nn.Linear(1, 1), EXAMPLES, loss=squared, validate=lambda _: float("nan"), schedule=SCHEDULE, seed=0)


def test_predictions_are_made_in_evaluation_mode_and_in_order():
    model = nn.Sequential(nn.Dropout(0.9), nn.Identity()).train()
    assert torch.equal(predict(model, EXAMPLES[0], batch=3), EXAMPLES[0])
    assert not model.training


def test_training_follows_an_evaluation_in_training_mode():
    model, modes = nn.Linear(1, 1), []

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        modes.append(model.training)
        return squared(prediction, target)

    def validate(model: nn.Module) -> float:
        return predict(model, EXAMPLES[0], batch=5).mean().item()

    train(model, EXAMPLES, loss=loss, validate=validate, schedule=SCHEDULE, seed=0)
    assert modes == [True] * 9
