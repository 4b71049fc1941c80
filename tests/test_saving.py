"""Figures in three formats: the same bytes each time and on any number of cores, and no number lost on the way."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy.special import stdtrit

from attnbench.reports import figures, rows, saving, stats, strips
from attnbench.reports.collect import collect
from attnbench.reports.report import write_report
from attnbench.reports.rows import once, plain, records
from tests.made_rows import ablation, fail, small, training

STRIPS = {"name": "strips", "kind": "variants", "y": "result.rel_l2"}
SPEED = {"name": "speed", "kind": "scatter", "x": "cost.train_samples_per_s", "y": "result.rel_l2"}
FORKED = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # from Python 3.12 on


def drawn(folder: Path) -> dict[str, bytes]:
    """All files of two figures of a small sweep."""
    frame = collect(*small())
    with figures.writing(frame, figures.checked([STRIPS, SPEED], frame), folder, {}):
        pass
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return drawn(tmp_path_factory.mktemp("figures"))


def test_every_figure_is_there_in_every_format(one_by_one):
    assert set(one_by_one) == {f"{name}.{end}" for name in ("strips", "speed") for end in ("png", "pdf", "svg")}


@FORKED
def test_several_processes_write_the_same_bytes(one_by_one, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "MUCH", 1)
    monkeypatch.setattr(saving.os, "sched_getaffinity", lambda _: {0, 1})
    assert drawn(tmp_path) == one_by_one
    assert not saving.WAITING


@FORKED
def test_an_error_in_another_process_is_the_callers(tmp_path, monkeypatch):
    def wrong() -> Figure:
        raise ValueError("this one cannot be drawn")

    monkeypatch.setattr(saving.os, "sched_getaffinity", lambda _: {0, 1})
    both = {tmp_path / "a": wrong, tmp_path / "b": wrong}
    with pytest.raises(ValueError, match="cannot be drawn"), saving.save_all(both, saving.MUCH):
        pass
    assert not saving.WAITING


def test_no_format_holds_a_date_or_a_program(one_by_one):
    for name, content in one_by_one.items():
        assert not re.search(rb"CreationDate|ModDate|<dc:date>|<dc:creator>|tEXtSoftware|tIME", content), name


def test_text_is_paths_in_svg_and_text_in_pdf(one_by_one):
    picture = one_by_one["strips.svg"].decode()
    assert "<text" not in picture
    assert "DejaVuSans" in picture  # glyphs that are drawn
    assert b"/Type /Font" in one_by_one["strips.pdf"]
    assert b"/Subtype /Type3" not in one_by_one["strips.pdf"]


def test_a_figure_is_laid_out_once(tmp_path, monkeypatch):
    laid: list[Figure] = []
    picture = Figure(layout="constrained")
    picture.subplots().set_title("a")
    execute = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda self, of: (laid.append(of), execute(self, of)))
    saving.save(picture, tmp_path / "one.two")
    assert laid == [picture]
    assert {path.name for path in tmp_path.iterdir()} == {f"one.two.{end}" for end in ("png", "pdf", "svg")}


def test_of_too_many_variants_the_best_are_drawn_and_failures_still_named(monkeypatch):
    store, manifest = ablation(3)
    fail(store, training(manifest, "identity", 1), "oom")
    monkeypatch.setattr(strips, "LINES", 12)
    frame = collect(store, manifest)
    asked = figures.checked([STRIPS], frame)[0]
    picture = figures.draw(figures.parts(frame, asked)[0].rows, asked)
    axes = picture.axes[0]
    assert len(axes.get_yticks()) == 12
    said = " ".join(picture._supxlabel.get_text().split())  # type: ignore[attr-defined]
    assert re.search(r"The first 12 of \d\d variants; of the others the tables tell\.", said)
    assert "identity: 1 oom" in said
    seeds = [place for one in axes.lines if one.get_gid() == "seeds" for place in one.get_xydata()[:, 0]]  # type: ignore[union-attr]
    lines = [label.get_text() for label in axes.get_yticklabels()]
    kept = frame[(frame["kind"] == "train") & frame["variant"].isin(lines)]
    assert sorted(seeds) == pytest.approx(sorted(value for value in kept["result.rel_l2"] if value == value))


def test_rows_of_a_table_are_made_once_and_are_its_values(monkeypatch):
    frame = collect(*small())
    by_hand = [{name: plain(row[name]) for name in frame.columns} for _, row in frame.astype(object).iterrows()]
    made, unpack = [], rows.unpacked
    monkeypatch.setattr(rows, "unpacked", lambda table: made.append(len(table)) or unpack(table))
    with once():
        found = [records(frame) for _ in range(3)]
        assert records(frame.head(2)) == by_hand[:2]
    assert found == [by_hand] * 3
    assert made == [len(frame), 2]
    assert {type(value) for row in found[0] for value in row.values()} <= {str, int, float, bool, type(None)}
    records(frame)
    assert made == [len(frame), 2, len(frame)]


def test_a_report_reads_every_row_of_the_store_once(tmp_path, monkeypatch):
    store, manifest = small()
    read: list[str] = []
    look = store.result
    monkeypatch.setattr(store, "result", lambda id: read.append(id) or look(id))
    write_report(store, manifest, tmp_path)
    assert sorted(read) == sorted(cell.id for cell in manifest.cells)


def test_a_table_of_objects_is_unpacked_too():
    frame = pd.DataFrame({"id": ["a", None], "n": [np.float64(1.5), float("nan")], "k": [np.int64(3), pd.NA]})
    assert records(frame) == [{"id": "a", "n": 1.5, "k": 3}, {"id": None, "n": None, "k": None}]


@pytest.mark.parametrize(("mean", "deviation"), [(1.0, 0.1), (0.1, 0.1), (0.02, 0.1), (0.001, 0.1), (1.0, 0.0)])
def test_seeds_needed_are_those_of_counting_upwards(mean, deviation):
    def enough(n: int) -> bool:
        return n >= ((stdtrit(n - 1, 0.975) + stdtrit(n - 1, 0.8)) * deviation / mean) ** 2

    assert stats.seeds_needed(mean, deviation) == next((n for n in range(2, 1001) if enough(n)), None)


def test_titles_with_points_name_their_own_files(tmp_path):
    frame = collect(*small())
    twice = pd.concat([frame, frame.assign(**{"task.rate": 0.0035})])
    asked = replace(figures.checked([STRIPS], frame)[0], name="a")
    names = figures.write(twice, asked, tmp_path, {})
    assert names == ["a-rate-0.001", "a-rate-0.0035"]
    assert {path.name for path in tmp_path.glob("*.svg")} == {f"{name}.svg" for name in names}
