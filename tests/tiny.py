"""The smallest task that trains for real: eight fields of 8 x 8 nodes, one pass. Shared by the tests that run cells."""

import json
from pathlib import Path
from typing import Any

import tasks
from attnbench.cell import PROTOCOL, SCHEMA
from mechanisms import configure

TASK = {"side": 8, "refine": 2, "train": 8, "valid": 4, "test": 4, "epochs": 1, "batch": 4}
MODEL = {"channels": 8, "depth": 1}


def data(folder: Path) -> str:
    """Makes the fields in a data folder; returns their hash."""
    darcy = tasks.find("darcy")
    return darcy.cls(configure(darcy.config, TASK, of="darcy"), folder).prepare(lambda *_: None, 1)


def spec(**changes: Any) -> dict[str, Any]:
    """The spec of a training cell, some of its blocks replaced."""
    return {
        "schema": SCHEMA,
        "protocol": PROTOCOL,
        "kind": "train",
        "task": {"name": "darcy", "version": 1, "knobs": TASK},
        "model": {"name": "isotropic", "version": 1, "knobs": MODEL},
        "mechanism": {"name": "mano", "version": 1, "knobs": {"levels": 2}},
        "seed": 0,
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
        "gpus": 0,
    } | changes


def written(folder: Path, asked: dict[str, Any]) -> Path:
    """A spec as the file that a child is given."""
    file = folder / "spec.json"
    file.write_text(json.dumps(asked))
    return file
