"""What a sweep tool costs beyond the cells: a thousand that do nothing, under attnbench and under others, in turn.

    python -m benchmarks.sweep_overhead                     on this machine; the others: pip install ".[bench]"
    python -m benchmarks.sweep_overhead --slurm             fifty cells on a SLURM of two nodes, started for it
    python -m benchmarks.sweep_overhead --cells 10 --rounds 1       does it run

Every tool starts a fresh process for each cell, which writes one small file; none of them gets anything else to do.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._slurm_tools import SLURM_TOOLS
from benchmarks._sweep_tools import TOOLS, Tool
from benchmarks._turns import ROOT, Turn, disturbed, spread, table, turn, write

HEAD = ("tool", "seconds a cell", "times attnbench", "commits", "resumes", "isolates")


def main() -> None:
    options = parsed()
    tools = {name: tool for name, tool in (SLURM_TOOLS if options.slurm else TOOLS).items() if options.only in name}
    absent = [name for name, tool in tools.items() if tool.package and not installed(tool.package)]
    found = {name: [] for name in tools if name not in absent}
    with cluster() if options.slurm else here() as (variables, folder):
        for _ in range(options.rounds):
            for name, turns in found.items():
                turns.append(timed(name, tools[name], options, variables, folder))
                print(f"{name}: {turns[-1].wall_s:.1f} s", file=sys.stderr, flush=True)
    from benchmarks._host import here as host

    where = host("cpu") | {"cells": options.cells, "at once": options.workers}
    write(options.out, report(found, absent, tools, options, where), found, where)


def parsed() -> argparse.Namespace:
    from attnbench.engine._places import usable_cores

    parser = argparse.ArgumentParser(description="Seconds a cell that does nothing, under several sweep tools.")
    parser.add_argument("--slurm", action="store_true", help="on a SLURM of two nodes instead of on this machine")
    parser.add_argument("--cells", type=int, help="1,000 here, 50 on SLURM")
    parser.add_argument("--workers", type=int, help="cells at once; as many as cores here, eight on SLURM")
    parser.add_argument("--rounds", type=int, default=3, help="how often each tool has its turn")
    parser.add_argument("--only", default="", help="only tools whose name holds this")
    parser.add_argument("--folder", type=Path, help="where cells lie meanwhile, for a disk of your choice")
    parser.add_argument("--out", type=Path, help="folder of the table")
    options = parser.parse_args()
    options.cells = options.cells or (50 if options.slurm else 1000)
    options.workers = options.workers or (8 if options.slurm else usable_cores())
    options.out = options.out or ROOT / "results" / f"sweep_overhead{'_slurm' * options.slurm}"
    return options


def installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def here() -> Iterator[tuple[Mapping[str, str], Path | None]]:
    yield {}, None


@contextmanager
def cluster() -> Iterator[tuple[Mapping[str, str], Path | None]]:
    """A real SLURM of two nodes for as long as it is needed, and a folder that both see."""
    from tests.slurm_cluster import Cluster, missing

    if why := missing():
        sys.exit(why)
    slurm = Cluster()
    try:
        slurm.up()
        with tempfile.TemporaryDirectory(prefix="attnbench-") as folder:
            yield {name: slurm.env[name] for name in ("SLURM_CONF", "PATH")}, Path(folder)
            slurm.clear()
    finally:
        slurm.down()


def cells_of(tool: Tool, options: argparse.Namespace) -> int:
    return min(options.cells, tool.few or options.cells)


def timed(
    name: str, tool: Tool, options: argparse.Namespace, variables: Mapping[str, str], folder: Path | None
) -> Turn:
    """One turn of a tool, from the start of its process to its end."""
    module = "benchmarks._slurm_tools" if options.slurm else "benchmarks._sweep_tools"
    numbers = ["--cells", str(cells_of(tool, options)), "--workers", str(options.workers)]
    place = options.folder or folder
    more = ["--folder", str(place)] if place else []
    return turn(["-m", module, name, *numbers, *more], {"OMP_NUM_THREADS": "1", **variables})


def report(
    found: Mapping[str, Sequence[Turn]],
    absent: Sequence[str],
    tools: Mapping[str, Tool],
    options: argparse.Namespace,
    where: Mapping[str, Any],
) -> str:
    """The table, under the words that say how it was made."""
    each = {name: sorted(one.wall_s / cells_of(tools[name], options) for one in of) for name, of in found.items()}
    ours = each.get("attnbench", [])
    rows = []
    for name, seconds in each.items():
        ratio = f"{median(seconds) / median(ours):.2f}" if ours else ""
        few = f" of {cells_of(tools[name], options)} cells" * (cells_of(tools[name], options) < options.cells)
        time_each = spread(median(seconds), seconds[0], seconds[-1], "{:.3f}") + few + disturbed(found[name])
        rows.append([name, time_each, ratio, tools[name].commits, tools[name].resumes, tools[name].isolates])
    rows += [[name, "not installed", "", *(getattr(tools[name], word) for word in HEAD[3:])] for name in absent]
    told = ", ".join(f"{key} {value}" for key, value in where.items() if value)
    on = "on a SLURM of two nodes, both on this machine" if options.slurm else "on this machine"
    return f"""# Seconds for a cell that does nothing

Made on {told}.
`python -m benchmarks.sweep_overhead{" --slurm" * options.slurm}` makes it: {options.cells:,} cells {on},
{options.rounds} times in turn, from the start of a tool's process to its end. The median, with the extremes;
~ marks how much of the machine others took. Every tool starts a fresh process for each cell; what else it does for it
stands beside its time: commits: is a result whole and on the disk before it counts; resumes: does the same command
after a kill -9 run what is missing; isolates: does a cell that crashes, hangs or fills the memory end alone.

{table(HEAD, rows)}"""


if __name__ == "__main__":
    sys.path.insert(0, os.fspath(ROOT))
    main()
