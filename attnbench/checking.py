"""The verb check: of a mechanism the report card of its contract, of a sweep file its cells."""

import json
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from time import perf_counter

import click

import mechanisms
from attnbench import paths, plugins, verbs
from attnbench._yaml import value
from attnbench.contract import Line, Subject, examine
from attnbench.contract.card import as_json as card_json
from attnbench.contract.card import counts
from attnbench.engine import codes
from mechanisms import Mechanism, configure


def check(words: Sequence[str], *, as_json: bool, device: str, settings: Sequence[str], only: Sequence[str]) -> int:
    """Prints a card or an overview of each; returns 0, or 1 when a mechanism breaks its contract."""
    plugins.join()
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    subjects, knobs = words[:first], words[first:]
    if not subjects:
        raise ValueError(f"name what to check before its knobs; got {words[0]!r}.")
    failed = False
    for word in subjects:
        if is_mechanism(word):
            if settings or only or device != "auto":
                raise ValueError(f"--set, --only and --device are for sweep files, and {word} is a mechanism.")
            failed |= card(entry_of(word), knobs, as_json=as_json)
            continue
        if knobs:
            raise ValueError(f"knobs such as {knobs[0]} go with a mechanism, and {word} is a sweep; use --set.")
        checked = verbs.checked(word, device, settings, only, launcher="local")
        click.echo(verbs.listing(checked) if as_json else verbs.overview(checked))
    return codes.REFUSED if failed else codes.DONE


def is_mechanism(word: str) -> bool:
    """Raises ValueError when a word is like a mechanism's name and unlike any sweep's."""
    if word.endswith(".py") or ":" in word or word in mechanisms.names():
        return True
    try:
        paths.sweep_file(word)
    except ValueError:
        near = get_close_matches(word, [*paths.sweep_names(), *mechanisms.names()], n=1)
        if near and near[0] in mechanisms.names():
            raise ValueError(f"there is no mechanism or sweep {word!r}. Did you mean {near[0]!r}?") from None
        raise
    return False


def entry_of(word: str) -> Mechanism:
    """A mechanism from its name, its file, or package.module:Class. Raises ValueError for what is none."""
    if ":" not in word:
        if word.endswith(".py"):
            plugins.name_them([word])
            plugins.join()
            word = os.path.basename(word).removesuffix(".py")  # noqa: PTH119 - a word, not a path that is opened
        return found(word)
    module, _, name = word.partition(":")
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds words
        sys.path.append(os.getcwd())  # noqa: PTH109
    file = plugins.place(module)
    stem = module.rpartition(".")[2]
    if found(stem).module.__name__ == name if stem in mechanisms.names() else False:
        return found(stem)
    plugins.name_them([file])
    plugins.join()
    entry = found(file.stem)
    if entry.module.__name__ != name:
        raise ValueError(f"{module} registers the class {entry.module.__name__}; got {name!r}.")
    return entry


def found(name: str) -> Mechanism:
    """A mechanism by its name. Raises ValueError too where its file ends the process instead of registering."""
    try:
        return mechanisms.find(name)
    except SystemExit as error:
        file = mechanisms.mechanisms.guests.get(name, f"mechanisms/{name}.py")
        raise ValueError(f"{file} cannot be imported: it calls sys.exit({error.code!r}).") from error


def card(entry: Mechanism, words: Sequence[str], *, as_json: bool) -> bool:
    """Prints the card, line by line; returns whether a line failed."""
    if why := entry.absence("cpu"):
        raise ValueError(why)
    knobs = {name.removeprefix("mechanism."): value(written) for name, written in verbs.pairs(words)}
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
        click.echo(f"{', '.join(f'{count} {word}' for word, count in counts(lines).items())}; {seconds:.0f} s.")
    return any(line.word == "fail" for line in lines)


def said(line: Line) -> None:
    click.echo(str(line))
