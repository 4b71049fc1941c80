"""Every fault that was found in other suites has tests here that would find it, and those that no other file has."""

import ast
import re
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mechanisms
import tasks
from attnbench import models
from attnbench.reports.columns import COLUMNS
from attnbench.sweep import expand
from mechanisms import Site, configure, resolved
from tests.asked import changed, ids, plan
from tests.peers import FAULTS, HOUSES, MEASUREMENT, TASKS

ROOT = Path(__file__).parent.parent
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
CATALOGUES: dict[str, Any] = {"mechanism": mechanisms, "task": tasks, "model": models}


@cache
def functions(file: str) -> dict[str, ast.FunctionDef]:
    """The functions of a file of tests, by name."""
    tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_is_answered_by_tests_that_there_are(fault):
    assert fault.tests
    for file, name in (test.split("::") for test in fault.tests):
        assert name in functions(f"test_{file}"), f"tests/test_{file}.py has no {name}"


def test_no_fault_that_was_read_is_left_out():
    """22 lines of measurement, of which 8 are of timing, and those of section 4 that are not among them."""
    assert (len(MEASUREMENT), len(TASKS), len(HOUSES)) == (8, 14, 9)


def test_every_test_can_fail():
    """Each has an assertion, or calls something that has: of these tests, of pytest, or of torch's and numpy's."""
    idle = []
    for file in sorted(path.stem for path in (ROOT / "tests").glob("test_*.py")):
        for name, node in functions(file).items():
            if name.startswith("test_") and not asserts(node, file, set()):
                idle.append(f"{file}::{name}")
    assert not idle


def asserts(node: ast.AST, file: str, seen: set[str]) -> bool:
    """Whether this, or a function of the tests that it names, asserts anything."""
    for one in ast.walk(node):
        if isinstance(one, ast.Assert) or (isinstance(one, ast.Attribute) and CHECKING.fullmatch(one.attr)):
            return True
        name = one.id if isinstance(one, ast.Name) else one.attr if isinstance(one, ast.Attribute) else ""
        if name and name not in seen and (found := named(name, file)):
            seen.add(name)
            if asserts(found, file, seen):
                return True
    return False


CHECKING = re.compile("raises|fail|warns|opcheck|assert_.*")


def named(name: str, file: str) -> ast.FunctionDef | None:
    """A function of a file of tests, or of what tests share."""
    shared = sorted(path.stem for path in (ROOT / "tests").glob("*.py") if not path.stem.startswith("test_"))
    return next((functions(one)[name] for one in (file, *shared) if name in functions(one)), None)


def test_no_stopwatch_of_the_house_is_a_wall_clock():
    """time.time() can be set back, and says when something was, not how long it took."""
    for name in ("measure", "memory", "run", "_latency"):
        assert not re.search(r"\btime\.time\(|\bdatetime\b", (ROOT / "attnbench" / f"{name}.py").read_text()), name


@pytest.mark.parametrize("name", tasks.names())
def test_no_task_lets_a_knob_be_chosen_by_what_is_reported(name):
    """What chooses is a number of validation examples, and what ranks in a table never is."""
    better = tasks.find(name).better
    chosen = [measure for measure in better if measure.startswith("valid_")]
    assert chosen
    assert chosen != list(better)
    assert not [measure for measure in chosen if COLUMNS[f"result.{measure}"].better]


def switches() -> list[tuple[str, str, str]]:
    return [
        (part, name, knob)
        for part, catalogue in CATALOGUES.items()
        for name in catalogue.names()
        for knob, field in catalogue.find(name).config.model_fields.items()
        if field.annotation is bool
    ]


@pytest.mark.parametrize(("part", "name", "knob"), switches(), ids="-".join)
def test_a_switch_takes_truth_values_alone(part, name, knob):
    for word in ("false", "False", "no", "0", "", 0, 1, None):
        with pytest.raises(ValueError, match=rf"{name}\.{knob}"):
            configure(CATALOGUES[part].find(name).config, {knob: word}, of=name)


@pytest.mark.parametrize(
    ("word", "taken"), [("false", True), ("true", True), ("no", False), ("'false'", False), ("0", False)]
)
def test_the_word_false_in_a_sweep_file_is_refused_or_false(word, taken, tmp_path):
    text = changed("  - name: full\n", "  - {name: swin, window: 4, shift: " + word + "}\n")
    if not taken:
        with pytest.raises(ValueError, match=r"swin\.shift should be a valid boolean"):
            plan(tmp_path, text)
        return
    cell = next(cell for cell in plan(tmp_path, text).cells if cell.mechanism and cell.mechanism.name == "swin")
    assert cell.spec["mechanism"]["knobs"]["shift"] is (word == "true")


class Pairs(TorchDispatchMode):
    """Counts the weights that pass through a softmax, fused or not: queries times keys, summed over heads."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_softmax", "_log_softmax"):
            self.count += args[0].numel()
        elif "scaled_dot_product" in name and "backward" not in name:
            query, key = args[0], args[1]
            self.count += prod(query.shape[:-1]) * key.shape[-2]
        return func(*args, **(kwargs or {}))


def pairs(name: str, site: Site) -> int:
    """Of one layer with its defaults on one example."""
    torch.manual_seed(0)
    module = mechanisms.build(name, site).eval()
    with torch.no_grad(), Pairs() as counted:
        module(torch.randn(1, *site.shape, site.channels))
    return counted.count


def settings() -> list[tuple[str, str]]:
    """Mechanisms that say to do less than all pairs, each in all its places; without other implementations of them."""
    found = [mechanisms.find(name) for name in mechanisms.names() if mechanisms.find(name).reference is None]
    return [(one.name, setting) for one in found if one.order in ("N", "N log N") for setting in sorted(one.fits)]


def site(setting: str, side: int) -> Site:
    shape = (side, side) if setting == "grid" else (side * side,)
    return Site(channels=16, shape=shape, causal=setting == "causal")


@pytest.mark.parametrize(("name", "setting"), settings(), ids="-".join)
def test_pairs_under_a_softmax_grow_no_faster_than_the_order_that_is_declared(name, setting):
    """Four times the tokens have four times the pairs, with a logarithm up to seven times; all pairs have sixteen."""
    few, many = (pairs(name, site(setting, side)) for side in (32, 64))
    assert many <= (7 if mechanisms.find(name).order == "N log N" else 4.1) * few


@pytest.mark.parametrize("name", ["identity", "pool", "fnet", "fourier", "galerkin", "gla", "deltanet", "linear"])
def test_what_is_said_to_have_no_softmax_over_tokens_has_none(name):
    found = mechanisms.find(name)
    for setting in sorted(found.fits):
        assert pairs(name, site(setting, 16)) == 0


def test_softmax_over_tokens_is_counted_where_it_is():
    """The count itself sees fused attention and attention written out."""
    config: Any = mechanisms.find("full").config()
    heads = config.heads
    assert pairs("full", site("sequence", 8)) == heads * 64 * 64
    written_out = torch.randn(2, 64, 64)
    with Pairs() as counted:
        written_out.softmax(-1)
    assert counted.count == 2 * 64 * 64


def test_energy_is_estimated_from_nothing():
    """No number of energy comes from a data sheet: a module that tells it reads a counter of the driver."""
    sources = [path for path in (ROOT / "attnbench").rglob("*.py") if "energy_j" in path.read_text()]
    made = [path for path in sources if re.search(r"(?i)\btdp\b|watts? *\*|power_limit", path.read_text())]
    assert not made


UNCONTROLLED = {  # sweeps without a control that moves nothing between tokens, and why
    "atlas": "its control is the plain mean of all tokens, which the report sets beside every distance",
    "ablation_aggregation": "asks how levels are put together, not whether attention is needed",
    "ablation_window": "asks which window, within one mechanism",
    "darcy_table": "repeats a published table; FNO, a whole model without attention, stands beside",
    "darcy_table_paper": "repeats a published table; FNO, a whole model without attention, stands beside",
    "images_linear_probe": "its control is the same network with as many new weights and no second scale",
}


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_sweep_that_ships_has_a_control_or_says_why_not(file):
    asked = expand(file, device="cuda" if "device: cuda" in file.read_text() else "cpu")
    named = {cell.mechanism.name for cell in (*asked.cells, *asked.waiting) if cell.mechanism}
    assert ("identity" in named) != (file.stem in UNCONTROLLED)


@pytest.mark.parametrize("part", CATALOGUES)
def test_an_id_holds_every_knob_and_not_only_what_differs_from_defaults(part):
    """But those that change nothing, and later ones at the value that means `as before`."""
    for name in CATALOGUES[part].names():
        config = CATALOGUES[part].find(name).config()
        held = resolved(config)
        assert set(type(config).model_fields) - set(held) <= config.idle() | set(config.neutral)
        assert all(held[knob] == getattr(config, knob) for knob in held)


def test_a_changed_default_is_another_cell(tmp_path, monkeypatch):
    before = ids(plan(tmp_path))
    field = mechanisms.find("full").config.model_fields["heads"]
    monkeypatch.setattr(field, "default", 2)
    mechanisms.find("full").config.model_rebuild(force=True)
    try:
        after = ids(plan(tmp_path))
    finally:
        monkeypatch.undo()
        mechanisms.find("full").config.model_rebuild(force=True)
    assert len(set(before) & set(after)) == len(before) / 2  # those of mano
    assert ids(plan(tmp_path)) == before


def test_the_rule_by_which_levels_are_merged_is_in_every_row(tmp_path):
    def rules(line: str, runs: int) -> list[str]:
        asked = plan(tmp_path, changed("    levels: 2\n", line).replace("runs: 4", f"runs: {runs}"))
        own = [
            cell.spec["mechanism"]["knobs"] for cell in asked.cells if cell.mechanism and cell.mechanism.name == "mano"
        ]
        return sorted({knobs["combine"] for knobs in own})

    assert rules("    levels: 3\n", 4) == ["sum"]
    assert rules("    levels: 3\n    combine: [sum, published]\n", 6) == ["published", "sum"]
