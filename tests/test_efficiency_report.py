"""What a report says of bare mechanisms: planted curves come out, holes are seen, impossible shares are refused."""

import re
import subprocess
import sys
from io import StringIO
from math import exp, inf, isnan, log, sqrt
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from attnbench.cell import identity
from attnbench.manifest import Cell, Manifest
from attnbench.reports import efficiency_figures, sheets
from attnbench.reports.collect import collect
from attnbench.reports.efficiency import Costs, Curve, Place, costs
from attnbench.reports.efficiency_sheets import efficiency_sheets, exponent, notes, times
from attnbench.reports.report import screen, write_report
from attnbench.reports.rows import records
from tests.made_costs import CROSSING, TIMES, Row, frame, gone, made
from tests.made_rows import FakeStore


def known(rows: list[Row]) -> Costs:
    found = costs(records(frame(rows)))
    assert found is not None
    return found


def curve(found: Costs, variant: str, way: str = "forward"):
    return next(one for one in found.curves if one.variant == variant and way in one.setting)


def fields(found: Costs, title: str, variant: str) -> list[str]:
    """The row of a variant in the first sheet of this title that has it."""
    sheet = next(one for one in efficiency_sheets(found) if one.title.startswith(title))
    return list(next(row for row in sheet.rows if variant in row[:2]))


def test_rows_of_other_kinds_make_no_curves():
    assert costs([{"kind": "train", "status": "ok"}]) is None


def test_planted_exponents_and_the_planted_crossover_come_out():
    found = known(made())
    for variant, truth in (("full", 2.0), ("linear", 1.0), ("mano", 1.0)):
        grown = curve(found, variant).grown["time"]
        assert grown.low - 0.02 <= truth <= grown.high + 0.02
    crossing = found.crossing(curve(found, "linear"), "time")
    assert crossing is not None
    assert crossing.low * 0.98 <= CROSSING <= crossing.high * 1.02
    assert fields(found, "Growth", "full")[2] == "N^2"
    assert "as declared" in fields(found, "Growth", "full")
    assert "always in 256 to 16,384" in fields(found, "From which size", "identity")


def test_a_claim_that_is_not_met_is_called_faster():
    rows = [row | ({"cost.order": "N"} if row["mechanism"] == "full" else {}) for row in made()]
    assert "faster" in fields(known(rows), "Growth", "full")
    rows = [row | ({"cost.order": "N^2"} if row["mechanism"] == "linear" else {}) for row in made()]
    assert "slower" in fields(known(rows), "Growth", "linear")


def test_an_interval_that_holds_two_orders_declares_none():
    """Six sizes a doubling apart under a constant of ten times as much, known to 4 %: N as well as N^1.5."""
    n = [256 * 2.0**k for k in range(6)]
    rows = tuple({"status": "ok", "cost.step_ms": 10240 + one, "cost.order": "N"} for one in n)
    for spread, told in ((0.002, "as declared"), (0.04, "cannot tell")):
        places = [
            Place(tokens=int(one), shape="x", rows=(row,), spread=spread) for one, row in zip(n, rows, strict=True)
        ]
        own = Curve(variant="a", mechanism="a", setting=(), places=tuple(places))
        assert exponent(own, "time")[2] == told
        assert 0.5 < own.grown["time"].high - own.grown["time"].low < 1 or told == "as declared"


def test_the_spread_of_a_point_is_that_between_processes():
    found = curve(known(made(noise=0.1, rounds=5)), "linear")
    assert found.places[0].spread == pytest.approx(0.1 / 5**0.5, rel=0.35)
    assert found.places[0].df == 20
    one = curve(known(made(rounds=1)), "linear")
    assert one.places[0].spread == pytest.approx((log(1.01) - log(0.99)) / 3.92, rel=1e-2)
    assert any("one process" in note for note in notes(known(made(rounds=1))))


def test_running_out_of_memory_is_a_point_and_ends_the_curve():
    rows = [gone(row, "oom") if row["mechanism"] == "full" and row["site.tokens"] > 9000 else row for row in made()]
    found = known(rows)
    full = curve(found, "full")
    assert [point.value == inf for point in full.points("time")] == [False] * 3 + [True] * 2
    assert full.largest is not None
    assert full.largest.shape == "64x64"
    row = fields(found, "forward: time", "full")
    assert row[-2:] == ["oom", "oom"]
    assert "full does not fit" in fields(found, "forward: time", "linear")[-1]
    assert "64x64, then 96x96 oom" in fields(found, "Growth", "full")
    assert any("3 sizes tell no exponent" in field for field in fields(found, "Growth", "full"))


def test_a_cell_that_failed_or_is_missing_is_seen_and_is_no_number():
    rows = [gone(row, "failed") if row["id"].startswith("linear-forward-64") else row for row in made()]
    found = known(rows)
    assert fields(found, "forward: time", "linear")[3] == "failed"
    assert len(curve(found, "linear").points("time")) == 4


def test_a_speed_up_is_bold_only_where_it_is_sure():
    row = fields(known(made()), "forward: time", "linear")
    told = re.search(r" \(\*\*(\d\.\d\d)x\*\*\)$", row[5])
    assert told
    assert float(told[1]) == pytest.approx(128**2 / CROSSING, rel=0.06)  # three processes, 2 % apart
    assert "**" not in row[1]
    rows = [row | {"cost.noisy": True} for row in made()]
    noisy = fields(known(rows), "forward: time", "linear")
    assert "~" in noisy[5]
    assert "**" not in noisy[5]
    assert any("noisy" in note for note in notes(known(rows)))


def test_a_tie_with_full_attention_is_not_bold():
    rows = made(noise=0.2)
    for row in rows:
        if row["mechanism"] == "mano":
            twin = next(one for one in rows if one["id"] == row["id"].replace("mano", "full"))
            row["cost.step_ms"] = twin["cost.step_ms"] * (1.02 if row["round"] % 2 else 0.99)
    assert not [field for field in fields(known(rows), "forward: time", "mano") if "**" in field]
    found = known(rows)
    assert "cannot tell" in str(fields(found, "From which size", "mano"))


def test_a_speed_up_between_two_processes_each_is_bold_in_no_more_than_25_of_1000_ties():
    """Two processes know little of their own spread: with the quantile of a normal it would be 15 of 100."""
    chance, bold, draws = np.random.default_rng(0), 0, 1000
    for _ in range(draws):
        logs = chance.normal(0, 0.05, (2, 2))
        sides = [
            Place(tokens=1, shape="1", rows=tuple(ok(exp(one)) for one in own), spread=own.std(ddof=1) / sqrt(2), df=1)
            for own in logs
        ]
        bold += "**" in times(sides[0], sides[1], "time")
    assert bold / draws <= 0.025 + 0.01


def ok(ms: float) -> Row:
    return {"status": "ok", "cost.step_ms": ms}


def test_a_share_above_one_is_refused():
    rows = [row | ({"cost.peak_share": 1.2} if row["mechanism"] == "mano" else {}) for row in made()]
    found = known(rows)
    assert "above 1: refused" in fields(found, "Share", "mano")
    assert "120" not in " ".join(fields(found, "Share", "mano")[-2:])
    assert any("counted wrongly" in note and "mano" in note for note in notes(found))
    assert not any("counted wrongly" in note for note in notes(known(made())))


def test_no_verdict_rests_on_times_taken_while_others_were_at_work():
    rows = [row | {"cost.foreign_cpu": 0.4} for row in made()]
    found = known(rows)
    assert "cannot tell ~" in fields(found, "Growth", "full")
    assert fields(found, "From which size", "linear")[2].endswith("~")
    assert not fields(found, "From which size", "linear")[3].endswith("~")  # memory does not mind


def test_the_end_of_such_a_sweep_is_told_in_a_terminal():
    shown = Console(width=120, record=True, file=StringIO())
    shown.print(screen(frame(made()), 120))
    text = shown.export_text()
    assert "40 of 40 points ok, 0 noisy." in text
    assert "always in 256 to 16,384" in text


def test_settings_are_apart_and_forward_comes_first():
    found = known(made())
    assert [found.named(setting) for setting in found.settings] == ["forward", "forward and backward"]
    ratio = curve(found, "linear", "both").places[2].log_ms - curve(found, "linear").places[2].log_ms
    assert ratio == pytest.approx(log(3), abs=0.1)


def test_sheets_can_be_set_in_markdown_and_latex():
    for number, sheet in enumerate(efficiency_sheets(known(made()))):
        assert all(len(row) == len(sheet.head) for row in sheet.rows)
        assert sheets.markdown(sheet).startswith("## ")
        assert "\\toprule" in sheets.latex(sheet, f"tab:{number}")


def test_figures_show_points_crosses_and_rings(tmp_path: Path):
    rows = [gone(row, "oom") if row["mechanism"] == "full" and row["site.tokens"] > 16000 else row for row in made()]
    found = known(rows)
    figure = efficiency_figures.over_tokens(found, "time")
    for axes in figure.axes:
        drawn = [one.get_gid() for one in axes.lines]
        assert drawn.count("oom") == 1
        assert drawn.count("ring") == 2  # linear and mano; identity is always cheaper
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert {line.get_gid() for axes in efficiency_figures.roofline(found).axes for line in axes.lines} >= {"roof"}
    assert efficiency_figures.write(found, tmp_path) == ["time_over_tokens", "memory_over_tokens", "roofline"]
    assert {file.suffix for file in tmp_path.iterdir()} == {".png", ".pdf", ".svg"}


def stored() -> tuple[FakeStore, Manifest]:
    """The planted rows as a store holds them: blocks in records, by the hash of what was asked."""
    store, cells = FakeStore(), []
    for row in made(rounds=1):
        side = int(row["site.shape"].split("x")[0])
        spec = {"schema": 1, "protocol": 1, "kind": "efficiency", "device": "cpu", "dtype": "float32", "threads": 0}
        spec |= {"mechanism": {"name": row["mechanism"], "version": 1, "knobs": {}}, "gpus": 0, "round": row["round"]}
        spec |= {"site": {"channels": 64, "shape": [side, side], "causal": False}, "pass": row["pass"], "batch": 1}
        id = identity(spec)
        cost = {word[5:]: value for word, value in row.items() if word.startswith("cost.")}
        store.specs[id] = spec
        store.rows[id] = {"spec": spec, "status": "ok", "cost": cost, "host": {"device": "a processor"}}
        store.rows[id] |= {"code": {"fingerprint": "0a", "entries": row["code.entries"]}, "data": {}, "error": None}
        named = {"label": row["label"], "variant": row["variant"], "mechanism": row["mechanism"]}
        cells.append(Cell(id=id, kind="efficiency", model=None, seed=None, estimate_s=9.0, **named))
    return store, Manifest(sweep="costs", question="What does it cost?", device="cpu", cells=tuple(cells))


def test_a_sweep_without_trainings_has_a_report(tmp_path: Path):
    store, manifest = stored()
    page = write_report(store, manifest, tmp_path).read_text()
    for title in ("## forward: time [ms]", "## Growth", "## From which size on", "## Share of what the machine can do"):
        assert title in page
    assert "figures/time_over_tokens.png" in page
    assert "\\toprule" in (tmp_path / "summary.tex").read_text()
    again = write_report(FakeStore(), manifest, tmp_path).read_text()  # from rows.csv alone
    assert "read from rows.csv" in again
    assert [line for line in again.splitlines() if line.startswith("| full")] == [
        line for line in page.splitlines() if line.startswith("| full")
    ]


def test_a_row_says_where_it_was_measured():
    store, manifest = stored()
    row = records(collect(store, manifest))[0]
    assert row["site.tokens"] == int(row["site.shape"].split("x")[0]) ** 2
    assert (row["site.channels"], row["batch"], row["round"], row["task"], row["model"]) == (64, 1, 0, None, None)
    assert row["mechanism"] in TIMES


def test_a_cell_that_was_not_measured_is_a_hole_in_the_table(tmp_path: Path):
    store, manifest = stored()
    lost = next(cell for cell in manifest.cells if cell.label == "linear, 64x64, forward, round 0")
    del store.rows[lost.id]
    page = write_report(store, manifest, tmp_path).read_text()
    assert "40 cells of efficiency asked: 39 ok, 1 missing." in page
    row = next(line for line in page.splitlines() if line.startswith("| linear |"))
    assert row.split("|")[4].strip() == "missing"


def test_reading_curves_needs_no_torch():
    code = (
        "import sys; from attnbench.reports import efficiency_sheets, efficiency_figures; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_is_not_known_is_not_a_number():
    rows = [row | {"cost.memory_mib": None} for row in made()]
    found = curve(known(rows), "linear")
    assert found.points("memory") == []
    assert isnan(found.grown["memory"].p)
