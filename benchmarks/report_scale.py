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
    runs: dict[str, tuple[int, list[Run], list[Run]]] = {}
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


def measure(root: Path, sweep: str, label: str, rounds: int) -> tuple[list[Run], list[Run]]:
    """Both in turn, after a round that is not counted: the report's runs, and the plain one's."""
    report = (sys.executable, "-m", "attnbench", "report", sweep, "--results", str(root))
    plain = (sys.executable, str(PLAIN), str(root / sweep / "rows.csv"), str(root / "plain"))
    asked = Subject("report", report, "Tables and figures"), Subject("plain", plain, "")
    found: tuple[list[Run], list[Run]] = ([], [])
    for number in range(rounds + 1):
        for subject, own in zip(asked, found, strict=True):
            run = timed(subject)
            print(f"{number}  {label}, {subject.label:8}{run.wall_s:8.2f} s, {run.cpu_s:.2f} s busy", file=sys.stderr)
            own += [run] if number else []
    return found


def page(runs: dict[str, tuple[int, list[Run], list[Run]]], rounds: int) -> str:
    """The table as Markdown, with where and with what it was made."""
    from benchmarks._host import here

    where = here("cpu")
    lines = [
        "# `attnbench report` over 10,000 rows",
        "",
        f"{where['when']}, {where['device']}, {where['cores']} cores, Python {where['python']}, commit "
        f"{where['commit']}; medians of {rounds} calls in turn, each a process of its own. Promised: {PROMISED_S:g} s.",
        "",
        "| | rows | seconds | from | to | cores busy [s] | plain pandas and seaborn [s] | busy [s] | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(row(label, *found) for label, found in runs.items())]) + "\n"


def row(label: str, rows: int, own: list[Run], plain: list[Run]) -> str:
    walls = [run.wall_s for run in own]
    wall, other = statistics.median(walls), statistics.median(run.wall_s for run in plain)
    busy, idle = (statistics.median(run.cpu_s for run in some) for some in (own, plain))
    spread = f"{min(walls):.2f} | {max(walls):.2f}"
    return (
        f"| {label} | {rows:,} | {wall:.2f} | {spread} | {busy:.2f} | {other:.2f} | {idle:.2f} | {wall / other:.2f} |"
    )


if __name__ == "__main__":
    main()
