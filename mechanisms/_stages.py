"""Knobs that differ between the stages of a model, written as a map: `levels: {1: 3, 2: 2, 3: 1, 4: 1}`.

A mechanism's config holds one value a knob, and a stage is given a config of its own; seen from outside they are one:
what is alike in all stages is plain, the rest a map from the number of the stage, as a word, to the value. A knob that
is idle in a stage has no value for it.
"""

from collections.abc import Mapping
from typing import Any

from mechanisms._knobs import Knobs, configure, resolved
from mechanisms._registry import mechanisms


class Staged:
    """One config for each stage, in order, with the words of a single one."""

    def __init__(self, configs: Mapping[str, Knobs]):
        self.configs = dict(configs)

    def idle(self) -> set[str]:
        """The knobs that are idle in every stage."""
        return set.intersection(*(config.idle() for config in self.configs.values()))

    def model_dump(self) -> dict[str, Any]:
        """Every knob: its one value, or the value of each stage."""
        first = next(iter(self.configs.values()))
        return {name: self.value(name, first) for name in type(first).model_fields}

    def value(self, name: str, first: Knobs) -> Any:
        found = {stage: getattr(one, name) for stage, one in self.configs.items() if name not in one.idle()}
        if not found:
            return getattr(first, name)
        values = list(found.values())
        return found if any(value != values[0] for value in values) else values[0]

    def resolved(self) -> dict[str, Any]:
        """Every knob as it enters a cell's id: without the idle ones and those at their neutral value."""
        neutral = next(iter(self.configs.values())).neutral
        silent, values = self.idle(), self.model_dump()
        return {
            name: v for name, v in values.items() if name not in silent and not (name in neutral and v == neutral[name])
        }


def each(config: Knobs | Staged) -> list[dict[str, Any]]:
    """The knobs of every stage as they enter an id."""
    return [resolved(one) for one in (config.configs.values() if isinstance(config, Staged) else [config])]


def staged(knobs: Mapping[str, Any]) -> list[str]:
    """The stages that any of these knobs names, in order; none where all are plain."""
    named = {stage for value in knobs.values() if isinstance(value, Mapping) for stage in value}
    return sorted(named, key=int)


def at(knobs: Mapping[str, Any], stage: int | str) -> dict[str, Any]:
    """The knobs of one stage; those that have no value for it are left out."""
    spread = {name: value if isinstance(value, Mapping) else {str(stage): value} for name, value in knobs.items()}
    return {name: values[str(stage)] for name, values in spread.items() if str(stage) in values}


def picked(name: str, knobs: Mapping[str, Any], stage: int) -> dict[str, Any]:
    """The knobs of a mechanism in one stage. Raises ValueError where one that is not idle there has no value for it."""
    own = at(knobs, stage)
    if gaps := knobs.keys() - own.keys():
        config = configure(mechanisms.find(name).config, own, of=name)
        if lacking := sorted(gaps - config.idle()):
            there = ", ".join(knobs[lacking[0]])
            raise ValueError(f"{name}.{lacking[0]} has values for the stages {there} and none for stage {stage}.")
    return own


def spread(value: Any) -> Any:
    """A value for people: of a map the values in order of the stages, a dash where there is none, as 3/2/1/1."""
    if not isinstance(value, Mapping):
        return value
    stages = range(1, max(map(int, value)) + 1)
    return "/".join(told(value.get(str(stage), "-")) for stage in stages)


def told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
