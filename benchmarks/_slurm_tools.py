"""Empty cells on a SLURM under one tool: `python -m benchmarks._slurm_tools TOOL --cells 50 --workers 8 --folder DIR`.

SLURM_CONF and PATH lead to the cluster. Each tool asks for the same: one processor and 256 MiB, ten minutes, so many
jobs at once as there are workers.
"""

import shlex
import subprocess
import time
from pathlib import Path

from benchmarks._sweep_tools import CHILD, Tool, left, run_one, written

MIB, MINUTES = 256, 10


def attnbench(folder: Path, cells: int, workers: int) -> int:
    """The real controller: hold, nonce, frozen code, supervisors, store."""
    from attnbench.engine.shard import Limits
    from attnbench.engine.slurm import Request, Resources, run_slurm
    from attnbench.engine.store import Store
    from attnbench.manifest import Cell

    store = Store(folder / "results")
    ids = [store.ask({"seed": seed, "threads": 1, "kind": "train"}) for seed in range(cells)]
    names = {"label": "empty", "variant": "empty", "mechanism": None, "model": "empty"}
    asked = [Cell(id=id, kind="train", seed=seed, estimate_s=1.0, **names) for seed, id in enumerate(ids)]
    resources = Resources(hours=MINUTES / 60, gpus=0, cpus=1, memory_gib=MIB / 1024, parallel=workers)
    request = Request(resources=resources, limits=Limits(), child=tuple(CHILD))
    run_slurm(store, asked, request=request, wait=True, quiet=True)
    return sum(store.result(id) is not None for id in ids)


def array(folder: Path, cells: int, workers: int) -> int:
    """A bare array: a job for each cell, and a loop that asks whether all have left the queue."""
    script = f"{shlex.join(CHILD)} $SLURM_ARRAY_TASK_ID {folder}/out/$SLURM_ARRAY_TASK_ID.json"
    asked = [f"--array=0-{cells - 1}%{workers}", f"--mem={MIB}", f"--time={MINUTES}", "--output=/dev/null"]
    job = said("sbatch", "--parsable", *asked, "--wrap", script).strip()
    while said("squeue", "-h", "-j", job, "-o", "%i"):
        time.sleep(0.5)
    return left(folder)


def said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def submitit(folder: Path, cells: int, workers: int) -> int:
    import submitit

    executor = submitit.SlurmExecutor(folder=folder / "log")
    executor.update_parameters(time=MINUTES, mem=f"{MIB}MB", array_parallelism=workers)
    for job in executor.map_array(written, [str(folder / f"out/{number}.json") for number in range(cells)]):
        job.result()
    return left(folder)


SLURM_TOOLS = {
    "attnbench": Tool(run=attnbench, commits="yes", resumes="yes", isolates="yes, with limits of time and memory"),
    "a bare sbatch array": Tool(run=array, commits="no", resumes="no", isolates="yes, a job each"),
    "submitit, map_array": Tool(
        run=submitit,
        package="submitit",
        commits="no",
        resumes="what SLURM itself requeues",
        isolates="yes, a job each",
    ),
}

if __name__ == "__main__":
    run_one(SLURM_TOOLS)
