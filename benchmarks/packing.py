"""What packing is worth: cells an hour of one sweep of small real trainings, one at a time and side by side.

    python -m benchmarks.packing                        fifteen cells of the quickstart, three rounds
    python -m benchmarks.packing --device cuda          sixty of them on a GPU
    python -m benchmarks.packing --cells 2 --epochs 1 --rounds 1        does it run

Beside it what one would otherwise take: the same cells in a loop in one process, and in a pool of processes (joblib),
both without isolation, limits or rows that survive. All ways take turns, each in a process of its own, timed from its
start to its end; all must come to the same numbers, on a CPU to the last bit.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from math import ceil, isclose
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._turns import ROOT, Turn, disturbed, ratio, spread, table, turn, write

CELLS = {"cpu": 15, "cuda": 60}
AIM = {"cpu": 1.4, "cuda": 4.0}  # times the cells an hour of one at a time, on two cores and on a large GPU
ONE, LOOP, POOL = "attnbench --workers 1", "a loop in one process", "a pool of processes"
GIVEN_UP = {
    LOOP: "a crash ends all; nothing survives; memory is not given back",
    POOL: "a crash ends the pool; nothing survives; memory is not given back",
}


def main() -> None:
    options = parsed()
    if options.way:
        print(json.dumps(WAYS[options.way](json.loads(options.plan.read_text()), options)))
        return
    with tempfile.TemporaryDirectory(prefix="attnbench-") as folder:
        data = options.data_dir or Path(folder, "data")
        plan = planned(options, data)
        Path(folder, "plan.json").write_text(json.dumps(plan))
        found = measured(options, Path(folder, "plan.json"), data)
    from benchmarks._host import here

    compared(found, options.device)
    where = here(options.device) | {"cells": len(plan["cells"]), "usable_cores": usable()}
    write(options.out, report(found, options, where), found, where)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cells an hour, one at a time and packed.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cells", type=int, help="15 on a CPU, 60 on a GPU")
    parser.add_argument("--epochs", type=int, default=10, help="of each training")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way has its turn")
    parser.add_argument("--workers", default="auto", help="what is compared with one at a time, with commas: auto,2,4")
    parser.add_argument("--jobs", type=int, help="processes of the pool; as many as cores, on a GPU at most eight")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "packing", help="folder of the table")
    parser.add_argument("--way", default="", help=argparse.SUPPRESS)
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def planned(options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """The cells of the sweep and what each asks; their data are made."""
    from attnbench import launch, paths
    from attnbench.check import check
    from attnbench.sweep import expand

    count = options.cells or CELLS[options.device]
    seeds = list(range(ceil(count / 5)))  # it has five mechanisms
    settings = [f"seeds={seeds}", f"task.epochs={options.epochs}"]
    checked = check(expand(paths.sweep_file("quickstart"), device=options.device, settings=settings))
    cells = [cell for cell in checked.manifest.cells if cell.kind == "train"][:count]
    asked = {cell.id: cell.spec for cell in checked.plan.cells}
    launch.prepare_one(asked[cells[0].id], data, quiet=True)
    return {"cells": [asdict(cell) for cell in cells], "specs": {cell.id: asked[cell.id] for cell in cells}}


def measured(options: argparse.Namespace, plan: Path, data: Path) -> dict[str, list[Turn]]:
    """The turns of every way, in rounds."""
    jobs = options.jobs or min(usable(), 8 if options.device == "cuda" else usable())
    told = {ONE: ["sweep", "--workers", "1"], LOOP: ["loop"], POOL: ["pool", "--jobs", str(jobs)]}
    told |= {f"attnbench --workers {word}": ["sweep", "--workers", word] for word in options.workers.split(",")}
    found: dict[str, list[Turn]] = {name: [] for name in sorted(told, key=lambda name: name in GIVEN_UP)}
    for _ in range(options.rounds):
        for name in found:
            way, *more = told[name]
            words = ["-m", "benchmarks.packing", "--way", way, *more, "--plan", str(plan), "--data-dir", str(data)]
            found[name].append(turn(words, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}))
            print(f"{name}: {found[name][-1].wall_s:.1f} s", file=sys.stderr, flush=True)
    return found


def usable() -> int:
    from attnbench.engine._places import usable_cores

    return usable_cores()


def sweep(plan: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """attnbench's supervisor: a child for each cell, rows committed."""
    from attnbench.engine.local import run_local
    from attnbench.engine.shard import Limits
    from attnbench.engine.store import Store
    from attnbench.manifest import Cell

    workers = "auto" if options.workers == "auto" else int(options.workers)
    with tempfile.TemporaryDirectory(prefix="attnbench-", dir=options.plan.parent) as folder:
        store, cells = Store(Path(folder)), [Cell(**cell) for cell in plan["cells"]]
        for spec in plan["specs"].values():
            store.ask(spec)
        run_local(store, cells, workers=workers, data=options.data_dir, limits=Limits(), quiet=True)
        rows = {cell.id: store.result(cell.id) for cell in cells}
    return {id: row["result"] if row else None for id, row in rows.items()}


def one(spec: dict[str, Any], data: str) -> dict[str, Any]:
    """A cell in this very process."""
    from attnbench import run

    outcome = run.execute(spec, Path(data), partial(run.train, cell=None))
    if outcome["error"]:
        raise RuntimeError(outcome["error"]["message"])
    return outcome["result"]


def loop(plan: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    return {id: one(spec, str(options.data_dir)) for id, spec in plan["specs"].items()}


def pool(plan: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    from joblib import Parallel, delayed

    specs: dict[str, Any] = plan["specs"]
    found = Parallel(n_jobs=options.jobs)(delayed(one)(spec, str(options.data_dir)) for spec in specs.values())
    return dict(zip(specs, list(found), strict=True))


WAYS = {"sweep": sweep, "loop": loop, "pool": pool}


def compared(found: Mapping[str, Sequence[Turn]], device: str) -> None:
    """Ends the program where a way came to other numbers than one cell at a time: then no time of it means anything."""
    first = found[ONE][0].said
    for name, turns in found.items():
        for numbers in (one.said for one in turns):
            alike = numbers == first if device == "cpu" else close(numbers, first)
            if not alike:
                sys.exit(f"{name} came to other numbers than {ONE}.")


def close(mine: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """On a GPU sums may be taken in another order."""
    pairs = [(mine[id][name], value) for id, numbers in other.items() for name, value in numbers.items()]
    return all(isclose(a, b, rel_tol=0.05) for a, b in pairs if isinstance(a, float))


def report(found: Mapping[str, Sequence[Turn]], options: argparse.Namespace, where: Mapping[str, Any]) -> str:
    """The table, under the words that say how it was made."""
    cells = where["cells"]
    rows = []
    for name, turns in found.items():
        hourly = sorted(3600 * cells / one.wall_s for one in turns)
        rate = spread(median(hourly), hourly[0], hourly[-1], "{:.0f}") + disturbed(turns)
        rows.append([name, rate, ratio(turns, found[ONE]), GIVEN_UP.get(name, "")])
    told = ", ".join(f"{key} {value}" for key, value in where.items() if value)
    command = f"python -m benchmarks.packing{' --device cuda' * (options.device == 'cuda')}"
    bits = ", bit for bit" * (options.device == "cpu")
    return f"""# Cells an hour, packed and one at a time

Made on {told}.
`{command}` makes it: {cells} trainings of the quickstart, {options.epochs} epochs each,
every way {options.rounds} times in turn, from the start of its process to its end. The median, with the extremes;
a ratio is that of runs of one round; ~ marks how much of the machine others took. All came to the same numbers{bits}.
The aim is {AIM[options.device]} times.

{table(["how", "cells an hour", "times one at a time", "what it gives up"], rows)}"""


if __name__ == "__main__":
    sys.path.insert(0, os.fspath(ROOT))
    main()
