"""The table of faults and outcomes, written from a run: `pytest -m fault --faults=results/faults`.

A test names its fault with `@pytest.mark.fault("F7", "a job of a higher partition preempts")`, once for each fault
that it is a test of. Faults that take long are chaos too; `-m fault` runs them all.
"""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests import invariants
from tests.slurm_cluster import SBIN

SHOWN = ("fault", "where", "what was done", "outcome", "what happened", "invariants", "seconds", "date", "commit")
COLUMNS = (*SHOWN, "SLURM", "test")
ABSOLUTE = re.compile(r"(?<!\S)/\S*/(?=\S)")  # a path of this machine, but for its last part


def entries(item: pytest.Item, call: pytest.CallInfo[None]) -> list[dict[str, Any]]:
    """A line of the table for each fault that a finished test is of."""
    outcome = "failed" if call.excinfo else "passed"
    if call.excinfo and call.excinfo.errisinstance(pytest.skip.Exception):
        outcome = "skipped"
    where = "SLURM" if "slurm" in getattr(item, "fixturenames", ()) else "local"
    told = str(call.excinfo.value).strip().splitlines()[:1] if call.excinfo else invariants.happened
    names = sorted(invariants.held)
    asked = getattr(item, "callspec", None)
    which = f" [{asked.id}]" if asked else ""
    return [
        {
            "fault": mark.args[0],
            "where": mark.kwargs.get("where", where),
            "what was done": mark.args[1] + which,
            "outcome": outcome,
            "what happened": ABSOLUTE.sub("", " ".join(told)),
            "invariants": " ".join(names),
            "seconds": round(call.duration, 1),
            "test": item.nodeid.replace("tests/", "", 1),
        }
        for mark in item.iter_markers("fault")
    ]


def write(folder: Path, found: Iterable[dict[str, Any]]) -> None:
    """faults.csv and faults.md. Lines of tests that were not run this time stay, each with its date and commit."""
    when, now, slurm = f"{datetime.now(UTC):%Y-%m-%d}", commit(), slurm_version()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "faults.csv"
    known = list(csv.DictReader(file.read_text().splitlines())) if file.is_file() else []
    merged = {(line["test"], line["fault"]): line for line in known}
    merged |= {(line["test"], line["fault"]): line | {"date": when, "commit": now, "SLURM": slurm} for line in found}
    lines = sorted(merged.values(), key=lambda line: (int(line["fault"][1:]), line["where"], line["test"]))
    with file.open("w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([line[name] for name in COLUMNS] for line in lines)
    (folder / "faults.md").write_text(markdown(folder, lines))


def markdown(folder: Path, lines: list[dict[str, Any]]) -> str:
    passed = sum(line["outcome"] == "passed" for line in lines)
    versions = ", ".join(sorted({line["SLURM"] for line in lines}))
    promises = [line.strip() for line in (invariants.__doc__ or "").splitlines() if line.strip().startswith("I")]
    text = [
        "# Faults and what became of them",
        "",
        f"Written by `pytest -m fault --faults={folder}` with SLURM {versions}: {passed} of {len(lines)} passed.",
        "",
        *(f"- {line[:2]}: {line[2:].strip()}" for line in promises),
        "",
        "| " + " | ".join(SHOWN) + " |",
        "|" + "---|" * len(SHOWN),
        *("| " + " | ".join(str(line[name]).replace("|", "\\|") for name in SHOWN) + " |" for line in lines),
    ]
    return "\n".join(text) + "\n"


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
