"""What a person reads of a sweep in tables: nothing dropped, nothing invented, the same bytes from the same rows."""

import random
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from attnbench.reports.collect import collect
from attnbench.reports.report import screen, write_report
from attnbench.reports.summary import tables
from tests.made_rows import SMALL, fail, pricing, small, training


def line_of(text: str, variant: str, sheet: str = "error") -> list[str]:
    part = text.partition(f": {sheet}\n")[2]
    row = next(line for line in part.splitlines() if line.startswith(f"| {variant} |"))
    return [field.strip() for field in row.split("|")[1:-1]]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path):
    store, manifest = small()
    cells = list(manifest.cells)
    random.Random(1).shuffle(cells)
    for folder, asked in (("a", manifest), ("b", replace(manifest, cells=tuple(cells)))):
        write_report(store, asked, tmp_path / folder)
    for name in ("rows.csv", "summary.md", "summary.tex", "figures/variants.png", "figures/variants.pdf"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_hole_is_seen_and_the_mean_is_over_the_others(tmp_path: Path):
    store, manifest = small()
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


def test_a_variant_without_numbers_stays_in_words(tmp_path: Path):
    store, manifest = small()
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


def test_a_seed_that_is_there_twice_is_said_to_be_so(tmp_path: Path):
    store, manifest = small()
    twice = training(manifest, "full", 2)
    cells = tuple(replace(cell, seed=1) if cell.id == twice else cell for cell in manifest.cells)
    text = write_report(store, replace(manifest, cells=cells), tmp_path).read_text()
    assert line_of(text, "full")[1] == "2 / 3"
    assert line_of(text, "full")[-1] == "1 of a seed that is there already"


def test_a_name_with_signs_of_mathematics_is_drawn_as_it_stands(tmp_path: Path):
    store, manifest = small()
    cells = tuple(replace(cell, variant=cell.variant.replace("full", "full $^$ 2")) for cell in manifest.cells)
    assert write_report(store, replace(manifest, cells=cells), tmp_path).is_file()


def test_nothing_is_bold_unless_an_interval_separates(tmp_path: Path):
    store, manifest = small()
    for seed, shift in enumerate((0.004, -0.003, 0.001)):
        near = store.rows[training(manifest, "full", seed)]["result"]["rel_l2"] + shift
        store.rows[training(manifest, "fno", seed)]["result"]["rel_l2"] = near
    text = write_report(store, manifest, tmp_path).read_text()
    assert line_of(text, "full")[-3] == "reference"
    assert "**" not in line_of(text, "fno")[-3]
    assert int(line_of(text, "fno")[-2]) > 10
    assert line_of(text, SMALL[3])[-3].startswith("**+")


def test_latex_escapes_what_latex_would_read(tmp_path: Path):
    store, manifest = small()
    cells = tuple(replace(cell, variant=cell.variant.replace(" ", "_50%&")) for cell in manifest.cells)
    write_report(store, replace(manifest, cells=cells), tmp_path)
    text = (tmp_path / "summary.tex").read_text()
    assert r"swin\_50\%\&window=2" in text
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 3
    rows = [line for line in text.splitlines() if line.startswith("full &")]
    assert [row.count(" & ") for row in rows] == [9, 10]


def test_latex_gets_no_sign_that_its_text_fonts_set_as_another(tmp_path: Path):
    """In LaTeX's own fonts, < and > of plain text are printed as marks of Spanish."""
    store, manifest = small()
    write_report(store, manifest, tmp_path)
    text = (tmp_path / "summary.tex").read_text()
    assert "> 0.99" in (tmp_path / "summary.md").read_text()
    assert "$>$ 0.99" in text
    assert not re.search(r"(?<!\$)[<>](?!\$)", text)


def test_the_cost_table_holds_what_cost_cells_measured_and_no_time_of_a_training(tmp_path: Path):
    store, manifest = small()
    for row in store.rows.values():
        row["cost"]["train_wall_s"] = 54321.0
    text = write_report(store, manifest, tmp_path).read_text()
    head = next(line for line in text.partition(": cost\n")[2].splitlines() if line.startswith("| variant |"))
    assert [field.strip() for field in head.split("|")[2:-1]] == [
        *("parameters", "forward, per sample [FLOP]", "its FFTs [FLOP]"),
        *("training [samples/s]", "inference [samples/s]"),
        *("peak, training [MiB]", "peak, inference [MiB]", "front, speed", "front, memory", "timing"),
    ]
    for name in ("summary.md", "summary.tex"):
        told = (tmp_path / name).read_text()
        assert "one training" not in told.lower()
        assert not re.search("54[ ,]?3", told)


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_fits_and_names_every_variant(width: int):
    store, manifest = small()
    fail(store, training(manifest, "full", 0), "timeout")
    console = Console(width=width, file=StringIO())
    console.print(screen(collect(store, manifest), width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert all(variant in text for variant in SMALL)
    assert "1 timeout" in text
    assert "11 of 12 trainings ok" in " ".join(text.split())


def test_a_table_needs_no_drawing_library():
    heavy = "('matplotlib', 'seaborn', 'torch')"
    script = f"import sys, attnbench.reports.report; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
