"""Solving for a width of equal latency: the search, two steps timed in turn, and what is told of them.

How long a step takes is made up wherever a number depends on it; one test times real steps.
"""

import json
from math import inf
from pathlib import Path

import pytest
import torch

from attnbench import _latency, measure
from attnbench._widths import Ask
from attnbench.sweep import expand
from tests.asked import changed, written
from tests.fake_device import Device

EQUAL = changed("channels: 8", "channels: 32") + "equal: {what: latency, to: full, within: 0.1}\n"
FULL_MS = 20.5  # a step of the target


def slope(width: int) -> float:
    """Milliseconds of a step of a variant that costs a quarter as much as its target, and 2 ms whatever its width."""
    return 2 + 18 * (width / 64) ** 2


def unmeasured(folder: Path, text: str = EQUAL) -> tuple[Ask, ...]:
    return expand(written(folder, text), device="cpu").unmeasured


# searching


@pytest.mark.parametrize("target", [3.0, 20.0, 55.0, 700.0])
@pytest.mark.parametrize("step", [1, 4, 12])
def test_the_width_whose_time_is_nearest_is_found(target, step):
    found = _latency.search(lambda width: {"ratio": slope(width) / target}, step=step, most=2048)
    nearest = min(range(step, 2049, step), key=lambda width: abs(slope(width) - target))
    assert found["width"] == nearest
    assert found["ratio"] == pytest.approx(slope(nearest) / target)
    assert found["tried"][str(nearest)] == found["ratio"]


def test_what_is_told_is_measured_again_and_is_the_median_of_three():
    again = iter([0.97, 1.09, 1.01])
    seen: set[int] = set()

    def at(width: int) -> dict[str, float]:
        if width == 8 and width in seen:
            return {"ratio": next(again)}
        seen.add(width)
        return {"ratio": width / 8}

    found = _latency.search(at, step=4, most=64)
    assert (found["width"], found["ratio"], found["ratios"]) == (8, 1.01, [0.97, 1.01, 1.09])


def test_widths_that_cannot_be_built_or_run_are_passed_over():
    def at(width: int) -> dict[str, float] | None:
        return None if width % 8 else {"ratio": inf if width > 40 else width / 39}

    found = _latency.search(at, step=4, most=64)
    assert found["width"] == 40
    assert None in found["tried"].values()
    with pytest.raises(ValueError, match="at no width up to 64"):
        _latency.search(lambda _: None, step=4, most=64)
    with pytest.raises(ValueError, match="at no width up to 64"):
        _latency.search(lambda _: {"ratio": inf}, step=4, most=64)


# timing


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device(monkeypatch, measure)
    monkeypatch.setattr(torch.cuda, "synchronize", made.wait)
    return made


def test_two_steps_are_timed_in_turn_in_both_orders(device):
    order: list[str] = []

    def step(name: str, ms: float) -> measure.Step:
        return lambda: (order.append(name), device.enqueue(ms))[1]

    own, other = measure.in_turn([step("a", 10.0), step("b", 40.0)], "cuda")
    assert (set(own), set(other)) == ({10.0}, {40.0})
    assert len(own) == len(other) == 40  # two seconds in all, and thirty times at least
    turns = ["".join(order[-80:][at : at + 2]) for at in range(0, 80, 2)]
    assert turns[:4] == ["ba", "ab", "ba", "ab"]
    assert sum(turn == "ab" for turn in turns) == 20


def test_a_machine_that_slows_down_meanwhile_changes_both_times_and_not_their_ratio(device):
    began = device.now
    slowing = lambda: 1 + (device.now - began) / 2e9  # noqa: E731 - twice as slow after two seconds
    own, other = measure.in_turn(
        [lambda: device.enqueue(10 * slowing()), lambda: device.enqueue(20 * slowing())], "cuda"
    )
    own_ms, other_ms = (_latency.measured(times)["step_ms"] for times in (own, other))
    assert own_ms > 15
    assert own_ms / other_ms == pytest.approx(0.5, rel=0.02)


@pytest.fixture
def quick(monkeypatch):
    """Few repeats, and the state of this process put back."""
    for name, value in {"WARM_S": 0.0, "WARM_CAP_S": 0.0, "REPEATS": 3, "REPEAT_S": 0.0, "REPEAT_CAP_S": 0.02}.items():
        monkeypatch.setattr(measure, name, value)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("quick")
def test_real_steps_are_timed_at_the_batch_of_the_task(tmp_path, monkeypatch):
    (ask,) = unmeasured(tmp_path)
    sizes: set[tuple[int, ...]] = set()
    update = measure.update
    monkeypatch.setattr(measure, "update", lambda *args: (sizes.add(tuple(args[1][0].shape)), update(*args))[1])
    asked = json.loads(json.dumps({**vars(ask), "most": 64}))
    built: list[tuple[str, int]] = []
    made = _latency.made_model
    width = lambda spec: (spec["mechanism"]["name"], spec["model"]["knobs"]["channels"])  # noqa: E731
    monkeypatch.setattr(_latency, "made_model", lambda spec, seed: (built.append(width(spec)), made(spec, seed))[1])
    found = _latency.found(asked, asked["variant"], tmp_path)["found"]
    assert set(built) == {("full", 32), *(("mano", int(width)) for width in found["tried"])}
    assert found["width"] in range(4, 65, 4)
    assert found["ratio"] == pytest.approx(found["variant"]["step_ms"] / found["target"]["step_ms"])
    assert found["variant"]["step_ms_q25"] <= found["variant"]["step_ms"] <= found["variant"]["step_ms_q75"]
    assert len(found["ratios"]) == 3
    assert sizes == {(4, 8, 8, 3)}
