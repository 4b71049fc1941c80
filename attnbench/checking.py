"""The verb check: of a mechanism the report card of its contract, of a sweep file its cells."""

import json
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import Any

import click

import mechanisms
from attnbench import paths, planning, plugins, verbs
from attnbench._yaml import plain, value
from attnbench.contract import Line, Subject, examine
from attnbench.contract.card import as_json as card_json
from attnbench.contract.card import ending
from attnbench.engine import codes
from mechanisms import Mechanism, configure

HOUSE = Path(mechanisms.__file__).parent


def check(words: Sequence[str], *, as_json: bool, **given: Any) -> int:
    """Prints a card or an overview of each; returns 0, or 1 when a mechanism breaks its contract.

    given: what goes with sweep files only: device, settings, only, results.
    """
    given = {"results": None, **given}
    plugins.join()
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    subjects, knobs = words[:first], words[first:]
    if not subjects:
        raise ValueError(f"name what to check before its knobs; got {words[0]!r}.")
    failed = False
    for word in subjects:
        if is_mechanism(word):
            if given["settings"] or given["only"] or given["results"] or given["device"] != "auto":
                raise ValueError(
                    f"--set, --only, --device and --results are for sweep files, and {word} is a mechanism."
                )
            failed |= card(entry_of(word), knobs, as_json=as_json)
            continue
        if knobs:
            raise ValueError(f"knobs such as {knobs[0]} go with a mechanism, and {word} is a sweep; use --set.")
        asked = (given["device"], given["settings"], given["only"])
        plan = planning.planned(word, *asked, launcher="local", results=given["results"])
        checked = planning.checked(plan, word, given, launcher="local")
        click.echo(verbs.listing(checked) if as_json else verbs.overview(checked))
    return codes.REFUSED if failed else codes.DONE


def is_mechanism(word: str) -> bool:
    """Raises ValueError when a word is like a mechanism's name and unlike any sweep's."""
    if word.endswith(".py") or ":" in word or word in mechanisms.names():
        return True
    try:
        paths.sweep_file(word)
    except ValueError:
        if hint := almost(word):
            raise ValueError(hint) from None
        near = get_close_matches(word, [*paths.sweep_names(), *mechanisms.names()], n=1)
        if near and near[0] in mechanisms.names():
            raise ValueError(f"there is no mechanism or sweep {word!r}. Did you mean {near[0]!r}?") from None
        raise
    return False


def almost(word: str) -> str | None:
    """How to write what is here under that name, where it is neither a mechanism nor a sweep; None for nothing."""
    if Path(f"{word}.py").is_file():
        return f"{word} is a Python file; write {word}.py."
    if Path(word).is_dir():
        return f"{word} is a folder; name a file in it."
    reach_here()
    if "." in word and word.replace(".", "").isidentifier() and plugins.place(word).is_file():
        return f"{word} is a module; write {word}:Class."
    return None


def reach_here() -> None:
    """Lets modules be found in the working directory, as `python -m` does."""
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds words
        sys.path.append(os.getcwd())  # noqa: PTH109


def entry_of(word: str) -> Mechanism:
    """A mechanism from its name, file.py, file.py:Class or package.module:Class. Raises ValueError for what is none."""
    place, colon, name = word.partition(":")
    if colon and not (place and name.isidentifier()):
        raise ValueError(f"a class is written file.py:Class or package.module:Class; got {word!r}.")
    if not colon and not place.endswith(".py"):
        return mechanisms.find(place)
    reach_here()
    file = Path(place) if place.endswith(".py") else plugins.place(place)
    if file.absolute().parent != HOUSE:  # one of ours needs no invitation
        plugins.name_them([file])
        plugins.join()
    entry = mechanisms.find(file.stem)
    if name and entry.module.__name__ != name:
        raise ValueError(f"{place} registers the class {entry.module.__name__}; got {name!r}.")
    return entry


def card(entry: Mechanism, words: Sequence[str], *, as_json: bool) -> bool:
    """Prints the card, line by line; returns whether a line failed."""
    if why := entry.absence("cpu"):
        raise ValueError(why)
    knobs = given(words)
    configure(entry.config, knobs, of=entry.name)
    subject, start = Subject(entry=entry, knobs=knobs), perf_counter()
    if not as_json:
        told = "".join(f", {knob} {written}" for knob, written in knobs.items())
        click.echo(f"{entry.name}{told}: version {entry.version}, fits {', '.join(sorted(entry.fits))}")
    lines = examine(subject, (lambda _: None) if as_json else said)
    seconds = perf_counter() - start
    if as_json:
        click.echo(json.dumps(card_json(subject, lines) | {"seconds": seconds}, indent=1))
    else:
        click.echo(ending(lines, seconds))
    return any(line.word == "fail" for line in lines)


def given(words: Sequence[str]) -> dict[str, Any]:
    """Knobs by name, from `--levels 2` or `--mechanism.levels=2`. Raises ValueError for one given twice, or a list."""
    knobs: dict[str, Any] = {}
    for name, written in ((name.removeprefix("mechanism."), written) for name, written in verbs.pairs(words)):
        if name in knobs:
            raise ValueError(f"--{name} is given twice; keep one.")
        knobs[name] = plain(value(written))
        if isinstance(knobs[name], list):
            raise ValueError(f"--{name} takes one value here, for a card is of one choice; lists are for sweep files.")
    return knobs


def said(line: Line) -> None:
    click.echo(str(line))
