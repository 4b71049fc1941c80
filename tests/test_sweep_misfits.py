"""Mechanisms that do not fit every task of a sweep: refused, or left out where the file says so, never in silence."""

import re

import pytest

from attnbench.check import check
from attnbench.sweep import expand
from attnbench.verbs import overview
from tests.asked import changed, plan, written

CAUSAL = "  - {name: charlm, length: 16, train: 8, valid: 4, test: 4, epochs: 1, batch: 4}\n"
BOTH = changed("models:\n", CAUSAL + "models:\n").replace(
    "    levels: 2\n", "    levels: 2\n  - {name: gla, heads: 2}\n"
)
LEFT = BOTH.replace("runs: 4", "runs: 8\nmisfits: leave_out")  # full at both, mano at darcy, gla at charlm


def trained(found):
    return sorted((cell.mechanism.name, cell.task.name, cell.spec["seed"]) for cell in found.trainings)


def test_what_fits_is_trained_and_what_does_not_is_left_out(tmp_path):
    pairs = [("full", "charlm"), ("full", "darcy"), ("gla", "charlm"), ("mano", "darcy")]
    found = plan(tmp_path, LEFT)
    assert trained(found) == [(*pair, seed) for pair in pairs for seed in (0, 1)]
    assert set(found.left_out) == {("mano", "charlm"), ("gla", "darcy")}


def test_the_overview_names_what_is_left_out(tmp_path):
    told = overview(check(plan(tmp_path, LEFT))).splitlines()
    assert told.count("Left out, for they do not fit: mano on charlm, gla on darcy.") == 1


def test_a_pair_is_named_once_however_often_the_file_lists_it(tmp_path):
    text = LEFT.replace("levels: 2", "levels: [1, 2]").replace("length: 16", "length: [16, 32]")
    assert plan(tmp_path, text.replace("runs: 8", "runs: 14")).left_out == (("mano", "charlm"), ("gla", "darcy"))


def test_what_fits_has_the_same_cells_whether_or_not_others_are_left_out(tmp_path):
    alone = plan(tmp_path, changed("levels: 2", "levels: 2"))
    assert {cell.id for cell in alone.cells} < {cell.id for cell in plan(tmp_path, LEFT).cells}
    assert [cell.id for cell in plan(tmp_path, changed("runs: 4", "runs: 4\nmisfits: leave_out")).cells] == [
        cell.id for cell in alone.cells
    ]


def test_nothing_is_said_where_nothing_is_left_out(tmp_path):
    for text in (changed("runs: 4", "runs: 4\nmisfits: leave_out"), changed("runs: 4", "runs: 4\nmisfits: refuse")):
        found = plan(tmp_path, text)
        assert found.left_out == ()
        assert "Left out" not in overview(check(found))


def test_only_what_was_asked_for_is_told(tmp_path):
    assert plan(tmp_path, LEFT, only=["full", "gla"]).left_out == (("gla", "darcy"),)


REFUSED = {
    "by default": (BOTH, 13, "gla does not fit darcy, a grid task: it serves causal."),
    "where the file says so": (
        BOTH.replace("runs: 4", "runs: 4\nmisfits: refuse"),
        14,
        "gla does not fit darcy, a grid task: it serves causal.",
    ),
    "what fits no task": (LEFT.replace(CAUSAL, ""), 13, "gla fits none of the tasks darcy."),
    "what fits none of several": (
        LEFT.replace(CAUSAL, CAUSAL.replace("charlm", "mlm")),
        14,
        "gla fits none of the tasks darcy, mlm.",
    ),
    "a size that a fitting task does not have": (
        LEFT.replace("window: 2", "window: 3"),
        11,
        "mano: level 0 of a 8 x 8 grid",
    ),
    "an unknown word": (LEFT.replace("leave_out", "skip"), 3, "misfits is one of 'refuse' or 'leave_out'"),
}


@pytest.mark.parametrize(("text", "line", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_misfit_is_refused_with_file_and_line(text, line, sentence, tmp_path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared below
        check(expand(written(tmp_path, text), device="cpu"))
    assert re.match(rf".*asked\.yaml, line {line}: .*{re.escape(sentence)}", str(caught.value)), str(caught.value)
