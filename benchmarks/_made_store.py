"""A finished sweep of any size, made without training: its file, and a store with all that its cells would have left.

Bytes and names are those of a real store, except that nothing waits for the disk.
"""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from attnbench.cell import Spec, canonical
from attnbench.engine._records import SCHEMA, encode, line
from attnbench.sweep import Plan

STEP = 1000  # cells: one width of the model, in eight variants of a mechanism, each with SEEDS trainings and its cost
SEEDS = 124
EPOCHS = 60  # points of each of a training's two curves, which make its row about as long as a cost cell's
BORN = 1_750_000_000.0  # when the first cell began

HOST = {
    **{"name": "node17", "device": "AMD EPYC", "cores": 64, "threads": 1, "load": 3.09, "system": "Linux-6.1.0"},
    **{"python": "3.11.7", "slurm_job": "4711_12", "torch": "2.13.0+cpu", "numpy": "2.4.6", "scipy": "1.17.1"},
    **{"neuraloperator": "2.0.0", "timm": "1.0.31"},
}
CODE = {"fingerprint": "bd7959041bc3", "entries": "eafe0371383c", "commit": "f" * 40, "dirty": False}
NOTES = {"warmup": "until calm", "memory_method": "torch profiler, allocator", "noisy": False, "shared": False}
COSTS = ("infer_step_ms", "train_step_ms", "infer_samples_per_s", "train_samples_per_s", "memory_train_mib")


def sweep_text(cells: int) -> str:
    """A sweep file of so many cells, a multiple of STEP."""
    widths = [4 * number for number in range(1, cells // STEP + 1)]
    return f"""question: How long do the commands take over {cells} cells?
runs: {8 * len(widths) * SEEDS}
device: cpu

tasks:
  - {{name: darcy, side: 16, epochs: {EPOCHS}}}
models:
  - {{name: isotropic, depth: 1, channels: {widths}}}
mechanisms:
  - {{name: swin, heads: 1, window: [2, 4, 8, 16], position: [relative, none]}}
seeds: {list(range(SEEDS))}

figures:
  - {{name: error, kind: lines, x: model.channels, y: result.rel_l2, color: mechanism.window}}
"""


def blocks(spec: Spec, chance: random.Random) -> dict[str, Any]:
    """What a cell found: numbers of its row that mean nothing."""
    return trained(chance) if spec["kind"] == "train" else measured(chance)


def fill(root: Path, plan: Plan, found: Callable[[Spec, random.Random], dict[str, Any]] = blocks) -> None:
    """Writes what a run of every cell would have left under `root`; found: `result`, `cost` and `raw` of a row."""
    for number, cell in enumerate(plan.cells):
        folder = root / "cells" / cell.id[:2] / cell.id
        (folder / "attempts").mkdir(parents=True)
        attempt, started = UUID(int=number).hex, BORN + 30 * number
        (folder / "spec.json").write_text(canonical(cell.spec) + "\n")
        (folder / "attempts" / f"{attempt}.jsonl").write_bytes(attempted(started))
        (folder / "attempts" / f"{attempt}.log").touch()
        (folder / "result.json").write_bytes(encode(row(cell.id, cell.spec, attempt, started, found)))


def attempted(started: float) -> bytes:
    """The lines of an attempt that took twenty seconds: its start, a heartbeat, its end."""
    owner = {"host": HOST["name"], "pid": 4711, "machine": f"{HOST['name']} 0 0", "born": "1", "generation": 0}
    beat = {"kind": "beat", "at": started + 10, "rss_mib": 512.5}
    end = {"kind": "end", "at": started + 20, "outcome": "ok", "signature": None, "error": None, "wall_s": 20.0}
    return line({"kind": "start", "at": started, **owner, "where": {"launcher": "local"}}) + line(beat) + line(end)


def row(
    id: str, spec: Spec, attempt: str, started: float, found: Callable[[Spec, random.Random], dict[str, Any]]
) -> dict[str, Any]:
    """A row as its child would have made it, with numbers that its id decides."""
    train = spec["kind"] == "train"
    head = {"schema": SCHEMA, "id": id, "status": "ok", "generation": 0, "attempt": attempt}
    head |= {"started": started, "finished": started + 20, "wall_s": 20.0}
    data = {"hash": f"sha256:{hashlib.sha256(b'darcy').hexdigest()}"} if train else {}
    rest = {"host": HOST, "data": data, "code": CODE, "error": None, "where": {"host": "node17", "pid": 4711}}
    return {**head, "spec": spec, **found(spec, random.Random(id)), **rest}


def trained(chance: random.Random) -> dict[str, Any]:
    curves = {name: [chance.random() for _ in range(EPOCHS)] for name in ("train_loss", "valid_rel_l2")}
    names = ("rel_l2", "rel_mse", "valid_rel_l2", "valid_rel_mse", "train_loss")
    result = {name: chance.random() for name in names} | {"best_epoch": 59.0, "epochs": 60.0}
    return {"result": result, "cost": {"train_wall_s": 18.5, "run_wall_s": 19.2}, "raw": curves}


def measured(chance: random.Random) -> dict[str, Any]:
    numbers = {name: chance.random() for name in COSTS}
    sizes = {"params": 17313, "params_trained": 17313, "params_pretrained": 0, "matmul_flops": 9011200, "fft_flops": 0}
    raw = {name: [chance.random() for _ in range(100)] for name in ("infer_step_ms", "train_step_ms")}
    return {"result": {}, "cost": sizes | numbers | NOTES, "raw": raw}


def footprint(root: Path, cells: int) -> dict[str, float]:
    """What a cell takes on the disk on average: inodes, KiB in blocks, KiB of its row."""
    paths = [path.lstat() for path in (root / "cells").rglob("*")]
    rows = [path.stat().st_size for path in (root / "cells").glob("*/*/result.json")]
    blocks = sum(found.st_blocks * 512 for found in paths)
    return {"inodes": len(paths) / cells, "kib": blocks / cells / 1024, "row_kib": sum(rows) / cells / 1024}
