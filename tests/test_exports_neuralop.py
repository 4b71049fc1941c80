"""Our models by the conventions of neuraloperator: under its own trainer, at other resolutions, saved and refused."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from attnbench.models import maker, neuralop
from tasks import Port
from tests.exact import drawn

NETS: dict[str, dict[str, Any]] = {
    "mano_net": {"model": "mano_net", "channels": 8, "heads": 2, "head_channels": 4, "mlp": 8, "depth": 1},
    "mano": {"model": "isotropic", "mechanism": ("mano", {"levels": 2}), "channels": 8, "depth": 1},
    "full": {"model": "isotropic", "mechanism": "full", "channels": 8, "depth": 1},
    "fno": {"model": "fno", "modes": 4, "channels": 4, "depth": 1},
}
each_net = pytest.mark.parametrize("name", NETS)
# the package's trainer gives the whole sample to the package's loss, which warns of what it does not read
under_its_trainer = pytest.mark.filterwarnings(
    r"ignore:LpLoss.__call__\(\) received unexpected keyword arguments. \['x'\]:UserWarning"
)


def operator(name: str, shape: tuple[int, int] = (16, 16), seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return neuralop(in_channels=1, out_channels=1, shape=shape, **NETS[name])


@pytest.fixture
def darcy(tmp_path: Path) -> Any:
    """The package's own Darcy data set, read from files made up in its form: a field of zeros and ones, an answer."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for side in (16, 32):
            x = torch.rand(6, side, side, generator=generator) > 0.5
            torch.save({"x": x, "y": 3 * x.roll(1, -1) + 0.1 * side}, tmp_path / f"darcy_{split}_{side}.pt")
    with warnings.catch_warnings():  # at their first import these set filters of warnings, which end here
        for part in ("losses", "models", "training"):
            importlib.import_module(f"neuralop.{part}")
    datasets = importlib.import_module("neuralop.data.datasets.darcy")
    counts = {"n_train": 6, "n_tests": [6, 6], "batch_size": 3, "test_batch_sizes": [3, 3]}
    return datasets.DarcyDataset(tmp_path, train_resolution=16, test_resolutions=[16, 32], download=False, **counts)


def loaders(darcy: Any) -> tuple[Any, dict[int, Any]]:
    """Batches to train on, and to test on by side."""
    return DataLoader(darcy.train_db, batch_size=3), {
        side: DataLoader(found, batch_size=3) for side, found in darcy.test_dbs.items()
    }


def trained(model: nn.Module, darcy: Any, processor: bool = True, **more: Any) -> dict[str, Any]:
    """What the package's trainer reports after two epochs."""
    kind = importlib.import_module("neuralop.training").Trainer
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 1)
    train, tests = loaders(darcy)
    trainer = kind(model=model, n_epochs=2, data_processor=darcy.data_processor if processor else None)
    return trainer.train(train, tests, optimiser, scheduler, **more)


@under_its_trainer
@each_net
def test_neuraloperators_trainer_trains_it_and_tests_it_at_two_resolutions(name, darcy):
    model = operator(name)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    metrics = trained(model, darcy)
    moved = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    assert {key for key in before if key.endswith("weight")} <= moved
    train, tests = loaders(darcy)
    known = torch.cat([batch["y"] for batch in train])
    for side in (16, 32):
        errors = []
        for batch in tests[side]:
            answers = known.std() * model.eval()(batch["x"]).detach() + known.mean()
            errors += [float((a - y).norm() / y.norm()) for a, y in zip(answers, batch["y"], strict=True)]
        assert float(metrics[f"{side}_l2"]) == pytest.approx(sum(errors) / 6, rel=1e-3)
    assert metrics["train_err"] > 0


@under_its_trainer
def test_the_trainer_trains_it_without_a_data_processor(darcy):
    metrics = trained(operator("mano_net"), darcy, processor=False)
    assert 0 < float(metrics["32_l2"]) < 10


@under_its_trainer
@each_net
def test_training_resumes_from_what_the_trainer_saved_and_a_checkpoint_makes_the_model_again(name, darcy, tmp_path):
    model, other, x = operator(name), operator(name, seed=1), drawn(2, 1, 16, 16).float()
    trained(model, darcy, save_every=1, save_dir=tmp_path / "saved")
    assert not torch.equal(other(x), model(x))
    again = type(model).from_checkpoint(tmp_path / "saved", "model")
    assert torch.equal(again(x), model(x))
    assert again.port == model.port
    torch.manual_seed(2)
    trained(model, darcy, resume_from_dir=tmp_path / "saved")  # the epoch that was saved last, once more
    torch.manual_seed(2)
    trained(other, darcy, resume_from_dir=tmp_path / "saved")
    assert torch.equal(other(x), model(x))


@each_net
def test_it_is_our_model_with_the_packages_coordinates_behind_its_channels(name):
    model, x = operator(name, (16, 8)), drawn(2, 1, 16, 8).float()
    rows, columns = torch.arange(16) / 16, torch.arange(8) / 8
    first, second = torch.meshgrid(rows, columns, indexing="ij")
    given = torch.stack([x[:, 0], first.expand(2, 16, 8), second.expand(2, 16, 8)], -1)
    knobs = dict(NETS[name])
    inside = knobs.pop("mechanism", None)
    port = Port(inputs=3, outputs=1, shape=(16, 8), places=True)
    ours = maker(knobs.pop("model"), knobs, (inside, {}) if isinstance(inside, str) else inside, 0)(port)
    ours.load_state_dict(model.net.state_dict())
    torch.testing.assert_close(model(x), ours(given)[..., 0].unsqueeze(1))
    assert torch.equal(model(x, y=x), model(x))


def test_weights_at_another_resolution_are_the_same_and_learn_there_too():
    model, x = operator("mano"), drawn(1, 1, 32, 32).float()
    port = Port(inputs=3, outputs=1, shape=(32, 32), places=True)
    larger = maker("isotropic", {"channels": 8, "depth": 1}, ("mano", {"levels": 2}), 0)(port)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        larger.load_state_dict(model.net.state_dict())
        given = model.places(x).movedim(1, -1)
        torch.testing.assert_close(model(x), larger(given).movedim(-1, 1))
        model(x).square().sum().backward()
        assert all(weight.grad is not None for weight in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
    assert len(list(model.parameters())) == len(list(larger.parameters()))


def test_at_another_resolution_it_trains_and_is_tested_as_at_its_own():
    """With norms over the batch, which do not know their grid; training moves their means, testing does not."""
    torch.manual_seed(0)
    model: Any = neuralop("unet", in_channels=1, out_channels=1, shape=(8, 8), channels=4, levels=1)
    x = drawn(2, 1, 16, 16).float()
    means = model.net.get_buffer("down.0.0.1.running_mean")
    for training in (True, False, True):
        before = means.clone()
        found = model.train(training)(x)
        assert torch.equal(means, before) != training
        expected = model.net(model.places(x).movedim(1, -1)).movedim(-1, 1)
        torch.testing.assert_close(found, expected)


def test_weights_bound_to_a_grid_are_refused_on_another():
    model = neuralop(
        "isotropic", in_channels=1, out_channels=1, shape=(8, 8), mechanism="full", position="learned", channels=8
    )
    with pytest.raises(ValueError, match=r"isotropic has weights that depend on its grid \(8, 8\), so it cannot serve"):
        model(torch.zeros(1, 1, 16, 16))


def test_torchs_seed_decides_the_weights():
    one, same, other = (operator("mano", seed=seed).net.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lift.weight"], other["lift.weight"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "isotropc", "mechanism": "full"}, "Did you mean 'isotropic'"),
        ({"model": "isotropic"}, "isotropic needs a mechanism; got none"),
        ({"model": "mano_net", "mechanism": "full"}, "mano_net is a whole model and takes no mechanism"),
        ({"model": "mano_net", "widht": 3}, "mano_net has no knob 'widht'"),
        ({"model": "mano_net", "window": 3}, "mano_net"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        neuralop(in_channels=1, out_channels=1, shape=(16, 16), **arguments)
