"""The list of a sweep's cells as a file, so that status and report need neither torch nor an expansion."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from attnbench.engine._still import still

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell as the launchers and tables see it.

    kind: train, cost, or that of a probe, whose cells have no model and no seed.
    variant: what it has in common with the cells that differ from it by the seed alone.
    label: the variant and the seed.
    estimate_s: expected seconds of the whole cell on the sweep's device.
    cost_id: of a training cell, the cell that measures what its variant costs.
    trial: of a training cell, whether it only helps to choose a knob, and is no result.
    settled: columns of what the sweep settles for each variant by itself, with blanks between.
    ratio: where variants are made equal, the share of the target that this one reaches.
    """

    id: str
    kind: str
    label: str
    variant: str
    mechanism: str | None
    model: str | None
    seed: int | None
    estimate_s: float
    cost_id: str | None = None
    trial: bool = False
    settled: str = ""
    ratio: float | None = None


def point(label: str) -> str:
    """The label of a bare mechanism's cell without the round or the seed, which repeat what stands before."""
    head, _, last = label.rpartition(", ")
    return head if last.startswith(("round ", "seed ")) else label


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A sweep, expanded: its cells, and what launching and drawing it need.

    better: of each column that ranks models, lower or higher; the first one ranks first.
    choose: how a knob is chosen by trials, if one is. waiting: labels of trainings whose trials have not all ended;
        they have no cells yet, and waiting_s are their expected seconds.
    equal: what variants have alike by solved widths, params, flops or latency, if anything.
    solved: share of the way from chance to 1, past which a seed has solved a task.
    """

    sweep: str
    question: str
    device: str
    cells: tuple[Cell, ...]
    slurm: Mapping[str, Any] | None = None
    figures: tuple[Mapping[str, Any], ...] = field(default=())
    better: Mapping[str, str] = field(default_factory=dict)
    choose: Mapping[str, Any] | None = None
    equal: str = ""
    solved: float = 0.5
    waiting: tuple[str, ...] = ()
    waiting_s: float = 0.0

    @still()
    def write(self, file: Path) -> None:
        """Appears whole or not at all; a file that holds the same already is left alone, and so keeps its time."""
        data = self.text().encode()
        if file.is_file() and file.read_bytes() == data:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{uuid4().hex}")
        try:
            part.write_bytes(data)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)  # of a disk that did not take it

    def text(self) -> str:
        """JSON with a line for each cell."""
        head = json.dumps({"schema": SCHEMA, **vars(self), "cells": []}, indent=1)
        cells = ",\n  ".join(json.dumps(vars(cell)) for cell in self.cells)
        return head.replace('\n "cells": []', f'\n "cells": [\n  {cells}\n ]', 1) + "\n"

    @classmethod
    @still()
    def read(cls, file: Path) -> "Manifest":
        """Raises ValueError when the file is missing, damaged or of another schema."""
        if not file.is_file():
            raise ValueError(f"{file} is not there: `attnbench sweep` writes it when it starts the sweep.")
        try:
            text = json.loads(file.read_bytes())
            schema = text.pop("schema")
        except (ValueError, LookupError, AttributeError, TypeError):
            raise damaged(file) from None
        if schema != SCHEMA:
            raise ValueError(f"{file} has schema {schema}; this attnbench reads {SCHEMA}. Run `attnbench sweep` again.")
        try:
            cells = tuple(Cell(**cell) for cell in text.pop("cells"))
            return cls(**text | {name: tuple(text.get(name, ())) for name in ("figures", "waiting")} | {"cells": cells})
        except (LookupError, TypeError):
            raise damaged(file) from None


def damaged(file: Path) -> ValueError:
    return ValueError(f"{file} is damaged; `attnbench sweep` with the sweep's file writes it again.")


@still()
def estimates(file: Path) -> dict[str, float]:
    """Expected seconds of each cell as a manifest has them; none where it is not there, or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return {cell["id"]: float(cell["estimate_s"]) for cell in json.loads(file.read_bytes())["cells"]}
    return {}
