"""An ablation that nobody ran: hand-made records in a store of plain dicts, with known effects, failures and costs."""

import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Any

from attnbench.cell import identity
from attnbench.manifest import Cell, Manifest

Spec = dict[str, Any]
SMALL = ("full", "fno", "swin window=2 shift=True", "swin window=2 shift=False")


class FakeStore:
    """The reading side of a store, in memory."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.set_aside: dict[str, dict[str, Any]] = {}

    def spec(self, id: str) -> Spec:
        if id not in self.specs:
            raise ValueError(f"no cell {id}")
        return self.specs[id]

    def result(self, id: str) -> dict[str, Any] | None:
        return self.rows.get(id)

    def failed(self, id: str) -> dict[str, Any] | None:
        return self.set_aside.get(id)

    def tries(self, ids: Iterable[str]) -> dict[str, int]:
        return {id: self.set_aside[id]["tries"] for id in ids if "tries" in self.set_aside.get(id, {})}


def variants() -> list[tuple[str | None, dict[str, Any], float]]:
    """Mechanism, knobs and true error of 35 variants; mano gains 20 % per level and 10 % from learned downsampling."""
    found: list[tuple[str | None, dict[str, Any], float]] = [
        ("full", {"heads": 4}, 0.04),
        ("linear", {"heads": 4}, 0.11),
        ("fma", {"heads": 4}, 0.06),
        ("identity", {}, 0.62),
        (None, {"modes": 12}, 0.05),
    ]
    for window, shift in product((2, 4), (True, False)):
        error = 0.2 * (0.8 if window == 4 else 1) * (0.6 if shift else 1)
        found.append(("swin", {"heads": 4, "window": window, "shift": shift}, error))
    for levels, window, down, up in product((1, 2, 3, 4), (2, 4), ("conv", "average"), ("transposed", "nearest")):
        if levels == 1 and (down, up) != ("conv", "transposed"):
            continue
        knobs = {"window": window, "stride": window, "levels": levels, "downsample": down, "upsample": up}
        gain = (1.1 if down == "average" else 1) * (1.04 if up == "nearest" else 1) if levels > 1 else 1
        found.append(("mano", {"heads": 4, **knobs}, 0.16 * 0.8 ** (levels - 1) * gain * (0.9 if window == 4 else 1)))
    return found


def name(mechanism: str | None, knobs: dict[str, Any]) -> str:
    shown = {knob: value for knob, value in knobs.items() if knob not in ("heads", "stride", "modes")}
    return " ".join([mechanism or "fno", *(f"{knob}={value}" for knob, value in shown.items())])


def ablation(seeds: int = 5) -> tuple[FakeStore, Manifest]:
    """Every cell of the sweep, all ok: a training per variant and seed, a cost cell per variant."""
    store, cells, chance = FakeStore(), [], random.Random(0)
    common = [chance.gauss(0, 0.05) for _ in range(seeds)]
    for mechanism, knobs, error in variants():
        variant = name(mechanism, knobs)
        price = add(store, spec("cost", mechanism, knobs, None), {"cost": costs(mechanism, knobs, chance)})
        cells.append(cell(price, "cost", variant, mechanism, None, None))
        for seed in range(seeds):
            value = error * (1 + common[seed] + chance.gauss(0, 0.02))
            result = {"rel_l2": value, "rel_mse": value**2, "valid_rel_l2": 1.01 * value, "best_epoch": 40 + seed}
            block = {"result": result, "cost": {"train_wall_s": 60 + chance.random()}}
            id = add(store, spec("train", mechanism, knobs, seed), block)
            cells.append(cell(id, "train", variant, mechanism, seed, price))
    return store, Manifest(sweep="made", question="What is made up?", device="cpu", cells=tuple(cells))


def spec(kind: str, mechanism: str | None, knobs: dict[str, Any], seed: int | None) -> Spec:
    inside = {"name": mechanism, "version": 1, "knobs": knobs} if mechanism else None
    model = {"name": "isotropic", "knobs": {"channels": 64}} if mechanism else {"name": "fno", "knobs": knobs}
    return {
        **{"schema": 1, "kind": kind, "task": {"name": "darcy", "version": 1, "knobs": {"side": 32, "rate": 1e-3}}},
        **{"model": model, "mechanism": inside, "seed": seed, "device": "cpu", "dtype": "float32", "threads": 1},
    }


def code(asked: Spec) -> dict[str, Any]:
    """One version of everything; which files of the catalogue a cell imports depends on its model and mechanism."""
    parts = [asked[part]["name"] for part in ("task", "model", "mechanism") if asked.get(part)]
    return {"fingerprint": "f1", "entries": f"e-{'-'.join(parts)}", "commit": "1234567", "dirty": False}


def add(store: FakeStore, asked: Spec, blocks: dict[str, Any]) -> str:
    id = identity(asked)
    store.specs[id] = asked
    store.rows[id] = {
        **{
            "id": id,
            "spec": asked,
            "status": "ok",
            "host": {"device": "made up", "cores": 2, "torch": "2.0"},
            "error": None,
        },
        **{"data": {"hash": "sha256:aa"}, "code": code(asked)},
        **{"started": "2025-01-01T00:00:00Z", "finished": "2025-01-01T00:01:00Z", "wall_s": 61.5},
        **blocks,
    }
    return id


def cell(id: str, kind: Any, variant: str, mechanism: str | None, seed: int | None, price: str | None) -> Cell:
    model = "isotropic" if mechanism else "fno"
    label = variant if seed is None else f"{variant} seed {seed}"
    who = {"variant": variant, "mechanism": mechanism, "model": model, "seed": seed}
    return Cell(id=id, kind=kind, label=label, **who, estimate_s=60.0, cost_id=price)


def costs(mechanism: str | None, knobs: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    speed = {"full": 90, "swin": 900, "linear": 1100, "fma": 300, "identity": 2400, "mano": 800, None: 700}[mechanism]
    speed *= 0.92 ** knobs.get("levels", 1) * (1.1 if knobs.get("downsample") == "average" else 1)
    speed *= 1.1 if knobs.get("window") == 4 else 1
    memory = {"full": 900, "identity": 60, None: 240}.get(mechanism, 150) + 12 * knobs.get("levels", 1)
    spread = 0.02 + 0.02 * chance.random()
    return {
        **{"params": 270_000 + 4096 * knobs.get("levels", 1), "matmul_flops": 41_000_000, "threads": 2},
        **{"train_samples_per_s": speed, "infer_samples_per_s": 3 * speed, "batch": 16, "noisy": False},
        **{"train_samples_per_s_q25": speed * (1 - spread), "train_samples_per_s_q75": speed * (1 + spread)},
        **{"infer_samples_per_s_q25": 3 * speed * (1 - spread), "infer_samples_per_s_q75": 3 * speed * (1 + spread)},
        **{"memory_train_mib": memory + chance.random(), "memory_infer_mib": memory / 3, "memory_method": "vmhwm"},
    }


def small() -> tuple[FakeStore, Manifest]:
    """Four variants, three seeds, no figures but one."""
    store, manifest = ablation(3)
    figure = {"name": "variants", "kind": "variants", "y": "result.rel_l2", "x": None}
    return store, replace(only(manifest, *SMALL), figures=(figure,))


def only(manifest: Manifest, *variants: str) -> Manifest:
    return replace(manifest, cells=tuple(cell for cell in manifest.cells if cell.variant in variants))


def training(manifest: Manifest, variant: str, seed: int) -> str:
    return next(cell.id for cell in manifest.cells if cell.variant == variant and cell.seed == seed)


def pricing(manifest: Manifest, variant: str) -> str:
    return next(cell.id for cell in manifest.cells if cell.variant == variant and cell.kind == "cost")


def fail(store: FakeStore, id: str, status: str) -> None:
    """A row that did not end well, with numbers that nobody may read."""
    store.rows[id] |= {"status": status, "result": {"rel_l2": 0.0}, "cost": {}, "error": {"type": "E", "message": "m"}}


def by_knobs(store: FakeStore) -> dict[tuple[Any, ...], float]:
    """The error of every training of mano by seed, levels, window, downsample and upsample."""
    names, found = ("levels", "window", "downsample", "upsample"), {}
    for id, asked in store.specs.items():
        if asked["kind"] == "train" and asked["mechanism"] and asked["mechanism"]["name"] == "mano":
            knobs = asked["mechanism"]["knobs"]
            found[asked["seed"], *(knobs[knob] for knob in names)] = store.rows[id]["result"]["rel_l2"]
    return found
