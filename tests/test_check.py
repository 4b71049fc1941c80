"""What a checked sweep says of its cells: names of variants, the manifest, counts and estimates."""

from typing import Any

import pytest

from attnbench import labels, paths
from attnbench.cell import canonical
from attnbench.check import Checked, check, table
from attnbench.manifest import Manifest
from attnbench.sweep import Plan, expand
from tests.asked import FIGURE, TEXT, changed, ids, plan


def groups(found: Plan) -> dict[str, str]:
    """For each training, everything but its seed and a knob that trials choose: what its variant's name stands for."""
    chosen = {found.frame.choose.name} if found.frame.choose else set()

    def rest(task: dict[str, Any]) -> dict[str, Any]:
        return task | {"knobs": {name: value for name, value in task["knobs"].items() if name not in chosen}}

    specs = {cell.id: cell.spec for cell in found.trainings}
    return {id: canonical(spec | {"seed": None, "task": rest(spec["task"])}) for id, spec in specs.items()}


@pytest.mark.parametrize("name", paths.sweep_names())
def test_every_variant_of_a_shipped_sweep_has_a_name_of_its_own(name):
    found = expand(paths.sweep_file(name), device="cpu")
    names = labels.variants(found)
    pairs = {(names[id], group) for id, group in groups(found).items()}
    assert len(pairs) == len({variant for variant, _ in pairs}) == len({group for _, group in pairs})


@pytest.mark.parametrize(
    ("old", "new", "runs"),
    [
        ("  - name: mano\n", "  - name: mano\n  - name: mano\n", 6),  # the first one names no knob
        ("    levels: 2\n", "    levels: [1, 2]\n    downsample: [conv, average]\n", 8),
        ("depth: 1}", "depth: 1}\n  - {name: isotropic, channels: 8, depth: 2}", 8),
        ("rate", "rate", 4),
        ("batch: 4}", "batch: 4, rate: [1e-3, 3e-3]}", 8),
    ],
)
def test_variants_have_names_of_their_own_also_where_a_knob_rests_at_its_default(old, new, runs, tmp_path):
    text = TEXT if old == new else changed(old, new)
    found = plan(tmp_path, text.replace("runs: 4", f"runs: {runs}"))
    names = labels.variants(found)
    pairs = {(names[id], group) for id, group in groups(found).items()}
    assert len(pairs) == len({variant for variant, _ in pairs}) == len({group for _, group in pairs}) == runs // 2


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    return check(plan(tmp_path_factory.mktemp("sweep"), FIGURE))


def test_a_sweep_file_says_from_where_on_a_task_is_solved(checked, tmp_path):
    asked = check(plan(tmp_path, f"solved: 0.9\n{TEXT}"))
    assert (checked.manifest.solved, asked.manifest.solved) == (0.5, 0.9)
    assert ids(asked.plan) == ids(checked.plan)  # no cell is another for it
    with pytest.raises(ValueError, match="solved"):
        plan(tmp_path, f"solved: 1.5\n{TEXT}")


def test_a_manifest_lists_every_cell_and_survives_its_file(checked, tmp_path):
    manifest = checked.manifest
    assert [cell.id for cell in manifest.cells] == ids(checked.plan)
    assert [cell.label for cell in manifest.cells] == [
        "full, seed 0",
        "full, seed 1",
        "mano, seed 0",
        "mano, seed 1",
        "full, cost",
        "mano, cost",
    ]
    manifest.write(file := tmp_path / "asked" / "cells.json")
    assert Manifest.read(file) == manifest
    assert [path.name for path in file.parent.iterdir()] == ["cells.json"]


def test_a_manifest_that_is_not_there_or_of_another_time_is_refused(checked, tmp_path):
    with pytest.raises(ValueError, match="is not there"):
        Manifest.read(tmp_path / "cells.json")
    checked.manifest.write(file := tmp_path / "cells.json")
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(ValueError, match="schema 99"):
        Manifest.read(file)


def test_the_table_counts_cells_weights_and_work(checked):
    lines = {label: rest for label, *rest in table(checked)}
    assert lines.keys() == {"full", "mano"}
    told, params, flops, seconds = lines["full"]
    # 8 channels, one block: lift, four projections, an MLP twice as wide, a head, three norms; 64 tokens
    assert told == "2 + 1"
    assert params == (3 * 8 + 8) + 4 * (8 * 8 + 8) + (8 * 16 + 16 + 16 * 8 + 8) + (8 + 1) + 3 * 16
    assert flops == 2 * 64 * (3 * 8 + 4 * 8 * 8 + 2 * 8 * 16 + 8) + 2 * 2 * 64 * 64 * 8
    assert seconds == pytest.approx(sum(cell.estimate_s for cell in checked.manifest.cells if cell.variant == "full"))
    assert checked.hours > 0


def test_the_estimate_of_a_training_grows_with_its_work_and_that_of_a_measurement_does_not(tmp_path):
    short, long = (
        check(plan(tmp_path, changed("epochs: 1", f"epochs: {epochs}"))).manifest.cells for epochs in (1, 500)
    )
    for one, other in zip(short, long, strict=True):
        assert (other.estimate_s > one.estimate_s + 1) == (one.kind == "train")
        assert one.estimate_s > 0
