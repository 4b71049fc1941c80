"""Figures of quality against a cost: a panel for each task, each with its own measure, and labels that can be read."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from attnbench.reports import figures, fronts
from attnbench.reports.canvas import Drawing
from attnbench.reports.collect import collect
from attnbench.reports.columns import described, learn
from attnbench.reports.report import write_report
from tests.test_references import MEASURES, made

SPEEDS = {"full": 100.0, "linear": 300.0}


def drawn(store, manifest) -> Figure:
    learn(manifest.better)
    frame = collect(store, manifest)
    (asked,) = [one for one in figures.checked(figures.standard(frame, {}), frame) if one.name == "speed"]
    (part,) = figures.parts(frame, asked)
    return figures.drawn(part.rows, asked, {})


def priced(*names: str):
    """Two tasks or more, whose trainings carry a cost, different ones for each task."""
    store, manifest = made(*names)
    for row in store.rows.values():
        scale = 1 + names.index(row["spec"]["task"]["name"])
        row["cost"] = {"train_samples_per_s": scale * SPEEDS[row["spec"]["mechanism"]["name"]]}
    return store, manifest


def test_every_task_has_a_panel_with_its_own_measure_and_all_its_seeds():
    names = ("darcy", "images", "charlm")
    store, manifest = priced(*names)
    picture = drawn(store, manifest)
    assert [axes.get_title(loc="left") for axes in picture.axes] == sorted(names)
    for axes in picture.axes:
        name = axes.get_title(loc="left")
        measure = MEASURES[name][0]
        assert axes.get_ylabel() == described(measure).axis
        assert axes.get_xlabel().partition("\n")[0] == described("cost.train_samples_per_s").axis
        found = sorted(y for line in axes.lines if line.get_gid() == "seeds" for y in np.asarray(line.get_ydata()))
        rows = [row for row in store.rows.values() if row["spec"]["task"]["name"] == name]
        assert found == pytest.approx(sorted(row["result"][measure.removeprefix("result.")] for row in rows))
        scale = 1 + names.index(name)
        assert {x for line in axes.lines if line.get_gid() == "seeds" for x in np.asarray(line.get_xdata())} == {
            scale * speed for speed in SPEEDS.values()
        }


def test_what_a_panel_is_read_against_stands_below_it_and_its_front_in_it():
    picture = drawn(*priced("darcy", "images"))
    darcy, images = picture.axes
    assert "chance 0.11" in " ".join(images.get_xlabel().split())
    assert "chance" not in darcy.get_xlabel()
    assert [len([line for line in axes.lines if line.get_gid() == "front"]) for axes in picture.axes] == [1, 1]


def test_a_task_without_a_result_keeps_its_panel_and_says_so():
    store, manifest = priced("darcy", "images")
    for row in store.rows.values():
        if row["spec"]["task"]["name"] == "images":
            row |= {"status": "oom", "result": {}}
    picture = drawn(store, manifest)
    empty = picture.axes[1]
    assert empty.get_title(loc="left") == "images"
    assert [text.get_text() for text in empty.texts] == ["no cell has a result yet"]
    said = " ".join(picture._supxlabel.get_text().split())  # type: ignore[attr-defined]
    assert "4 of 8 cells not drawn." in said
    assert "full · images: 2 oom" in said


def test_several_tasks_have_one_file_for_each_cost(tmp_path):
    store, manifest = priced("darcy", "images")
    for row in store.rows.values():
        row["cost"]["memory_train_mib"] = 10.0
    write_report(store, manifest, tmp_path)
    assert {path.stem for path in (tmp_path / "figures").iterdir()} >= {"variants", "speed", "memory"}
    assert not list((tmp_path / "figures").glob("speed-*"))


def test_strips_of_several_tasks_count_no_cell_as_lost_that_they_left_out(monkeypatch):
    store, manifest = made("darcy", "images")
    learn(manifest.better)
    monkeypatch.setattr("attnbench.reports.strips.LEAST", 1)
    monkeypatch.setattr("attnbench.reports.strips.LINES", 2)
    frame = collect(store, manifest)
    asked = figures.checked(figures.standard(frame, {}), frame)[0]
    picture = figures.draw(figures.parts(frame, asked)[0].rows, asked)
    said = " ".join(picture._supxlabel.get_text().split())  # type: ignore[attr-defined]
    assert "The first 2 of 4 variants" in said
    assert "not drawn" not in said


def test_labels_of_a_front_do_not_run_into_each_other_and_the_figure_says_that_some_are_left_out():
    names = [f"v{i}" for i in range(30)]
    points = {name: (100.0 + i, 1.0 + i) for i, name in enumerate(names)}
    axes = Figure(figsize=(3, 3)).subplots()
    axes.set(xlim=(95, 135), ylim=(0, 35))
    assert not fronts.mark(axes, points, dict.fromkeys(names, 0.5), (1, -1))
    places = axes.transData.transform([text.xy for text in axes.texts])  # type: ignore[attr-defined]
    assert 3 < len(places) < 30
    for i, place in enumerate(places):
        assert all((abs(place - other) >= fronts.LABEL).any() for other in places[:i])
    few = {name: points[name] for name in names[::29]}
    assert fronts.mark(Figure().subplots(), few, dict.fromkeys(few, 0.5), (1, -1))


def test_a_drawing_of_one_task_without_a_panel_is_as_it_was():
    store, manifest = priced("darcy")
    learn(manifest.better)
    frame = collect(store, manifest)
    asked = Drawing(name="one", kind="scatter", x="cost.train_samples_per_s", y="result.rel_l2", title="Both")
    picture = figures.drawn(figures.parts(frame, asked)[0].rows, asked, {})
    assert [axes.get_title(loc="left") for axes in picture.axes] == ["Both"]
    twice = figures.drawn(figures.parts(frame, asked)[0].rows, replace(asked, panel="mechanism"), {})
    assert [axes.get_title(loc="left") for axes in twice.axes] == ["full", "linear"]
