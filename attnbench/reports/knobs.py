"""The knobs of mechanisms as columns: all of them in every row, and which are idle in it.

An id leaves out what is idle or neutral, so only a mechanism's Config knows them all, and that needs torch: seconds to
load, which a second process spends where there is one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnbench.reports import meanwhile

if TYPE_CHECKING:
    from mechanisms import Knobs

Flat = dict[str, Any]
START = "mechanism."


def fill_knobs(rows: list[Flat]) -> None:
    """All knobs of each mechanism, also those an id leaves out, idle or at their neutral value, and which are idle.

    Where a mechanism is not here, or no longer takes these knobs, the rows are all there is: what one of them lacks
    and another has is blank and counts as idle in it.
    """
    different: dict[str, dict[str, Flat]] = {}  # of a mechanism: seeds share their knobs
    places = []
    for row in rows:
        if row["mechanism"] and (row["task"] or row.get("site.tokens")):
            given = knobs_of(row)
            different.setdefault(row["mechanism"], {}).setdefault(key := repr(given), given)
            places.append((row, key))
    wanted = {name: list(own.values()) for name, own in different.items()}
    found = meanwhile.asked(filled, wanted) if wanted else {}
    known = {name: dict(zip(different[name], columns, strict=True)) for name, columns in found.items()}
    for row, key in places:
        row |= known[row["mechanism"]][key]


def knobs_of(row: Flat) -> Flat:
    return {column[len(START) :]: value for column, value in row.items() if column.startswith(START)}


def filled(wanted: Mapping[str, Sequence[Flat]]) -> dict[str, list[Flat]]:
    """Of each mechanism and each set of its knobs the columns of all its knobs, and `idle`, those of them that are."""
    from mechanisms._stages import spread  # here, for it brings torch

    found: dict[str, list[Flat]] = {}
    for name, sets in wanted.items():
        config, knobs = config_of(name), {knob for given in sets for knob in given}
        for given in sets:
            full, idle = completed(config, given, of=name) or (given, knobs - given.keys())
            columns = {f"{START}{knob}": spread(value) for knob, value in full.items()}
            found.setdefault(name, []).append(columns | {"idle": " ".join(sorted(idle))})
    return found


def absent(names: Iterable[str]) -> list[str]:
    """Which of these mechanisms cannot be had here."""
    return [name for name in names if config_of(name) is None]


def config_of(name: str) -> "type[Knobs] | None":
    """A mechanism's Config; None where it cannot be had, for a report needs no more than rows."""
    import mechanisms  # here, for it brings torch
    from attnbench import plugins

    if name not in mechanisms.names():
        plugins.join()
    try:
        return mechanisms.find(name).config
    except ValueError:
        return None


def completed(config: "type[Knobs] | None", knobs: Flat, *, of: str) -> tuple[Flat, set[str]] | None:
    """Every knob and which are idle; None where there is no Config, or it does not take them."""
    from mechanisms import configure
    from mechanisms._stages import Staged, at, staged

    if config is None:
        return None
    whole = {**config.neutral, **knobs}
    try:
        made = Staged({stage: configure(config, at(whole, stage), of=of) for stage in staged(whole) or ["1"]})
    except ValueError:
        return None
    return made.model_dump(), made.idle()
