"""Entries of a sweep file's lists: a name from a catalogue and knobs, some of which are axes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from attnbench._yaml import SweepError, line, plain
from mechanisms import KnobError, Knobs, configure, resolved


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

    written: the knobs that the file names, in its order.
    """

    name: str
    entry: Any
    config: Any
    written: tuple[str, ...]
    line: int | None

    @cached_property
    def spec(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.entry.version, "knobs": resolved(self.config)}

    @cached_property
    def values(self) -> dict[str, Any]:
        """Every knob, idle ones too."""
        return self.config.model_dump()


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


def chosen(file: Path, entries: Sequence[Part], find: Callable[[str], Any]) -> Iterator[Chosen]:
    """Every combination of the axes of every entry. Raises SweepError for unknown names and refused knobs."""
    for part in entries:
        try:
            entry = find(part.name)
        except ValueError as error:
            raise SweepError(file, line(part.node, "name") or part.line, str(error)) from None
        axes = {knob: item if isinstance(item, list) else [item] for knob, item in part.knobs.items()}
        refuse_empty(file, part, axes)
        for values in product(*axes.values()):
            config = configured(file, part, entry.config, dict(zip(axes, values, strict=True)))
            yield Chosen(name=part.name, entry=entry, config=config, written=tuple(part.knobs), line=part.line)


def refuse_empty(file: Path, part: Part, axes: Mapping[str, list[Any]]) -> None:
    for knob, items in axes.items():
        if not items:
            raise SweepError(file, line(part.node, knob), f"{part.name}.{knob} is an axis without values.")


def configured(file: Path, part: Part, config: type[Knobs], knobs: dict[str, Any]) -> Knobs:
    try:
        return configure(config, knobs, of=part.name)
    except KnobError as error:
        place = line(part.node, error.knob) if error.knob in part.knobs else part.line
        raise SweepError(file, place, str(error)) from None
