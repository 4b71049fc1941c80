"""Widths of equal latency: measured beside the target, written down once, and the same cells for whoever reads that.

How long a step takes is made up wherever a number depends on it; one test times real steps.
"""

import json
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from attnbench import _latency, launch, measure
from attnbench._widths import Ask, Widths
from attnbench.check import check
from attnbench.cli import main
from attnbench.engine import slurm
from attnbench.manifest import Manifest
from attnbench.reports.collect import collect
from attnbench.reports.report import write_report
from attnbench.sweep import expand
from tests.asked import TEXT, changed, ids, written
from tests.made_rows import FakeStore, add
from tests.test_measure import Device

EQUAL = changed("channels: 8", "channels: 32") + "equal: {what: latency, to: full, within: 0.1}\n"
FULL_MS = 20.5  # a step of the target


def slope(width: int) -> float:
    """Milliseconds of a step of a variant that costs a quarter as much as its target, and 2 ms whatever its width."""
    return 2 + 18 * (width / 64) ** 2


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
    return Device(monkeypatch)


def test_two_steps_are_timed_in_turn_in_both_orders(device):
    order: list[str] = []

    def step(name: str, ms: float) -> measure.Step:
        return lambda: (order.append(name), device.enqueue(ms))[1]

    own, other = _latency.in_turn([step("a", 10.0), step("b", 40.0)], "cuda")
    assert (set(own), set(other)) == ({10.0}, {40.0})
    assert len(own) == len(other) == 40  # two seconds in all, and thirty times at least
    turns = ["".join(order[-80:][at : at + 2]) for at in range(0, 80, 2)]
    assert turns[:4] == ["ba", "ab", "ba", "ab"]
    assert sum(turn == "ab" for turn in turns) == 20


def test_a_machine_that_slows_down_meanwhile_changes_both_times_and_not_their_ratio(device):
    began = device.now
    slowing = lambda: 1 + (device.now - began) / 2e9  # noqa: E731 - twice as slow after two seconds
    own, other = _latency.in_turn(
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
    found = _latency.found(asked, asked["variant"], tmp_path)["found"]
    assert found["width"] in range(4, 65, 4)
    assert found["ratio"] == pytest.approx(found["variant"]["step_ms"] / found["target"]["step_ms"])
    assert found["variant"]["step_ms_q25"] <= found["variant"]["step_ms"] <= found["variant"]["step_ms_q75"]
    assert len(found["ratios"]) == 3
    assert sizes == {(4, 8, 8, 3)}


# records


def unmeasured(folder: Path, text: str = EQUAL) -> tuple[Ask, ...]:
    return expand(written(folder, text), device="cpu").unmeasured


def record(ask: Ask, width: int = 64, ratios: tuple[float, ...] = (0.98, 1.0, 1.02)) -> dict[str, Any]:
    step = {"step_ms": 20.0, "step_ms_q25": 19.0, "step_ms_q75": 21.0, "repeats": 40}
    times = {"ratio": sorted(ratios)[1], "ratios": sorted(ratios), "variant": step, "target": step}
    return {"width": width, **times, "noisy": False, "foreign_cpu": 0.0, "tried": {str(width): ask.within}}


def test_a_file_with_its_record_has_the_cells_of_a_plain_file_of_that_width(tmp_path):
    (ask,) = unmeasured(tmp_path)
    widths = Widths(tmp_path / "widths")
    widths.keep(ask, record(ask, 48))
    found = expand(written(tmp_path, EQUAL), device="cpu", widths=widths)
    assert found.unmeasured == ()
    assert {
        cell.mechanism.name: (cell.model.values["channels"], cell.ratio) for cell in found.trainings if cell.mechanism
    } == {
        "full": (32, 1.0),
        "mano": (48, 1.0),
    }
    plain = [*ids(expand(written(tmp_path, changed("channels: 8", "channels: 32")), device="cpu"))]
    wider = [*ids(expand(written(tmp_path, changed("channels: 8", "channels: 48")), device="cpu"))]
    assert {cell.id for cell in found.cells if cell.mechanism and cell.mechanism.name == "full"} <= set(plain)
    assert {cell.id for cell in found.cells if cell.mechanism and cell.mechanism.name == "mano"} <= set(wider)


def test_what_decides_a_width_decides_its_record_and_nothing_else_does(tmp_path):
    (ask,) = unmeasured(tmp_path)
    for old, new in {"within: 0.1": "within: 0.2", "epochs: 1": "epochs: 2", "[0, 1]": "[2, 3]", "work?": "?"}.items():
        assert unmeasured(tmp_path, changed(old, new, EQUAL))[0].key == ask.key
    keys = {ask.key}
    changes = {
        "channels: 32": "channels: 64",
        "depth: 1": "depth: 2",
        "batch: 4": "batch: 8",
        "window: 2": "window: 4",
        "epochs: 1": "epochs: 1, precision: bfloat16",
        "side: 8": "side: 16",
    }
    keys |= {unmeasured(tmp_path, changed(old, new, EQUAL))[0].key for old, new in changes.items()}
    keys.add(
        expand(
            written(tmp_path, EQUAL.replace("name: full", "name: linear").replace("to: full", "to: linear")),
            device="cpu",
        )
        .unmeasured[0]
        .key
    )
    assert len(keys) == 8


def test_a_record_is_written_once_and_one_that_is_damaged_is_refused(tmp_path):
    (ask,) = unmeasured(tmp_path)
    widths = Widths(tmp_path / "widths")
    widths.keep(ask, record(ask, 48))
    widths.keep(ask, record(ask, 60))
    assert (widths(ask) or {})["width"] == 48
    widths.path(ask).write_text(widths.path(ask).read_text()[:-20])
    with pytest.raises(ValueError, match=r"json is no record of a width .*; delete it to measure anew\.$"):
        widths(ask)


def test_a_record_that_misses_a_tolerance_made_smaller_is_refused(tmp_path):
    (ask,) = unmeasured(tmp_path)
    widths = Widths(tmp_path / "widths")
    widths.keep(ask, record(ask, 48, (0.94, 0.99, 1.02)))
    told = r"line 9: equal: mano .*full's latency within 0.05: channels 48 took 0.940 to 1.020 .*deleting the record"
    with pytest.raises(ValueError, match=told):
        expand(written(tmp_path, changed("0.1}", "0.05}", EQUAL)), device="cpu", widths=widths)


def test_a_report_tells_the_ratio_and_the_step_that_was_measured_later(tmp_path):
    (ask,) = unmeasured(tmp_path)
    widths = Widths(tmp_path / "widths")
    widths.keep(ask, record(ask, 48, (0.98, 0.99, 1.02)))
    found = check(expand(written(tmp_path, EQUAL), device="cpu", widths=widths))
    store = FakeStore()
    for cell in found.plan.cells:
        times = {"train_step_ms": 31.4, "train_step_ms_q25": 30.1, "train_step_ms_q75": 33.3}
        add(
            store,
            cell.spec,
            {"result": {"rel_l2": 0.1}, "cost": {}} if cell.spec["kind"] == "train" else {"cost": times},
        )
    rows = collect(store, found.manifest)
    assert set(rows["equal.latency_ratio"].dropna()) == {1.0, 0.99}
    text = write_report(store, found.manifest, tmp_path / "report").read_text()
    assert "| darcy | mano | channels 48 | 0.990 | 31.4 (30.1 – 33.3) |" in text  # noqa: RUF001 - an en dash


# the command line


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the file; steps of made-up times, and cells that are not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(slurm, "available", lambda: (False, "There is no sbatch here."))
    written(tmp_path, EQUAL)
    asked: list[dict[str, Any]] = []

    def outcome(module: str, question: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        assert module == "attnbench._latency"
        asked.append(question)
        timing = lambda width: record_of(slope(width) / FULL_MS)  # noqa: E731
        found = _latency.search(timing, step=question["step"], most=question["most"])
        return {"error": None, "found": found, "host": {"name": "h", "torch": "2"}, "code": {"commit": "c"}}

    monkeypatch.setattr(launch, "outcome", outcome)
    monkeypatch.setattr(
        launch, "launch", lambda checked, store, *_: checked.manifest.write(store.root / "asked" / "cells.json") or 1
    )
    return asked


def record_of(ratio: float) -> dict[str, Any]:
    step = {"step_ms": ratio * FULL_MS, "step_ms_q25": 1.0, "step_ms_q75": 2.0, "repeats": 40}
    return {"ratio": ratio, "variant": step, "target": step, "noisy": False, "foreign_cpu": 0.0}


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


def test_a_sweep_measures_first_and_only_once(here):
    call("sweep", "asked.yaml")
    assert [question["knob"] for question in here] == ["channels"]
    (file,) = Path("results/asked/widths").iterdir()
    kept = json.loads(file.read_text())
    assert (kept["width"], kept["host"]["name"], kept["code"]["commit"]) == (64, "h", "c")
    assert kept["variant"].keys() == {"step_ms", "step_ms_q25", "step_ms_q75", "repeats"}
    first = Manifest.read(Path("results/asked/cells.json"))
    assert {cell.ratio for cell in first.cells} == {1.0, slope(64) / FULL_MS}
    call("sweep", "asked.yaml")
    assert call("check", "asked.yaml").exit_code == call("sweep", "asked.yaml", "--dry-run").exit_code == 0
    assert len(here) == 1
    assert Manifest.read(Path("results/asked/cells.json")) == first


def test_a_part_of_a_sweep_reads_the_records_of_the_whole(here):
    call("sweep", "asked.yaml", "--widths")
    call("sweep", "asked.yaml", "--set", "seeds=[5]")
    assert len(here) == 1


@pytest.mark.parametrize("words", [("check", "asked.yaml"), ("sweep", "asked.yaml", "--dry-run")])
def test_what_only_looks_measures_nothing_and_names_the_command_that_does(here, words):
    result = call(*words, "--results", "other")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    command = "attnbench sweep asked.yaml --results other --device cpu --widths"
    assert (
        f"asked.yaml, line 13: equal: a width of equal latency is not measured yet; `{command}` does" in result.stderr
    )
    assert not here
    assert not Path("other").exists()
    assert call(*command.split()[1:]).exit_code == 0
    assert (len(here), Path("other/asked/cells.json").exists()) == (1, False)
    assert call(*words, "--results", "other").exit_code == 0


def test_on_slurm_a_width_is_measured_on_a_node_only(here, monkeypatch):
    monkeypatch.setattr(slurm, "available", lambda: (True, "It answers."))
    written(Path(), EQUAL + "slurm: {cpus: 3, gpus: 0}\n")
    result = call("sweep", "asked.yaml")
    assert result.exit_code == 1
    command = "srun --exclusive --cpus-per-task=3 attnbench sweep asked.yaml --device cpu --widths"
    assert f"`{command}` does that on a node" in result.stderr
    assert not here


def test_a_width_that_misses_the_tolerance_is_refused_and_not_written(here):
    written(Path(), EQUAL.replace("    window: 2\n", "    window: 2\n    heads: 48\n"))
    result = call("sweep", "asked.yaml")
    assert (result.exit_code, len(here)) == (1, 1)
    told = "cannot have full's latency within 0.1: channels 48 took 0.591 to 0.591 of its time.\n"
    assert result.stderr.endswith(told)
    assert not list(Path("results").rglob("*.json"))


@pytest.mark.usefixtures("here")
def test_a_machine_too_noisy_to_tell_is_refused_and_nothing_is_written(monkeypatch):
    found = {**record_of(1.0), "width": 64, "ratios": [0.8, 1.0, 1.3], "tried": {}, "foreign_cpu": 0.7}
    monkeypatch.setattr(launch, "outcome", lambda *_, **__: {"error": None, "found": found, "host": {}, "code": {}})
    result = call("sweep", "asked.yaml")
    assert result.exit_code == 1
    assert (
        "within 0.1: channels 64 took 0.800 to 1.300 of its time, while others used 70% of the machine."
        in result.stderr
    )
    assert not list(Path("results").rglob("*.json"))


@pytest.mark.usefixtures("here")
def test_a_measurement_that_dies_says_so(monkeypatch):
    monkeypatch.setattr(launch, "outcome", lambda *_, **__: {"error": {"message": "the child died"}})
    result = call("sweep", "asked.yaml", "--widths")
    assert result.exit_code == 1
    assert (
        "no channels of equal latency for mano (window 2, levels 2) in isotropic on darcy: the child died."
        in result.stderr
    )


def test_widths_are_measured_for_files_that_want_them_only(here):
    written(Path(), TEXT)
    assert "makes no latencies equal" in call("sweep", "asked.yaml", "--widths").stderr
    assert not here
    assert [file.name for file in Path().iterdir()] == ["asked.yaml"]
