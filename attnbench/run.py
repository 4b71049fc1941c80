"""The child process of a cell: carries out one spec and writes its outcome as a file.

    python -m attnbench.run SPEC.json OUTCOME.json --data DIR     a cell
    python -m attnbench.run SPEC.json OUTCOME.json --data DIR --prepare     the data of its task, and nothing else

It knows nothing of stores, sweeps or clusters: a supervisor starts it, watches it, and commits what it wrote.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import tasks
from attnbench import flops, host, measure, models, plugins
from attnbench.models import Mechanism, counted, maker
from mechanisms import configure

Outcome = dict[str, Any]
OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
EARLY = "partial.json"  # beside the outcome: where and with what code the cell runs
PREPARING = "preparing"  # opens a line of progress on standard output: `preparing 12 512`


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attnbench.run")
    parser.add_argument("spec", type=Path)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prepare", action="store_true")
    given = parser.parse_args()
    spec = json.loads(given.spec.read_text())
    early = given.outcome.with_name(EARLY)
    outcome = execute(spec, given.data, prepare if given.prepare else KINDS[spec["kind"]], tell=partial(write, early))
    write(given.outcome, outcome)


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
) -> Outcome:
    """The outcome of a spec, also when it fails: running out of memory or diverging is a result, an error is told.

    tell: called with what is known before the work begins, for rows of cells that have to be killed.
    """
    outcome: Outcome = {block: {} for block in ("result", "cost", "host", "data", "code", "raw")}
    outcome |= {"status": "ok", "error": None}
    start = perf_counter()
    try:
        set_up(spec)
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


def set_up(spec: dict[str, Any]) -> None:
    """Threads, determinism and the device, as the spec says. Raises RuntimeError where the device is missing."""
    torch.set_num_threads(spec["threads"] or len(os.sched_getaffinity(0)))
    if spec["device"] == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("the cell asks for cuda, and torch finds no CUDA device here")
    torch.backends.cudnn.benchmark = False  # it picks kernels by a race, so that equal runs would differ
    torch.backends.cudnn.allow_tf32 = False  # on by default for convolutions alone: float32 is to mean the same for all
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(spec["device"] == "cpu")


def find_entries(spec: dict[str, Any]) -> None:
    """Imports the files of the cell's task, model and mechanism, and no others: their contents enter `code.entries`."""
    tasks.find(spec["task"]["name"])
    if "model" not in spec:  # data are made for a task alone
        return
    models.find(spec["model"]["name"])
    if inside := mechanism_of(spec):
        counted(inside)


def train(spec: dict[str, Any], data: Path) -> Outcome:
    """Trains and tests the cell's model; the data must be there."""
    task = made_task(spec, data)
    start = perf_counter()
    content = task.prepare(lambda *_: None, 1)
    read = perf_counter()
    trained = task.run(made_model(spec, spec["seed"]), seed=spec["seed"], device=spec["device"])
    cost = {"train_wall_s": perf_counter() - read, "data_wall_s": read - start}
    return {"result": trained.result, "raw": trained.raw, "cost": cost, "data": {"hash": content}}


def cost(spec: dict[str, Any], data: Path) -> Outcome:
    """Measures what the cell's model costs; needs no data."""
    port, make, inside = made_config(spec).port, made_model(spec, 0), mechanism_of(spec)
    alike = maker(spec["model"]["name"], spec["model"]["knobs"], counted(inside) if inside else None, 0)
    work = asdict(flops.count(alike, port))
    columns, raw = measure.cost(make, made_task(spec, data), port, device=spec["device"])
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
