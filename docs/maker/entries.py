"""A page for every mechanism, task and model, and the tables of all, from the registries and the files' docstrings."""

import ast
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from ruamel.yaml import YAML

import mechanisms
import tasks
from attnbench import catalogue, models
from maker.markdown import DOCS, MADE, ROOT, escaped, facts, prose, table
from tasks._training import TrainingKnobs

FOLDERS = {"mechanisms": "mechanisms", "tasks": "tasks", "models": "attnbench/models"}
REGISTRIES: dict[str, Any] = {"mechanisms": mechanisms, "tasks": tasks, "models": models}
DEPARTS = re.compile(r"^Departs from [^:]*:", re.MULTILINE)
WORK = re.compile(r"^Work\b", re.MULTILINE)
REACH = {
    "token": "itself alone",
    "local": "some others",
    "global": "all (causally, all before it)",
    None: "not declared",
}
KINDS: dict[Any, str] = {int: "whole number", float: "number", str: "text", bool: "`true` `false`"}
TRY = {"grid": "darcy", "sequence": "mlm", "causal": "recall"}


@cache
def formulas() -> dict[str, dict[str, str]]:
    return YAML(typ="safe").load((DOCS / "formulas.yaml").read_text())


@cache
def docstring(file: str) -> str:
    return ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""


def names(kind: str) -> list[str]:
    return REGISTRIES[kind].names()


def path(kind: str, name: str) -> str:
    return f"{FOLDERS[kind]}/{name}.py"


def parts(text: str) -> tuple[str, str, str]:
    """A docstring's summary, what follows it, and where it departs from its source; the last may be empty."""
    summary, _, rest = text.partition("\n\n")
    found = DEPARTS.search(rest)
    return summary, rest[: found.start()] if found else rest, rest[found.start() :] if found else ""


def heading(name: str, summary: str) -> str:
    return f"{MADE}# {name}\n\n{prose(summary)}\n\n"


def code(*lines: str) -> str:
    return "```\n" + "\n".join(lines) + "\n```\n"


def sources(text: str) -> str:
    """All addresses of a text as links."""
    found = dict.fromkeys(address.rstrip(".,;") for address in re.findall(r"https?://[^\s,;)]+", text))
    return ", ".join(f"[{one.split('//')[1].removeprefix('arxiv.org/abs/')}]({one})" for one in found)


def knobs(fields: Iterable[tuple[str, Any]]) -> str:
    """A table of knobs: name, type with bounds, default, explanation."""
    lines = []
    for name, field in fields:
        one = catalogue.knob(name, field)
        default = "needed" if field.is_required() else f"`{shown(field.get_default(call_default_factory=True))}`"
        lines.append((f"`{name}`", kind(field.annotation, field.metadata), default, escaped(one["about"])))
    return table(["knob", "type", "default", "what it says"], lines) if lines else "None.\n"


def kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type as people read it: the words of a choice, or the kind of value and its bounds."""
    args = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " ".join(f"`{shown(word)}`" for word in args)
    if get_origin(annotation) is Annotated:
        return kind(args[0], [*args[1:], *metadata])
    if get_origin(annotation) is list:
        return f"a list: {kind(args[0])}"
    if get_origin(annotation) is dict:
        return "a map"
    if args:
        return " or ".join(kind(one) for one in args if one is not type(None))
    told = [bound for item in flat(metadata) if (bound := catalogue.bound(item))]
    return ", ".join([KINDS.get(annotation, str(annotation)), *told]).replace(">", "\\>").replace("<", "\\<")


def flat(metadata: Iterable[Any]) -> Iterable[Any]:
    """Constraints, those inside a pydantic field too."""
    for item in metadata:
        yield from getattr(item, "metadata", (item,))


def shown(value: Any) -> str:
    """A value as YAML has it."""
    words = {"True": "true", "False": "false", "None": "null", "": '""'}
    return words.get(str(value), str(value))


def mechanism(name: str, measured: Callable[[str, str], str]) -> str:
    """The page of one mechanism. measured: links to the results that have it."""
    found, text = mechanisms.find(name), docstring(path("mechanisms", name))
    summary, rest, departs = parts(text)
    work = WORK.search(rest)
    from_, how = (rest[: work.start()], rest[work.start() :]) if work else (rest, "")
    same = found.reference
    bound = "for some knobs" if callable(found.bound_to_shape) else "yes" if found.bound_to_shape else "no"
    slow = f"`attnbench/oracles/{same or name}.py`"
    return "".join(
        [
            heading(name, summary),
            facts(
                [
                    ("fits", ", ".join(sorted(found.fits))),
                    ("work", f"{found.order.replace('^2', '²')}{', other knobs: see below' if found.order_of else ''}"),
                    ("a token sees", "depends on its knobs" if callable(found.reach) else REACH[found.reach]),
                    ("weights bound to the size", bound),
                    ("the same numbers as", f"[{same}]({same}.md), another implementation" if same else ""),
                    (
                        "needs",
                        f"the optional package `{found.needs}`, on {', '.join(found.devices)}" if found.needs else "",
                    ),
                    ("source", sources(rest)),
                    ("file, slow form", f"`{path('mechanisms', name)}`, {slow}"),
                    ("measured in", measured("mechanism", name)),
                ]
            ),
            f"## Formula\n\n{formula(name, same)}\n",
            f"## Cost, and how it works\n\n{prose(how)}\n\n" if how else "",
            f"## Knobs\n\n{knobs(found.config.model_fields.items())}\n",
            f"## Source, and where this departs from it\n\n{prose(from_)}\n\n{prose(departs)}\n\n",
            f"## Try it\n\n{code(*commands(name))}",
        ]
    )


def commands(name: str) -> list[str]:
    """What to type first: its contract and, where any machine can, a short training on a task that it fits."""
    found = mechanisms.find(name)
    fit = next(word for word in TRY if word in found.fits)
    short = [f"attnbench run {TRY[fit]} {name} --epochs 2"] if "cpu" in found.devices else []
    return [f"attnbench check {name}", *short]


def formula(name: str, same: str | None) -> str:
    """A mechanism's formula and the words of its letters; that of its reference where it computes the same."""
    told = formulas()[same or name]
    other = f"That of [{same}]({same}.md):\n\n" if same else ""
    return f"{other}```{{math}}\n{told['formula'].strip()}\n```\n\n{told['where'].strip()}\n"


def task(name: str, measured: Callable[[str, str], str]) -> str:
    """The page of one task."""
    found = tasks.find(name)
    summary, rest, departs = parts(docstring(path("tasks", name)))
    config = found.config()
    own = [(one, field) for one, field in found.config.model_fields.items() if one not in TrainingKnobs.training]
    shared = [
        (one, field)
        for one, field in found.config.model_fields.items()
        if one in TrainingKnobs.training and field.default != TrainingKnobs.model_fields[one].default
    ]
    port, sizes = config.port, " x ".join(map(str, config.port.shape))
    given = f"one of {port.inputs} symbols" if port.symbols else f"{port.inputs} number{'s' * (port.inputs > 1)}"
    asked = f"{port.outputs} number{'s' * (port.outputs > 1)} {'for each example' if port.once else 'at every place'}"
    training = "The other knobs of training are those of [all tasks](index.md#knobs-of-training)."
    differing = f"Other defaults of training than usual:\n\n{knobs(shared)}\n" if shared else ""
    better = ", ".join(f"`{one}` ({side} is better)" for one, side in found.better.items())
    return "".join(
        [
            heading(name, summary),
            facts(
                [
                    ("places", f"{sizes}{', causal' if port.causal else ''}, with the default knobs"),
                    ("a model is given", f"{given} at every place"),
                    ("and asked for", asked),
                    ("numbers that rank", better),
                    ("source", sources(rest)),
                    ("file", f"`{path('tasks', name)}`"),
                    ("measured in", measured("task", name)),
                ]
            ),
            f"## What is asked, and what is measured\n\n{prose(rest)}\n\n{prose(departs)}\n\n",
            f"## Knobs\n\n{knobs(own)}\n{training} {differing}\n",
            f"## Its data\n\n{code(f'attnbench data {name}')}\nmakes them, or finds them, and prints their hash.\n",
        ]
    )


def model(name: str, measured: Callable[[str, str], str]) -> str:
    """The page of one model."""
    found = models.find(name)
    summary, rest, departs = parts(docstring(path("models", name)))
    place = "a mechanism stands in it: section `models`" if found.socket else "a whole model: section `baselines`"
    return "".join(
        [
            heading(name, summary),
            facts(
                [
                    ("in a sweep file", place),
                    ("source", sources(rest)),
                    ("file", f"`{path('models', name)}`"),
                    ("measured in", measured("model", name)),
                ]
            ),
            f"{prose(rest)}\n\n{prose(departs)}\n\n## Knobs\n\n{knobs(found.config.model_fields.items())}",
        ]
    )


MAKERS = {"mechanisms": mechanism, "tasks": task, "models": model}


def rows(what: str) -> str:
    """The table of all entries of a kind, each name a link."""
    lines = []
    for name in names(what):
        found = REGISTRIES[what].find(name)
        summary = escaped(parts(docstring(path(what, name)))[0].partition(": ")[2].replace("\n", " "))
        link = f"[`{name}`]({name}.md)"
        if what == "mechanisms":
            lines.append((link, ", ".join(sorted(found.fits)), found.order.replace("^2", "²"), summary))
        else:
            lines.append((link, summary))
    head = {"mechanisms": ["name", "fits", "work", "what it does"]}.get(what, ["name", "what it is"])
    return table(head, lines)


def contents(what: str) -> str:
    return "```{toctree}\n:hidden:\n\n" + "\n".join(names(what)) + "\n```\n"


def training() -> str:
    return knobs(TrainingKnobs.model_fields.items())


def labelled() -> str:
    """What all tasks with right and wrong answers return."""
    text = docstring("tasks/_labelled.py")
    return prose(text[text.index("Numbers that every such task returns:") :].partition("\n")[2])
