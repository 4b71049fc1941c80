"""Probes: sections of a sweep file that ask something of mechanisms alone, without a task and without a model."""

import json

import pytest

from attnbench import labels, probes, verbs
from attnbench.cell import identity, program
from attnbench.check import check
from attnbench.proofs import claims
from mechanisms import Site
from tests.asked import TEXT, plan

BARE = """\
question: What does it cost?
mechanisms:
  - name: full
  - {name: mano, levels: [1, 2]}
efficiency:
  runs: 24
  sides: [8, 16]
  dtypes: [float32, bfloat16]
  rounds: 1
"""
WAYS = ("forward", "both")
BOTH = TEXT + BARE[BARE.index("efficiency") :].replace("24", "16")


def test_a_file_may_ask_of_mechanisms_alone(tmp_path):
    found = plan(tmp_path, BARE)
    assert len(found.cells) == 24
    assert found.trainings == []
    assert {cell.spec["kind"] for cell in found.cells} == {"efficiency"}
    assert all(cell.id == identity(cell.spec) for cell in found.cells)
    asked = {(cell.site, cell.spec["dtype"], cell.spec["pass"]) for cell in found.cells}
    sites = [Site(channels=64, shape=(side, side)) for side in (8, 16)]
    assert asked == {(site, dtype, way) for site in sites for dtype in ("float32", "bfloat16") for way in WAYS}


def test_a_spec_has_a_site_and_neither_task_nor_model(tmp_path):
    for cell in plan(tmp_path, BARE).cells:
        assert set(cell.spec) == {
            *("schema", "protocol", "kind", "mechanism", "site", "device", "dtype", "threads", "gpus"),
            *("pass", "batch", "round"),
        }
        assert set(cell.spec["site"]) == {"channels", "shape", "causal"}


def test_beside_trainings_no_cell_of_theirs_changes_its_id(tmp_path):
    alone, both = plan(tmp_path), plan(tmp_path, BOTH)
    assert [cell.id for cell in both.cells[: len(alone.cells)]] == [cell.id for cell in alone.cells]
    assert len(both.cells) == len(alone.cells) + 16


def test_cells_are_mixed_and_always_alike(tmp_path):
    text = BARE.replace("rounds: 1", "rounds: 2").replace("24", "48")
    first, again = plan(tmp_path, text).cells, plan(tmp_path, text).cells
    assert [cell.id for cell in first] == [cell.id for cell in again]
    assert [cell.spec["round"] for cell in first] == [0] * 24 + [1] * 24
    order = [cell.mechanism.name for cell in first[:24] if cell.mechanism]
    assert order != sorted(order)
    assert order != sorted(order, reverse=True)
    sizes = [cell.spec["site"]["shape"][0] for cell in first[:24]]
    assert sizes != sorted(sizes)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("runs: 24", "runs: 23", r"efficiency.runs announces 23 cells, and it describes 24"),
        ("sides: [8, 16]", "side: 8", r"no knob 'side'. Did you mean 'sides'"),
        ("sides: [8, 16]", "channels: 8", r"needs sides of grids or lengths"),
        ("sides: [8, 16]", "sides: [8, 8]", r"list of different values"),
        ("sides: [8, 16]", "lengths: [64]\n  causal: true", r"mano does not fit efficiency at 64, a causal: it serves"),
        ("sides: [8, 16]", "sides: [8, 7]", r"line 4"),
        ("efficiency:", "models: [{name: isotropic}]\nefficiency:", r"models are trained on tasks"),
        ("efficiency:", "seeds: 3\nruns: 5\nefficiency:", r"runs"),
        ("efficiency:", "eficiency:", r"no section 'eficiency'. Did you mean 'efficiency'"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(tmp_path, old, new, told):
    assert BARE.count(old) == 1
    with pytest.raises(ValueError, match=told):
        check(plan(tmp_path, BARE.replace(old, new)))


def test_a_file_without_tasks_and_without_probes_is_refused_as_ever(tmp_path):
    with pytest.raises(ValueError, match="tasks' is missing"):
        plan(tmp_path, TEXT.replace(TEXT[TEXT.index("tasks") : TEXT.index("models")], ""))


def test_misfits_are_left_out_where_the_file_says_so(tmp_path):
    text = "misfits: leave_out\n" + BARE.replace("runs: 24", "runs: 28").replace(
        "rounds", "lengths: 64\n  causal: true\n  rounds"
    )
    found = plan(tmp_path, text)
    assert found.left_out == (("mano", "efficiency"),)
    assert {cell.mechanism.name for cell in found.cells if cell.mechanism and cell.spec["site"]["shape"] == [64]} == {
        "full"
    }


def test_overrides_reach_the_section(tmp_path):
    found = plan(tmp_path, BARE, settings=["efficiency.sides=[8]", "efficiency.passes=forward"])
    assert len(found.cells) == 6


def test_checking_builds_counts_and_names_every_cell(tmp_path):
    found = check(plan(tmp_path, BARE))
    assert len({cell.label for cell in found.manifest.cells}) == 24
    assert "mano levels 2, 16x16, bfloat16, both, round 0" in {cell.label for cell in found.manifest.cells}
    assert {cell.model for cell in found.manifest.cells} == {None}
    work = {cell.id: found.works[cell.id].matmul_flops for cell in found.plan.cells}
    for cell in found.plan.cells:  # of full attention: four projections, and two products of all pairs
        if cell.mechanism and cell.mechanism.name == "full":
            n = cell.spec["site"]["shape"][0] ** 2
            assert work[cell.id] == 4 * 2 * n * 64 * 64 + 4 * n * n * 64
    assert "24 cells of efficiency on cpu" in verbs.overview(found)


def test_a_mechanism_is_proved_in_the_setting_of_its_site(tmp_path):
    assert {(claim.entry.name, claim.setting) for claim in claims(plan(tmp_path, BARE).cells)} == {
        ("full", "grid"),
        ("mano", "grid"),
    }


def test_a_bare_variant_is_called_as_in_trainings(tmp_path):
    found = plan(tmp_path, BOTH)
    named = labels.variants(found)
    assert {named[cell.id] for cell in found.trainings} == {named[cell.id] for cell in found.cells if cell.site}


def test_a_spec_names_the_program_that_carries_it_out(tmp_path):
    for cell in plan(tmp_path, BOTH).cells:
        file = tmp_path / "spec.json"
        file.write_text(json.dumps(cell.spec))
        assert program(file) == ("attnbench.probes" if cell.site else "attnbench.run")
    assert program(tmp_path / "none.json") == "attnbench.run"


def test_every_probe_has_a_file_and_a_word_of_its_own():
    assert len(set(probes.COMMANDS.values())) == len(probes.COMMANDS)
    assert all(issubclass(probes.find(name).config, probes.Section) for name in probes.COMMANDS)
