"""A thousand empty cells under one sweep tool: `python -m benchmarks._sweep_tools TOOL --cells 1000 --workers 2`.

Each starts the same child (`_empty_cell.py`), a fresh process for every cell, and leaves a result for each on disk.
Prints how many results there are, and when the last one came.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CHILD = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_empty_cell.py"))]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """How cells run under it, in a folder of their own, so many at once; what it needs; and what it gives.

    few: cells that are enough to time it, where it is slow. commits: is a result whole and on the disk before it
    counts. resumes: does the same command after a kill -9 run what is missing. isolates: does a cell that crashes,
    hangs or fills the memory end alone.
    """

    run: Callable[[Path, int, int], int]
    package: str | None = None
    few: int | None = None
    commits: str
    resumes: str
    isolates: str


def run_one(tools: Mapping[str, Tool]) -> None:
    """The program: runs the tool that is named, and fails where a result is missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", choices=tools)
    parser.add_argument("--cells", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--folder", type=Path, help="where results are written; all nodes of a cluster see it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attnbench-", dir=given.folder) as folder:
        os.chdir(folder)
        Path("out").mkdir()
        began = time.time()
        found = tools[given.tool].run(Path(folder), given.cells, given.workers)
        last_s = max(path.stat().st_mtime for path in Path(folder).rglob("*.json")) - began
    if found != given.cells:
        sys.exit(f"{given.tool} left {found} results of {given.cells}.")
    print(json.dumps({"results": found, "last_s": last_s}))


def command(number: int) -> list[str]:
    return [*CHILD, str(number), f"out/{number}.json"]


def cell(number: int) -> None:
    subprocess.run(command(number), check=True)


def left(folder: Path) -> int:
    return len(list((folder / "out").glob("*.json")))


def attnbench(folder: Path, cells: int, workers: int) -> int:
    """The real supervisor and store, every wait for the disk included."""
    from attnbench.engine.local import run_local
    from attnbench.engine.shard import Limits, Supervisor
    from attnbench.engine.store import Store
    from attnbench.manifest import Cell

    def child(self: Supervisor, spec_path: Path, out_path: Path) -> list[str]:
        del self
        return [*CHILD, str(spec_path), str(out_path)]

    Supervisor.command = child
    store = Store(folder / "results")
    ids = [store.ask({"seed": seed, "threads": 1, "kind": "train"}) for seed in range(cells)]
    names = {"label": "empty", "variant": "empty", "mechanism": None, "model": "empty"}
    asked = [Cell(id=id, kind="train", seed=seed, estimate_s=1.0, **names) for seed, id in enumerate(ids)]
    run_local(store, asked, workers=workers, data=None, limits=Limits(), quiet=True)
    return sum(store.result(id) is not None for id in ids)


def loop(folder: Path, cells: int, workers: int) -> int:
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(cell, range(cells)))
    return left(folder)


def joblib(folder: Path, cells: int, workers: int) -> int:
    from joblib import Parallel, delayed

    Parallel(n_jobs=workers)(delayed(cell)(number) for number in range(cells))
    return left(folder)


def submitit(folder: Path, cells: int, workers: int) -> int:
    """It starts all at once, however many; so that the machine bears it, in batches. Its job is the fresh process."""
    import submitit

    executor = submitit.LocalExecutor(folder=folder / "log")
    for first in range(0, cells, workers):
        with executor.batch():
            numbers = range(first, min(first + workers, cells))
            jobs = [executor.submit(written, str(folder / f"out/{number}.json")) for number in numbers]
        for job in jobs:
            job.result()
    return left(folder)


def written(outcome: str) -> None:
    Path(outcome).write_text('{"status": "ok", "result": {"score": 1.0}}')


def snakemake(folder: Path, cells: int, workers: int) -> int:
    shell = f"{' '.join(CHILD)} {{wildcards.number}} {{output}}"
    Path("Snakefile").write_text(
        f"rule all:\n    input: [f'out/{{number}}.json' for number in range({cells})]\n"
        f"rule cell:\n    output: 'out/{{number}}.json'\n    shell: '{shell}'\n"
    )
    subprocess.run([sys.executable, "-m", "snakemake", "--quiet", "all", "--cores", str(workers)], check=True)
    return left(folder)


def doit(folder: Path, cells: int, workers: int) -> int:
    Path("dodo.py").write_text(
        f"def task_cell():\n    for number in range({cells}):\n        out = f'out/{{number}}.json'\n"
        f"        yield {{'name': str(number), 'targets': [out], 'uptodate': [True],\n"
        f"               'actions': [[*{CHILD!r}, str(number), out]]}}\n"
    )
    options = ["--verbosity", "0", "--reporter", "zero"]
    subprocess.run([sys.executable, "-m", "doit", "run", "-n", str(workers), *options], check=True)
    return left(folder)


def hydra(folder: Path, cells: int, workers: int) -> int:
    child = f"[*{CHILD!r}, str(config.number), f'{folder}/out/{{config.number}}.json']"
    Path("app.py").write_text(
        "import subprocess\nimport hydra\n\n@hydra.main(version_base=None, config_path=None)\n"
        f"def main(config):\n    subprocess.run({child}, check=True)\n\nmain()\n"
    )
    words = ["-m", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}", f"+number=range({cells})"]
    subprocess.run([sys.executable, "app.py", *words], stdout=subprocess.DEVNULL, check=True)
    return left(folder)


FREE = "yes, without limits"
TOOLS = {
    "attnbench": Tool(run=attnbench, commits="yes", resumes="yes", isolates="yes, with limits of time and memory"),
    "a loop of subprocess.run": Tool(run=loop, commits="no", resumes="no", isolates=FREE),
    "joblib": Tool(run=joblib, package="joblib", commits="no", resumes="no", isolates=FREE),
    "doit": Tool(run=doit, package="doit", commits="no: a file counts as it lies there", resumes="yes", isolates=FREE),
    "snakemake": Tool(
        run=snakemake,
        package="snakemake",
        commits="no: a file counts as it lies there",
        resumes="after --unlock, with --rerun-incomplete",
        isolates=FREE,
    ),
    "hydra, joblib launcher": Tool(
        run=hydra, package="hydra_plugins.hydra_joblib_launcher", few=200, commits="no", resumes="no", isolates=FREE
    ),
    "submitit, LocalExecutor": Tool(
        run=submitit, package="submitit", few=50, commits="no", resumes="no", isolates="yes, with a limit of time"
    ),
}

if __name__ == "__main__":
    run_one(TOOLS)
