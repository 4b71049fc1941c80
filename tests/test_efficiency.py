"""What a cell of `efficiency` measures, against made-up devices, known allocations and counts by hand.

Faults that peers had (facts of measurement, section 9) are named with their numbers.
"""

import math
import time
from typing import ClassVar

import pytest
import torch
from torch import nn

from attnbench.memory import peaks
from attnbench.probes import _clock, _energy, _expand, _limits, _work, efficiency
from tests.efficiency_cell import shortly, spec
from tests.fake_device import Device

MIB = 2**20


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch, _clock)


@pytest.fixture
def quick():
    with shortly():
        yield


# time


def test_the_latency_of_an_asynchronous_device_is_seen_by_waiting_for_it(device):
    """Faults 1 and 3: the host alone is done after 0.1 ms."""
    assert _clock.timing(lambda: device.enqueue(20), device.wait).median_ms == pytest.approx(20)


def test_short_steps_are_timed_in_blocks_of_ten_milliseconds(device):
    found = _clock.timing(lambda: device.enqueue(0.5), device.wait)
    assert found.median_ms == pytest.approx(0.5)
    assert found.each * 0.5 >= _clock.BLOCK_MS


def test_a_step_that_is_slow_once_is_seen_in_its_own_column_and_not_in_the_median(device):
    """Fault 4: the first interval includes compilation."""
    steps = iter([60_000.0])
    found = _clock.timing(lambda: device.enqueue(next(steps, 10.0)), device.wait)
    assert set(found.samples) == {10.0}
    assert found.compile_s == pytest.approx(59.99)


def test_warming_up_lasts_until_blocks_agree(device):
    falling = iter([1000 * 0.8**number for number in range(20)])
    found = _clock.timing(lambda: device.enqueue(next(falling, 10.0)), device.wait)
    assert found.warm_steps >= 23
    assert set(found.samples) == {10.0}


def test_fewer_than_thirty_samples_are_noisy(device):
    """Fault 6: one iteration timed after warm-up."""
    few = _clock.timing(lambda: device.enqueue(5000), device.wait)
    assert _clock.FEWEST <= len(few.samples) < 30
    assert few.noisy
    steady = _clock.timing(lambda: device.enqueue(500), device.wait)  # all alike, so that the count alone speaks
    assert 10 <= len(steady.samples) < 30
    assert _clock.known(steady.samples)
    assert steady.noisy
    many = _clock.timing(lambda: device.enqueue(100), device.wait)
    assert len(many.samples) >= 30
    assert not many.noisy


def test_an_unsteady_step_ends_at_the_cap_and_is_noisy(device):
    turn = iter(range(10**9))
    found = _clock.timing(lambda: device.enqueue(20 + 20 * (next(turn) % 2)), device.wait)
    assert found.noisy
    assert sum(found.samples) / 1e3 == pytest.approx(_clock.CAP_S, abs=0.1)


@pytest.mark.usefixtures("quick")
def test_the_timer_agrees_with_a_clock_inside_the_step():
    """The step keeps its own time, which whatever else the machine does lengthens alike."""
    own: list[float] = []

    def step() -> None:
        start = time.perf_counter()
        time.sleep(0.004)
        own.append(1e3 * (time.perf_counter() - start))

    found = _clock.timing(step, lambda: None)
    measured = own[found.warm_steps :]
    assert sum(found.samples) * found.each == pytest.approx(sum(measured), rel=0.05)
    assert found.median_ms >= 4


@pytest.mark.parametrize("n", [10, 30, 101])
def test_the_interval_of_the_median_covers_it_in_95_percent(n):
    random = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(400):
        low, high = _clock.interval(torch.rand(n, generator=random).tolist())
        hits += low <= 0.5 <= high
    assert 0.93 <= hits / 400 <= 0.995


# modes


class Watched(nn.Module):
    """Notes how it is called; its dropout would show in what it returns."""

    calls: ClassVar[list[tuple[bool, bool, bool]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(64, 64)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Watched.calls.append((torch.is_grad_enabled(), self.training, bool((self.drop(torch.ones(99)) == 0).any())))
        return self.inside(x)


@pytest.mark.parametrize(("way", "on"), [("forward", False), ("both", True)])
def test_a_forward_pass_has_neither_gradients_nor_dropout_and_training_has_both(monkeypatch, way, on):
    """Fault 1: forward timed with gradients and dropout on."""
    monkeypatch.setattr(efficiency, "built", lambda _: Watched)
    Watched.calls.clear()
    efficiency.Step(spec(way=way))()
    assert Watched.calls == [(on, on, on)]


def test_a_backward_pass_reaches_tokens_and_weights(monkeypatch):
    reached = []
    monkeypatch.setattr(torch.autograd, "grad", lambda y, leaves, *_, **__: reached.append((y, leaves)))
    step = efficiency.Step(spec(way="both"))
    step()
    (_, leaves), *more = reached
    assert not more
    assert {id(leaf) for leaf in leaves} == {id(step.tokens), *map(id, step.module.parameters())}


# memory


def test_lengths_in_descending_order_have_the_same_peaks():
    """Fault 2: peak memory never reset between lengths."""
    steps = {side: efficiency.Step(spec("full", (side, side), "both")) for side in (8, 16, 32)}
    up = {side: peaks(step, "cpu")["memory"] for side, step in steps.items()}
    down = {side: peaks(steps[side], "cpu")["memory"] for side in (32, 16, 8)}
    assert up == down
    assert up[8] < up[16] < up[32]


class Holding(nn.Module):
    """Holds 24 MiB at once, and nothing afterwards."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        held = [torch.empty(size * MIB, dtype=torch.uint8) for size in (16, 8)]
        del held
        return x + 1


def test_the_peak_of_a_step_is_what_it_was_known_to_hold(monkeypatch):
    monkeypatch.setattr(efficiency, "built", lambda _: Holding)
    assert peaks(efficiency.Step(spec()), "cpu")["memory"] == pytest.approx(24, abs=0.1)


# work and traffic


def test_counts_are_those_by_hand():
    n, c = 256, 64
    projections, products = 4 * 2 * n * c * c, 4 * n * n * c
    assert _work.work(spec("full", (16, 16))) == (projections + products, "")
    assert _work.work(spec("full", (16, 16), "both")) == (3 * (projections + products), "")
    assert _work.work(spec("full", (16, 16), batch=3)) == (3 * (projections + products), "")
    assert _work.work(spec("full", (256,), causal=True)) == (projections + products / 2, "")
    assert _work.work(spec("full", (256,), "both", causal=True)) == (3 * (projections + products / 2), "")


class Unseen(nn.Module):
    """Has weights, and work that no counter sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class Uncountable(nn.Module):
    """Looks at values, which the meta device has not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x.sum(-1) > 0].sum() + x


def test_a_count_that_fails_is_nan_with_its_reason(monkeypatch):
    """Fault 7: a column filled with something else where counting failed."""
    monkeypatch.setattr(_work, "built", lambda _: Uncountable)
    flops, why = _work.work(spec())
    assert math.isnan(flops)
    assert "meta" in why
    _expand._worked.cache_clear()
    monkeypatch.setattr(_expand, "built", lambda _: Uncountable)
    assert math.isnan(_expand.worked(spec("full", (4, 4))).matmul_flops)
    _expand._worked.cache_clear()


def test_no_counted_work_is_an_error_for_what_has_weights(monkeypatch):
    """Fault 8: the counter returns 0."""
    monkeypatch.setattr(_work, "built", lambda _: Unseen)
    with pytest.raises(ValueError, match="weights and no work"):
        _work.work(spec())


def test_traffic_is_every_tensor_once():
    step, weights = efficiency.Step(spec("full", (16, 16), "both")), 4 * (64 * 64 + 64)
    tokens = 256 * 64
    assert _work.traffic(step.module, step.tokens, both=False) == 4 * (weights + 2 * tokens)
    assert _work.traffic(step.module, step.tokens, both=True) == 4 * (3 * weights + 5 * tokens)
    alone = efficiency.Step(spec("identity"))
    assert _work.traffic(alone.module, alone.tokens, both=False) == 0


# limits


def test_the_share_is_that_of_the_nearer_limit():
    peak = (100.0, 10.0)  # GFLOP/s and GB/s
    assert _limits.share(1e9, 1e6, 0.02, peak) == (pytest.approx(0.5), "compute")
    assert _limits.share(1e6, 1e8, 0.04, peak) == (pytest.approx(0.25), "memory")
    assert math.isnan(_limits.share(math.nan, 1e8, 0.04, peak)[0])
    assert _limits.share(0.0, 0.0, 0.04, peak)[1] == ""


def test_the_limits_are_work_and_bytes_over_the_best_time(monkeypatch):
    monkeypatch.setattr(_limits, "best_s", lambda step, wait: (step(), wait(), 0.25)[2])
    assert _limits.gflops("cpu", torch.float32, lambda: None, side=100) == pytest.approx(2 * 100**3 / 0.25 / 1e9)
    assert _limits.gbps("cpu", 12_000_000, lambda: None) == pytest.approx(12e6 / 0.25 / 1e9)


def test_the_best_of_several_rounds_is_taken(monkeypatch):
    clock = iter([0.0, 8.0, 8.0, 9.0, 9.0, 12.0])
    monkeypatch.setattr(_limits, "perf_counter", lambda: next(clock))
    assert _limits.best_s(lambda: None, lambda: None) == 1.0


# energy


def test_energy_is_nan_and_says_why_where_nothing_measures_it():
    """Fault 20: efficiency in energy is claimed, and none is measured."""
    found = _energy.energy(lambda: None, lambda: None, "cpu")
    assert math.isnan(found["energy_j"])
    assert found["energy_why"]


def test_energy_is_what_the_counter_moved_by_over_the_steps():
    taken = [0.0]

    def step() -> None:
        taken[0] += 0.125
        time.sleep(0.001)

    assert _energy.spent(step, lambda: None, lambda: taken[0], window_s=0.05) == pytest.approx(0.125)
