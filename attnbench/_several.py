"""What is refused of a sweep file whose cells several GPUs, or several nodes, train together."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attnbench._cells import Planned
from attnbench._sections import Frame
from attnbench._yaml import SweepError, line


def refuse_gpus(file: Path, text: Mapping[str, Any], frame: Frame, cells: Iterable[Planned]) -> None:
    """Raises SweepError unless there are as many GPUs, and each process has an example of every batch."""
    if frame.gpus == frame.nodes == 1:
        return
    for cell in cells:
        refuse_cell(file, text, frame, cell)
    on_each, given = frame.gpus // frame.nodes, frame.slurm.gpus if frame.slurm else 0
    if frame.slurm and frame.gpus > 1 and given < on_each:
        asked = f"gpus is {frame.gpus}" + (f" on {frame.nodes} nodes" if frame.nodes > 1 else "")
        least = "at least as many" if frame.nodes == 1 else f"at least {on_each}, those of one node"
        raise SweepError(file, line(text, "slurm"), f"{asked}, and a job has slurm.gpus of {given}; give it {least}.")


def refuse_cell(file: Path, text: Mapping[str, Any], frame: Frame, cell: Planned) -> None:
    device, asked = cell.spec["device"], f"gpus is {frame.gpus}"
    if device != "cuda" and frame.gpus > 1:
        told = f"{asked}, and cells run on {device} here; leave it out, or ask for --device cuda."
        raise SweepError(file, line(text, "gpus"), told)
    if device == "cuda" and frame.gpus % frame.nodes:
        told = f"nodes is {frame.nodes}, and {asked}, those of all nodes; give it a multiple of {frame.nodes}."
        raise SweepError(file, line(text, "nodes"), told)
    together = max(cell.spec["gpus"], frame.nodes)
    if (batch := cell.task.config.batch) < together:
        asked = asked if device == "cuda" else f"nodes is {frame.nodes}"
        raise SweepError(
            file, cell.task.line, f"{asked}, more than the {batch} examples of a batch of {cell.task.name}."
        )
