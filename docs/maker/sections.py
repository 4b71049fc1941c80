"""The reference of the sweep file, from the models that read it."""

from collections.abc import Iterator
from typing import Any, get_args

from attnbench._sections import Frame
from attnbench.reports.columns import NEEDED
from attnbench.sweep import LISTS
from maker.entries import kind, shown
from maker.markdown import escaped, table
from mechanisms import Knobs

ABOUT = {
    "tasks": "what is trained; see the [tasks](../tasks/index.md)",
    "models": "backbones that each mechanism below is put into; see the [models](../models/index.md)",
    "mechanisms": "what is compared; see the [mechanisms](../mechanisms/index.md)",
    "baselines": "whole models, without a mechanism inside, for the same tables",
}


def inner(annotation: Any) -> type[Knobs] | None:
    """The model of knobs that a section holds, alone or in a list; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, Knobs):
        return annotation
    return next((found for part in get_args(annotation) if (found := inner(part))), None)


def many(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is list


def written(name: str, field: Any) -> str:
    """A field's type in words that fit YAML."""
    if name == "seeds":
        return "a number or a list of different numbers"
    if section := inner(field.annotation):
        link = f"[{section.__name__.lower()}](#section-{section.__name__.lower()})"
        return f"a list of maps: {link}" if many(field.annotation) else f"a map: {link}"
    return kind(field.annotation, field.metadata)


def default(field: Any) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    return "left out" if value is None or value == [] else f"`{shown(value)}`"


def fields(section: type[Knobs]) -> str:
    lines = [
        (f"`{name}`", written(name, field), default(field), escaped(field.description or ""))
        for name, field in section.model_fields.items()
    ]
    return table(["word", "type", "default", "what it says"], lines)


def lists() -> str:
    lines = [
        (f"`{name}`", "yes, unless mechanisms are only looked at bare" if name == "tasks" else "no", ABOUT[name])
        for name in LISTS
    ]
    return table(["section", "must it be there", "what it lists"], lines)


def nested() -> Iterator[type[Knobs]]:
    """The sections that are maps of words of their own."""
    for field in Frame.model_fields.values():
        if section := inner(field.annotation):
            yield section


def maps() -> str:
    """A heading and a table for each of them."""
    found = []
    for section in nested():
        name = section.__name__.lower()
        found.append(f"### Section `{name}`\n\n{escaped(about(section))}\n\n{fields(section)}\n")
        if name == "figure":
            needs = [f"`{one}` needs {' and '.join(f'`{word}`' for word in words)}" for one, words in NEEDED.items()]
            found.append(
                f"Each kind draws other columns: {'; '.join(needs)}. Columns are those of [rows](columns.md).\n"
            )
    return "\n".join(found)


def about(section: type[Knobs]) -> str:
    return " ".join((section.__doc__ or "").split())
