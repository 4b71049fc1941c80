"""A cell: everything that decides the numbers of one run, and the hash of it that names the run everywhere."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

SCHEMA = 1  # of a spec; raised when its form changes
PROTOCOL = 1  # of training and measuring; raised when either would give other numbers for the same spec

Spec = dict[str, Any]


def program(spec: Path) -> str:
    """The module that carries out the cell of a spec's file: of a task, or of a mechanism that is looked at alone."""
    with suppress(OSError, ValueError):  # the child finds out too, and says it
        return "attnbench.probes" if "site" in json.loads(spec.read_bytes()) else "attnbench.run"
    return "attnbench.run"


def canonical(value: Any) -> str:
    """The one JSON text of a value: keys sorted, ASCII, floats by repr, no spaces. Raises ValueError for NaN."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def identity(spec: Spec) -> str:
    """The name of a cell: 20 hex digits, so that two among 100,000 cells collide with a chance below 1e-14."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()[:20]


def identities(spec: Spec, seeds: Sequence[int]) -> list[str]:
    """The names of the cells that differ from `spec` by their seeds alone: as `identity` of each, but sooner."""
    before = canonical({key: value for key, value in spec.items() if key < "seed"})[:-1]
    after = canonical({key: value for key, value in spec.items() if key > "seed"})[1:]
    before, after = f'{before}{"," * (before != "{")}"seed":', f"{',' * (after != '}')}{after}"
    start = hashlib.sha256(before.encode())
    names = []
    for seed in seeds:
        digest = start.copy()
        digest.update(f"{canonical(seed)}{after}".encode())
        names.append(digest.hexdigest()[:20])
    return names
