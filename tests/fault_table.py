"""The table of faults and outcomes, written from a run: `pytest -m fault --faults results/faults`.

A test names its fault with `@pytest.mark.fault("F7", "a job of a higher partition preempts")`, once for each fault
that it is a test of. Faults that take long are chaos too; `-m fault` runs them all.
"""

import csv
import json
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests import invariants
from tests.slurm_cluster import SBIN

COLUMNS = ("fault", "where", "what was done", "outcome", "what happened", "invariants", "seconds", "test")


def entries(item: pytest.Item, call: pytest.CallInfo[None]) -> list[dict[str, Any]]:
    """A line of the table for each fault that a finished test is of."""
    outcome = "failed" if call.excinfo else "passed"
    if call.excinfo and call.excinfo.errisinstance(pytest.skip.Exception):
        outcome = "skipped"
    where = "SLURM" if "slurm" in getattr(item, "fixturenames", ()) else "local"
    told = str(call.excinfo.value).strip().splitlines()[:1] if call.excinfo else invariants.happened
    names = sorted(invariants.held)
    return [
        {
            "fault": mark.args[0],
            "where": mark.kwargs.get("where", where),
            "what was done": mark.args[1],
            "outcome": outcome,
            "what happened": " ".join(told),
            "invariants": " ".join(names),
            "seconds": round(call.duration, 1),
            "test": item.nodeid.replace("tests/", "", 1),
        }
        for mark in item.iter_markers("fault")
    ]


def write(folder: Path, found: Iterable[dict[str, Any]]) -> None:
    """faults.csv and faults.md."""
    lines = sorted(found, key=lambda line: (int(line["fault"][1:]), line["where"], line["test"]))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "faults.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([line[name] for name in COLUMNS] for line in lines)
    passed = sum(line["outcome"] == "passed" for line in lines)
    text = [
        "# Faults and what became of them",
        "",
        f"Written by `pytest -m fault --faults {folder}` on {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, "
        f"SLURM {slurm_version()}: {passed} of {len(lines)} passed.",
        "",
        *(line.strip() for line in (invariants.__doc__ or "").splitlines() if line.strip().startswith("I")),
        "",
        "| " + " | ".join(COLUMNS[:-1]) + " |",
        "|" + "---|" * len(COLUMNS[:-1]),
        *("| " + " | ".join(str(line[name]).replace("|", "\\|") for name in COLUMNS[:-1]) + " |" for line in lines),
    ]
    text[4:-2] = [line.replace("  ", " ") + "  " if line.startswith("I") else line for line in text[4:-2]]
    (folder / "faults.md").write_text("\n".join(text) + "\n")


def commit() -> str:
    """The commit that was tested, and whether the checkout had changes."""
    root = Path(__file__).parents[1]
    said = [
        subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()
        for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    ]
    return f"{said[0] or 'unknown'}{' with changes' if said[1] else ''}"


def slurm_version() -> str:
    program = shutil.which("slurmctld", path=SBIN)
    if program is None:
        return "absent"
    return subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stdout.split()[-1]


def kept(report: pytest.TestReport) -> list[dict[str, Any]]:
    """What a report carries from the process that ran the test."""
    return [json.loads(str(text)) for name, text in report.user_properties if name == "fault"]
