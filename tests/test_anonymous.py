"""An anonymous report names no host, no user and no path, in none of its files; another one says all."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from attnbench.reports import anonymous
from attnbench.reports.report import made_report
from tests.made_page import HOSTILE
from tests.made_rows import FakeStore, small, training

HOST, USER = "gpu17.cluster.example", "jdoe_42"
HOME = f"/home/{USER}"
TRACEBACK = (
    f'Traceback\n  File "{HOME}/my work/train.py", line 3, in run\n  on gpu17 by JDOE_42\nOSError: {HOME}/data/x.npy'
)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeStore, object]:
    monkeypatch.setenv("USER", USER)
    store, manifest = small()
    for row in store.rows.values():
        row["host"] |= {"name": HOST, "slurm_job": "4711"}
        row["spec"]["task"]["knobs"]["folder"] = f"{HOME}/data/set one"
    gone = training(manifest, "full", 0)
    store.rows.pop(gone)
    error = {"type": "OSError", "message": f"no {HOME}/data/x.npy on {HOST}", "traceback": TRACEBACK, "tries": 2}
    store.set_aside[gone] = error
    cells = tuple(
        replace(cell, variant=f"{cell.variant} folder={HOME}/data", label=f"{cell.label} {HOME}/data")
        for cell in manifest.cells
    )
    return store, replace(manifest, cells=cells, question=f"What did {USER} measure on {HOST}?")


def texts(folder: Path) -> dict[str, str]:
    """Every file of a report as text; a table as what is in it."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        frame = pd.read_parquet(file).to_csv() if file.suffix == ".parquet" else None
        found[file.name] = frame or file.read_bytes().decode("utf-8", errors="replace")
    return found


def test_no_file_names_the_host_the_user_or_a_path(tmp_path: Path, planted):
    store, manifest = planted
    manifest.write(tmp_path / "cells.json")
    made = made_report(store, manifest, tmp_path, hide=True)
    made.part.manifest.write(tmp_path / "cells.json")
    found = texts(tmp_path)
    assert {"rows.csv", "rows.parquet", "summary.md", "summary.tex", "report.html", "cells.json"} <= found.keys()
    for name, text in found.items():
        for word in (HOST, "gpu17", USER, "jdoe", HOME, "/home/", "4711", "my work"):
            assert word.lower() not in text.lower(), (name, word)
    assert anonymous.remaining(tmp_path, made.part.veil) == []
    assert (
        "(path)/train.py"
        in json.loads(found["report.html"].split('id="data">')[1].split("</script>")[0])["cells"][
            "tracebacks"
        ].popitem()[1]
    )


def test_an_open_report_says_all(tmp_path: Path, planted):
    store, manifest = planted
    made_report(store, manifest, tmp_path)
    found = texts(tmp_path)
    for word in (HOST, HOME, TRACEBACK.splitlines()[1].strip().replace('"', '\\"')):
        assert word in found["report.html"]
    assert HOST in found["rows.csv"]


def test_numbers_and_names_of_the_catalogue_stay(tmp_path: Path, planted):
    store, manifest = planted
    for name, hide in (("open", False), ("hidden", True)):
        made_report(store, manifest, tmp_path / name, hide=hide)
    frames = [pd.read_csv(tmp_path / name / "rows.csv") for name in ("open", "hidden")]
    kept = ["id", "task", "model", "mechanism", "seed", "status", "result.rel_l2", "cost.params", "code.commit"]
    assert frames[0].filter(kept).equals(frames[1].filter(kept))


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("3 samples/s, 1/(j+1), a / b", "3 samples/s, 1/(j+1), a / b"),
        ("see https://arxiv.org/abs/2307.1 and N^2/4", "see https://arxiv.org/abs/2307.1 and N^2/4"),
        ("read /scratch/a/b.npy: no", "read (path): no"),
        ("at ~/x and C:\\Users\\jane\\x.txt", "at (path) and (path)"),
        ("file:///data/x", "(path)"),
        ("File '/opt/env/lib/torch.py'", "File '(path)/torch.py'"),
        ("on Node7, node70 and node7.", "on (host), node70 and (host)."),
        (HOSTILE, HOSTILE.replace("/script", "(path)")),
    ],
)
def test_what_is_a_path_and_what_is_not(told: str, wanted: str):
    veil = anonymous.Veil({"node7": "(host)"}, "", {})
    assert veil.text(told) == wanted


def test_two_paths_that_differ_still_differ():
    rows = [{"task.folder": f"/data/{name}", "mechanism": "full", "host.name": "full"} for name in "ab"]
    veil = anonymous.veil_of(rows)
    assert [veil.text(row["task.folder"]) for row in rows] == ["(path 1)", "(path 2)"]
    assert "full" not in veil.words  # a host that is called like a mechanism says nothing


def test_files_of_others_that_name_somebody_are_told(tmp_path: Path):
    (tmp_path / "notes.md").write_text("measured on Node7")
    (tmp_path / "good.md").write_text("measured on node70")
    assert anonymous.remaining(tmp_path, anonymous.Veil({"node7": "(host)"}, "", {})) == ["notes.md"]
