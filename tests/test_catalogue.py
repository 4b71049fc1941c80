"""What `attnbench list` shows: every entry with every knob, from a cache that is never stale."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mechanisms
import tasks
from attnbench import catalogue, models, paths
from attnbench.cli import main


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


@pytest.mark.parametrize(("kind", "registry"), [("mechanisms", mechanisms), ("models", models), ("tasks", tasks)])
def test_the_catalogue_holds_every_entry_with_every_knob(kind, registry, monkeypatch):
    monkeypatch.setattr(catalogue, "catalogue", catalogue.collected)
    entries = {entry["name"]: entry for entry in json.loads(call("list", kind, "--json").stdout)}
    assert list(entries) == registry.names()
    text = call("list", kind).stdout
    for name, entry in entries.items():
        config = registry.find(name).config
        assert [knob["name"] for knob in entry["knobs"]] == list(config.model_fields)
        assert {knob["name"]: knob["default"] for knob in entry["knobs"]} == config().model_dump() | {
            name: field.default for name, field in config.model_fields.items()
        }
        assert entry["summary"]
        for knob in entry["knobs"]:
            assert knob["about"], (name, knob)
            assert knob["type"]
            assert f"\n    {knob['name']} = " in text
            assert knob["about"] in text


def test_types_bounds_and_choices_of_knobs_are_told():
    knobs = {knob["name"]: knob for entry in catalogue.collected()["mechanisms"] for knob in entry["knobs"]}
    assert knobs["downsample"]["type"] == "Literal['conv', 'average']"
    assert (knobs["levels"]["type"], knobs["levels"]["bounds"]) == ("int", "> 0")
    assert knobs["rate"]["bounds"] == ">= 2"
    rate = next(knob for knob in catalogue.collected()["tasks"][0]["knobs"] if knob["name"] == "rate")
    assert (rate["type"], rate["bounds"], rate["default"]) == ("float", "> 0, <= 1", 2e-3)


def test_the_cached_catalogue_is_the_collected_one_and_is_made_once(monkeypatch):
    first = catalogue.catalogue()
    assert first == json.loads(json.dumps(catalogue.collected()))
    monkeypatch.setattr(subprocess, "run", None)
    assert catalogue.catalogue() == first
    monkeypatch.setattr(catalogue, "key", lambda: "changed")
    with pytest.raises(TypeError):
        catalogue.catalogue()


def test_an_entry_whose_package_is_missing_says_so_and_hides_no_other(monkeypatch):
    find = mechanisms.find

    def without(name: str) -> Any:
        if name == "fma":
            raise ValueError("No module named 'kernels'")
        return find(name)

    monkeypatch.setattr(mechanisms, "find", without)
    monkeypatch.setattr(catalogue, "catalogue", catalogue.collected)
    result = call("list", "mechanisms")
    assert "fma  (cannot be used here: No module named 'kernels')" in result.stdout
    assert "\n    levels = 3" in result.stdout


def test_the_sweeps_that_ship_are_listed_with_question_and_runs():
    entries = {entry["name"]: entry for entry in json.loads(call("list", "sweeps", "--json").stdout)}
    assert list(entries) == sorted(file.stem for file in paths.SHIPPED.glob("*.yaml"))
    assert entries["quickstart"]["runs"] == "10"
    assert entries["quickstart"]["question"].endswith("at what cost?")
