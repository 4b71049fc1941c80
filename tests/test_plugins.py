"""A mechanism from elsewhere joins as any other: in lists, runs and sweeps, in the processes of cells, on SLURM."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import mechanisms
from attnbench import catalogue, host, plugins
from attnbench.cli import main
from attnbench.engine._freeze import MARKER, PLUGINS, freeze
from attnbench.manifest import Manifest
from attnbench.reports.collect import gather
from attnbench.reports.rows import records
from tests.made_rows import FakeStore, small

ROOT = Path(__file__).parent.parent
MEAN = (ROOT / "README.md").read_text().split("## Add a mechanism")[1].split("```python\n")[1].split("```")[0]
SWEEP = """question: Does a plugin run?
runs: 1
tasks: [{name: darcy, side: 8, train: 4, valid: 2, test: 2, epochs: 1, batch: 4}]
models: [{name: isotropic, channels: 16, depth: 1}]
mechanisms: [{name: mean_own}]
seeds: 0
"""
SMALLEST = (
    *("darcy", "mean_own", "--quiet", "--device", "cpu", "--side=8", "--train=4", "--valid=2", "--test=2"),
    *("--epochs=1", "--batch=4", "--channels=16", "--depth=1"),
)
OWN = MEAN.replace('"mean"', '"mean_own"')


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plugin before and none after. All others are imported first, for an import is made only once."""
    for name in mechanisms.mechanisms.own():
        mechanisms.find(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(PLUGINS, "")  # so that it is brought back
    monkeypatch.setattr(mechanisms.mechanisms, "guests", {})
    monkeypatch.setattr(mechanisms.mechanisms, "broken", {})
    monkeypatch.setattr(mechanisms.mechanisms, "entries", dict(mechanisms.mechanisms.entries))
    yield
    for name in ("mine", "mean_own", "other"):
        sys.modules.pop(f"mechanisms.{name}", None)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (file := tmp_path / "mean_own.py").write_text(OWN)
    return file


def call(*words: str | Path, folder: Path, code: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"} | more
    command = [sys.executable, "-P", "-m", "attnbench", *map(str, words)]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in folder.glob("results/cells/*/*/result.json")]


def joined(name: str) -> mechanisms.Mechanism:
    plugins.join()
    return mechanisms.find(name)


def test_a_plugin_is_found_by_its_name_beside_the_others(own):
    before = mechanisms.names()
    plugins.name_them([own])
    plugins.join()
    assert mechanisms.names() == sorted([*before, "mean_own"])
    assert mechanisms.find("mean_own").module.__name__ == "Mean"
    assert os.environ[PLUGINS] == str(own)
    plugins.join()  # as often as one likes


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("full.py", OWN, "has the name of mechanisms/full.py; rename one of them"),
        ("_own.py", OWN, "is no plugin: that is a Python file such as"),
        ("my-own.py", OWN, "is no plugin: that is a Python file such as"),
        ("own.txt", OWN, "is no plugin: that is a Python file such as"),
        ("other.py", "x = 1\n", "other.py registers nothing; a class under @register('other', ...) is its entry."),
        ("other.py", OWN, "other.py registers 'mean_own'; name the file after it."),
        ("mean_own.py", OWN + OWN.replace('"mean_own"', '"second"'), "registers both 'mean_own' and 'second';"),
        ("mean_own.py", OWN.replace("= 1.0", '= "x" * 2'), "mean_own.gain should be a valid number; got 'xx' (str)"),
        ("mean_own.py", OWN.replace("gain: float = 1.0", "gain: object = print"), "a knob is a number, a word or a"),
        ("mean_own.py", OWN.replace("(Knobs)", "(dict)"), "mean_own.py, line 18: mechanism mean_own: its Config"),
        ("other.py", "import sys\n\nsys.exit(0)\n", "other.py cannot be imported: it calls sys.exit(0)."),
        ("other.py", "1 +\n", "other.py cannot be imported: invalid syntax (line 1)."),
        ("other.py", "print()\n1 / 0\n", "other.py cannot be imported: ZeroDivisionError: division by zero (line 2)."),
    ],
)
def test_what_is_no_plugin_is_refused_in_one_sentence(name, text, sentence, tmp_path):
    (file := tmp_path / name).write_text(text)
    plugins.name_them([file])
    with pytest.raises(ValueError, match=r"^[^\n]+\.$") as caught:
        joined(file.stem)
    assert str(caught.value).startswith(str(file))
    assert sentence in str(caught.value)


def test_a_file_that_is_not_there_and_two_of_one_name_are_refused(own, tmp_path):
    with pytest.raises(ValueError, match=r"^there is no plugin .*absent\.py\.$"):
        plugins.name_them([tmp_path / "absent.py"])
    (tmp_path / "elsewhere").mkdir()
    second = shutil.copy(own, tmp_path / "elsewhere")
    plugins.name_them([own, second])
    with pytest.raises(ValueError, match="has the name of"):
        plugins.join()


def installed(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if a package announced these modules."""
    points = [metadata.EntryPoint(module, module, plugins.GROUP) for module in modules]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == plugins.GROUP else [])


def test_what_a_package_announces_and_cannot_be_taken_is_listed_and_stops_nothing(own, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for folder, text in (("broken_pack", "1 / 0\n"), ("sound_pack", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(text)
    shutil.copy(own, tmp_path / "sound_pack" / "full.py")
    installed(monkeypatch, "broken_pack.mine", "sound_pack.full", "sound_pack.gone", "mean_own")
    told = {entry["name"]: entry for entry in catalogue.collected()["mechanisms"]}
    assert told["mine"]["missing"].endswith(
        "of broken_pack.mine cannot be imported: ZeroDivisionError: division by zero."
    )
    assert "full.py has the name of mechanisms/full.py" in told["sound_pack.full"]["missing"]
    assert told["gone"]["missing"] == "an installed package announces sound_pack.gone, which is not there."
    assert told["mean_own"]["plugin"] == str(own)
    assert mechanisms.find("full").name == "full"
    assert os.environ[PLUGINS] == str(own)


def test_an_installed_package_brings_mechanisms_as_entry_points(own, monkeypatch):
    monkeypatch.syspath_prepend(own.parent)
    installed(monkeypatch, "mean_own")
    plugins.join()
    assert mechanisms.find("mean_own").name == "mean_own"
    assert os.environ[PLUGINS] == str(own)  # so that cells need not look for packages


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise RuntimeError", "RuntimeError"),
    ],
)
def test_a_package_that_cannot_be_imported_is_one_sentence(text, why, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_pack").mkdir()
    (tmp_path / "broken_pack" / "__init__.py").write_text(text)
    with pytest.raises(ValueError, match=r"^[^\n]+\.$") as caught:
        plugins.place("broken_pack.mine")
    assert str(caught.value) == f"the package of broken_pack.mine cannot be imported: {why}."


def test_a_module_that_is_not_there_is_only_a_name():
    assert plugins.place("no_such_pack.mine") == Path("no_such_pack/mine.py")
    assert plugins.place("no_such_module") == Path("no_such_module.py")


def test_the_catalogue_lists_a_plugin_with_its_file_and_notices_every_change(own):
    before = catalogue.key()
    plugins.name_them([own])
    assert (first := catalogue.key()) != before
    own.write_text(OWN.replace("gain: float = 1.0", "gain: float = 2.0"))
    assert catalogue.key() != first
    (entry,) = [one for one in catalogue.catalogue()["mechanisms"] if one["name"] == "mean_own"]
    assert entry["plugin"] == str(own)
    assert entry["knobs"][0]["default"] == 2.0


def test_a_plugin_that_cannot_be_taken_is_one_sentence_of_the_catalogue_too(own, tmp_path):
    clash = own.rename(tmp_path / "full.py")
    done = call("list", "mechanisms", "--plugin", clash, folder=tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"attnbench: {clash} has the name of mechanisms/full.py; rename one of them, and what it registers.\n"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            OWN.replace("gain: float", "gain: Nonsense"),
            "cannot be imported: NameError: name 'Nonsense' is not defined (line",
        ),
        (OWN.replace("= 1.0", "= object()"), "mechanism mean_own: its defaults are refused by its own Config"),
        ("import sys\n\nsys.exit(3)\n", "cannot be imported: it calls sys.exit(3)."),
    ],
)
def test_a_broken_file_that_list_is_given_is_one_sentence_and_exit_code_1(text, sentence, own, tmp_path):
    own.write_text(text)
    done = call("list", "mechanisms", "--plugin", own, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"attnbench: {own}")
    assert sentence in done.stderr


def test_what_a_plugin_prints_does_not_reach_those_who_read_json(own, tmp_path):
    own.write_text(OWN + "print('hello')\n")
    done = call("list", "mechanisms", "--json", "--plugin", own, folder=tmp_path)
    assert "mean_own" in [entry["name"] for entry in json.loads(done.stdout)]
    assert "hello" in done.stderr


def without_plugin() -> tuple[FakeStore, Manifest]:
    """Results of a sweep whose mechanism is not here; one of its variants leaves out a knob."""
    store, manifest = small()
    for spec in store.specs.values():
        if (inside := spec["mechanism"]) and inside["name"] == "swin":
            inside |= {"name": "mean_own", "knobs": {"gain": 2.0} if inside["knobs"]["shift"] else {}}
    cells = (replace(cell, mechanism="mean_own") if cell.mechanism == "swin" else cell for cell in manifest.cells)
    return store, replace(manifest, cells=tuple(cells))


def test_a_report_needs_rows_and_no_plugin(own, tmp_path):
    store, manifest = without_plugin()
    for gain, idle, note in ((None, "gain", "mean_own is not among the mechanisms here"), (1.0, None, "")):
        gathered = gather(store, manifest, tmp_path)
        rows = [row for row in records(gathered.frame) if row["mechanism"] == "mean_own"]
        assert {(row["mechanism.gain"], row["idle"] or None) for row in rows} == {(2.0, None), (gain, idle)}
        assert bool(note) == any("mean_own" in told for told in gathered.notes)
        assert note in "".join(gathered.notes)
        plugins.name_them([own])


def test_a_report_does_not_need_a_plugin_that_still_takes_these_knobs(own, tmp_path):
    own.write_text(OWN.replace("gain: float = 1.0", "strength: float = 1.0").replace("config.gain", "config.strength"))
    plugins.name_them([own])
    rows = [row for row in records(gather(*without_plugin(), tmp_path).frame) if row["mechanism"] == "mean_own"]
    assert {row["mechanism.gain"] for row in rows} == {2.0, None}


def test_a_guest_that_lacks_a_package_is_not_sent_to_an_extra_of_ours(own):
    own.write_text(OWN.replace("reach=", 'needs="no_such_thing", reach='))
    plugins.name_them([own])
    assert joined("mean_own").absence("cpu") == "mean_own needs the package no_such_thing."


def test_the_fingerprint_covers_a_plugin_wherever_it_lies(own, tmp_path):
    plugins.name_them([own])
    plugins.join()
    mechanisms.find("mean_own")
    assert own in host.imported_entries()
    first = host.fingerprint([own])
    (tmp_path / "elsewhere").mkdir()
    assert host.fingerprint([Path(shutil.copy(own, tmp_path / "elsewhere"))]) == first
    own.write_text(OWN + "\n")
    assert host.fingerprint([own]) != first


def test_a_run_finds_a_plugin_in_the_process_of_its_cell_and_so_does_a_frozen_copy(own, tmp_path):
    """With the same fingerprint, although the file has changed since the copy was made."""
    first = call("run", *SMALLEST, "--plugin", "mean_own.py", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    (row,) = rows(tmp_path)
    assert row["status"] == "ok"
    assert "unproven" not in row["host"]
    os.environ[PLUGINS] = str(own)
    freeze(tmp_path / "code")
    assert (tmp_path / "code" / MARKER).exists()
    own.write_text("1 / 0\n")
    shutil.rmtree(tmp_path / "results")
    again = call("run", *SMALLEST, folder=tmp_path, code=tmp_path / "code")
    assert again.returncode == 0, again.stderr
    assert [other["code"]["entries"] for other in rows(tmp_path)] == [row["code"]["entries"]]


def test_a_sweep_names_a_plugin_like_any_other_mechanism(own, tmp_path):
    (tmp_path / "own.yaml").write_text(SWEEP)
    words = ["sweep", str(tmp_path / "own.yaml"), "--plugin", str(own), "--device", "cpu", "--dry-run"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "mean_own, seed 0" in done.stdout
