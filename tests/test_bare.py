"""`attnbench run cost MECHANISM`: what is typed becomes a section of a sweep file, and rows become lines."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from attnbench import _bare
from attnbench.cli import main
from attnbench.engine import local

SHOWN = {"step_ms": "ms", "limit": "limit", "noisy": "noisy"}


def row(side: int, ms: float | None, name: str = "full", status: str = "ok", **cost: Any) -> tuple[str, dict[str, Any]]:
    spec = {"site": {"shape": [side, side]}, "mechanism": {"name": name}}
    found = {"spec": spec, "status": status, "cost": {"step_ms": ms, **cost}, "result": {}}
    return f"{name}, {side}x{side}, float32, forward", found


def test_words_of_run_are_sections():
    assert _bare.section_of("cost") == "efficiency"
    assert _bare.section_of("darcy") is None


def test_knobs_go_to_the_section_or_to_the_mechanism():
    words = ["--sides", "8,16", "--dtypes=bfloat16", "--levels", "2", "--rounds", "1", "--channels", "32"]
    assert _bare.asked("efficiency", "mano", words) == {
        "question": "What does efficiency say?",
        "mechanisms": [{"name": "mano", "levels": 2}],
        "efficiency": {"sides": [8, 16], "dtypes": "bfloat16", "rounds": 1, "channels": 32},
    }


def test_several_mechanisms_are_told_apart_by_their_names():
    found = _bare.asked("efficiency", "mano,linear", ["--sides", "8", "--mano.levels", "2", "--linear.heads", "2"])
    assert found["mechanisms"] == [{"name": "mano", "levels": 2}, {"name": "linear", "heads": 2}]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cost", "manoo", "--sides", "8"], "no mechanism 'manoo'. Did you mean 'mano'"),
        (["cost", "mano", "--side", "8"], "nobody has a knob 'side'. Did you mean 'sides'"),
        (["cost", "mano", "--sides", "8", "--sides", "16"], "--sides is given twice"),
        (["cost", "mano,full", "--sides", "8", "--heads", "2"], "--heads is a knob of mano and full"),
        (["cost", "mano"], "needs sides of grids or lengths"),
        (["cost", "mano", "--sides", "8", "--seed", "3"], "leave out --model and --seed"),
        (["cost", "mano", "--sides", "8", "--passes", "backward"], "passes"),
    ],
)
def test_what_is_wrong_is_refused_in_one_sentence(words, told, tmp_path):
    done = CliRunner().invoke(main, ["run", *words, "--results", str(tmp_path)])
    assert done.exit_code == 1
    assert told in done.output
    assert len(done.output.splitlines()) == 1


def test_a_line_has_the_medians_over_rounds_by_size():
    rows = [row(16, 9.0, limit="memory", noisy=True), row(8, 1.0), row(8, 4.0), row(8, 2.0)]
    labelled = {f"{label}, round {number}": found for number, (label, found) in enumerate(rows)}
    lines = _bare.table(labelled, SHOWN).splitlines()
    assert lines[0].split() == ["ms", "limit", "noisy"]
    assert lines[1].split() == ["full,", "8x8,", "float32,", "forward", "2", "-", "-"]
    assert lines[2].split()[4:] == ["9", "memory", "yes"]


def test_what_ran_out_of_memory_says_so():
    label, found = row(8, None, status="oom")
    assert "oom" in _bare.table({label: found}, SHOWN)


def test_cells_run_once_and_are_printed_again(tmp_path, monkeypatch):
    ran = []

    def run(store, cells, **_):
        for cell in cells:
            ran.append(cell.id)
            attempt = store.begin(cell.id, where={"who": "test"})
            store.commit(cell.id, {"status": "ok", "cost": {"step_ms": 1.5}}, attempt.uuid)
            attempt.end("ok", wall_s=1.0)
        return 0

    monkeypatch.setattr(local, "run_local", run)
    words = ["run", "cost", "full", "--sides", "8", "--rounds", "1", "--results", str(tmp_path), "-q", "--unproven"]
    first = CliRunner().invoke(main, words)
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(main, [*words, "--json"])
    assert len(ran) == 2  # forward and both
    assert {found["cost"]["step_ms"] for found in json.loads(again.output)} == {1.5}
    assert "1.5" in first.output
