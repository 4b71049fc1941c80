"""Where Darcy's error lies: distances against brute force, numbers and curves worked out node by node."""

from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attnbench.models import maker
from mechanisms import configure
from tasks.darcy import Darcy, Scales
from tasks.darcy_interfaces import Config, DarcyInterfaces, to_boundary, to_jump
from tests.test_darcy import Constant, quiet, share, trained

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"side": 12, "refine": 4, "train": 16, "valid": 6, "test": 5, "epochs": 2, "batch": 8}


def made(folder: Path, **knobs) -> DarcyInterfaces:
    task = DarcyInterfaces(configure(Config, {**SMALL, **knobs}, of="darcy_interfaces"), folder)
    task.prepare(quiet, workers=2)
    return task


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> DarcyInterfaces:
    return made(tmp_path_factory.mktemp("data"))


# --- distances


def nearest_jump(a: np.ndarray) -> np.ndarray:
    """Every node against every face."""
    rows, columns = a.shape
    faces = [(i + 0.5, j) for i in range(rows - 1) for j in range(columns) if a[i, j] != a[i + 1, j]]
    faces += [(i, j + 0.5) for i in range(rows) for j in range(columns - 1) if a[i, j] != a[i, j + 1]]
    return np.array(
        [[min((np.hypot(i - y, j - x) for y, x in faces), default=np.inf) for j in range(columns)] for i in range(rows)]
    )


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_distance_from_a_jump_is_that_of_brute_force(share):
    chance = np.random.default_rng(3)
    for _ in range(4):
        a = np.where(chance.random((9, 11)) < share, 12.0, 3.0)
        np.testing.assert_allclose(to_jump(a), nearest_jump(a), rtol=1e-12)


def test_nodes_on_both_sides_of_a_jump_are_half_a_node_from_it():
    a = np.full((5, 6), 3.0)
    a[:, 3:] = 12
    np.testing.assert_array_equal(to_jump(a), np.tile([2.5, 1.5, 0.5, 0.5, 1.5, 2.5], (5, 1)))


def test_without_a_jump_the_distance_is_infinite():
    assert np.isinf(to_jump(np.full((5, 5), 3.0))).all()


@pytest.mark.parametrize("side", [5, 8, 11])
def test_the_distance_from_the_boundary_is_that_of_brute_force(side):
    edge = [(i, j) for i in range(side) for j in range(side) if not 0 < i < side - 1 or not 0 < j < side - 1]
    by_hand = [[min(np.hypot(i - y, j - x) for y, x in edge) for j in range(side)] for i in range(side)]
    np.testing.assert_array_equal(to_boundary(side), by_hand)


# --- numbers and curves


def test_training_and_its_numbers_are_those_of_the_task_darcy(task):
    answer, alone = trained(task), trained(Darcy(task.config, task.data))
    assert {name: answer.result[name] for name in alone.result} == alone.result
    assert {name: answer.raw[name] for name in alone.raw} == alone.raw
    assert Darcy(task.config, task.data).folder == task.folder


def by_hand(values: list[np.ndarray], truths: list[np.ndarray], chosen: list[np.ndarray]) -> float:
    """Mean over fields of the root mean square over chosen nodes, over the truth's over all nodes."""
    found = []
    for value, truth, places in zip(values, truths, chosen, strict=True):
        nodes = [value[i, j] ** 2 for i, j in zip(*places.nonzero(), strict=True)]
        if nodes:
            found.append(np.sqrt(np.mean(nodes)) / np.sqrt(np.mean(truth**2)))
    return float(np.mean(found))


def test_numbers_and_curves_are_those_worked_out_node_by_node(task):
    answer = trained(task, lambda _: Constant(0.3))
    scales, fields = Scales(task.read("train")), task.read("test").astype(float)
    truths = list(fields[:, 1])
    errors = [u - (scales.mean[1] + 0.3 * scales.deviation[1]) for u in truths]
    jumps, edges = [nearest_jump(a) for a in fields[:, 0]], [to_boundary(12)] * len(fields)
    for near, far, distances in (("near", "far", jumps), ("boundary", "interior", edges)):
        expected = [by_hand(errors, truths, [(d <= 1) == side for d in distances]) for side in (True, False)]
        assert [answer.result[f"rel_l2_{word}"] for word in (near, far)] == pytest.approx(expected, rel=1e-5)
        assert answer.result[f"{near}_over_{far}"] == pytest.approx(expected[0] / expected[1], rel=1e-5)
    for name, distances, least in (("jump", jumps, 0), ("boundary", edges, -1)):
        count = max(ceil(d.max() - least) for d in distances)
        assert {len(answer.raw[f"{name}_{word}"]) for word in ("error", "truth", "share")} == {count}
        for i, found in enumerate(answer.raw[f"{name}_error"]):
            places = [(d > i + least) & (d <= i + 1 + least) for d in distances]
            assert found == pytest.approx(by_hand(errors, truths, places), rel=1e-5)
            assert answer.raw[f"{name}_truth"][i] == pytest.approx(by_hand(truths, truths, places), rel=1e-5, abs=1e-12)
            assert answer.raw[f"{name}_share"][i] == pytest.approx(np.mean(places))


def test_all_nodes_are_in_the_curves(task):
    raw = trained(task).raw
    assert sum(raw["jump_share"]) == pytest.approx(1)
    assert sum(raw["boundary_share"]) == pytest.approx(1)
    assert raw["boundary_share"][0] == pytest.approx(44 / 144)
    assert raw["boundary_truth"][0] == 0


def test_predicting_zero_errs_by_the_truth_everywhere(task):
    pressure = task.read("train")[:, 1].astype(float)
    answer = trained(task, lambda _: Constant(-pressure.mean() / pressure.std()))
    for name in ("jump", "boundary"):
        assert answer.raw[f"{name}_error"] == pytest.approx(answer.raw[f"{name}_truth"], abs=1e-4)


class Kinked(nn.Module):
    """Right but for an error of the same size at every node beside a jump, and none elsewhere."""

    def __init__(self, task: Darcy):
        super().__init__()
        self.scales, self.idle = Scales(task.read("train")), nn.Parameter(torch.zeros(()))
        splits = {split: task.read(split) for split in ("train", "valid", "test")}
        self.known = {a.tobytes(): (nearest_jump(a), u) for fields in splits.values() for a, u in fields}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = (x[..., 0] * self.scales.deviation[0] + self.scales.mean[0]).round().numpy()
        pairs = [self.known[one.tobytes()] for one in a]
        wrong = np.stack([u + 0.01 * (d <= 0.5) + 1e-6 for d, u in pairs])
        answer = (torch.from_numpy(wrong) - self.scales.mean[1]) / self.scales.deviation[1]
        return answer.float()[..., None] + 0 * self.idle


def test_a_model_that_errs_at_jumps_alone_is_told_apart(task):
    answer = trained(task, lambda _: Kinked(task))
    assert answer.result["near_over_far"] > 100
    assert answer.result["rel_l2_near"] > 100 * answer.result["rel_l2_far"]
    assert 0.3 < answer.result["boundary_over_interior"] < 3
    assert np.argmax(answer.raw["jump_error"]) == 0
    assert answer.raw["jump_error"][0] > 100 * max(answer.raw["jump_error"][1:])


def test_a_field_without_jumps_counts_as_far_and_a_split_without_is_refused(task, monkeypatch):
    original = DarcyInterfaces.read
    flat = 1

    def read(self, split: str) -> np.ndarray:
        fields = original(self, split).copy()
        if split == "test":
            fields[:flat, 0] = 3
        return fields

    monkeypatch.setattr(DarcyInterfaces, "read", read)
    answer = trained(task, lambda _: Constant(0.3))
    assert sum(answer.raw["jump_share"]) == pytest.approx(4 / 5)
    assert np.isfinite(list(answer.result.values())).all()
    flat = 5
    with pytest.raises(ValueError, match=r"no test field has a node that counts as near; take a larger side\.$"):
        trained(task)


def test_a_side_without_an_interior_is_refused():
    with pytest.raises(ValueError, match="side should be greater than or equal to 5"):
        configure(Config, {"side": 4}, of="darcy_interfaces")


def test_a_tiny_training_beats_zero_and_the_mean_field_in_every_place(tmp_path):
    task = made(tmp_path, train=64, epochs=12, rate=1e-2)
    result = trained(task, maker("isotropic", {"channels": 24, "depth": 2}, ("linear", {}), 0)).result
    mean = task.read("train")[:, 1].mean(0)
    assert result["rel_l2"] < 0.9 * np.mean([share(u - mean, u) for u in task.read("test")[:, 1]]) < 0.9
    zero = trained(
        task, lambda _: Constant(-Scales(task.read("train")).mean[1] / Scales(task.read("train")).deviation[1])
    )
    for name in ("rel_l2_near", "rel_l2_far", "rel_l2_interior"):
        assert result[name] < 0.6 * zero.result[name]
