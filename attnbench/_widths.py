"""Widths of equal latency: what is to be measured, and the record of what was, by which a sweep file has its cells.

A file alone does not say how long a step takes, so that is measured once, where the sweep is started, and written down.
Whoever expands the file after that, on whatever machine, finds the record and so the same cells.

    <results>/<sweep>/widths/<key>.json    one variant: its width, the times of its step and of the target's, where and
                                           with what code; written once, and to measure it anew it has to be deleted
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnbench.cell import Spec, canonical, identity
from attnbench.engine._files import create, make_folder, read

SCHEMA = 1
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A variant whose width is to be solved for.

    label: for people. knob: the model's width. step: what divides it. most: the largest that is tried.
    within: by how much it may miss the target. variant, target: the cells that measure what each costs, at the width
        that the file names.
    """

    label: str
    knob: str
    step: int
    most: int
    within: float
    variant: Spec
    target: Spec

    @property
    def key(self) -> str:
        """Hash of everything in the file that decides how wide the variant has to be."""
        return identity({"equal": "latency", "knob": self.knob, "variant": self.variant, "target": self.target})


Find = Callable[[Ask], Record | None]  # the record of what was measured, if it was


def missed(ask: Ask, record: Record) -> str:
    """What keeps a width from being as slow as the target, without a full stop; empty where nothing does.

    It has to be within the tolerance each time that it was measured: noise that spreads further could hide anything.
    """
    ratios = record["ratios"]
    if max(abs(ratio - 1) for ratio in ratios) <= ask.within:
        return ""
    target, foreign = ask.target["mechanism"]["name"], record["foreign_cpu"] or 0.0
    busy = f", while others used {foreign:.0%} of the machine" if foreign else ""
    took = f"{ask.knob} {record['width']} took {min(ratios):.3f} to {max(ratios):.3f} of its time{busy}"
    return f"{ask.label} cannot have {target}'s latency within {ask.within:g}: {took}"


class Widths:
    """The records in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, ask: Ask) -> Path:
        return self.folder / f"{ask.key}.json"

    def __call__(self, ask: Ask) -> Record | None:
        """What was measured. Raises ValueError for a record that is damaged or of another schema."""
        path = self.path(ask)
        try:
            record = json.loads(read(path))
        except FileNotFoundError:
            return None
        except ValueError:
            record = None
        if not isinstance(record, dict) or record.get("schema") != SCHEMA or record.get("key") != ask.key:
            raise ValueError(f"{path} is no record of a width that this attnbench reads; delete it to measure anew.")
        return record

    def keep(self, ask: Ask, found: Mapping[str, Any]) -> None:
        """Writes what was measured, for ever. Of two who measure at the same time, the first decides for both."""
        make_folder(self.folder)
        record = {"schema": SCHEMA, "key": ask.key, **found, "asked": asdict(ask)}
        canonical(record)  # no NaN may enter
        create(self.path(ask), json.dumps(record, indent=1).encode() + b"\n", owner="width")
