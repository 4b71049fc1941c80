"""Faults of mechanisms on grids: those that show only where a grid is not square, and how far one token sees."""

import pytest

from attnbench.contract import CHECKS, Subject
from attnbench.contract.card import Line, drawn
from mechanisms import Mechanism
from tests.planted import HONEST, planted

LAST = "return self.out(y)\n"
GRID = (
    HONEST.replace('("causal",)', '("grid",)')
    .replace("q, k, v = (rearr", "shape, x = x.shape, x.flatten(1, -2)\n        q, k, v = (rearr")
    .replace(LAST, "return self.out(y).view(shape)\n")
    .replace("def oracle(", "def unused(")
)
FAULTS = {
    "only square grids": (
        "        side = int(y.shape[1] ** 0.5)\n        y = y.view(len(y), side, side, -1).flatten(1, 2)\n",
        "sizes",
    ),
    "only even sides": ("        y = y.view(len(y), -1, 2, shape[2], y.shape[-1]).flatten(1, 3)\n", "sizes"),
    "a batch that is mixed up where a grid is not square": (
        "        y = y.roll(int(shape[1] != shape[2]), 0)\n",
        "batch",
    ),
}


def looked(entry: Mechanism, names: set[str]) -> dict[str, Line]:
    subject = Subject(entry=entry, knobs={})
    return {c.name: drawn(c.name, c.look, c.over(subject)) for c in CHECKS if c.name in names}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_some_grids_is_red(fault, tmp_path):
    added, line = FAULTS[fault]
    with planted(tmp_path, GRID.replace("        return self", added + "        return self")) as entry:
        assert looked(entry, {line})[line].word == "fail"


def test_without_a_fault_the_grid_is_green_and_reach_says_how_many_tokens_one_sees(tmp_path):
    with planted(tmp_path, GRID) as entry:
        found = looked(entry, {"batch", "sizes", "reach", "plain inputs"})
    assert {line.word for line in found.values()} == {"pass"}
    assert "a token sees at most 8, declared local" in found["reach"].about
