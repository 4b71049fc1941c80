"""The section `atlas:` of a sweep file: which cells it describes, what it refuses, and what a cell's row says."""

from pathlib import Path

import pytest

from attnbench import probes
from attnbench._yaml import SweepError
from attnbench.check import check
from attnbench.manifest import point
from attnbench.sweep import expand_text
from tests.atlas_pairs import HEADS


def plan(section, *mechanisms):
    listed = [{"name": name, **knobs} for name, knobs in mechanisms or [("full", {}), ("pooled", {"block": 2})]]
    text = {"question": "How far?", "mechanisms": listed, "atlas": section}
    return expand_text(Path("x.yaml"), text, device="cpu")


def test_every_axis_makes_cells_and_only_where_it_means_something():
    found = plan({"sides": [8, 16], "correlation": [0.1, 0.3], "sharpness": [1.0, 3.0], "seeds": [0, 1]})
    by_input: dict[str, int] = {}
    for cell in found.cells:
        by_input[cell.spec["input"]] = by_input.get(cell.spec["input"], 0) + 1
    each = 2 * 2 * 2  # mechanisms, sides and seeds
    assert by_input == {"random": 2 * each, "smooth": 4 * each, "trained": each}
    assert all("sharpness" not in cell.spec for cell in found.cells if cell.spec["input"] == "trained")
    assert all(("correlation" in cell.spec) == (cell.spec["input"] == "smooth") for cell in found.cells)
    assert {(cell.spec["kind"], cell.spec["dtype"], cell.spec["threads"]) for cell in found.cells} == {
        ("atlas", "float64", 1)
    }


def test_labels_tell_cells_apart_and_seeds_stand_last():
    cells = check(plan({"sides": 8, "correlation": [0.1, 0.3]})).manifest.cells
    assert len({cell.label for cell in cells}) == len(cells)
    assert all(cell.label.endswith(f", seed {cell.seed}") for cell in cells)
    assert len({point(cell.label) for cell in cells}) == len(cells) / 3
    assert all(cell.estimate_s > 0 for cell in cells)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"lengths": 64, "causal": True}, "trained inputs are those of Darcy flow"),
        ({"lengths": 60}, "trained inputs are those of Darcy flow"),
        ({"sides": 8, "inputs": ["noise"]}, "inputs"),
        ({"sides": 8, "correlation": 2.0}, "correlation"),
        ({"inputs": "random"}, "it needs sides of grids or lengths of sequences"),
        ({"sides": 8, "length": 3}, "no knob 'length'"),
    ],
)
def test_what_makes_no_sense_is_refused(section, why):
    with pytest.raises(SweepError, match=why):
        plan(section, ("full", {}))


def test_a_causal_site_has_random_and_smooth_inputs():
    found = plan({"lengths": 64, "causal": True, "inputs": ["random", "smooth"]}, ("full", {}), ("sliding", {}))
    assert len(found.cells) == 2 * 2 * 3


def test_a_cell_says_what_it_found_and_full_attention_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    knobs = {"heads": HEADS}
    asked = {"sides": 4, "channels": 8, "inputs": "random", "seeds": [0], "sharpness": 3.0}
    cells = plan(asked, ("full", knobs), ("pooled", {**knobs, "block": 2})).cells
    for cell in cells:
        found = probes.find("atlas").work(cell.spec, lambda _: None)
        name = cell.spec["mechanism"]["name"]
        assert (found["result"]["output_error"] == 0) == (name == "full")
        assert found["cost"]["matmul_flops"] > 0
        assert found["result"]["shared"] == "q k v out"
        assert found["result"]["own_params"] == 0
