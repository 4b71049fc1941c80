"""The child process of a cell: carries out one spec and writes its outcome as a file.

    python -m attnbench.run SPEC.json OUTCOME.json --data DIR [--cell DIR]     a cell
    python -m attnbench.run SPEC.json OUTCOME.json --data DIR --prepare     the data of its task, and nothing else

It knows nothing of stores, sweeps or clusters: a supervisor starts it, watches it, and commits what it wrote. In the
folder of the cell it leaves checkpoints of its training, and the weights that a task is asked to keep. For a cell of
several GPUs it starts as many processes of its own, see _ranks.py.
"""

import argparse
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import torch

import tasks
from attnbench import _ranks, flops, host, measure, models, plugins
from attnbench.cell import identity
from attnbench.models import Mechanism, counted, maker
from attnbench.models._origins import READ, weights_read
from mechanisms import configure
from tasks import _parallel
from tasks._checkpoint import publish
from tasks._step import AS_USUAL, how
from tasks._weights import hashed, packed

Outcome = dict[str, Any]
OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
EARLY = "partial.json"  # beside the outcome: where and with what code the cell runs
EVERY = "ATTNBENCH_CHECKPOINT_S"  # variable with the seconds between two checkpoints within an epoch
CHECKPOINT, WEIGHTS = "checkpoint", "weights.safetensors"  # in the folder of a cell
CELL_ID = re.compile("[0-9a-f]{20}")
PREPARING = "preparing"  # opens a line of progress on standard output: `preparing 12 512`


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attnbench.run")
    parser.add_argument("spec", type=Path)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cell", type=Path, help="folder that all attempts at the cell share")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--rank", type=int, help="number of this process among those that train the cell together")
    given = parser.parse_args()
    spec = json.loads(given.spec.read_text())
    work = prepare if given.prepare else KINDS[spec["kind"]]
    if work is train:
        work = partial(train, cell=given.cell)
        if spec.get("gpus", 1) > 1:
            several(given, spec, work)
            return
    write(given.outcome, execute(spec, given.data, work, tell=partial(write, given.outcome.with_name(EARLY))))


def several(given: argparse.Namespace, spec: dict[str, Any], work: Callable[[dict[str, Any], Path], Outcome]) -> None:
    """A cell that several processes train together: starts them, or is one of them."""
    if given.rank is None:
        write(given.outcome, _ranks.together(given.outcome, spec["gpus"], sys.argv[1:]))
        return
    _ranks.bound()
    early = given.outcome.with_name(f"rank{given.rank}.{EARLY}" if given.rank else EARLY)

    def joined(spec: dict[str, Any], data: Path) -> Outcome:
        _parallel.join(_ranks.meeting(given.outcome), given.rank, spec["gpus"], spec["device"])
        return work(spec, data)

    found = execute(spec, given.data, joined, tell=partial(write, early), rank=given.rank)
    _ranks.leave(found, _ranks.left_by(given.outcome, given.rank))


def write(file: Path, outcome: Outcome) -> None:
    """Appears whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(outcome))
    part.replace(file)


def execute(
    spec: dict[str, Any],
    data: Path,
    work: Callable[[dict[str, Any], Path], Outcome],
    tell: Callable[[Outcome], None] = lambda _: None,
    rank: int = 0,
) -> Outcome:
    """The outcome of a spec, also when it fails: running out of memory or diverging is a result, an error is told.

    tell: called with what is known before the work begins, for rows of cells that have to be killed.
    rank: of several processes, the number of this one.
    """
    outcome: Outcome = {block: {} for block in ("result", "cost", "host", "data", "code", "raw")}
    outcome |= {"status": "ok", "error": None}
    start = perf_counter()
    try:
        set_up(spec, rank)
        plugins.join()
        find_entries(spec)
        outcome["code"] = host.code()
        outcome["host"] = host.host(spec["device"]) | host.unproven((spec.get("mechanism") or {}).get("name"))
        tell({name: outcome[name] for name in ("host", "code")})
        outcome |= work(spec, data)
    except torch.OutOfMemoryError as error:
        outcome |= {"status": "oom", "error": told(error)}
    except tasks.Diverged as error:
        outcome |= {"status": "diverged", "error": told(error)}
    except Exception as error:  # whatever it is, the supervisor records it and the other cells go on
        outcome |= {"status": "oom" if out_of_memory(error) else "error", "error": told(error)}
    outcome["cost"] = outcome["cost"] | {"run_wall_s": perf_counter() - start}
    return outcome


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out where torch raises no error of that name: its CPU allocator and CUDA's libraries do so."""
    told = isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return told or isinstance(error, MemoryError)


def set_up(spec: dict[str, Any], rank: int = 0) -> None:
    """Threads, determinism and the device, as the spec says. Raises RuntimeError where the device is missing.

    Of several processes each has its part of the cores, and the GPU of its number.
    """
    gpus = max(1, spec.get("gpus", 1))
    torch.set_num_threads(spec["threads"] or max(1, len(os.sched_getaffinity(0)) // gpus))
    if spec["device"] == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("the cell asks for cuda, and torch finds no CUDA device here")
    if spec["device"] == "cuda" and gpus > 1:
        if (found := torch.cuda.device_count()) < gpus:
            raise RuntimeError(f"the cell asks for {gpus} GPUs, and torch finds {found} here")
        torch.cuda.set_device(rank)
    torch.backends.cudnn.benchmark = False  # it picks kernels by a race, so that equal runs would differ
    torch.backends.cudnn.allow_tf32 = False  # on by default for convolutions alone: float32 is to mean the same for all
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(spec["device"] == "cpu")
    deterministic: Any = torch.utils.deterministic  # whose attributes type checkers do not see
    deterministic.fill_uninitialized_memory = spec["kind"] != "cost"  # it takes up to 5 % of a step, which is measured


def find_entries(spec: dict[str, Any]) -> None:
    """Imports the files of the cell's task, model and mechanism, and no others: their contents enter `code.entries`."""
    tasks.find(spec["task"]["name"])
    if "model" not in spec:  # data are made for a task alone
        return
    models.find(spec["model"]["name"])
    if inside := mechanism_of(spec):
        counted(inside)


def train(spec: dict[str, Any], data: Path, cell: Path | None = None) -> Outcome:
    """Trains and tests the cell's model; the data must be there.

    cell: the folder of the cell, which all attempts at it share; without it a training that is killed is lost.
    """
    READ.clear()  # of this cell alone
    knobs, first = started(spec["task"]["knobs"], cell)
    task = made_task(spec | {"task": spec["task"] | {"knobs": knobs}}, data)
    start = perf_counter()
    content = task.prepare(lambda *_: None, 1)
    read = perf_counter()
    of = {"cell": identity(spec), "data": content, **first}
    state = checkpoint(cell, of) if cell else None
    more = {"checkpoint": state} if state else {}
    trained = task.run(made_model(spec, spec["seed"]), seed=spec["seed"], device=spec["device"], **more)
    earlier_s = state.earlier_s if state else 0.0
    cost = {"train_wall_s": earlier_s + perf_counter() - read, "data_wall_s": read - start}
    kept = keep(trained.weights, cell) if cell and trained.weights and not _parallel.rank() else {}
    read_from = {"hash": content} | first | kept | weights_read()
    return {"result": trained.result, "raw": trained.raw, "cost": cost, "data": read_from}


def checkpoint(cell: Path, of: Mapping[str, str]) -> tasks.Checkpoint:
    """Where the cell's training keeps its state, which no other code may take up."""
    code = host.code()
    every_s = float(os.environ.get(EVERY, tasks.Checkpoint.every_s))
    of = {**of, "code": f"{code['fingerprint']} {code['entries']}"}
    return tasks.Checkpoint(folder=cell / CHECKPOINT, of=of, every_s=every_s)


def started(knobs: dict[str, Any], cell: Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The knobs with a file for the weights to start from, and that file and its hash as the row tells them.

    Raises ValueError for a cell that has left no weights.
    """
    start = knobs.get("start", "")
    if not start:
        return knobs, {}
    file = Path(start).expanduser().absolute()
    if CELL_ID.fullmatch(start) and cell and not file.is_file():
        file = cell.parents[1] / start[:2] / start / WEIGHTS
        if not file.is_file():
            raise ValueError(f"start: cell {start} has left no {WEIGHTS} in {file.parent}; did it have keep_weights?")
    told = {"start": str(file), "start_hash": hashed(file.read_bytes())} if file.is_file() else {}
    return knobs | {"start": str(file)}, told


def keep(weights: dict[str, Any], cell: Path) -> dict[str, str]:
    """Writes the final weights beside the row to be; returns their file and hash."""
    content, digest = packed(weights)
    publish(cell / f"{uuid4().hex}.weights.tmp", cell / WEIGHTS, content)
    return {"weights": WEIGHTS, "weights_hash": digest}


def cost(spec: dict[str, Any], data: Path) -> Outcome:
    """Measures what the cell's model costs; needs no data."""
    port, make, inside = made_config(spec).port, made_model(spec, 0), mechanism_of(spec)
    alike = maker(spec["model"]["name"], spec["model"]["knobs"], counted(inside) if inside else None, 0)
    work = asdict(flops.count(alike, port))
    schedule = getattr(made_config(spec), "schedule", None)
    made = how(schedule) if schedule else AS_USUAL
    columns, raw = measure.cost(make, made_task(spec, data), port, device=spec["device"], made=made)
    alone = os.environ.get("ATTNBENCH_SHARED", "") != "1"  # the launcher says so when others may run beside
    return {"cost": work | columns | {"shared": not alone}, "raw": raw}


KINDS: dict[str, Callable[[dict[str, Any], Path], Outcome]] = {"train": train, "cost": cost}


def prepare(spec: dict[str, Any], data: Path) -> Outcome:
    """Makes or finds the data of the cell's task, telling its progress line by line."""

    def progress(done: int, total: int) -> None:
        print(PREPARING, done, total, flush=True)

    return {"data": {"hash": made_task(spec, data).prepare(progress, len(os.sched_getaffinity(0)))}}


def made_config(spec: dict[str, Any]) -> Any:
    name = spec["task"]["name"]
    return configure(tasks.find(name).config, spec["task"]["knobs"], of=name)


def made_task(spec: dict[str, Any], data: Path) -> tasks.Runnable:
    return tasks.find(spec["task"]["name"]).cls(made_config(spec), data)


def made_model(spec: dict[str, Any], seed: int) -> tasks.Make:
    return maker(spec["model"]["name"], spec["model"]["knobs"], mechanism_of(spec), seed)


def mechanism_of(spec: dict[str, Any]) -> Mechanism | None:
    inside = spec["mechanism"]
    return (inside["name"], inside["knobs"]) if inside else None


def told(error: BaseException) -> dict[str, str]:
    """What an error is, and the innermost place where it arose."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = frames[-1] if frames else None
    return {
        "type": type(error).__name__,
        "message": str(error)[:2000],
        "frame": f"{Path(frame.filename).name}:{frame.name}:{frame.lineno}" if frame else "",
        "traceback": "".join(traceback.format_exception(error))[-8000:],
    }


if __name__ == "__main__":
    sys.exit(main())
