"""Cells whose ids differ for reasons that do not matter are compared, each is named, and no others are."""

import re
from typing import Any

import pytest

from attnbench.cell import identity
from attnbench.reports.compare import Side, compare
from attnbench.reports.versus import page

KNOBS: dict[str, Any] = {"kind": "train", "task": "darcy", "model": "isotropic", "mechanism": "mano"}
KNOBS |= {"dtype": "float32", "device": "cpu", "threads": 1, "idle": "", "status": "ok", "settled": None}
KNOBS |= {"task.side": 16, "task.rate": 1e-3, "model.channels": 32, "mechanism.levels": 2, "mechanism.rate": None}


def made(name: str, version: int = 1, seeds: int = 3, **more: Any) -> Side:
    """Results of one variant with so many seeds; a version is in ids and in no column."""
    found = {}
    for seed in range(seeds):
        row = KNOBS | {"seed": seed, "variant": "mano", "label": f"mano, seed {seed}", "cost_id": None} | more
        row["result.rel_l2"] = 0.1 + 0.01 * seed
        row["id"] = identity({"version": version, **{key: row[key] for key in sorted(row)}})
        found[row["id"]] = row
    return Side(name=name, rows=found)


def test_cells_of_another_version_are_matched_and_every_one_is_named():
    found = compare(made("now", version=2), made("then"))
    assert found.common == len(found.matched) == 3
    assert [change.same for change in found.changes] == [True]
    text = page(found)
    assert "3 of them, whose ids differ, were matched by what they ask; what differs: a version of" in text
    assert len(re.findall(r"^\| mano, seed \d \| \w{20} \| \w{20} \|", text, re.MULTILINE)) == 3


def test_a_device_is_named():
    found = compare(made("now", device="cuda"), made("then"))
    assert {one.differs for one in found.matched} == {"device cpu before, cuda now"}
    assert "device cpu before, cuda now" in page(found)


@pytest.mark.parametrize(
    "more", [{"mechanism.levels": 3}, {"task.rate": 2e-3}, {"dtype": "bfloat16"}, {"kind": "trial"}, {"task": "images"}]
)
def test_cells_that_ask_something_else_are_never_matched(more):
    with pytest.raises(ValueError, match="no cell in common"):
        compare(made("now", version=2, **more), made("then"))


def test_equal_ids_stay_a_pair_and_are_not_named():
    found = compare(made("now"), made("then"))
    assert (found.common, found.matched) == (3, ())
    assert "Matched" not in page(found)


def test_of_several_that_ask_the_same_that_on_the_same_device_is_taken():
    both = {**made("then").rows, **made("then", device="cuda").rows}
    found = compare(made("now", version=2), Side(name="then", rows=both))
    assert found.common == 3
    assert found.only_before == ("mano, seed 0", "mano, seed 1", "mano, seed 2")
    assert {one.differs.partition(",")[0] for one in found.matched} == {"a version of the task"}


def test_what_is_asked_twice_is_not_guessed():
    both = {**made("then").rows, **made("then", version=3).rows}
    with pytest.raises(ValueError, match="no cell in common"):
        compare(made("now", version=2), Side(name="then", rows=both))


def test_an_idle_knob_and_the_way_a_number_is_written_part_nothing():
    found = compare(made("now", version=2, idle="rate", **{"mechanism.rate": 4, "mechanism.levels": 2.0}), made("then"))
    assert found.common == 3
