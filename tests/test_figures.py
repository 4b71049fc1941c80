"""Figures of a sweep: every seed is a point, every failure is named, and what is not there is refused."""

import re
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from attnbench.manifest import Manifest
from attnbench.reports import canvas, figures, places
from attnbench.reports.collect import collect
from attnbench.reports.report import write_report
from attnbench.reports.rows import records
from tests.made_rows import FakeStore, ablation, fail, only, small, training

MANO = ("levels=1", "levels=2")
LEVELS = {"kind": "lines", "x": "mechanism.levels", "mechanism": "mano", "panel": "mechanism.window"}
LEVELS |= {"color": "mechanism.downsample", "style": "mechanism.upsample"}
SPEED = {"kind": "scatter", "x": "cost.train_samples_per_s", "color": "mechanism"}


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({"kind": "bars", "y": "result.rel_l2"}, "one of variants, scatter, lines"),
        ({"kind": "scatter", "y": "result.rel_l2"}, "needs the word 'x'"),
        ({"kind": "variants", "y": "result.rel_12"}, "Did you mean 'result.rel_l2'"),
        ({"kind": "variants", "y": "result.rel_l2", "colour": "mechanism"}, "no word 'colour'"),
        ({"kind": "variants", "y": "result.rel_l2", "mechanism": "swim"}, "there are full, swin"),
        ({**SPEED, "y": "result.rel_l2", "color": "mechanism.windows"}, "Did you mean 'mechanism.window'"),
    ],
)
def test_a_figure_of_what_is_not_there_is_refused(tmp_path: Path, figure: dict[str, Any], message: str):
    store, manifest = small()
    with pytest.raises(ValueError, match=message):
        write_report(store, replace(manifest, figures=({"name": "wrong", **figure},)), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("figure", [{"kind": "variants"}, SPEED, LEVELS], ids=["variants", "scatter", "lines"])
def test_every_seed_is_a_point_and_every_failure_is_named(figure: dict[str, Any]):
    store, manifest = ablation(3)
    names = [cell.variant for cell in manifest.cells if any(word in cell.variant for word in MANO)]
    manifest = only(manifest, "fno", *names)
    wanted = [cell for cell in manifest.cells if cell.kind == "train" and (cell.mechanism or figure is not LEVELS)]
    lost = training(manifest, names[-1], 1)
    fail(store, lost, "oom")
    frame = collect(store, manifest)
    asked = figures.checked([{"name": "one", "y": "result.rel_l2", **figure}], frame)[0]
    picture = figures.draw(figures.parts(frame, asked)[0].rows, asked)
    values = sorted(points(picture))
    expected = sorted(store.rows[cell.id]["result"]["rel_l2"] for cell in wanted if cell.id != lost)
    assert values == pytest.approx(expected)
    text = " ".join(" ".join(words(picture)).split())
    assert "1 oom" in text
    assert "fno" in text


@pytest.mark.parametrize(("column", "axis"), [("result.rel_l2", "log"), ("result.accuracy", "linear")])
def test_errors_that_span_much_stand_on_a_logarithmic_axis_and_accuracies_never(column: str, axis: str):
    axes = Figure().subplots()
    canvas.scale(axes, "x", column, [0.05, 0.9], log_from=6)
    assert axes.get_xscale() == axis


def points(picture: Figure) -> list[float]:
    """The measured coordinate of every point that stands for a seed: x in a strip, y elsewhere."""
    found = []
    for axes in picture.axes:
        along = 0 if axes.yaxis_inverted() else 1
        for line in axes.lines:
            if line.get_gid() == "seeds":
                found += [float(place[along]) for place in line.get_xydata()]  # type: ignore[union-attr]
    return found


def words(picture: Figure) -> list[str]:
    return [text.get_text() for text in picture.findobj(Text) if isinstance(text, Text)]


def test_a_line_breaks_where_a_cell_failed():
    store, manifest = ablation(2)
    manifest = only(manifest, *{cell.variant for cell in manifest.cells if cell.variant.startswith("mano window=2")})
    for seed in range(2):
        fail(store, training(manifest, "mano window=2 levels=3 downsample=average upsample=nearest", seed), "timeout")
    frame = collect(store, manifest)
    asked = figures.checked([{"name": "one", "y": "result.rel_l2", **LEVELS, "panel": None}], frame)[0]
    picture = figures.draw(figures.parts(frame, asked)[0].rows, asked)
    lines = [line for line in picture.axes[0].lines if len(line.get_xdata()) == 4]  # type: ignore[arg-type]
    broken = [[value != value for value in line.get_ydata()] for line in lines]  # type: ignore[union-attr]
    assert sorted(broken) == [[False] * 4] * 3 + [[False, False, True, False]]


@pytest.mark.parametrize(
    ("change", "beside"), [("none", []), ("one failed", ["2/3  1 timeout"]), ("one less asked", ["2/2"])]
)
def test_a_line_tells_of_its_seeds_where_they_are_not_as_many_as_on_others(change: str, beside: list[str]):
    store, manifest = small()
    last = training(manifest, "full", 2)
    if change == "one failed":
        fail(store, last, "timeout")
    frame = collect(store, manifest)
    rows = [row for row in records(frame) if row["kind"] == "train"]
    rows = [row for row in rows if row["id"] != last or change != "one less asked"]
    picture = figures.draw(rows, figures.checked(figures.standard(frame, {}), frame)[0])
    note = " ".join(" ".join(words(picture)).split())
    assert [text for text in words(picture) if re.match(r"\d+/\d+", text)] == beside
    assert ("Points: seeds, 3 on each line." in note) is not bool(beside)
    assert ("Right: seeds drawn / asked, where not 3/3." in note) is bool(beside)


def test_figures_appear_as_png_and_pdf_also_for_settings_and_without_results(tmp_path: Path):
    store, manifest = ablation(2)
    manifest = only(manifest, "full", "fno")
    frame = collect(store, manifest)
    asked = figures.checked(figures.standard(frame, {}), frame)
    assert [one.name for one in asked] == ["variants", "speed", "memory"]
    twice = pd.concat([frame, frame.assign(**{"task.side": 64})])
    assert figures.write(twice, asked[0], tmp_path, {}) == ["variants-side-32", "variants-side-64"]
    empty = FakeStore()
    empty.specs = store.specs
    assert figures.write(collect(empty, manifest), asked[1], tmp_path, {}) == ["speed"]
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {
        f"{name}.{end}" for name in ("variants-side-32", "variants-side-64", "speed") for end in ("png", "pdf", "svg")
    }
    assert min(sizes.values()) > 3000


def with_curves() -> tuple[FakeStore, Manifest, dict[str, list[float]]]:
    """A small sweep whose trainings leave a curve; the last of them lacks a place."""
    store, manifest = small()
    trained = [cell for cell in manifest.cells if cell.kind == "train"]
    curves = {cell.id: [0.4 + 0.01 * i, 0.2, 0.1 - 0.001 * i] for i, cell in enumerate(trained)}
    curves[trained[-1].id][2] = nan
    for id, series in curves.items():
        raw = [None if isnan(one) else one for one in series]
        store.rows[id]["raw"] = {"jump_error": raw, "train_loss": [1.0, 0.5]}
    return store, manifest, curves


def test_a_curve_is_the_mean_over_seeds_at_every_place():
    store, manifest, curves = with_curves()
    frame = collect(store, manifest)
    asked = figures.checked([{"name": "one", "kind": "curves", "y": "raw.jump_error"}], frame)[0]
    rows: list[Any] = [row | {"raw.jump_error": curves[row["id"]]} for row in figures.parts(frame, asked)[0].rows]
    picture = figures.draw(rows, asked)
    drawn: Any = [line for line in picture.axes[0].get_lines() if line.get_gid() == "curve"]
    own = [[curves[row["id"]] for row in rows if row["variant"] == name] for name in {row["variant"] for row in rows}]
    expected = [[float(mean) for mean in np.nanmean(np.array(series), 0)] for series in own]
    found = sorted([float(number) for number in line.get_ydata()] for line in drawn)
    assert found == [pytest.approx(one) for one in sorted(expected)]
    assert all([float(place) for place in line.get_xdata()] == [0.5, 1.5, 2.5] for line in drawn)


def test_curves_are_kept_in_a_file_from_which_the_same_figure_is_drawn_again(tmp_path: Path):
    store, manifest, curves = with_curves()
    manifest = replace(manifest, figures=())  # the standard ones
    write_report(store, manifest, tmp_path)
    kept, picture = (tmp_path / "curves.csv").read_bytes(), (tmp_path / "figures" / "jump_error.png").read_bytes()
    assert "jump_error" in (tmp_path / "summary.md").read_text()
    assert places.curves_of(store, manifest, tmp_path) == {
        id: {"raw.jump_error": pytest.approx(series, nan_ok=True)} for id, series in curves.items()
    }
    rmtree(tmp_path / "figures")
    write_report(FakeStore(), manifest, tmp_path)
    assert (tmp_path / "curves.csv").read_bytes() == kept
    assert (tmp_path / "figures" / "jump_error.png").read_bytes() == picture


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({"kind": "curves", "y": "result.rel_l2"}, "kind curves draws one of raw.jump_error"),
        ({"kind": "variants", "y": "raw.jump_error"}, "raw.jump_error is a curve for each training"),
    ],
)
def test_a_curve_is_no_number_and_a_number_no_curve(figure: dict[str, str], message: str):
    store, manifest = small()
    with pytest.raises(ValueError, match=message):
        figures.checked([{"name": "wrong", **figure}], collect(store, manifest))
