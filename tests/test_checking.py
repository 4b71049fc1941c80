"""What may be named to `attnbench check`, and the sentence that refuses what is not exactly understood."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import mechanisms
from attnbench import checking, contract
from attnbench.cli import main
from attnbench.contract.card import drawn
from attnbench.engine._freeze import PLUGINS

ROOT = Path(__file__).parent.parent
TOLD, ADDED = (ROOT / "README.md").read_text().split("## Check a mechanism")[1].split("## Add a mechanism")
MINE, SLOW = (block.split("```")[0] for block in TOLD.split("```python\n")[1:])
ASKED = TOLD.split("```yaml\n")[1].split("```")[0]
MEAN = ADDED.split("```python\n")[1].split("```")[0]


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a module of a house name, beside the file of a mechanism; no plugin before and none after."""
    for name in mechanisms.mechanisms.own():  # first, for an import is made only once
        mechanisms.find(name)
    monkeypatch.setenv(PLUGINS, "")  # so that it is brought back
    for shelf in ("guests", "broken", "entries"):
        monkeypatch.setattr(mechanisms.mechanisms, shelf, dict(getattr(mechanisms.mechanisms, shelf)))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mean_own.py").write_text(MEAN.replace('"mean"', '"mean_own"'))
    (tmp_path / "pack").mkdir()
    for name in ("__init__", "full", "own"):
        (tmp_path / "pack" / f"{name}.py").write_text("" if name == "__init__" else MEAN.replace('"mean"', '"full"'))
    yield tmp_path / "pack"
    for module in ("pack", "mechanisms.mean_own", "mechanisms.own", "mechanisms.my_attention"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("pack.full:Full",), "pack/full.py has the name of mechanisms/full.py; rename one of them"),
        (("pack.own:Mean",), "pack/own.py registers 'full'; name the file after it."),
        (("mean_own.py:Men",), "mean_own.py registers the class Mean; got 'Men'."),
        (("mean_own.py:",), "a class is written file.py:Class or package.module:Class; got 'mean_own.py:'."),
        (("mean_owm.py",), "mean_owm.py. Did you mean 'mean_own.py'?"),
        (("mean_own",), "mean_own is a Python file; write mean_own.py."),
        (("pack",), "pack is a folder; name a file in it."),
        (("pack.full",), "pack.full is a module; write pack.full:Class."),
        (("pack.ful:Mean",), "pack/ful.py. Did you mean 'full.py'?"),
        (("mean_own.py", "--gain", "1.0", "--gain=2.0"), "--gain is given twice; keep one."),
        (("mean_own.py", "--mechanism.gain", "1.0", "--gain", "2.0"), "--gain is given twice; keep one."),
        (("mean_own.py", "--gain", "[1.0, 2.0]"), "--gain takes one value here"),
        (("mean_own.py", "--gain", "two"), "mean_own.gain should be a valid number; got 'two' (str)."),
        (("full", "--heads", "2.0"), "full.heads should be a valid integer; got 2.0 (float)."),
        (("full", "--heads", "0"), "got 0 (int)."),
        (("mean_own.py", "--gian", "2.0"), "mean_own has no knob 'gian'. Did you mean 'gain'?"),
    ],
)
def test_check_of_what_is_not_exactly_understood_is_refused(words, sentence, pack, monkeypatch):
    monkeypatch.chdir(pack.parent)
    done = CliRunner().invoke(main, ["check", *words], catch_exceptions=False)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert sentence in done.stderr


@pytest.mark.parametrize("word", ["mean_own.py:Mean", "mean_own:Mean", "mean_own.py"])
def test_a_class_is_found_by_its_file_and_by_its_module(word, pack, monkeypatch):
    monkeypatch.chdir(pack.parent)
    assert checking.entry_of(word).module.__name__ == "Mean"
    assert checking.entry_of("mechanisms.full:Full") is mechanisms.find("full")


def slow_form(text: str, folder: Path) -> contract.Line:
    """The card's line of the slow form for a file of that text."""
    (file := folder / "my_attention.py").write_text(text)
    subject = contract.Subject(entry=checking.entry_of(str(file)), knobs={"heads": 2})
    (line,) = [check for check in contract.CHECKS if check.name == "slow form"]
    return drawn(line.name, line.look, line.over(subject))


def test_the_mechanism_that_the_readme_shows_is_short_and_equals_the_slow_form_that_it_shows(pack):
    assert MINE.count("\n") < 40
    line = slow_form(f"{MINE}\n\n{SLOW}", pack.parent)
    assert line.word == "pass", line


def test_the_slow_form_that_the_readme_shows_finds_a_fault(pack):
    wrong = MINE.replace("attention(q, k, v)", "attention(q, k, 1.01 * v)")
    assert slow_form(f"{wrong}\n\n{SLOW}", pack.parent).word == "fail"


def test_the_sweep_that_the_readme_shows_runs_with_the_mechanism_that_it_shows(pack, monkeypatch):
    monkeypatch.chdir(pack.parent)
    Path("my_attention.py").write_text(MINE)
    Path("mine.yaml").write_text(ASKED)
    words = ["sweep", "mine.yaml", "--plugin", "my_attention.py", "--device", "cpu", "--launcher", "local", "--dry-run"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert "6 trainings and 3 cost measurements" in done.stdout
