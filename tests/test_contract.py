"""What `attnbench check` finds: a correct mechanism is green, and every planted fault is red on the right line."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mechanisms
from attnbench import checking
from attnbench.contract import CHECKS, Subject, card, compiled, examine, growth, reach
from attnbench.contract.card import drawn
from attnbench.contract.compiled import Compiling
from attnbench.contract.growth import fit
from attnbench.contract.precision import lowest
from attnbench.engine._freeze import PLUGINS
from mechanisms import Mechanism, find
from tests.planted import FAULTS, HONEST, planted

ROOT = Path(__file__).parent.parent


def red(entry: Mechanism, lines: set[str]) -> set[str]:
    """Names of the checks that fail, of those that are asked for."""
    subject = Subject(entry=entry, knobs={})
    asked = [check for check in (*CHECKS, card.LAST) if check.name in lines]
    return {check.name for check in asked if drawn(check.name, check.look, check.over(subject)).word == "fail"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_red_on_its_line(fault, tmp_path):
    old, new, lines = FAULTS[fault]
    assert HONEST.count(old) == 1
    with planted(tmp_path, HONEST.replace(old, new)) as entry:
        assert red(entry, lines) == lines


def test_without_a_fault_all_of_these_lines_are_green(tmp_path):
    with planted(tmp_path, HONEST) as entry:
        assert red(entry, {line for _, _, lines in FAULTS.values() for line in lines}) == set()


def test_float32_within_an_honest_mechanism_is_said_and_not_red(tmp_path):
    """Rounding in a lower type is no wrong gradient, and no leak from a batch."""
    text = HONEST.replace("softmax(-1)\n        y", "softmax(-1, dtype=torch.float32).to(q.dtype)\n        y")
    text = text.replace("weights @ v", "(weights.float() @ v.float()).to(q.dtype)")
    with planted(tmp_path, text) as entry:
        assert red(entry, {check.name for check in CHECKS} - {"order", "memory growth"}) == set()
        subject = Subject(entry=entry, knobs={})
        about = {c.name: drawn(c.name, c.look, c.over(subject)).about for c in CHECKS if c.name == "derivative"}
    assert "computes a part in float32: step 0.001" in about["derivative"]


def test_half_precision_within_leaves_the_derivative_a_fact(tmp_path):
    with planted(tmp_path, HONEST.replace("weights @ v", "(weights.bfloat16() @ v.bfloat16()).to(q.dtype)")) as entry:
        slot = Subject(entry=entry, knobs={}).usual()[0]
        assert lowest(slot) == 16
        assert reach.derivative(slot).word == "fact"
    assert lowest(Subject(entry=find("full"), knobs={}).usual()[0]) == 64


def test_a_choice_that_the_slow_form_does_not_know_is_no_fault(tmp_path):
    text = HONEST.replace("y = y * y.sigmoid() if self", "y = 1.1 * y * y.sigmoid() if self").replace(
        "def oracle(site, config):\n",
        "def oracle(site, config):\n    if config.gated:\n        raise NotImplementedError\n",
    )
    with planted(tmp_path, text) as entry:
        assert red(entry, {"slow form"}) == set()


def test_time_is_what_a_mechanism_computes_not_what_it_waits(tmp_path):
    """Others on the machine make it wait, and that is no fault of its own."""
    text = HONEST.replace("        place = torch", "        __import__('time').sleep(0.05)\n        place = torch")
    with planted(tmp_path, text) as entry:
        slot = Subject(entry=entry, knobs={}).usual()[0].at((64,))
        assert growth.milliseconds(slot) < 25
        assert growth.once(slot)[0] < 0.04


def test_a_line_that_stopped_for_time_says_so(monkeypatch):
    monkeypatch.setattr(growth, "once", lambda _: (10 * growth.LONGEST_S + 1, 0.0))
    finding = growth.time(Subject(entry=find("linear"), knobs={}).usual()[0])
    assert finding.word == "not applicable"
    assert finding.about == "64 tokens spent the time or memory of this line: too few sizes for an exponent"


def test_a_wrong_shape_is_one_red_line_and_the_others_are_not_looked_at(tmp_path):
    old, new, _ = FAULTS["another shape"]
    with planted(tmp_path, HONEST.replace(old, new)) as entry:
        first, *others = examine(Subject(entry=entry, knobs={}))
    assert (first.name, first.word) == ("shape", "fail")
    assert [line.name for line in others] == [*(check.name for check in CHECKS[1:]), "torch.compile", "time growth"]
    assert {(line.word, line.about) for line in others} == {("not applicable", card.FIRST)}


@pytest.mark.parametrize(("name", "place"), [("full", "causal of 600"), ("linear", "grid of 5x7")])
def test_a_mechanism_is_looked_at_elsewhere_too(name, place):
    labels = [slot.label for slot in Subject(entry=find(name), knobs={}).wide()]
    assert place in labels
    assert {label.partition(", ")[2] for label in labels} >= {"block 2", "stage 2"}


def test_faults_cover_every_line_with_a_verdict():
    tried = {line for _, _, lines in FAULTS.values() for line in lines}
    facts = {"permutation", "shift", "distance to full", "choices"}
    assert {check.name for check in CHECKS} - tried - facts == set()


def call(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command as a user types it, in a folder."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-P", "-m", "attnbench", *words]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_file_of_ones_own_is_all_green(tmp_path):
    (tmp_path / "mine.py").write_text(HONEST)
    done = call("check", "mine.py", "--window", "4", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["knobs"]) == ("mine", {"heads": 2, "window": 4, "gated": False})
    words = {line["name"]: line["word"] for line in told["lines"]}
    assert set(words) == {*(check.name for check in CHECKS), "torch.compile", "time growth"}
    assert "fail" not in words.values()
    assert {name for name, word in words.items() if word == "not applicable"} <= {
        "permutation",
        "shift",
        "torch.compile",
    }
    assert told["seconds"] < 60
    assert done.stderr == ""


def test_a_card_is_told_line_by_line_and_its_word_is_the_exit_code(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "CHECKS", CHECKS[:3])
    monkeypatch.setattr(compiled, "absence", lambda: "there is no compiler")
    told = []
    with planted(tmp_path, HONEST.replace("back >= 0", "back >= -1")) as entry:
        lines = examine(Subject(entry=entry, knobs={}), told.append)
    assert told == lines
    words = {line.name: line.word for line in lines}
    assert words["causality"] == "fail"
    assert words["torch.compile"] == "not applicable"
    assert "token 0 changes when only tokens 1 and after do [causal of 150]" in str(lines[2])


def test_a_mechanism_that_breaks_its_contract_ends_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(card, "CHECKS", CHECKS[:3])
    monkeypatch.setattr(compiled, "absence", lambda: "there is no compiler")
    with planted(tmp_path, HONEST.replace("back >= 0", "back >= -1")) as entry:
        assert checking.check([entry.name], as_json=False, device="auto", settings=(), only=()) == 1
    out = capsys.readouterr().out
    assert out.startswith("mine: version 1, fits causal")
    assert ", 1 fail, " in out  # how many pass depends on how many sizes a busy machine has time for


def test_a_mechanism_that_takes_no_place_is_one_red_line(tmp_path):
    text = HONEST.replace("if site.channels % config.heads:", "if True:")
    with planted(tmp_path, text) as entry:
        (line,) = examine(Subject(entry=entry, knobs={}))
    assert line.word == "fail"
    assert "mine takes no causal of 150, 192, 256, 512; it says: mine.heads must divide" in line.about


def test_code_that_does_not_compile_is_red():
    slot = Subject(entry=find("full"), knobs={}).usual()[0]
    process = Compiling(replace(slot, knobs={"heads": 5}))
    try:
        finding = process.finding()
    finally:
        process.stop()
    assert finding.word == ("not applicable" if process.absent else "fail")


@pytest.mark.parametrize(("power", "word"), [(1.0, "pass"), (1.3, "pass"), (2.0, "fail")])
def test_measured_growth_is_red_only_far_above_what_is_declared(power, word, monkeypatch):
    monkeypatch.setattr(growth, "milliseconds", lambda slot: 0.01 * (100 + slot.site.tokens) ** power)
    finding = growth.measured(Subject(entry=find("linear"), knobs={}).usual()[0], growth.milliseconds, "time")
    assert finding.word == word


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0])
def test_an_exponent_is_found_beneath_a_constant_cost(power):
    """A straight line through logarithms would find about three quarters of it."""
    sizes = np.array([64.0, 256, 1024, 4096, 16384])
    costs = 1024**power + sizes**power
    assert fit(list(sizes), list(costs)) == pytest.approx(power, abs=0.02)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("manoo",), "there is no mechanism or sweep 'manoo'. Did you mean 'mano'?"),
        (("quickstart", "--levels", "2"), "knobs such as --levels go with a mechanism, and quickstart is a sweep"),
        (("mano", "--levles", "2"), "mano has no knob 'levles'. Did you mean 'levels'?"),
        (("mano", "--levels"), "--levels needs a value after it."),
        (("mano", "--device", "cpu"), "--set, --only, --device and --results are for sweep files"),
        (("--levels", "2"), "name what to check before its knobs"),
        (("absent.py",), "there is no plugin "),
        (("no.such.module:Class",), "there is no plugin "),
        (("ends.py",), "ends.py cannot be imported: it calls sys.exit(3)."),
        (("ends:Class",), "ends.py cannot be imported: it calls sys.exit(3)."),
        (("broken.mine:Class",), "the package of broken.mine cannot be imported: ZeroDivisionError: division by zero."),
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_sentence(words, sentence, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from attnbench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(PLUGINS, "")  # so that it is brought back
    monkeypatch.setattr(mechanisms.mechanisms, "guests", {})
    (tmp_path / "ends.py").write_text("import sys\n\nsys.exit(3)\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("1 / 0\n")
    result = CliRunner().invoke(main, ["check", *words], catch_exceptions=False)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
