"""A sweep starts no cell of a mechanism that breaks its contract, unless it is told to, and then every row says so."""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mechanisms
from attnbench import checking, contract, host, launch, proofs
from attnbench.check import check
from attnbench.engine.store import Store
from attnbench.proofs import Claim, claims, failures, refuse_unproven
from attnbench.sweep import expand_text
from mechanisms import Mechanism, find
from tests import tiny
from tests.asked import launch_options
from tests.planted import FAULTS, HONEST, planted

QUICK = {check.name for check in contract.CHECKS if check.quick}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(host.UNPROVEN, "")  # so that it is brought back


@pytest.fixture
def wrong(tmp_path: Path) -> Iterator[Mechanism]:
    """It changes its input in place; for grids, read as one row, so that darcy can name it."""
    old, new, _ = FAULTS["an input changed in place"]
    text = HONEST.replace(old, new).replace('("causal",)', '("grid",)')
    text = text.replace(
        "q, k, v = (rearrange(p(x),", "shape, x = x.shape, x.flatten(1, -2)\n        q, k, v = (rearrange(p(x),"
    )
    text = text.replace("return self.out(y)\n", "return self.out(y).view(shape)\n")
    with planted(tmp_path, text) as entry:
        yield entry


def plan(mechanism: str, **knobs: Any) -> Any:
    text = {"question": "q", "runs": 1, "seeds": [0], "tasks": [{"name": "darcy", **tiny.TASK}]}
    text |= {"models": [{"name": "isotropic", **tiny.MODEL}], "mechanisms": [{"name": mechanism, **knobs}]}
    return expand_text(Path("asked.yaml"), text, device="cpu")


@pytest.mark.parametrize("fault", [fault for fault, (_, _, lines) in FAULTS.items() if lines & QUICK])
def test_a_fault_that_can_change_an_answer_is_found_before_a_cell_starts(fault, tmp_path):
    old, new, _ = FAULTS[fault]
    knobs = {"gated": True} if "switch" in fault else {}
    with planted(tmp_path, HONEST.replace(old, new)) as entry:
        (sentence,) = failures(Claim(entry, knobs, "causal"))
    assert sentence.partition(":")[0] in QUICK


def test_a_correct_mechanism_is_proved_once(tmp_path, monkeypatch):
    told: list[str] = []
    with planted(tmp_path, HONEST) as entry:
        assert failures(Claim(entry, {}, "causal"), told.append) == []
        monkeypatch.setattr(proofs, "looked", None)
        assert failures(Claim(entry, {}, "causal"), told.append) == []
        assert told == ["Proving mine ..."]
        (tmp_path / "mine.py").write_text(HONEST + "# changed\n")
        with pytest.raises(TypeError):
            failures(Claim(entry, {}, "causal"))


def test_a_proof_rests_on_the_mechanism_its_plumbing_its_slow_form_and_the_checks():
    files = {f"{file.parent.name}/{file.name}" for file in proofs.rests_on(find("mano"))[0]}
    assert {"mechanisms/mano.py", "mechanisms/_registry.py", "oracles/mano.py", "contract/leaks.py"} <= files
    assert not files & {"mechanisms/linear.py", "oracles/linear.py"}
    assert {"torch", "einops"} <= proofs.rests_on(find("mano"))[1]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"helper_of_mine.py": "FACTOR = 1.0\n"}, "import helper_of_mine"),
        ({"helper_of_mine.py": "FACTOR = 1.0\n"}, "def late():\n    from helper_of_mine import FACTOR"),
        ({"pack_of_mine/__init__.py": "", "pack_of_mine/deep.py": "X = 1\n"}, "from pack_of_mine import deep"),
        (
            {"pack_of_mine/__init__.py": "from .deep import X\n", "pack_of_mine/deep.py": "X = 1\n"},
            "import pack_of_mine as other",
        ),
    ],
)
def test_a_proof_ends_when_a_file_that_the_plugin_imports_changes(files, line, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    try:
        with planted(tmp_path, HONEST + f"\n\n{line}\n") as entry:
            claim = Claim(entry, {}, "causal")
            assert (first := proofs.key(claim)) == proofs.key(claim)
            last = tmp_path / list(files)[-1]
            last.write_text(f"{last.read_text()}# changed\n")
            assert proofs.key(claim) != first
            assert "torch" in proofs.rests_on(entry)[1]
            assert all(
                file.is_relative_to(tmp_path) or not proofs.installed(file) for file in proofs.rests_on(entry)[0]
            )
    finally:
        for module in [module for module in sys.modules if "_of_mine" in module]:
            del sys.modules[module]


def test_a_proof_ends_when_a_library_has_another_version(monkeypatch):
    before = proofs.key(claim := Claim(find("full"), {}, "grid"))
    monkeypatch.setattr(proofs, "version", lambda library: f"1.0 of {library}")
    assert proofs.key(claim) != before


def test_a_refusal_names_a_command_that_works_as_it_is_printed(wrong):
    claim = Claim(wrong, {"window": 5}, "grid")
    told = proofs.refusal(claim, "red").partition("`")[2].partition("`")[0]
    verb, *words = shlex.split(told)[1:]
    assert (verb, words[0]) == ("check", str(mechanisms.mechanisms.guests["mine"]))
    assert checking.given(words[1:]) == claim.knobs
    assert checking.entry_of(words[0]) is wrong
    assert proofs.command(Claim(find("mano"), {"levels": 2}, "grid")) == "attnbench check mano --levels=2"


def test_a_mechanism_is_proved_with_its_defaults_and_with_the_knobs_of_its_cells():
    found = claims(plan("mano", levels=2).cells)
    assert [claim.setting for claim in found] == ["grid", "grid"]
    assert found[0].knobs == {}
    assert found[1].knobs["levels"] == 2
    assert [claim.label for claim in claims(plan("linear", feature="elu").cells)] == ["linear"]


def test_a_sweep_of_a_wrong_mechanism_is_refused_before_anything_is_written(wrong, tmp_path):
    root = tmp_path / "results"
    with pytest.raises(ValueError, match=r"^mine breaks its contract, so nothing runs: .* --unproven runs") as caught:
        launch.launch(check(plan(wrong.name)), Store(root), tmp_path, launch_options("local"), lambda _: None)
    assert "\n" not in str(caught.value)
    assert not root.exists()


def test_unproven_runs_it_and_its_rows_say_so(wrong):
    told: list[str] = []
    refuse_unproven(plan(wrong.name).cells, told.append, anyway=True)
    assert any(line.startswith("mine runs unproven: ") for line in told)
    assert os.environ[host.UNPROVEN] == "mine"
    assert host.unproven("mine") == {"unproven": True}
    assert host.unproven("full") == host.unproven(None) == {}
    refuse_unproven(plan("full").cells, told.append, anyway=True)
    assert host.unproven("mine") == {}


def test_a_mechanism_that_cannot_run_here_is_not_proved_and_its_rows_say_so(monkeypatch):
    monkeypatch.setattr(Mechanism, "absence", lambda self, device: f"{self.name} runs on cuda only; got {device}.")
    told: list[str] = []
    cells = plan_without_refusal(monkeypatch)
    refuse_unproven(cells, told.append, anyway=False)
    assert told == ["full runs on cuda only; got cpu, so it could not be proved here; its rows say host.unproven."]
    assert host.unproven("full") == {"unproven": True}


def plan_without_refusal(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("attnbench.sweep.refuse_misfit", lambda *_: None)
    return plan("full").cells


def test_what_has_ended_needs_no_proof():
    refuse_unproven([], lambda _: None, anyway=False)
    assert mechanisms.names()


@pytest.mark.parametrize("name", ["identity", "full", "swin", "linear", "mano"])
def test_the_mechanisms_of_the_quickstart_are_proved(name):
    assert failures(Claim(find(name), {}, "grid")) == []


def test_knobs_that_this_machine_cannot_serve_are_not_proved_and_rows_say_so(tmp_path):
    """As a kernel that needs a GPU; forward refuses in one sentence of its own."""
    text = HONEST.replace(
        "        place = ",
        '        if self.window == 5:\n            raise ValueError("mine.window 5 needs a GPU.")\n        place = ',
    )
    with planted(tmp_path, text) as entry:
        five = Claim(entry, {"window": 5}, "causal")
        assert proofs.declined(five) == "mine.window 5 needs a GPU."
        assert proofs.declined(Claim(entry, {}, "causal")) is None
        assert contract.Subject(entry=entry, knobs={"window": 5}).usual()[0].refused()
