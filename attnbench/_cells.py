"""The cells of one variant of a sweep: its trainings, one a seed, the trials that choose for it, what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from attnbench._choose import Rows, best, options
from attnbench._entries import Chosen
from attnbench._sections import Frame
from attnbench.cell import PROTOCOL, SCHEMA, Spec, identities, identity
from mechanisms import KnobError, Site, configure

WAITS = "waits"  # among what is settled for a training: nothing is, until the trials have ended


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One distinct cell of a sweep and where it comes from.

    task, model: None where a mechanism is looked at alone, at a site of its own; about: then the words of its label.
    trial: it only helps to choose a knob. settled: columns of what the sweep settles for each variant by itself.
    ratio: where variants are made equal, the share of the target that this one reaches.
    """

    id: str
    spec: Spec
    task: Any
    model: Any
    mechanism: Chosen | None
    cost_id: str | None = None
    trial: bool = False
    settled: tuple[str, ...] = ()
    ratio: float | None = None
    site: Site | None = None
    about: str = ""

    @property
    def parts(self) -> tuple[Chosen, ...]:
        return tuple(part for part in (self.task, self.model, self.mechanism) if part)


@dataclass(frozen=True)
class Variant:
    """A model at a task with a mechanism in it, or whole; what runs of it differ by is the seed."""

    task: Chosen
    model: Chosen
    mechanism: Chosen | None
    device: str
    settled: tuple[str, ...] = ()
    ratio: float | None = None

    def cells(self, file: Path, text: Mapping[str, Any], frame: Frame, rows: Rows) -> list[Planned]:
        """Its trainings, one a seed; with a choice its trials, then the trainings with what these rows choose."""
        if not (choose := frame.choose):
            return self.trainings(frame.seeds, frame.gpus, frame.nodes)
        ways = [replace(self, task=task) for task in options(file, text, choose, self.task)]
        own = partial(Variant.trainings, gpus=frame.gpus, nodes=frame.nodes)
        trials = [own(way, choose.seeds, trial=True, settled=(choose.knob,)) for way in ways]
        by = choose.score(self.task.name)
        place = best([[cell.id for cell in own] for own in trials], rows, by, self.task.entry.better[by])
        if place is None:
            final = own(ways[0], frame.seeds, settled=(choose.knob, WAITS))
            final = [replace(cell, id=identity({**cell.spec, "choose": choose.model_dump()})) for cell in final]
        else:
            final = own(ways[place], frame.seeds, settled=(choose.knob,))
        return [*(cell for own in trials for cell in own), *final]

    def trainings(
        self, seeds: Sequence[int], gpus: int, nodes: int = 1, *, trial: bool = False, settled: tuple[str, ...] = ()
    ) -> list[Planned]:
        """The cells of these seeds, each of which so many GPUs train together, on so many nodes."""
        spec = {
            "schema": SCHEMA,
            "protocol": PROTOCOL,
            "kind": "train",
            "task": self.task.spec,
            "model": self.model.spec,
            "mechanism": self.mechanism.spec if self.mechanism else None,
            "seed": None,
            "device": self.device,
            "dtype": "float32",
            "threads": 1 if self.device == "cpu" else 0,
            "gpus": gpus if self.device == "cuda" else 0,
            **({"nodes": nodes} if nodes > 1 else {}),
        }
        first = Planned(
            id="",
            spec=spec,
            task=self.task,
            model=self.model,
            mechanism=self.mechanism,
            cost_id=identity(cost_spec(spec, self.task)),
            trial=trial,
            settled=(*self.settled, *settled),
            ratio=self.ratio,
        )
        pairs = zip(seeds, identities(spec, seeds), strict=True)
        return [replace(first, id=id, spec={**spec, "seed": seed}) for seed, id in pairs]


def cost_cell(training: Planned) -> Planned:
    """The cell that measures what a training's variant costs: without seed, on all cores."""
    spec = cost_spec(training.spec, training.task)
    parts = {"task": training.task, "model": training.model, "mechanism": training.mechanism}
    settled = tuple(column for column in training.settled if column != WAITS)
    return Planned(id=identity(spec), spec=spec, **parts, settled=settled, ratio=training.ratio)


def cost_spec(spec: Spec, task: Chosen) -> Spec:
    """Knobs of the task that do not change what a step costs are left out, so that variants share a cell.

    Cost is measured on one GPU of one node, however many train together.
    """
    spec = {word: value for word, value in spec.items() if word != "nodes"}
    steps = getattr(task.config, "step_knobs", frozenset()) & task.spec["knobs"].keys()  # which has no neutral knobs
    knobs = {name: getattr(task.config, name) for name in sorted(task.config.cost_knobs | steps)}
    try:
        configure(task.entry.config, knobs, of=task.name)
    except KnobError:  # the defaults of the others do not go with these, so this variant has a cell of its own
        knobs = task.spec["knobs"]
    on = {"gpus": 1} if spec.get("gpus", 0) > 1 else {}
    return spec | {"kind": "cost", "seed": None, "threads": 0, "task": task.spec | {"knobs": knobs}} | on
