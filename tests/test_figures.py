"""Figures of a sweep: every seed is a point, every failure is named, and what is not there is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from attnbench.reports import canvas, figures
from attnbench.reports.collect import collect
from attnbench.reports.report import write_report
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
        for collection in axes.collections:
            if collection.get_gid() == "seeds":
                found += [float(offset[along]) for offset in collection.get_offsets()]  # type: ignore[union-attr]
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


def test_figures_appear_as_png_and_pdf_also_for_settings_and_without_results(tmp_path: Path):
    store, manifest = ablation(2)
    manifest = only(manifest, "full", "fno")
    frame = collect(store, manifest)
    asked = figures.checked(figures.standard(frame), frame)
    assert [one.name for one in asked] == ["variants", "speed", "memory"]
    twice = pd.concat([frame, frame.assign(**{"task.side": 64})])
    assert figures.write(twice, asked[0], tmp_path) == ["variants-side-32", "variants-side-64"]
    empty = FakeStore()
    empty.specs = store.specs
    assert figures.write(collect(empty, manifest), asked[1], tmp_path) == ["speed"]
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {
        f"{name}.{end}" for name in ("variants-side-32", "variants-side-64", "speed") for end in ("png", "pdf")
    }
    assert min(sizes.values()) > 3000
