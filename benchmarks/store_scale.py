"""How long `attnbench status` and `attnbench sweep` take over a finished sweep of 100,000 cells, beside other stores.

    python -m benchmarks.store_scale [--cells 100000] [--rounds 5] [--folder DIR] [--out FILE]

Makes the store (minutes, and about 2.5 GiB at full size; `--folder` keeps it for the next call), then times each
command as a process of its own, as a user would, in turn. What is read lies in the page cache, as after any first look.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
READERS = Path(__file__).with_name("_store_readers.py")
STATUS_S, SWEEP_S = 5.0, 10.0  # what is promised at 100,000 cells


class Subject(NamedTuple):
    """Something to time. cold: without the cache. promise: seconds that it may take. told: what it must print."""

    label: str
    command: tuple[str, ...]
    told: str
    cold: bool = False
    promise: float | None = None


class Run(NamedTuple):
    """Seconds that one call took, and that it kept a core busy."""

    wall_s: float
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cells", type=int, default=100_000, help="a multiple of 1,000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the store is made, or was; else a temporary folder")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attnbench-scale-") as own:
        folder = (options.folder or Path(own)).absolute()
        said = prepare(folder, options.cells)
        runs = measure(folder, subjects(folder, options.cells), options.rounds)
        text = page(options, said, runs)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def prepare(folder: Path, cells: int) -> str:
    """Makes the store and the rivals' files where they are not there; returns what a cell takes on the disk."""
    from attnbench.sweep import expand
    from benchmarks._made_store import fill, footprint, sweep_text
    from benchmarks._store_readers import write

    file = folder / "scale.yaml"
    if not (file.is_file() and file.read_text() == sweep_text(cells)):
        shutil.rmtree(folder / "results", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        (draft := folder / "draft.yaml").write_text(sweep_text(cells))
        fill(folder / "results", expand(draft, device="cpu"))
        for rival in folder.glob("rows.*"):
            rival.unlink()
        write(folder)
        draft.rename(file)  # last, so that a store that is only half there is made again
    taken = footprint(folder / "results", cells)
    return (
        f"A cell takes {taken['inodes']:.1f} inodes and {taken['kib']:.1f} KiB on the disk; "
        f"its row has {taken['row_kib']:.1f} KiB."
    )


def subjects(folder: Path, cells: int) -> list[Subject]:
    """The commands; the first one also brings the manifest that `status` reads."""
    attnbench, where = (sys.executable, "-m", "attnbench"), ("--results", str(folder / "results"))
    status = (*attnbench, "status", "scale", *where)
    sweep = (*attnbench, "sweep", str(folder / "scale.yaml"), "--launcher", "local", *where)
    ended, nothing, same = f"{cells} ok", "nothing is started", f'{{"ok": {cells}}}'
    return [
        Subject("`sweep`, no cache", sweep, nothing, cold=True, promise=SWEEP_S),
        Subject("`sweep`", sweep, nothing, promise=SWEEP_S),
        Subject("`status`, no cache", status, ended, cold=True, promise=STATUS_S),
        Subject("`status`", status, ended, promise=STATUS_S),
        *(
            Subject(label, (sys.executable, str(READERS), word, str(folder)), same)
            for word, label in (
                ("files", "`json.load` of every cell's file"),
                ("jsonl", "one JSONL file"),
                ("sqlite", "one SQLite file"),
            )
        ),
    ]


def measure(folder: Path, asked: list[Subject], rounds: int) -> dict[Subject, list[Run]]:
    """Every subject once a round, after one round that is not counted."""
    runs: dict[str, list[Run]] = {subject.label: [] for subject in asked}
    time.sleep(3)  # a row that was written a moment ago is not cached
    for number in range(rounds + 1):
        for subject in asked:
            if subject.cold:
                shutil.rmtree(folder / "results" / "cache", ignore_errors=True)
            run = timed(subject)
            print(f"{number}  {subject.label:34}{run.wall_s:8.2f} s", file=sys.stderr, flush=True)
            runs[subject.label] += [run] if number else []
    return {subject: runs[subject.label] for subject in asked}


def timed(subject: Subject) -> Run:
    """One call, seen to tell what it should."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(subject.command, cwd=ROOT, capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - start, os.times()
    if done.returncode or subject.told not in done.stdout:
        sys.exit(f"{subject.label} did not say {subject.told!r}:\n{done.stdout}{done.stderr}")
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return Run(wall_s, used)


def page(options: argparse.Namespace, said: str, runs: dict[Subject, list[Run]]) -> str:
    """The table as Markdown, with where and with what it was made."""
    from benchmarks._host import here

    where = here("cpu")
    lines = [
        f"# Commands over a finished sweep of {options.cells:,} cells",
        "",
        f"{where['when']}, {where['device']}, {where['cores']} cores, Python {where['python']}, "
        f"commit {where['commit']}; medians of {options.rounds} calls in turn, each a process of its own, "
        f"with all that is read in the page cache. {said}",
        "",
        "| | seconds | from | to | of which a core was busy | beside `json.load` of every file | promised |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    plain = next(middle(own) for subject, own in runs.items() if "json.load" in subject.label)
    return "\n".join([*lines, *(row(subject, own, plain) for subject, own in runs.items())]) + "\n"


def row(subject: Subject, own: list[Run], plain: float) -> str:
    walls = [run.wall_s for run in own]
    busy = statistics.median(run.cpu_s for run in own)
    promised = f"{subject.promise:g}" if subject.promise else ""
    times = f"{middle(own):.2f} | {min(walls):.2f} | {max(walls):.2f} | {busy:.2f}"
    return f"| {subject.label} | {times} | {middle(own) / plain:.2f} | {promised} |"


def middle(own: list[Run]) -> float:
    return statistics.median(run.wall_s for run in own)


if __name__ == "__main__":
    main()
