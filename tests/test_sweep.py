"""Sweep files: what a file expands to, how it is overridden, and ids that must never move.

When a knob's default, a version or the form of a spec changes on purpose, ids change and old rows no longer serve the
shipped sweeps; then write the new ones with `python -m tests.test_sweep > tests/golden_ids.json` and say so in the
changelog.
"""

import itertools
import json
import re
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from attnbench import paths
from attnbench.cell import canonical, identity
from attnbench.sweep import expand
from mechanisms import Knobs, configure, resolved
from tests.asked import FIGURE, TEXT, changed, ids, plan, written

GOLDEN = Path(__file__).with_name("golden_ids.json")


def test_lists_are_axes_and_every_combination_has_a_cell(tmp_path):
    found = plan(
        tmp_path, changed("levels: 2", "levels: [2, 3]\n    upsample: [nearest, transposed]").replace("4", "10", 1)
    )
    asked = {
        (
            cell.mechanism.name,
            *(cell.mechanism.values[knob] for knob in ("levels", "upsample") if cell.mechanism.name == "mano"),
            cell.spec["seed"],
        )
        for cell in found.trainings
        if cell.mechanism
    }
    expected = {("full", seed) for seed in (0, 1)}
    expected |= {("mano", *rest) for rest in itertools.product((2, 3), ("nearest", "transposed"), (0, 1))}
    assert asked == expected
    assert len(found.trainings) == 10
    assert found.folded == 0


def test_idle_knobs_fold_cells_into_one(tmp_path):
    text = changed("levels: 2", "levels: [1, 2]\n    downsample: [conv, average]").replace("runs: 4", "runs: 8")
    found = plan(tmp_path, text)
    assert len(found.trainings) == 8  # two of full; of mano one with one level and two with two, twice each
    assert found.folded == 2
    assert len(found.cells) == 8 + 4


def test_a_value_written_twice_is_one_cell(tmp_path):
    found = plan(tmp_path, changed("levels: 2", "levels: [2, 2]"))
    assert (len(found.trainings), found.folded) == (4, 2)


def test_a_default_that_is_written_out_is_the_same_cell(tmp_path):
    short = plan(tmp_path)
    entries = {"tasks": {}, "models": {}, "mechanisms": {}}
    for cell in short.trainings:
        assert cell.mechanism is not None
        for section, part in zip(entries, (cell.task, cell.model, cell.mechanism), strict=True):
            entries[section][part.name] = {"name": part.name, **part.values}
    full = {"question": "Another?", "runs": 4, "seeds": [0, 1]} | {
        section: list(found.values()) for section, found in entries.items()
    }
    assert ids(plan(tmp_path, json.dumps(full))) == ids(short)


def test_neither_the_files_name_nor_its_other_sections_are_in_an_id(tmp_path):
    found = plan(tmp_path, changed("question: Does it work?", "question: Is it so?", FIGURE) + "slurm: {hours: 3}\n")
    (other := tmp_path / "other").mkdir()
    assert ids(found) == ids(expand(written(other, TEXT, "renamed.yaml"), device="cpu"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 1", "epochs: 2"),
        ("channels: 8", "channels: 16"),
        ("levels: 2", "levels: 3"),
        ("[0, 1]", "[2, 3]"),
        ("runs: 4", "runs: 4\ndevice: cuda"),
    ],
)
def test_everything_that_can_change_a_number_is_in_the_id(old, new, tmp_path):
    before, after = plan(tmp_path), plan(tmp_path, changed(old, new))
    assert ids(before) != ids(after)
    assert len({cell.id for cell in after.cells}) == len(after.cells) == len(before.cells)


def test_a_number_written_otherwise_is_the_same_cell(tmp_path):
    texts = [changed("epochs: 1", f"rate: {rate}") for rate in ("0.001", "1e-3", "1.0e-3", "1E-03")]
    assert len({canonical(ids(plan(tmp_path, text))) for text in texts}) == 1
    whole = [changed("epochs: 1", f"rate: {rate}") for rate in ("1", "1.0")]
    assert ids(plan(tmp_path, whole[0])) == ids(plan(tmp_path, whole[1]))


def test_a_new_knob_at_its_neutral_value_changes_no_old_id():
    class Before(Knobs):
        heads: int = 4

    class After(Before):
        scale: float = 2.0
        neutral: ClassVar = {"scale": 1.0}

    assert resolved(configure(After, {"scale": 1.0}, of="x")) == resolved(Before())
    assert resolved(After()) == {"heads": 4, "scale": 2.0}


def test_an_id_does_not_depend_on_the_order_of_keys_and_refuses_what_is_no_number():
    assert identity({"a": 1, "b": {"c": 2, "d": 3}}) == identity({"b": {"d": 3, "c": 2}, "a": 1})
    assert re.fullmatch("[0-9a-f]{20}", identity({}))
    with pytest.raises(ValueError, match="JSON"):
        canonical({"rate": float("inf")})


def test_seeds_and_lengths_of_training_share_a_measurement_of_cost(tmp_path):
    found = plan(tmp_path, changed("epochs: 1", "epochs: [1, 2], rate: [1e-3, 2e-3]").replace("runs: 4", "runs: 16"))
    costs = [cell for cell in found.cells if cell.spec["kind"] == "cost"]
    assert len(costs) == 2
    assert {cell.cost_id for cell in found.trainings} == {cell.id for cell in costs}
    for cell in costs:
        assert (cell.spec["seed"], cell.spec["threads"], cell.cost_id) == (None, 0, None)
        assert cell.spec["task"]["knobs"]["side"] == 8
        assert cell.spec["task"]["knobs"]["batch"] == 4


def test_what_changes_the_cost_of_a_step_has_a_measurement_of_its_own(tmp_path):
    found = plan(tmp_path, changed("batch: 4", "batch: [2, 4]").replace("runs: 4", "runs: 8"))
    costs = [cell for cell in found.cells if cell.spec["kind"] == "cost"]
    assert len(costs) == 4
    for cell in found.trainings:
        (own,) = [cost for cost in costs if cost.id == cell.cost_id]
        assert own.spec["task"]["knobs"]["batch"] == cell.spec["task"]["knobs"]["batch"]
        assert own.spec["mechanism"] == cell.spec["mechanism"]


def test_baselines_stand_beside_the_mechanisms(tmp_path):
    found = plan(
        tmp_path, changed("seeds:", "baselines:\n  - {name: fno, modes: 4}\nseeds:").replace("runs: 4", "runs: 6")
    )
    whole = [cell for cell in found.trainings if cell.mechanism is None]
    assert [(cell.model.name, cell.spec["mechanism"], cell.spec["seed"]) for cell in whole] == [
        ("fno", None, 0),
        ("fno", None, 1),
    ]


# overrides


def test_an_override_changes_what_is_asked_and_runs_is_not_compared(tmp_path):
    found = plan(tmp_path, settings=["task.epochs=3", "mechanism.mano.levels=[1, 2, 3]", "seeds=[7]"])
    assert len(found.trainings) == 4
    assert {cell.spec["task"]["knobs"]["epochs"] for cell in found.trainings} == {3}
    assert {cell.spec["seed"] for cell in found.trainings} == {7}
    assert ids(found) != ids(plan(tmp_path))


def test_a_sweep_with_overrides_has_a_name_of_its_own_and_others_for_others(tmp_path):
    given = [{}, {"settings": ["task.epochs=3"]}, {"settings": ["task.epochs=4"]}, {"only": ["mano"]}]
    names = [plan(tmp_path, **one).name for one in given]
    assert names[0] == "asked"
    assert len(set(names)) == 4
    assert plan(tmp_path, settings=["task.epochs=3"]).name == names[1]


def test_a_sweep_may_not_be_called_like_a_folder_of_the_store(tmp_path):
    for name in ("cells", "quarantine", "submissions"):
        with pytest.raises(ValueError, match="is a folder of the store"):
            expand(written(tmp_path, TEXT, f"{name}.yaml"), device="cpu")


def test_an_override_of_all_owners_reaches_those_that_have_the_knob(tmp_path):
    found = plan(tmp_path, settings=["mechanism.levels=3"])
    assert [cell.mechanism.values.get("levels") for cell in found.trainings if cell.mechanism] == [None, None, 3, 3]


def test_an_override_of_resources_changes_no_id(tmp_path):
    found = plan(tmp_path, settings=["slurm.hours=2.5"])
    assert found.frame.slurm is not None
    assert found.frame.slurm.hours == 2.5
    assert ids(found) == ids(plan(tmp_path))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("task.epoch=2", ["no knob 'epoch'", "Did you mean 'epochs'?"]),
        ("mechanism.mnao.levels=2", ["its mechanisms are full, mano", "Did you mean 'mano'?"]),
        ("mechanism.full.levels=2", ["no knob 'levels'"]),
        ("slurm.hour=2", ["no 'slurm.hour'", "Did you mean 'slurm.hours'?"]),
        ("sed=[1]", ["no 'sed'", "Did you mean 'seeds'?"]),
        ("runs=3", ["no 'runs'"]),
        ("task.epochs", ["path=value"]),
        ("task.epochs=", ["path=value"]),
        ("task.epochs=[1", ["'[1' is no value"]),
        ("task.epochs=two", ["darcy.epochs should be", "'two'"]),
        ("task.epochs=[]", ["darcy.epochs is an axis without values"]),
        ("seeds=[]", ["seeds should be", "at least one"]),
        ("slurm.hours=0", ["slurm.hours should be greater than 0"]),
    ],
)
def test_a_wrong_override_is_refused_with_the_nearest(setting, words, tmp_path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared below
        plan(tmp_path, settings=[setting])
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_keeps_what_is_named(tmp_path):
    text = changed("seeds:", "baselines:\n  - {name: fno, modes: 4}\nseeds:").replace("runs: 4", "runs: 6")
    for names in (["mano"], ["fno"], ["fno", "full"]):
        found = plan(tmp_path, text, only=names)
        assert {(cell.mechanism or cell.model).name for cell in found.cells} == set(names)
        assert len(found.trainings) == 2 * len(names)
    kept = set(ids(plan(tmp_path, text, only=["mano"])))
    assert kept < set(ids(plan(tmp_path, text)))
    with pytest.raises(ValueError, match="Did you mean 'mano'"):
        plan(tmp_path, text, only=["manno"])


def golden() -> dict[str, list[str]]:
    """The first eight digits of every id of the sweeps that ship."""
    return {
        name: [cell.id[:8] for cell in expand(paths.sweep_file(name), device="cpu").cells]
        for name in paths.sweep_names()
    }


def test_the_ids_of_the_sweeps_that_ship_have_not_moved():
    assert golden() == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(golden(), indent=None, separators=(",", ":")).replace('],"', '],\n"') + "\n")
