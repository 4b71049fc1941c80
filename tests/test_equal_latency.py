"""Records of widths of equal latency: the same cells for whoever reads them; what the command line does with them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from attnbench import _latency, launch
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
from tests.test_latency import EQUAL, FULL_MS, slope, unmeasured


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
    result = call("sweep", "asked.yaml", "--slurm", "partition=fast")
    assert result.exit_code == 1
    job = "srun --exclusive --ntasks=1 --cpus-per-task=3 --mem=8192M --time=60 --partition=fast"
    command = f"{job} attnbench sweep asked.yaml --device cpu --widths"
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
