"""What people read instead of ids: a mechanism's name and the knobs in which a sweep's variants of it differ."""

from collections.abc import Iterable, Mapping
from typing import Any

from attnbench._entries import Chosen, once
from attnbench.sweep import Plan, Planned
from mechanisms._stages import spread


def variants(plan: Plan) -> dict[str, str]:
    """Cell id -> what the cell shares with those that differ by the seed alone: `mano window 2, levels 3, conv`."""
    cells = (*plan.cells, *plan.waiting)
    fields = ("task", "model", "mechanism")
    groups = {field: differing(once(getattr(cell, field) for cell in cells)) for field in fields}
    names = {
        "task": len({cell.task.name for cell in plan.cells if cell.task}),
        "model": len({cell.model.name for cell in plan.cells if cell.mechanism and cell.model}),
    }
    told: dict[tuple[int, ...], str] = {}  # by a variant's parts, which its cells share
    found = {}
    for cell in cells:
        parts = (id(cell.task), id(cell.model), id(cell.mechanism))
        if parts not in told:
            told[parts] = variant(cell, groups, names)
        found[cell.id] = told[parts]
    return found


def differing(chosen: Iterable[Chosen]) -> dict[str, list[str]]:
    """For each name, the knobs that the file names and that take several values, in the order of the file."""
    alike: dict[str, list[Chosen]] = {}
    for part in chosen:
        alike.setdefault(part.name, []).append(part)
    return {name: [knob for knob in written(parts) if varies(knob, parts)] for name, parts in alike.items()}


def written(parts: Iterable[Chosen]) -> list[str]:
    """The knobs that the file names for any of the parts, each once."""
    return list(dict.fromkeys(knob for part in parts for knob in part.written))


def varies(knob: str, parts: Iterable[Chosen]) -> bool:
    """Whether a knob takes several values, the default of an entry that does not name it among them."""
    return len({repr(part.values[knob]) for part in parts}) > 1


def variant(cell: Planned, groups: Mapping[str, Mapping[str, list[str]]], names: Mapping[str, int]) -> str:
    """The mechanism, or the whole model; then the task and the model where the sweep has several of them."""
    subject = cell.mechanism or cell.model
    told = [described(subject, groups["mechanism" if cell.mechanism else "model"])]
    for field, part in (("model", cell.model), ("task", cell.task)):
        knobs = groups[field].get(part.name, []) if part else []
        if part and part is not subject and (knobs or names[field] > 1):
            told.append(described(part, groups[field]))
    return " · ".join(told)


def described(part: Chosen, knobs: Mapping[str, list[str]]) -> str:
    idle = part.config.idle()
    words = [word(knob, part.values[knob]) for knob in knobs.get(part.name, []) if knob not in idle]
    return f"{part.name} {', '.join(words)}" if words else part.name


def word(knob: str, value: Any) -> str:
    """A choice speaks for itself, a switch by its name, a number needs its knob's."""
    if isinstance(value, bool):
        return knob if value else f"no {knob}"
    if isinstance(value, Mapping):
        return f"{knob} {spread(value)}"
    return value if isinstance(value, str) else f"{knob} {value:g}" if isinstance(value, float) else f"{knob} {value}"
