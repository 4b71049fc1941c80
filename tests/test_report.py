"""What a person reads of a sweep: nothing dropped, nothing invented, the same bytes from the same rows."""

import random
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from attnbench import figures
from attnbench.collect import collect, gather
from attnbench.manifest import Manifest
from attnbench.report import screen, write_report
from attnbench.rows import read_csv, records, table, write_csv, write_parquet
from attnbench.summary import tables
from tests.made_rows import FakeStore, ablation

WORDS = ("rows.csv", "summary.md", "summary.tex")
SMALL = ("full", "fno", "swin window=2 shift=True", "swin window=2 shift=False")
MANO = ("levels=1", "levels=2")
LEVELS = {"kind": "lines", "x": "mechanism.levels", "mechanism": "mano", "panel": "mechanism.window"}
LEVELS |= {"color": "mechanism.downsample", "style": "mechanism.upsample"}
SPEED = {"kind": "scatter", "x": "cost.train_samples_per_s", "color": "mechanism"}


@pytest.fixture
def made() -> tuple[FakeStore, Manifest]:
    """Four variants, three seeds, no figures but one."""
    store, manifest = ablation(3)
    figure = {"name": "variants", "kind": "variants", "y": "result.rel_l2", "x": None}
    return store, replace(only(manifest, *SMALL), figures=(figure,))


def only(manifest: Manifest, *variants: str) -> Manifest:
    return replace(manifest, cells=tuple(cell for cell in manifest.cells if cell.variant in variants))


def training(manifest: Manifest, variant: str, seed: int) -> str:
    return next(cell.id for cell in manifest.cells if cell.variant == variant and cell.seed == seed)


def pricing(manifest: Manifest, variant: str) -> str:
    return next(cell.id for cell in manifest.cells if cell.variant == variant and cell.kind == "cost")


def fail(store: FakeStore, id: str, status: str) -> None:
    """A row that did not end well, with numbers that nobody may read."""
    store.rows[id] |= {"status": status, "result": {"rel_l2": 0.0}, "cost": {}, "error": {"type": "E", "message": "m"}}


def line_of(text: str, variant: str, sheet: str = "error") -> list[str]:
    part = text.partition(f": {sheet}\n")[2]
    row = next(line for line in part.splitlines() if line.startswith(f"| {variant} |"))
    return [field.strip() for field in row.split("|")[1:-1]]


# Rows


def test_every_cell_has_a_row_whatever_became_of_it(made: tuple[FakeStore, Manifest]):
    store, manifest = made
    ids = [training(manifest, "full", seed) for seed in range(3)]
    del store.rows[ids[0]], store.rows[ids[1]]
    store.set_aside[ids[1]] = {"type": "KeyError", "message": "'heads'", "frame": "x.py:3", "traceback": "..."}
    fail(store, ids[2], "timeout")
    rows = {row["id"]: row for row in records(collect(store, manifest))}
    assert list(rows) == sorted(cell.id for cell in manifest.cells)
    assert [rows[id]["status"] for id in ids] == ["missing", "failed", "timeout"]
    assert rows[ids[1]]["error"] == "KeyError: 'heads'"
    assert rows[ids[0]]["mechanism.heads"] == 4


def test_a_cell_that_never_reached_the_store_is_described_as_its_siblings(made: tuple[FakeStore, Manifest]):
    store, manifest = made
    id = training(manifest, "full", 1)
    del store.rows[id], store.specs[id]
    row = next(row for row in records(collect(store, manifest)) if row["id"] == id)
    assert (row["task"], row["task.side"], row["mechanism.heads"], row["seed"]) == ("darcy", 32, 4, 1)


def test_trainings_carry_the_price_of_their_variant_and_keep_their_own(made: tuple[FakeStore, Manifest]):
    store, manifest = made
    price = store.rows[pricing(manifest, "full")]["cost"]
    price["train_wall_s"] = -1.0
    own = store.rows[training(manifest, "full", 2)]["cost"]["train_wall_s"]
    row = next(row for row in records(collect(store, manifest)) if row["id"] == training(manifest, "full", 2))
    assert row["cost.train_samples_per_s"] == price["train_samples_per_s"]
    assert (row["cost.train_wall_s"], row["cost.status"]) == (own, "ok")


def test_a_csv_file_gives_back_the_frame(tmp_path: Path, made: tuple[FakeStore, Manifest]):
    store, manifest = made
    store.rows[training(manifest, "full", 0)]["code"]["commit"] = "0123456"
    store.rows[training(manifest, "full", 1)]["error"] = {"type": "E", "message": 'a, "b"\nc\r\nd'}
    store.rows[training(manifest, "full", 2)]["host"]["gpus"] = ["a", "b"]
    frame = collect(store, manifest, mixed=True)
    write_csv(frame, tmp_path / "rows.csv")
    write_parquet(frame, tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "rows.csv"), frame, check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "rows.parquet"), frame, check_exact=True)
    assert "0123456" in set(frame["code.commit"])
    kinds = {name: str(frame[name].dtype) for name in ("seed", "cost.noisy", "result.rel_l2", "mechanism.window")}
    assert kinds == {"seed": "Int64", "cost.noisy": "boolean", "result.rel_l2": "float64", "mechanism.window": "Int64"}


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-300, 5e-324, 1e22, 12345678901, True, "1e5x", "nan", -3])
def test_no_digit_is_lost(tmp_path: Path, value: Any):
    frame = table([{"id": "a", "result.x": value}, {"id": "b"}])
    write_csv(frame, tmp_path / "rows.csv")
    found = records(read_csv(tmp_path / "rows.csv"))
    assert found[0]["result.x"] == value
    assert type(found[0]["result.x"]) is type(value)
    assert found[1]["result.x"] is None


def test_rows_of_different_code_are_refused_unless_asked(made: tuple[FakeStore, Manifest], tmp_path: Path):
    store, manifest = made
    store.rows[training(manifest, "full", 1)]["code"]["fingerprint"] = "f2"
    with pytest.raises(ValueError, match=r"2 versions of the code \(15 rows of f1, 1 rows of f2\).*--mixed"):
        write_report(store, manifest, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert "2 versions of the code" in write_report(store, manifest, tmp_path, mixed=True).read_text()


def test_rows_of_different_data_are_refused_for_one_task(made: tuple[FakeStore, Manifest]):
    store, manifest = made
    store.rows[training(manifest, "full", 1)]["data"]["hash"] = "sha256:bb"
    with pytest.raises(ValueError, match="darcy come from 2 different data sets"):
        collect(store, manifest)


def test_committed_rows_are_read_where_the_store_is_empty(made: tuple[FakeStore, Manifest], tmp_path: Path):
    store, manifest = made
    write_report(store, manifest, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in WORDS}
    text = write_report(FakeStore(), manifest, tmp_path).read_text()
    assert "read from rows.csv" in text
    assert (tmp_path / "rows.csv").read_bytes() == before["rows.csv"]
    assert (tmp_path / "summary.tex").read_bytes() == before["summary.tex"]
    more = replace(manifest, cells=(*manifest.cells, replace(manifest.cells[-1], id="f" * 20, seed=9)))
    gathered = gather(FakeStore(), more, tmp_path)
    assert len(gathered.frame) == len(more.cells)
    assert any("lacks 1 of the cells" in note for note in gathered.notes)


# Tables


def test_the_same_rows_give_the_same_bytes(made: tuple[FakeStore, Manifest], tmp_path: Path):
    store, manifest = made
    cells = list(manifest.cells)
    random.Random(1).shuffle(cells)
    for folder, asked in (("a", manifest), ("b", replace(manifest, cells=tuple(cells)))):
        write_report(store, asked, tmp_path / folder)
    for name in (*WORDS, "figures/variants.png", "figures/variants.pdf"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_hole_is_seen_and_the_mean_is_over_the_others(made: tuple[FakeStore, Manifest], tmp_path: Path):
    store, manifest = made
    fail(store, training(manifest, "full", 1), "oom")
    kept = [store.rows[training(manifest, "full", seed)]["result"]["rel_l2"] for seed in (0, 2)]
    found = next(line for line in tables(collect(store, manifest))[0].lines if line.variant == "full")
    assert found.error.mean == pytest.approx(sum(kept) / 2)
    assert (found.ok, found.asked, found.trouble) == (2, 3, "1 oom")
    text = write_report(store, manifest, tmp_path).read_text()
    assert "12 trainings asked: 11 ok, 1 oom." in text
    row = line_of(text, "full")
    assert (row[1], row[-1]) == ("2 / 3", "1 oom")
    assert row[2].startswith(f"{sum(kept) / 2:.2f}")


def test_a_variant_without_numbers_stays_in_words(made: tuple[FakeStore, Manifest], tmp_path: Path):
    store, manifest = made
    for seed in range(3):
        fail(store, training(manifest, "fno", seed), "diverged")
    fail(store, pricing(manifest, "full"), "oom")
    store.rows[pricing(manifest, SMALL[2])]["cost"]["noisy"] = True
    text = write_report(store, manifest, tmp_path).read_text()
    assert line_of(text, "fno")[1:4] == ["0 / 3", "3 diverged", "–"]  # noqa: RUF001
    assert line_of(text, "full", "cost")[1:8] == ["oom"] * 7
    assert line_of(text, SMALL[2], "cost")[-1] == "noisy"
    latex = (tmp_path / "summary.tex").read_text()
    for variant in SMALL:
        assert f"| {variant} |" in text
        assert variant in latex


def test_nothing_is_bold_unless_an_interval_separates(made: tuple[FakeStore, Manifest], tmp_path: Path):
    store, manifest = made
    for seed, shift in enumerate((0.004, -0.003, 0.001)):
        near = store.rows[training(manifest, "full", seed)]["result"]["rel_l2"] + shift
        store.rows[training(manifest, "fno", seed)]["result"]["rel_l2"] = near
    text = write_report(store, manifest, tmp_path).read_text()
    assert line_of(text, "full")[-3] == "reference"
    assert "**" not in line_of(text, "fno")[-3]
    assert int(line_of(text, "fno")[-2]) > 10
    assert line_of(text, SMALL[3])[-3].startswith("**+")


def test_latex_escapes_what_latex_would_read(made: tuple[FakeStore, Manifest], tmp_path: Path):
    store, manifest = made
    cells = tuple(replace(cell, variant=cell.variant.replace(" ", "_50%&")) for cell in manifest.cells)
    write_report(store, replace(manifest, cells=cells), tmp_path)
    text = (tmp_path / "summary.tex").read_text()
    assert r"swin\_50\%\&window=2" in text
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 3
    rows = [line for line in text.splitlines() if line.startswith("full &")]
    assert [row.count(" & ") for row in rows] == [7, 9]


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_fits_and_names_every_variant(made: tuple[FakeStore, Manifest], width: int):
    store, manifest = made
    fail(store, training(manifest, "full", 0), "timeout")
    console = Console(width=width, file=StringIO())
    console.print(screen(collect(store, manifest), width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert all(variant in text for variant in SMALL)
    assert "1 timeout" in text
    assert "11 of 12 trainings ok" in " ".join(text.split())


def test_a_table_needs_no_drawing_library():
    script = "import sys, attnbench.report; print([m for m in ('matplotlib', 'seaborn', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# Figures


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
def test_a_figure_of_what_is_not_there_is_refused(
    made: tuple[FakeStore, Manifest], tmp_path: Path, figure: dict[str, Any], message: str
):
    store, manifest = made
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
