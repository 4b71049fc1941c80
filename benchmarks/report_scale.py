"""How long `attnbench report` takes over 10,000 rows, beside the same rows in plain pandas and seaborn.

    python -m benchmarks.report_scale [--rounds 3] [--only WORDS] [--out FILE]

Makes rows of finished sweeps of three shapes, and a store of a fourth, see _made_rows.py, and times the command as a
process of its own, as a user would, in turn with the plain one; what is read lies in the page cache. Beside the wall
time stands the time that cores were busy, which tells of a machine that is not alone.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._made_rows import SHAPES, STORED, fill, fill_store
from benchmarks.store_scale import Run, Subject, timed

PLAIN = Path(__file__).with_name("_plain_report.py")
PROMISED_S = 10.0  # for tables and figures of 10,000 rows, on two cores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only shapes that have these words in their names")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    options = parser.parse_args()
    runs: dict[str, tuple[int, list[float], list[Run], list[Run]]] = {}
    for number, label in enumerate([*SHAPES, STORED]):
        if options.only in label:
            with tempfile.TemporaryDirectory(prefix="attnbench-report-") as folder:
                root, sweep = Path(folder), f"scale{number}"
                rows = fill(root, sweep, SHAPES[label]) if label in SHAPES else fill_store(root, sweep)
                runs[label] = rows, *measure(root, sweep, label, options.rounds)
    text = page(runs, options.rounds)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def measure(root: Path, sweep: str, label: str, rounds: int) -> tuple[list[float], list[Run], list[Run]]:
    """Both in turn, after a round that is not counted: seconds until tables and figures are there, and of both all."""
    report = (sys.executable, "-m", "attnbench", "report", sweep, "--results", str(root))
    plain = (sys.executable, str(PLAIN), str(root / sweep / "rows.csv"), str(root / "plain"))
    asked = Subject("report", report, "Tables and figures"), Subject("plain", plain, "")
    there: list[float] = []
    found: tuple[list[Run], list[Run]] = ([], [])
    for number in range(rounds + 1):
        for subject, own in zip(asked, found, strict=True):
            start = time.time()
            run = timed(subject)
            print(f"{number}  {label}, {subject.label:8}{run.wall_s:8.2f} s, {run.cpu_s:.2f} s busy", file=sys.stderr)
            own += [run] if number else []
            there += [written(root / sweep) - start] if number and subject.label == "report" else []
    return there, *found


def written(folder: Path) -> float:
    """When the last file of a report was written, the page not counted."""
    return max(path.stat().st_mtime for path in folder.rglob("*") if path.is_file() and path.suffix != ".html")


def page(runs: dict[str, tuple[int, list[float], list[Run], list[Run]]], rounds: int) -> str:
    """The table as Markdown, with where and with what it was made."""
    from benchmarks._host import here

    where = here("cpu")
    lines = [
        "# `attnbench report` over 10,000 rows",
        "",
        f"{where['when']}, {where['device']}, {where['cores']} cores, Python {where['python']}, commit "
        f"{where['commit']}; medians of {rounds} calls in turn, each a process of its own, with least and most. "
        f"Promised: tables and figures in {PROMISED_S:g} s. Plain: pandas and seaborn; the ratio is that of all to it.",
        "",
        "| | rows | tables and figures [s] | all, with the page [s] | cores busy [s] | plain [s] | busy [s] | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(row(label, *found) for label, found in runs.items())]) + "\n"


def row(label: str, rows: int, there: list[float], own: list[Run], plain: list[Run]) -> str:
    walls = [run.wall_s for run in own]
    other = statistics.median(run.wall_s for run in plain)
    busy, idle = (statistics.median(run.cpu_s for run in some) for some in (own, plain))
    return (
        f"| {label} | {rows:,} | {spread(there)} | {spread(walls)} | {busy:.2f} | {other:.2f} | {idle:.2f} | "
        f"{statistics.median(walls) / other:.2f} |"
    )


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} – {max(seconds):.2f})"  # noqa: RUF001


if __name__ == "__main__":
    main()
