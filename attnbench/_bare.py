"""`attnbench run cost MECHANISM` and its like: a probe of one mechanism or of a few, here and now, and its numbers."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click

import mechanisms
from attnbench import launch, paths, planning, plugins, probes, verbs
from attnbench._yaml import plain, value
from attnbench.check import check
from attnbench.engine import codes, local
from attnbench.engine.shard import Limits
from attnbench.engine.store import Store
from attnbench.manifest import point
from attnbench.proofs import refuse_unproven
from attnbench.sweep import expand_text
from mechanisms import known


def section_of(word: str) -> str | None:
    """The section of a sweep file that a word after `attnbench run` stands for; None where it is no such word."""
    return next((name for name, command in probes.COMMANDS.items() if word == command), None)


def run(section: str, subject: str, words: Sequence[str], **given: Any) -> int:
    """Runs every cell of a section that has no row yet, one after the other, and prints a line for each point.

    subject: names of mechanisms, with commas between. words: `--sides 16,64`, or a mechanism's knob.
    """
    plugins.join()
    text = asked(section, subject, words)
    plan = expand_text(Path("attnbench run"), text, device=planning.device_class(given["device"], "local", 0))
    checked = check(plan)
    launch.refuse_absent(plan.device)
    root = paths.results(given["results"])
    cells = [cell for cell in checked.manifest.cells if Store(root).done(cell.id) is None]
    ids = {cell.id for cell in cells}
    say = (lambda _: None) if given["quiet"] else partial(click.echo, err=True)
    refuse_unproven([cell for cell in plan.cells if cell.id in ids], say, anyway=given["unproven"])
    store = Store(paths.writable(root))
    for cell in plan.cells:
        store.ask(cell.spec)
    code = codes.DONE
    if cells:
        data = paths.writable(paths.data(given["data_dir"]))
        code = local.run_local(store, cells, workers=1, data=data, limits=Limits(), quiet=given["quiet"])
    rows = {cell.label: store.result(cell.id) for cell in checked.manifest.cells}
    found = {label: row for label, row in rows.items() if row}
    shown = probes.find(section).shown
    click.echo(json.dumps(list(found.values())) if given["as_json"] else table(found, shown))
    whole = len(found) == len(rows) and all(row["status"] in ("ok", "oom") for row in found.values())
    return codes.DONE if whole else code or codes.SET_ASIDE


def asked(section: str, subject: str, words: Sequence[str]) -> dict[str, Any]:
    """The text of a sweep file with this section alone. Raises ValueError for knobs that nobody has, or several do."""
    names = [name for name in subject.split(",") if name]
    for name in names:
        known("mechanism", name, mechanisms.names(), of="attnbench")
    asks: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {name: {"name": name} for name in names}
    configs = {section: probes.find(section).config, **{name: mechanisms.find(name).config for name in names}}
    if len(names) == 1:
        configs["mechanism"] = configs.pop(names[0])
    for knob, written in verbs.pairs(words):
        owner, name = verbs.owner_of(knob, configs)
        place = asks if owner == section else entries[names[0] if owner == "mechanism" else owner]
        if name in place:
            raise ValueError(f"--{knob} is given twice; keep one.")
        listed = "," in written and not written.startswith("[")
        place[name] = plain(value(f"[{written}]" if listed else written))
    return {"question": f"What does {section} say?", "mechanisms": list(entries.values()), section: asks}


def table(rows: Mapping[str, Mapping[str, Any]], shown: Mapping[str, str]) -> str:
    """A line for each point, its numbers the medians over rounds or seeds, or what became of its cells.

    shown: heads of columns, by the name of a number among a row's costs and results.
    """
    points: dict[str, list[Mapping[str, Any]]] = {}
    for label, row in rows.items():
        points.setdefault(point(label), []).append(row)
    lines = [["", *shown.values()], *(fields(label, own, shown) for label, own in sorted(points.items(), key=size))]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def size(point: tuple[str, list[Mapping[str, Any]]]) -> tuple[Any, ...]:
    """Sorts points by mechanism, then by all but the size, then by the size."""
    label, rows = point
    site = rows[0]["spec"]["site"]["shape"]
    return label.partition(",")[0], len(site), label.split(", ")[2:], site


def fields(label: str, rows: Sequence[Mapping[str, Any]], shown: Mapping[str, str]) -> list[str]:
    states = sorted({row["status"] for row in rows} - {"ok"})
    if states:
        return [label, ", ".join(states), *[""] * (len(shown) - 1)]
    numbers = [[{**row["cost"], **row["result"]}.get(name) for row in rows] for name in shown]
    return [label, *(told([one for one in own if one is not None and one == one]) for own in numbers)]


def told(numbers: Sequence[Any]) -> str:
    if not numbers or isinstance(numbers[0], str):
        return numbers[0] if numbers else "-"
    return ("yes" if any(numbers) else "") if isinstance(numbers[0], bool) else f"{median(numbers):.4g}"
