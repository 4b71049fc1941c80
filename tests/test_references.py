"""Reports of several tasks: each ranks by its own measure, in its own direction, beside what rows say of chance."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tasks
from attnbench.cell import identity
from attnbench.manifest import Cell, Manifest
from attnbench.reports import figures
from attnbench.reports.canvas import reached
from attnbench.reports.collect import collect
from attnbench.reports.columns import COLUMNS, described, learn, measured
from attnbench.reports.references import above_floor, references
from attnbench.reports.report import screen, write_report
from attnbench.reports.summary import tables
from tests.made_rows import FakeStore, add

RESULTS = {
    "darcy": {"rel_l2": (0.2, 0.1), "rel_mse": (0.04, 0.01), "valid_rel_l2": (0.2, 0.1)},
    "images": {
        "accuracy": (0.9, 0.5),
        "top5": (1.0, 0.8),
        "loss": (0.3, 1.2),
        "chance": (0.11, 0.11),
        "chance_top5": (0.5, 0.5),
    },
    "charlm": {
        **{"bits_per_byte": (1.9, 2.4), "loss": (1.3, 1.7), "accuracy": (0.6, 0.4), "agreement": (0.9, 0.6)},
        **{"chance": (3.1, 3.1), "floor": (1.6, 1.6), "forgetful": (1.8, 1.8), "chance_accuracy": (0.2, 0.2)},
        **{"agreement_chance": (0.5, 0.5)},
    },
    "segment": {"miou": (0.4, 0.3), "accuracy": (0.95, 0.93), "chance": (0.92, 0.92), "chance_miou": (0.08, 0.08)},
    "mlm": {"perplexity": (5.0, 9.0), "accuracy": (0.5, 0.3), "chance": (0.2, 0.2), "chance_perplexity": (20.0, 20.0)},
}


def made(*names: str) -> tuple[FakeStore, Manifest]:
    """Two variants with two seeds at each task; `full` first in its results, then `linear`."""
    store, cells = FakeStore(), []
    for name in names:
        for place, mechanism in enumerate(("full", "linear")):
            for seed in (0, 1):
                spec = {"kind": "train", "seed": seed, "device": "cpu", "dtype": "float32", "threads": 1}
                spec |= {
                    "task": {"name": name, "knobs": {f"size_of_{name}": 8}},
                    "model": {"name": "isotropic", "knobs": {}},
                }
                spec |= {"mechanism": {"name": mechanism, "knobs": {}}}
                result = {
                    measure: values[place] * (1 + 0.01 * seed * ("chance" not in measure and measure[0] != "f"))
                    for measure, values in RESULTS[name].items()
                }
                add(store, spec, {"result": result, "cost": {}})
                variant = f"{mechanism} · {name}" if len(names) > 1 else mechanism
                cells.append(
                    Cell(
                        id=identity(spec),
                        kind="train",
                        label=f"{variant}, seed {seed}",
                        variant=variant,
                        mechanism=mechanism,
                        model="isotropic",
                        seed=seed,
                        estimate_s=1.0,
                    )
                )
    better = {f"result.{measure}": side for name in names for measure, side in tasks.find(name).better.items()}
    return store, Manifest(sweep="made", question="?", device="cpu", cells=tuple(cells), better=better)


MEASURES = {
    "darcy": ("result.rel_l2", "linear"),
    "images": ("result.accuracy", "full"),
    "charlm": ("result.bits_per_byte", "full"),
    "segment": ("result.miou", "full"),
    "mlm": ("result.perplexity", "full"),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_task_ranks_by_its_own_measure_in_its_direction(name):
    store, manifest = made(name)
    learn(manifest.better)
    (table,) = tables(collect(store, manifest))
    assert (table.measure, table.lines[0].variant) == MEASURES[name]


def test_several_tasks_stand_in_tables_of_their_own_without_each_others_columns(tmp_path):
    store, manifest = made(*RESULTS)
    learn(manifest.better)
    found = {table.setting: table for table in tables(collect(store, manifest))}
    assert {name: table.measure for name, table in found.items()} == {
        name: measure for name, (measure, _) in MEASURES.items()
    }
    assert set(found["darcy"].lines[0].others) == {"result.rel_mse"}
    text = write_report(store, manifest, tmp_path).read_text()
    for name in RESULTS:
        word = "score" if described(MEASURES[name][0]).better == "higher" else "error"
        assert f"## {name}: {word}\n" in text
    assert "by default" not in text


EXPECTED = {
    "darcy": {},
    "images": {"result.accuracy": {"chance": 0.11}, "result.top5": {"chance": 0.5}},
    "charlm": {
        "result.bits_per_byte": {"chance": 3.1, "best without memory": 1.8, "entropy floor": 1.6},
        "result.accuracy": {"chance": 0.2},
        "result.agreement": {"chance": 0.5},
    },
    "segment": {"result.miou": {"chance": 0.08}, "result.accuracy": {"chance": 0.92}},
    "mlm": {"result.perplexity": {"chance": 20.0}, "result.accuracy": {"chance": 0.2}},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_levels_of_chance_and_floors_are_those_that_the_rows_state(name, tmp_path):
    store, manifest = made(name)
    learn(manifest.better)
    (table,) = tables(collect(store, manifest))
    told = {measure: levels for measure, levels in table.levels.items() if levels}
    assert told == {measure: pytest.approx(levels) for measure, levels in EXPECTED[name].items()}
    text = write_report(store, manifest, tmp_path).read_text()
    for levels in EXPECTED[name].values():
        for word, level in levels.items():
            row = next(line for line in text.splitlines() if line.startswith(f"| ({word}) |"))
            assert f"{level:#.4g}" in row
    assert ("| (chance) |" in text) == bool(EXPECTED[name])


def test_rows_without_levels_have_none_and_charlms_chance_is_no_accuracy():
    assert references("result.accuracy", [{"result.accuracy": 0.5}]) == {}
    assert references("result.accuracy", [{"result.chance": 3.1, "result.bits_per_byte": 2.0}]) == {}
    assert references("result.accuracy", [{"result.chance": 0.1}, {"result.chance": 0.3}]) == {
        "chance": pytest.approx(0.2)
    }
    assert references("result.rel_l2", [{"result.chance": 0.1}]) == {}


def drawn_levels(picture) -> list[float]:
    return [float(line.get_xdata()[0]) for axes in picture.axes for line in axes.lines if line.get_gid() == "level"]


def test_figures_show_the_levels_that_are_near_their_numbers_and_name_all():
    store, manifest = made("charlm")
    learn(manifest.better)
    frame = collect(store, manifest)
    (one,) = figures.checked([{"name": "v", "kind": "variants", "y": "result.bits_per_byte"}], frame)
    picture = figures.draw(figures.parts(frame, one)[0].rows, one)
    assert sorted(drawn_levels(picture)) == pytest.approx([1.6, 1.8])
    low, high = picture.axes[0].get_xlim()
    assert low < 1.6 < 1.8 < high < 3.1
    told = "Dotted: entropy floor 1.6, best without memory 1.8. Beyond the frame: chance 3.1."
    assert told in picture.axes[0].get_xlabel().replace("\n", " ")
    (one,) = figures.checked([{"name": "s", "kind": "scatter", "x": "wall_s", "y": "result.bits_per_byte"}], frame)
    picture = figures.draw(figures.parts(frame, one)[0].rows, one)
    levels = [np.asarray(line.get_ydata())[0] for line in picture.axes[0].lines if line.get_gid() == "level"]
    assert sorted(levels) == pytest.approx([1.6, 1.8])
    assert told in " ".join(picture.get_supxlabel().split())


@pytest.mark.parametrize(
    ("log", "near"), [(False, {"inside": 3.0, "low": -1.5}), (True, {"inside": 3.0, "high": 13.0})]
)
def test_a_level_is_drawn_no_farther_from_the_numbers_than_they_span(log, near):
    levels = {"inside": 3.0, "low": -1.5, "lower": -1.7, "high": 13.0, "far": 14.0}
    found, told = reached(levels, [2.0, 1.2, 4.0], log=log)
    assert found == near
    assert [told.count(f"{name} ") for name in levels] == [1] * 5
    assert reached(levels, [], log=log) == ({}, "")
    assert reached({}, [1.0], log=log) == ({}, "")


def test_a_language_whose_floor_is_known_is_drawn_above_it(tmp_path):
    store, manifest = made("charlm")
    learn(manifest.better)
    frame = collect(store, manifest)
    drawn = figures.checked(figures.standard(frame, {}), frame)
    assert {one.y for one in drawn} == {"result.above_floor"}
    write_report(store, manifest, tmp_path)
    row = {"result.bits_per_byte": 2.0, "result.floor": 1.5, "result.chance": 4.0}
    assert above_floor(row) == {"result.above_floor": 0.5, "result.chance_above_floor": 2.5}
    assert above_floor({"result.bits_per_byte": 2.0}) == {}
    assert references("result.above_floor", [above_floor(row)]) == {"chance": 2.5}


def test_the_default_figure_of_several_tasks_has_a_panel_for_each(tmp_path):
    store, manifest = made(*RESULTS)
    learn(manifest.better)
    frame = collect(store, manifest)
    first = figures.checked(figures.standard(frame, {}), frame)[0]
    (part,) = figures.parts(frame, first)
    picture = figures.draw(part.rows, first)
    assert [axes.get_title(loc="left") for axes in picture.axes] == sorted(RESULTS)
    for axes in picture.axes:
        name = axes.get_title(loc="left")
        measure, best = MEASURES[name]
        assert axes.get_xlabel().partition("\n")[0] == described(measure).axis
        assert [label.get_text() for label in axes.get_yticklabels()] == sorted(
            ("full", "linear"), key=lambda one: one != best
        )
    assert write_report(store, manifest, tmp_path).read_text().count("](figures/variants.png)") == 1


def test_a_panel_without_a_result_keeps_its_variants(tmp_path):
    store, manifest = made("darcy", "images")
    for row in store.rows.values():
        if row["spec"]["task"]["name"] == "images":
            row |= {"status": "oom", "result": {}}
    learn(manifest.better)
    text = write_report(store, manifest, tmp_path).read_text()
    assert "4 oom" in text
    assert (tmp_path / "figures" / "variants.png").is_file()


def test_the_screen_shows_levels_and_both_measures():
    store, manifest = made("images", "charlm")
    learn(manifest.better)
    shown = screen(collect(store, manifest))
    assert "bits per byte, test or accuracy, test" in str(shown.caption)
    assert [str(cell) for cell in shown.columns[0].cells].count("(chance)") == 2


@pytest.mark.parametrize(("width", "told"), [(120, True), (80, False)])
def test_the_screen_explains_what_it_shows_and_nothing_else(width, told):
    store, manifest = made("images")
    for row in store.rows.values():
        row["cost"] = {"train_samples_per_s": 1.0, "noisy": True}
    learn(manifest.better)
    shown = screen(collect(store, manifest), width)
    assert ("Differences are paired to full" in str(shown.caption)) == told
    assert ("~ marks timings" in str(shown.caption)) == told
    assert any(str(column.header) == "difference" for column in shown.columns) == told


def test_bands_have_words_and_a_side_and_no_column_in_summaries():
    for band in ("low", "mid", "high"):
        for where in ("", "_transfer"):
            column = COLUMNS[f"result.{band}_rel_l2{where}"]
            assert (column.better, column.detail) == ("lower", True)
    row = {"result.rel_l2": 0.1, "result.rel_l2_transfer": 0.2, "result.low_rel_l2": 0.1}
    assert measured([row], row) == ["result.rel_l2_transfer", "result.rel_l2"]


def test_every_number_that_a_task_ranks_by_has_words_and_the_tasks_side():
    for name in tasks.names():
        for measure, side in tasks.find(name).better.items():
            column = COLUMNS.get(f"result.{measure}")
            assert column is not None, (name, measure)
            assert measure.startswith("valid_") or column.better == side, (name, measure)


def test_weights_trained_and_pretrained_stand_in_tables_where_they_differ(tmp_path):
    store, manifest = made("images")
    for part, costs in (
        (" ", {"params": 100}),
        ("b", {"params": 100, "params_trained": 100, "params_pretrained": 0}),
        ("c", {"params": 100, "params_trained": 10, "params_pretrained": 90}),
    ):
        price = add(
            store,
            {**next(iter(store.specs.values())), "kind": "cost", "seed": None, "of": part},
            {"result": {}, "cost": costs},
        )
        who = {"variant": "full", "mechanism": "full", "model": "isotropic", "seed": None}
        one = Cell(id=price, kind="cost", label="full, cost", estimate_s=1.0, **who)
        priced = replace(manifest, cells=(one, *(replace(cell, cost_id=price) for cell in manifest.cells)))
        text = write_report(store, priced, Path(tmp_path / part.strip() / "r")).read_text()
        head = next(line for line in text.partition(": cost\n")[2].splitlines() if line.startswith("| variant |"))
        assert ("of these trained | of these pretrained" in head) == (part == "c")
        assert ("| 100 | 10 | 90 |" in text) == (part == "c")
