"""Rows of finished sweeps of any size that nobody ran: the folder that `attnbench report` reads where no store is.

And a store of as many rows, which it reads where there is one.

Columns, words and digits are those of real rows of the sweeps of laptop size; numbers scatter around a known error of
each variant, as large for one task as for another.
"""

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from attnbench.manifest import Cell, Manifest
from attnbench.reports.rows import table, write_csv
from benchmarks import _made_store

Row = dict[str, Any]
TASKS = ("darcy", "images", "recall", "listops", "charlm", "mlm", "pathfinder", "segment")
HIGHER = {"images": "accuracy", "recall": "accuracy", "listops": "accuracy", "pathfinder": "accuracy"}
HIGHER |= {"segment": "miou"}
LOWER = {"darcy": "rel_l2", "charlm": "bits_per_byte", "mlm": "bits_per_byte"}
MAIN = {**LOWER, **HIGHER}
HOST = {
    **{"host.name": "node17", "host.device": "AMD EPYC", "host.cores": 64, "host.threads": 1, "host.load": 3.09},
    **{"host.system": "Linux-6.1.0", "host.python": "3.11.7", "host.slurm_job": "4711_12", "host.torch": "2.13.0"},
    **{"host.numpy": "2.4.6", "host.scipy": "1.17.1", "host.neuraloperator": "2.0.0", "host.timm": "1.0.31"},
}
CODE = {"code.fingerprint": "bd7959041bc3", "code.entries": "eafe0371383c", "code.commit": "f" * 40}
LINES = {"kind": "lines", "x": "mechanism.levels", "y": "result.rel_l2", "mechanism": "mano"}
LINES |= {"color": "mechanism.downsample", "style": "mechanism.upsample", "panel": "mechanism.window"}


class Shape(NamedTuple):
    """What a sweep asks: its tasks, how many variants of mechanisms each has, and how many seeds of each."""

    tasks: int
    variants: int
    seeds: int

    @property
    def rows(self) -> int:
        """Trainings and a cost measurement for each variant of each task."""
        return self.tasks * self.variants * (self.seeds + 1)


SHAPES = {  # about 10,000 rows each
    "8 tasks, 40 variants, 30 seeds": Shape(8, 40, 30),
    "1 task, 40 variants, 240 seeds": Shape(1, 40, 240),
    "1 task, 900 variants, 10 seeds": Shape(1, 900, 10),
}


STORED = "8 tasks, 38 variants, 30 seeds, from a store"
SWEEP = f"""question: How long do tables and figures of a store take?
runs: 9120
device: cpu

tasks: [{", ".join(f"{{name: {task}}}" for task in TASKS)}]
models:
  - {{name: isotropic, depth: 1, channels: 64}}
mechanisms:
  - {{name: identity}}
  - {{name: full, heads: 4}}
  - {{name: linear, heads: [1, 2, 4, 8, 16, 32], feature: [elu, relu, softplus, l2vit, favor, efficient]}}
seeds: {list(range(30))}
"""


class Variant(NamedTuple):
    """One variant: its mechanism, knobs, and the share of the way from chance to the best that it goes."""

    mechanism: str
    knobs: Row
    skill: float


def variants(count: int) -> list[Variant]:
    """The control, full attention, linear attention, and as many of MANO and Swin as are still to come."""
    found = [Variant("identity", {}, 0.0), Variant("full", {"heads": 4, "backend": "auto"}, 0.8)]
    found.append(Variant("linear", {"heads": 4, "feature": "elu", "features": 64}, 0.5))
    more = zip(mano(), swin(), strict=False)
    return [*found, *(one for pair in more for one in pair)][:count]


def mano() -> Iterator[Variant]:
    for heads, levels, down, up, window in product(
        range(1, 50), (2, 3, 4, 5), ("conv", "average"), ("transposed", "nearest"), (2, 4)
    ):
        knobs = {"window": window, "stride": window, "heads": heads, "levels": levels, "rate": 2}
        knobs |= {"downsample": down, "upsample": up, "combine": "sum", "samplers": "each", "attention": "softmax"}
        skill = 0.3 + 0.08 * levels + 0.04 * (down == "conv") + 0.03 * (window == 4) + 0.002 * heads
        yield Variant("mano", {**knobs, "position": "relative"}, skill)


def swin() -> Iterator[Variant]:
    for heads, shift, position, window in product(
        range(1, 99), (True, False), ("relative", "none", "log"), (2, 4, 8, 16)
    ):
        knobs = {"heads": heads, "window": window, "shift": shift, "position": position, "version": 2}
        skill = 0.2 + 0.1 * shift + 0.02 * window + 0.002 * heads
        yield Variant("swin", {**knobs, "pretrained_window": None, "pad": False}, skill)


def name(variant: Variant) -> str:
    shown = {knob: value for knob, value in variant.knobs.items() if knob in ("heads", "levels", "window", "position")}
    words = [f"{knob} {value}" for knob, value in shown.items()]
    words += [variant.knobs[knob] for knob in ("downsample", "upsample") if knob in variant.knobs]
    words += ["shift" if variant.knobs["shift"] else "no shift"] if "shift" in variant.knobs else []
    return f"{variant.mechanism} {', '.join(words)}".strip()


def rows(sweep: str, shape: Shape) -> Iterator[Row]:
    """Every row of a sweep of this shape, as `collect` makes it."""
    for t, task in enumerate(TASKS[: shape.tasks]):
        for variant in variants(shape.variants):
            shown = name(variant) + (f" · {task}" if shape.tasks > 1 else "")
            chance = random.Random(f"{task} {shown}")
            head = {"sweep": sweep, "task": task, "model": "isotropic", "mechanism": variant.mechanism}
            head |= {"variant": shown, "device": "cpu", "dtype": "float32", "status": "ok", "idle": ""}
            head |= {f"mechanism.{knob}": value for knob, value in variant.knobs.items()}
            head |= {"model.channels": 64, "model.depth": 4, "model.mlp_ratio": 4, "task.batch": 16, "task.epochs": 10}
            head |= {
                "task.rate": 1e-3,
                "task.warm_up": 0.1,
                "task.train": 256 << t,
                **HOST,
                **CODE,
                "code.dirty": False,
            }
            price = {**head, **costs(chance, variant), "kind": "cost", "id": hashed(f"{shown} cost"), "threads": 0}
            yield price | {"label": f"{shown}, cost", **times(chance)}
            paid = {column: value for column, value in price.items() if column.startswith("cost.")}
            for seed in range(shape.seeds):
                own = {"kind": "train", "id": hashed(f"{shown} {seed}"), "seed": seed, "threads": 1}
                own |= {"label": f"{shown}, seed {seed}", "cost_id": price["id"], "cost.status": "ok"}
                own |= {"data.hash": f"sha256:{hashed(task)}", **results(task, variant.skill, seed, chance)}
                yield {**head, **paid, **own, **times(chance)}


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def results(task: str, skill: float, seed: int, chance: random.Random) -> Row:
    """The measure of a task, and beside it what real rows have too."""
    went = min(skill + 0.02 * random.Random(f"{task} {seed}").gauss(0, 1) + 0.015 * chance.gauss(0, 1), 1.0)
    found = {"best_epoch": 9.0, "epochs": 10.0, "train_loss": 1 - 0.9 * went, "valid_loss": 1.1 - 0.9 * went}
    measure = MAIN[task]
    found |= {measure: 0.1 + 0.85 * max(went, 0.0) if task in HIGHER else 0.7 * 0.05 ** max(went, -0.2)}
    if task == "darcy":
        found |= {"rel_mse": found["rel_l2"] ** 2, "valid_rel_l2": 1.01 * found["rel_l2"]}
    found |= {"chance_accuracy" if measure == "accuracy" else "chance_miou": 0.1} if task in HIGHER else {}
    return {f"result.{column}": value for column, value in found.items()}


def costs(chance: random.Random, variant: Variant) -> Row:
    found: Row = {"batch": 16, "params": 250_000 + round(90_000 * variant.skill), "params_pretrained": 0}
    found |= {"params_trained": found["params"], "matmul_flops": round(4e7 * (1 + variant.skill)), "fft_flops": 0}
    for phase, scale in (("train", 1.0), ("infer", 3.0)):
        speed = scale * 900 * (1.4 - variant.skill) * chance.uniform(0.9, 1.1)
        found |= {f"{phase}_samples_per_s{end}": speed * by for end, by in (("", 1), ("_q25", 0.98), ("_q75", 1.02))}
        found |= {f"{phase}_step_ms{end}": 16e3 / speed * by for end, by in (("", 1), ("_q25", 0.98), ("_q75", 1.02))}
        found |= {f"memory_{phase}_mib": 90 * scale * (1 + variant.skill), f"{phase}_repeats": 44}
        found |= {f"{phase}_noisy": False, f"rss_{phase}_mib": 12.5}
    found |= {"noisy": False, "shared": False, "foreign_cpu": 0.008, "threads": 2, "warmup": "until calm"}
    return {f"cost.{column}": value for column, value in found.items()}


def times(chance: random.Random) -> Row:
    started, wall_s = 1_790_000_000 + chance.uniform(0, 1e5), chance.uniform(10, 12)
    return {"started": round(started, 3), "finished": round(started + wall_s, 3), "wall_s": round(wall_s, 3)}


def cell(row: Row) -> Cell:
    who = {word: row[word] for word in ("id", "kind", "label", "variant", "mechanism", "model")}
    return Cell(**who, seed=row.get("seed"), estimate_s=11.0, cost_id=row.get("cost_id"))


def fill(root: Path, sweep: str, shape: Shape) -> int:
    """Writes what `attnbench report` reads of a sweep: its cells and its rows; returns how many there are."""
    made, folder = list(rows(sweep, shape)), root / sweep
    better = {f"result.{MAIN[task]}": "higher" if task in HIGHER else "lower" for task in TASKS[: shape.tasks]}
    figures = ({"name": "levels", **LINES},) if shape.variants > 100 else ()
    asked = Manifest(
        sweep=sweep,
        question=f"How long do tables and figures of {shape.rows} rows take?",
        device="cpu",
        cells=tuple(map(cell, made)),
        figures=figures,
        better=better,
    )
    asked.write(folder / "cells.json")
    write_csv(table(made), folder / "rows.csv")
    return len(made)


def fill_store(root: Path, sweep: str) -> int:
    """Writes a store of SWEEP in which every cell has ended, and has it listed; returns how many there are."""
    from attnbench.sweep import expand

    (file := root / f"{sweep}.yaml").write_text(SWEEP)
    plan = expand(file, device="cpu")
    _made_store.fill(root, plan, blocks)
    command = (sys.executable, "-m", "attnbench", "sweep", str(file), "--launcher", "local", "--results", str(root))
    subprocess.run(command, check=True, capture_output=True)
    return len(plan.cells)


def blocks(spec: Row, chance: random.Random) -> Row:
    """What a cell of the store found."""
    name, knobs = spec["mechanism"]["name"], spec["mechanism"].get("knobs") or {}
    skill = {"identity": 0.0, "linear": 0.5, "full": 0.8}[name] + 0.002 * knobs.get("heads", 0)
    if spec["kind"] != "train":
        raw = {name: [chance.random() for _ in range(100)] for name in ("infer_step_ms", "train_step_ms")}
        return {"result": {}, "cost": bare(costs(chance, Variant(name, knobs, skill))), "raw": raw}
    found = bare(results(spec["task"]["name"], skill, spec["seed"], chance))
    curves = {name: [chance.random() for _ in range(60)] for name in ("train_loss", "valid_loss")}
    return {"result": found, "cost": {"train_wall_s": 18.5, "run_wall_s": 19.2}, "raw": curves}


def bare(columns: Row) -> Row:
    """The same numbers under the names that they have in their block of a row."""
    return {column.partition(".")[2]: value for column, value in columns.items()}
