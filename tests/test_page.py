"""The page as a file: the numbers of the summary, small, self-contained, and nothing of a row is read as HTML."""

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attnbench.cli import main
from attnbench.reports import sheets
from attnbench.reports.page import pack, write
from attnbench.reports.page.content import content
from attnbench.reports.report import write_report
from tests import made_page
from tests.made_rows import small

ROOT = Path(__file__).parent.parent
HERE = Path(write.__file__).parent


class Elements(HTMLParser):
    """The elements of a page as a browser would find them, and the text of its data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.data, self.inside = "", False
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names.append(tag)
        self.inside = given.get("id") == "data"
        self.links += [str(given[name]) for name in ("src", "href") if name in given]

    def handle_endtag(self, tag: str) -> None:
        del tag
        self.inside = False

    def handle_data(self, data: str) -> None:
        self.data += data if self.inside else ""


def data_of(file: Path) -> dict[str, Any]:
    return json.loads(Elements(file.read_text(encoding="utf-8")).data)


def values(column: dict[str, Any], n: int) -> list[Any]:
    """A packed column, read anew."""
    if "one" in column:
        return [column["one"]] * n
    return column["each"] if "each" in column else [None if at < 0 else column["words"][at] for at in column["at"]]


def test_a_report_writes_a_page_with_the_tables_of_its_summary(tmp_path: Path):
    store, manifest = small()
    summary = write_report(store, manifest, tmp_path).read_text()
    (report,) = data_of(tmp_path / "report.html")["reports"]
    assert len(report["sheets"]) == summary.count("## ") - 1  # the last heading is that of the figures
    for sheet in report["sheets"]:
        one = sheets.Sheet(title=sheet["title"], caption=sheet["caption"], head=sheet["head"], rows=sheet["rows"])
        assert sheets.markdown(one) in summary
        assert sheet["latex"] in (tmp_path / "summary.tex").read_text()
    assert all(f"- {note}\n" in summary for note in report["notes"])


def test_the_same_rows_give_the_same_page(tmp_path: Path):
    store, manifest = small()
    shuffled = replace(manifest, cells=tuple(reversed(manifest.cells)))
    for name, asked in (("a", manifest), ("b", shuffled)):
        write_report(store, asked, tmp_path / name)
    assert (tmp_path / "a" / "report.html").read_bytes() == (tmp_path / "b" / "report.html").read_bytes()


def test_the_page_refers_to_nothing_outside_itself(tmp_path: Path):
    found = Elements(made_page.written(tmp_path, made_page.failing_part()).read_text(encoding="utf-8"))
    assert all(link.startswith(("#", "data:")) for link in found.links), found.links
    for file in HERE.glob("*.js"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|fetch\(", text)
        assert re.findall(r"https?://[^\"]+", text) in ([], ["http://www.w3.org/2000/svg"])  # a name, no address


@pytest.mark.parametrize("place", ["variant", "mechanism", "error", "sweep", "task.source", "host.name"])
def test_no_text_of_a_row_becomes_an_element(tmp_path: Path, place: str):
    rows = made_page.priced("full", "full", 3, 0.1, made_page.random.Random(0))
    plain = Elements(made_page.written(tmp_path, made_page.part_of(rows)).read_text(encoding="utf-8"))
    hostile = [{**row, place: f"</script>{made_page.HOSTILE}<!--\u2028"} for row in rows]
    part = made_page.part_of(hostile, sweep=str(hostile[0]["sweep"]), notes=(made_page.TRACEBACK,))
    file = made_page.written(tmp_path, part)
    found = Elements(file.read_text(encoding="utf-8"))
    assert found.names == plain.names
    assert found.names.count("script") == 1 + len(write.SCRIPTS)
    assert not re.search("[<>&\u2028\u2029]", found.data)  # for `</script ` ends a script too
    assert made_page.HOSTILE in json.dumps(json.loads(found.data))


def test_the_policy_allows_these_scripts_alone(tmp_path: Path):
    text = made_page.written(tmp_path, made_page.failing_part()).read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.group(1).split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy.group(1)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert rules["script-src"].split() == [write.digest(script) for script in scripts]


def test_columns_come_back_as_they_went_with_six_digits():
    rows = [
        made_page.row("train", f"v{i % 3}", "full", i, **{"result.x": i / 7, "host.b": i > 3, "task.n": 1234567 + i})
        for i in range(9)
    ]
    rows[4] |= {"result.x": float("nan"), "task.n": None, "started": None}
    rows[5] |= {"result.x": 1e-12 / 3, "host.b": 1}
    found = {one["name"]: values(one, 9) for one in pack.packed(rows, rows[0])}
    for name in ("id", "variant", "seed", "task.n", "host.b", "code.dirty"):
        assert [(type(one), one) for one in found[name]] == [(type(row[name]), row[name]) for row in rows], name
    assert found["result.x"][4] is None
    assert [one for i, one in enumerate(found["result.x"]) if i != 4] == pytest.approx(
        [row["result.x"] for i, row in enumerate(rows) if i != 4], rel=5e-6
    )
    assert found["started"][0] == "2023-11-14 22:13:20 UTC"
    assert found["started"][4] is None


def test_a_training_leaves_the_cost_to_its_cost_cell_unless_it_is_its_own():
    rows = made_page.priced("full", "full", 2, 0.1, made_page.random.Random(0))
    rows[2]["cost.params"] += 1
    found = {one["name"]: values(one, 3) for one in pack.packed(rows, rows[1])}
    assert found["cost.params"] == [rows[0]["cost.params"], None, rows[2]["cost.params"]]


def test_points_hold_the_means_of_the_tables_and_lead_to_their_cells():
    part = made_page.failing_part()
    found = content([part])
    (setting,) = found["reports"][0]["settings"]
    ids = next(values(one, found["cells"]["n"]) for one in found["cells"]["columns"] if one["name"] == "id")
    for line, point in zip(part.known[0].lines, setting["points"], strict=True):
        assert point["variant"] == line.variant
        wanted = [line.error.mean, line.error.low, line.error.high] if line.values else [None] * 3
        assert point["y"] == (pytest.approx(wanted, rel=1e-5) if line.values else wanted)
        cells = {cell.id for cell in part.manifest.cells if cell.variant == line.variant and cell.kind == "train"}
        assert {ids[place] for place in point["cells"]} == cells


def test_several_sweeps_share_a_page_its_colours_and_its_cells(tmp_path: Path):
    chance = made_page.random.Random(0)
    rows = [made_page.priced(name, name, 3, 0.1, chance) for name in ("full", "linear")]
    parts = [
        made_page.part_of([{**row, "sweep": name} for row in own], name) for name, own in zip("ab", rows, strict=True)
    ]
    found = data_of(made_page.written(tmp_path, *parts))
    assert [report["sweep"] for report in found["reports"]] == ["a", "b"]
    assert [group["name"] for group in found["groups"]] == ["full", "linear"]
    assert len({(group["color"], group["marker"]) for group in found["groups"]}) == 2
    places = [point["cells"] for report in found["reports"] for point in report["settings"][0]["points"]]
    assert len({place for own in places for place in own}) == 6


def test_the_verb_makes_a_page_of_each_sweep_and_one_of_all(tmp_path: Path):
    store, manifest = small()
    for name in ("a", "b"):
        own = replace(manifest, sweep=name)
        write_report(store, own, tmp_path / name)
        own.write(tmp_path / name / "cells.json")
        (tmp_path / name / "report.html").unlink()
    asked = ["report", "a", "b", "--results", str(tmp_path), "--quiet"]
    found = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert (found.exit_code, found.output) == (0, "")
    for name in ("a", "b"):
        assert [one["sweep"] for one in data_of(tmp_path / name / "report.html")["reports"]] == [name]
    assert [one["sweep"] for one in data_of(tmp_path / "report.html")["reports"]] == ["a", "b"]
    refused = CliRunner().invoke(main, [*asked, "--against", "c"])
    assert refused.exit_code == 2
    assert "--against compares one sweep with another; got 2." in refused.output


def test_an_axis_covers_all_points_and_a_floor_is_where_it_starts():
    chance = made_page.random.Random(0)
    rows = [
        row for i, name in enumerate(("full", "linear")) for row in made_page.priced(name, name, 3, 0.1 + i, chance)
    ]
    for row in rows:
        if row["kind"] == "train":
            row |= {"result.bits_per_byte": 0.85 + row.pop("result.rel_l2"), "result.floor": 0.85}
            row.pop("result.rel_mse")
    (setting,) = content([made_page.part_of(rows)])["reports"][0]["settings"]
    for plot in setting["plots"]:
        axis = plot["x"] if plot["kind"] == "strips" else plot["y"]
        assert axis["shift"] == 0.85
        assert axis["log"]
        assert all(
            axis["low"] < value - 0.85 < axis["high"] for point in setting["points"] for _, value in point["seeds"]
        )


def test_the_wheel_has_the_files_that_the_page_is_made_of(tmp_path: Path):
    pytest.importorskip("hatchling", reason="building a wheel needs hatchling (pip install '.[test]')")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"attnbench/reports/page/{file.name}" for file in HERE.iterdir() if file.is_file()}
    assert {f"attnbench/reports/page/{name}" for name in ("page.html", "page.css", "core.js", "write.py")} <= wanted
    assert wanted <= held


def test_every_script_is_small_and_in_the_page():
    names = {file.stem for file in HERE.glob("*.js")}
    assert names == set(write.SCRIPTS)
    for file in [*HERE.glob("*.js"), *HERE.glob("*.css"), *HERE.glob("*.html")]:
        lines = file.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 300, file.name
        assert file.suffix == ".css" or max(map(len, lines)) <= 120, file.name
