"""Trainings that nobody ran, with scores that a test plants: for each task and mechanism a score a seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import tasks
from attnbench.cell import identity
from attnbench.manifest import Cell, Manifest
from tests.made_rows import FakeStore, add

MEASURES = {"darcy": "rel_l2", "images": "accuracy", "recall": "accuracy", "listops": "accuracy", "segment": "miou"}
CHANCE = {"images": {"chance": 0.5}, "recall": {"chance": 0.1}, "listops": {"chance": 0.2}}
CHANCE |= {"segment": {"chance": 0.9, "chance_miou": 0.1}}
Scores = Mapping[str, Mapping[str, Sequence[float | None]]]


def planted(scores: Scores, costs: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[FakeStore, Manifest]:
    """scores: of each task and mechanism one a seed, None where it diverged. costs: of each mechanism, in all tasks."""
    store, cells = FakeStore(), []
    for task, own in scores.items():
        for mechanism, values in own.items():
            variant = mechanism if len(scores) == 1 else f"{mechanism} · {task}"
            price = None
            if costs:
                asked = spec("cost", task, mechanism, None)
                price = add(store, asked, {"cost": dict(costs[mechanism]), "result": {}})
                cells.append(cell(asked, variant, None))
            for seed, value in enumerate(values):
                asked = spec("train", task, mechanism, seed)
                result = {} if value is None else {MEASURES[task]: float(value), **CHANCE.get(task, {})}
                id = add(store, asked, {"result": result, "cost": {}})
                store.rows[id]["status"] = "diverged" if value is None else "ok"
                cells.append(cell(asked, variant, price))
    better = {f"result.{name}": side for task in scores for name, side in tasks.find(task).better.items()}
    return store, Manifest(sweep="made", question="?", device="cpu", cells=tuple(cells), better=better)


def spec(kind: str, task: str, mechanism: str, seed: int | None) -> dict[str, Any]:
    return {
        **{"kind": kind, "seed": seed, "device": "cpu", "dtype": "float32", "threads": 1},
        **{"task": {"name": task, "knobs": {}}, "model": {"name": "isotropic", "knobs": {}}},
        **{"mechanism": {"name": mechanism, "knobs": {}}},
    }


def cell(asked: dict[str, Any], variant: str, price: str | None) -> Cell:
    mechanism, seed = asked["mechanism"]["name"], asked["seed"]
    who = {"variant": variant, "label": f"{variant}, {seed}", "mechanism": mechanism, "model": "isotropic"}
    return Cell(id=identity(asked), kind=asked["kind"], **who, seed=seed, estimate_s=1.0, cost_id=price)
