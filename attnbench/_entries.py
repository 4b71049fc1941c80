"""Entries of a sweep file's lists: a name from a catalogue and knobs, some of which are axes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from attnbench._yaml import SweepError, line, plain
from mechanisms import KnobError, Knobs, configure, resolved
from mechanisms._stages import Staged, at


@dataclass(frozen=True)
class Part:
    """One entry as written: its name, its knobs, its place in the file."""

    name: str
    knobs: Mapping[str, Any]
    node: Any

    @property
    def line(self) -> int | None:
        return line(self.node)


@dataclass(frozen=True)
class Chosen:
    """One entry with one value for each knob.

    config: the knobs; of a mechanism whose knobs differ between the stages of its model, a Staged of several.
    written: the knobs that the file names, in its order.
    """

    name: str
    entry: Any
    config: Any
    written: tuple[str, ...]
    line: int | None

    @cached_property
    def spec(self) -> dict[str, Any]:
        knobs = self.config.resolved() if isinstance(self.config, Staged) else resolved(self.config)
        return {"name": self.name, "version": self.entry.version, "knobs": knobs}

    @cached_property
    def values(self) -> dict[str, Any]:
        """Every knob, idle ones too."""
        return self.config.model_dump()


def once(chosen: Iterable[Chosen | None]) -> list[Chosen]:
    """Each of these entries once, in their order; cells of one variant share theirs, so there are few."""
    return list({id(part): part for part in chosen if part}.values())


def parts(file: Path, text: Mapping[str, Any], section: str, *, needed: bool) -> list[Part]:
    """The entries of a section, each a map with a name. Raises SweepError for anything else."""
    if section not in text:
        if needed:
            raise SweepError(file, None, f"the section {section!r} is missing.")
        return []
    nodes = text[section]
    if not isinstance(nodes, list) or not nodes:
        raise SweepError(
            file, line(text, section), f"{section} is a list of entries, each with a name; got {plain(nodes)!r}."
        )
    return [part(file, nodes, number, section) for number in range(len(nodes))]


def part(file: Path, nodes: Any, number: int, section: str) -> Part:
    node = nodes[number]
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        sentence = f"an entry of {section} is a map with a name, such as `- name: ...`; got {plain(node)!r}."
        raise SweepError(file, line(nodes, number), sentence)
    knobs = {key: plain(item) for key, item in node.items() if key != "name"}
    return Part(name=str(node["name"]), knobs=knobs, node=node)


@dataclass(frozen=True)
class Stages:
    """How many stages a model has, over which a mechanism's knob may be spread with a map."""

    of: str
    count: int


def chosen(
    file: Path, entries: Sequence[Part], find: Callable[[str], Any], stages: Stages | None = None
) -> Iterator[Chosen]:
    """Every combination of the axes of every entry. Raises SweepError for unknown names and refused knobs.

    stages: of the model around a mechanism; a map is then a value for each of them.
    """
    for part in entries:
        try:
            entry = find(part.name)
        except ValueError as error:
            raise SweepError(file, line(part.node, "name") or part.line, str(error)) from None
        axes = {knob: item if isinstance(item, list) else [item] for knob, item in part.knobs.items()}
        refuse_empty(file, part, axes)
        for values in product(*axes.values()):
            knobs = dict(zip(axes, values, strict=True))
            config: Knobs | Staged
            if stages and any(isinstance(value, dict) for value in values):
                config = over_stages(file, part, entry.config, knobs, stages)
            else:
                config = configured(file, part, entry.config, knobs)
            yield Chosen(name=part.name, entry=entry, config=config, written=tuple(part.knobs), line=part.line)


def refuse_empty(file: Path, part: Part, axes: Mapping[str, list[Any]]) -> None:
    for knob, items in axes.items():
        if not items:
            raise SweepError(file, line(part.node, knob), f"{part.name}.{knob} is an axis without values.")


def configured(file: Path, part: Part, config: type[Knobs], knobs: dict[str, Any], stage: str = "") -> Knobs:
    """The config of these knobs. Raises SweepError with the line of the knob that is refused."""
    try:
        return configure(config, knobs, of=part.name)
    except KnobError as error:
        place = line(part.node, error.knob) if error.knob in part.knobs else part.line
        raise SweepError(file, place, f"stage {stage}: {error}" if stage else str(error)) from None


def over_stages(file: Path, part: Part, config: type[Knobs], knobs: dict[str, Any], stages: Stages) -> Staged:
    """The configs of all stages. Raises SweepError for a map that is not one value for each of the model's stages."""
    whole = {knob: by_stage(file, part, knob, value, stages) for knob, value in knobs.items()}
    numbers = [str(number) for number in range(1, stages.count + 1)]
    return Staged({number: configured(file, part, config, at(whole, number), number) for number in numbers})


def by_stage(file: Path, part: Part, knob: str, value: Any, stages: Stages) -> Any:
    """A map with its stages as words; anything else as it is."""
    if not isinstance(value, dict):
        return value
    written = part.node[knob]
    node = next((item for item in (written if isinstance(written, list) else [written]) if plain(item) == value), None)
    numbers = [str(number) for number in range(1, stages.count + 1)]
    has = f"the stages 1 to {stages.count}" if stages.count > 1 else "one stage, 1"

    def refusal(key: Any, sentence: str) -> SweepError:
        return SweepError(file, line(node, key) or line(part.node, knob), f"{part.name}.{knob}: {sentence}")

    found: dict[str, Any] = {}
    for key, item in value.items():
        number = str(key) if isinstance(key, int | str) and not isinstance(key, bool) else ""
        if number not in numbers:
            raise refusal(key, f"a map gives each stage its value, and {stages.of} has {has}; got {key!r}.")
        if number in found:
            raise refusal(key, f"stage {number} is written twice; keep one.")
        found[number] = item
    if missing := [number for number in numbers if number not in found]:
        raise refusal(None, f"a map gives each stage its value, and {stages.of} has {has}; {missing[0]} is missing.")
    return found
