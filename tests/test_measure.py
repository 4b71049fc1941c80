"""Measuring: the faults that other benchmarks had, each planted into a made-up device or counted by hand.

The clock and the device are made up wherever a number depends on time, so that nothing here depends on the machine.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

import mechanisms
import tasks
from attnbench import measure
from attnbench.host import Usage
from attnbench.models import maker
from tests.fake_device import Device


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device(monkeypatch, measure)
    monkeypatch.setattr(torch.cuda, "synchronize", made.wait)
    return made


# time


def test_the_latency_of_a_device_that_works_on_its_own_is_seen(device):
    assert measure.timed(lambda: device.enqueue(20), "cuda") == pytest.approx(20)


def test_work_that_was_left_over_before_is_not_counted(device):
    device.enqueue(500)
    assert measure.timed(lambda: device.enqueue(20), "cuda") == pytest.approx(20)


def test_a_model_that_is_slow_once_is_not_slow_in_the_timing(device):
    steps = iter([60_000.0])  # a minute of compilation
    step = lambda: device.enqueue(next(steps, 10.0))  # noqa: E731
    measure.warm_up(step, "cuda")
    times = measure.repeat(step, "cuda")
    assert set(times) == {10.0}
    assert measure.summary("train", times, 1)["train_step_ms"] == 10


def test_a_single_hiccup_does_not_reach_the_median_but_stays_in_the_samples(device):
    steps = iter([10.0] * 20 + [4000.0])
    times = measure.repeat(lambda: device.enqueue(next(steps, 10.0)), "cuda")
    assert max(times) == 4000
    assert measure.summary("train", times, 1)["train_step_ms"] == 10


def test_warming_up_lasts_until_steps_agree(device):
    falling = iter([1000 * 0.8**number for number in range(20)])
    slow: list[float] = []

    def step() -> None:
        slow.append(next(falling, 10.0))
        device.enqueue(slow[-1])

    measure.warm_up(step, "cuda")
    assert len(slow) == 23  # the first three that are alike


def test_steady_steps_are_repeated_for_a_second_and_thirty_times_at_least(device):
    assert len(measure.repeat(lambda: device.enqueue(1.0), "cuda")) == 1000
    assert len(measure.repeat(lambda: device.enqueue(100.0), "cuda")) >= 30


def test_unsteady_and_slow_steps_end_at_the_cap_and_are_called_noisy(device):
    steps = iter(range(100_000))
    times = measure.repeat(lambda: device.enqueue(1 + next(steps) % 2), "cuda")
    assert sum(times) == pytest.approx(1e3 * measure.REPEAT_CAP_S, abs=1e3 * measure.LOOK_S)
    assert measure.summary("train", times, 1)["train_noisy"]
    times = measure.repeat(lambda: device.enqueue(4000.0), "cuda")
    assert len(times) == 2
    assert measure.summary("train", times, 1)["train_noisy"]


def test_fewer_than_thirty_repeats_are_noisy():
    assert measure.noisy([1.0] * 29)
    assert not measure.noisy([1.0] * 30)


@pytest.mark.parametrize("n", [30, 31, 40, 50, 99, 100, 250, 1001])
def test_the_interval_that_decides_what_is_noisy_covers_the_median_in_95_percent(n):
    low = next(rank for rank in range(1, n) if measure.noisy([0.5] * rank + [1.0] * (n - rank)))
    high = next(rank for rank in range(n, 0, -1) if measure.noisy([1.0] * (rank - 1) + [1.5] * (n - rank + 1)))
    covered = binom.cdf(high - 1, n, 0.5) - binom.cdf(low - 1, n, 0.5)  # of the interval between those two ranks
    assert 0.94 <= covered <= 0.975


def test_throughput_is_the_batch_over_the_median_and_turns_the_quartiles_round():
    times = [3.0, 1.0, 2.0, 8.0, 5.0, 13.0]
    q25, median, q75 = np.percentile(times, [25, 50, 75])
    told = measure.summary("infer", times, 16)
    assert told["infer_samples_per_s"] == pytest.approx(16 / (median / 1000))
    assert told["infer_samples_per_s_q25"] == pytest.approx(16 / (q75 / 1000))
    assert told["infer_samples_per_s_q75"] == pytest.approx(16 / (q25 / 1000))
    assert [told[f"infer_step_ms{end}"] for end in ("", "_q25", "_q75")] == pytest.approx([median, q25, q75])
    assert told["infer_repeats"] == 6


def test_a_neighbour_on_the_machine_is_seen_as_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    before = Usage(wall_s=100.0, busy_s=1000.0, own_s=50.0)
    assert before.foreign_until(Usage(wall_s=110.0, busy_s=1015.0, own_s=58.0)) == pytest.approx(7 / 40)
    assert before.foreign_until(Usage(wall_s=110.0, busy_s=1007.9, own_s=58.0)) == 0  # clocks of unlike grain
    assert before.foreign_until(Usage(wall_s=110.0, busy_s=None, own_s=58.0)) is None


def test_time_that_all_cores_were_busy_is_read_from_the_kernel(monkeypatch):
    stat = "cpu  100 20 300 9999 888 7 6 5 0 0\ncpu0 1 2 3 4\n"
    read, is_file = Path.read_text, Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda file: str(file) == "/proc/stat" or is_file(file))
    monkeypatch.setattr(Path, "read_text", lambda file: stat if str(file) == "/proc/stat" else read(file))
    assert Usage.now().busy_s == pytest.approx((100 + 20 + 300 + 7 + 6 + 5) / os.sysconf("SC_CLK_TCK"))


# what is timed


class Probe(nn.Module):
    """Notes in which modes it is called, and what its dropout lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.dropout = nn.Parameter(torch.ones(1)), nn.Dropout(0.5)
        self.modes: list[tuple[bool, bool]] = []
        self.passed: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(x)
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.passed.append(float((y != 0).float().mean()))
        return y * self.scale


class Line:
    """The one thing that a training step asks of a task."""

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean()


def test_inference_has_gradients_and_dropout_off():
    probe = Probe()
    measure.inference(probe, torch.ones(1, 1000))()
    assert probe.modes == [(False, False)]
    assert probe.passed == [1.0]


def test_a_training_step_has_gradients_and_dropout_on_and_moves_the_weights():
    probe = Probe()
    before = probe.scale.item()
    measure.inference(probe, torch.ones(1, 1000))()
    task: tasks.Runnable = Line()  # pyright: ignore[reportAssignmentType] - it needs no more of a task
    measure.training(probe, task, torch.ones(1, 1000), torch.zeros(1, 1000))()
    assert probe.modes[-1] == (True, True)
    assert 0.3 < probe.passed[-1] < 0.7
    assert probe.scale.item() != before


# the whole row


def test_a_cost_row_has_every_column_and_its_own_samples(monkeypatch, tmp_path: Path):
    for name in ("WARM_S", "WARM_CAP_S", "REPEAT_S", "REPEAT_CAP_S", "LOOK_S"):
        monkeypatch.setattr(measure, name, 0.0)
    darcy = tasks.find("darcy")
    config = mechanisms.configure(darcy.config, {"side": 8, "refine": 1, "batch": 5}, of="darcy")
    make = maker("isotropic", {"channels": 8, "depth": 1}, ("full", {}), 0)
    columns, raw = measure.cost(make, darcy.cls(config, tmp_path), config.port, device="cpu")
    ends = ("step_ms", "step_ms_q25", "step_ms_q75", "samples_per_s", "samples_per_s_q25", "samples_per_s_q75")
    expected = {f"{name}_{end}" for name in ("infer", "train") for end in (*ends, "repeats", "noisy")}
    expected |= {"memory_infer_mib", "memory_train_mib", "memory_method", "batch", "threads", "noisy", "foreign_cpu"}
    assert expected <= columns.keys()
    assert columns["batch"] == 5
    assert columns["noisy"] is True  # two repeats
    assert columns["memory_train_mib"] > columns["memory_infer_mib"] > 0
    assert not list(tmp_path.iterdir())
    for name in ("infer", "train"):
        assert len(raw[f"{name}_step_ms"]) == columns[f"{name}_repeats"] == 2
        assert columns[f"{name}_step_ms"] == pytest.approx(np.median(raw[f"{name}_step_ms"]))
        assert columns[f"{name}_samples_per_s"] == pytest.approx(5000 / columns[f"{name}_step_ms"])
