"""Darcy's transfer to another grid: the same fields and weights on both, errors by band, what does not transfer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tasks.darcy
from attnbench.models import maker
from mechanisms import configure
from tasks import Port
from tasks.darcy import Darcy, Scales
from tasks.darcy_transfer import Config, DarcyTransfer, banded, energies, resized, spectrum
from tests.test_darcy import Constant, Net, quiet, share, trained

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"side": 16, "test_side": 31, "refine": 4, "train": 16, "valid": 6, "test": 6, "epochs": 2, "batch": 8}
ISOTROPIC = {"channels": 16, "depth": 1}


def made(folder: Path, **knobs) -> DarcyTransfer:
    task = DarcyTransfer(configure(Config, {**SMALL, **knobs}, of="darcy_transfer"), folder)
    task.prepare(quiet, workers=2)
    return task


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> DarcyTransfer:
    return made(tmp_path_factory.mktemp("data"))


class Bound(Net):
    """Weights for each point of one grid, which nothing reads."""

    def __init__(self, port: Port):
        super().__init__(port)
        self.learned = nn.Parameter(torch.zeros(*port.shape))


# --- fields


def test_where_the_grids_divide_the_test_fields_are_one_solution_seen_twice(task):
    assert task.there.config.refine == 2
    np.testing.assert_array_equal(task.there.read("test")[..., ::2, ::2], task.read("test"))


def test_elsewhere_the_same_random_field_is_solved_about_as_finely(task):
    near = made(task.data, test_side=32, refine=8)
    assert near.there.config.refine == 4
    here = near.read("test")[:, 1]
    there = resized(torch.from_numpy(near.there.read("test")[:, 1, :, :, None]), 16)[..., 0].numpy()
    apart = np.array([[share(b - a, a) for b in there] for a in here])
    assert apart.diagonal().max() < 0.01
    assert apart[~np.eye(len(here), dtype=bool)].min() > 0.02


def test_training_fields_are_those_of_the_task_darcy_and_are_made_once(task):
    same = Darcy(
        configure(tasks.darcy.Config, {k: v for k, v in SMALL.items() if k != "test_side"}, of="darcy"), task.data
    )
    assert same.folder == task.folder
    assert not len(task.there.read("train")) + len(task.there.read("valid"))


def test_the_content_hash_is_of_the_fields_on_both_grids(task):
    assert made(task.data).prepare(quiet, workers=1) == task.prepare(quiet, workers=3)
    assert made(task.data, test_side=16).prepare(quiet, workers=1) != task.prepare(quiet, workers=1)


# --- weights


def test_training_is_that_of_the_task_darcy(task):
    result = trained(task).result
    alone = trained(Darcy(task.config, task.data)).result
    assert {name: result[name] for name in alone} == alone


def test_the_answers_there_are_those_of_the_trained_weights(task):
    nets: list[Net] = []
    result = trained(task, lambda port: nets.append(Net(port)) or nets[-1]).result
    scales, model = Scales(task.read("train")), nets[-1]
    inputs, truth = scales.pair(task.there.read("test"), "cpu")
    with torch.no_grad():
        answers = model(inputs) * scales.deviation[1] + scales.mean[1]
    shares = [share(np.asarray(a - u), np.asarray(u)) for a, u in zip(answers, truth, strict=True)]
    assert result["rel_l2_transfer"] == pytest.approx(np.mean(shares), rel=1e-5)
    assert result["rel_mse_transfer"] == pytest.approx(np.mean(np.square(shares)), rel=1e-5)


def test_transfer_to_the_same_side_changes_nothing(task):
    answer = trained(made(task.data, test_side=16))
    for name in ("rel_l2", "rel_mse", "low_rel_l2", "mid_rel_l2", "high_rel_l2"):
        assert answer.result[f"{name}_transfer"] == answer.result[name]
    assert answer.raw["spectrum_transfer"] == answer.raw["spectrum"]
    assert answer.result["rel_l2_interpolated"] == answer.result["rel_l2"]


def test_weights_bound_to_the_grid_are_named_before_anything_is_trained(task, monkeypatch):
    monkeypatch.setattr(tasks.darcy, "train", lambda *_, **__: pytest.fail("trained"))
    sentence = r"do not transfer from side 16 to 31: learned is \(16, 16\) there and \(31, 31\) here\.$"
    with pytest.raises(ValueError, match=sentence):
        trained(task, Bound)


@pytest.mark.parametrize(
    ("model", "mechanism", "transfers"),
    [
        (("isotropic", ISOTROPIC), ("full", {}), True),
        (("isotropic", ISOTROPIC), ("linformer", {}), False),
        (("isotropic", {**ISOTROPIC, "position": "learned"}), ("linear", {}), False),
        (("fno", {"modes": 8, "channels": 6, "depth": 2}), None, True),
    ],
)
def test_models_transfer_unless_they_are_bound_to_the_shape(task, model, mechanism, transfers):
    short = DarcyTransfer(task.config.model_copy(update={"epochs": 1}), task.data)
    make = maker(model[0], model[1], mechanism, 0)
    if transfers:
        assert np.isfinite(list(trained(short, make).result.values())).all()
    else:
        with pytest.raises(ValueError, match="do not transfer"):
            trained(short, make)


def test_the_test_fields_are_read_once_and_after_training(task, monkeypatch):
    reads, original = [], tasks.darcy.load
    monkeypatch.setattr(tasks.darcy, "load", lambda *given: reads.append(given[2]) or original(*given))
    trained(task)
    assert reads == ["train", "valid", "test", "test"]


# --- numbers


def waves(side: int, k: int, m: int) -> np.ndarray:
    """A mode of amplitude 1 on the nodes of the unit square [1, side, side, 1]."""
    x = np.arange(side) / (side - 1)
    return np.multiply.outer(np.sin(np.pi * k * x), np.sin(np.pi * m * x))[None, ..., None]


def test_a_wave_has_its_energy_in_its_mode_alone_and_as_much_on_every_grid():
    for side in (16, 32, 47):
        found = energies(torch.from_numpy(waves(side, 3, 11)))[0]
        assert found[2, 10] == pytest.approx(0.25)
        assert found.sum() == pytest.approx(0.25)


def test_energies_are_those_of_sums_over_all_nodes():
    field = np.random.default_rng(0).random((9, 9))
    found = energies(torch.from_numpy(field)[None, ..., None])[0]
    by_hand = [
        [(field * waves(9, k, m)[0, ..., 0]).sum() ** 2 * (2 / 8) ** 2 / 8**2 for m in range(1, 8)] for k in range(1, 8)
    ]
    np.testing.assert_allclose(found, by_hand, rtol=1e-10)


@pytest.mark.parametrize(("mode", "band"), [((1, 4), "low"), ((3, 4), "mid"), ((12, 4), "mid"), ((5, 12), "high")])
def test_an_error_in_one_wave_is_in_its_band_alone(mode, band):
    truth = sum(waves(32, *one) / (7 * one[0]) for one in ((1, 1), (6, 6), (12, 12)))
    error = waves(32, *mode) / 100
    spectra = [energies(torch.from_numpy(one)) for one in (error, truth)]
    amplitudes = {"low": 1 / 7, "mid": 1 / 42, "high": 1 / 84}
    expected = {name: 0.01 / amplitudes[name] if name == band else 0 for name in amplitudes}
    assert banded(spectra[0], spectra[1]) == pytest.approx(expected, abs=1e-9)
    curve = spectrum(spectra[0], spectra[1])
    assert np.argmax(curve) == int(np.hypot(*mode))
    assert max(curve) == pytest.approx(0.01 / np.sqrt(sum(size**2 for size in amplitudes.values())))


def test_predicting_zero_scores_one_in_every_band_on_both_grids(task):
    pressure = task.read("train")[:, 1].astype(float)
    answer = trained(task, lambda _: Constant(-pressure.mean() / pressure.std()))
    errors = {name: value for name, value in answer.result.items() if "rel_" in name}
    assert errors == pytest.approx(dict.fromkeys(errors, 1.0), abs=1e-3)
    assert len(errors) == 13
    for curve in (answer.raw["spectrum"], answer.raw["spectrum_transfer"]):
        assert np.square(curve).sum() == pytest.approx(1, abs=1e-3)


def test_interpolation_is_exact_for_a_plane_and_keeps_the_corners():
    def plane(side: int) -> torch.Tensor:
        x = torch.linspace(0, 1, side, dtype=torch.float64)
        return (2 * x[:, None] - 3 * x)[None, ..., None]

    torch.testing.assert_close(resized(plane(16), 31), plane(31))
    torch.testing.assert_close(resized(plane(31), 16), plane(16))


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"side": 8}, "side should be greater than or equal to 12"),
        ({"test_side": 8}, "test_side should be greater than or equal to 12"),
        ({"test_side": 1026}, "test_side is at most 1025; got 1026"),
        ({"source": "fno", "test_side": 32}, "thin out to sides .* got 32"),
        ({"source": "neuralop", "test_side": 31}, "sides 16, 32, 64, 128, 421; got 31"),
        ({"test_sides": 8}, "Did you mean 'test_side'"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        configure(Config, knobs, of="darcy_transfer")
    assert "\n" not in str(refusal.value)


def test_a_tiny_training_beats_zero_and_the_mean_field_on_both_grids(tmp_path):
    task = made(tmp_path, refine=2, train=96, epochs=16, rate=1e-2)
    result = trained(task, maker("isotropic", {"channels": 16, "depth": 2}, ("linear", {}), 0)).result
    floors = [np.mean([share(u - mean, u) for u in one.read("test")[:, 1]]) for one, mean in means(task)]
    assert result["rel_l2"] < 0.9 * floors[0] < 0.9
    assert result["rel_l2_transfer"] < 0.9 * floors[1] < 0.9


def means(task: DarcyTransfer) -> list[tuple[Darcy, np.ndarray]]:
    """The mean training pressure on both grids."""
    mean = task.read("train")[:, 1].mean(0)
    there = resized(torch.from_numpy(mean)[None, ..., None], task.config.test_side)[0, ..., 0].numpy()
    return [(task, mean), (task.there, there)]
