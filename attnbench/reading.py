"""Verbs that only read: status, report, ledger, list and logs.

Of them the ledger needs torch, for it counts; and a report of a store, which leaves it to a second process if it can.
"""

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any

import click

from attnbench.engine import codes
from attnbench.engine.store import Evidence, Store
from attnbench.manifest import Cell, Manifest
from attnbench.reports import meanwhile

FULL_DISK = 2**20  # bytes
STALE = (
    "stale: made by other code than today's; they are kept, `report` refuses to mix them with new ones, "
    "and `sweep --retry stale` makes them again"
)


def manifest(name: str, root: Path) -> Manifest:
    """The manifest of a sweep that was started under this root. Raises ValueError when there is none."""
    file = root / name / "cells.json"
    if not file.is_file():
        known = sorted(path.parent.name for path in root.glob("*/cells.json"))
        near = "".join(f" Did you mean {match!r}?" for match in get_close_matches(name, known, n=1))
        there = f"{near} Started there: {', '.join(known)}." if known else ""
        raise ValueError(f"no sweep {name!r} was started under {root}; `attnbench sweep` does that.{there}")
    return Manifest.read(file)


def status(name: str, root: Path, *, quiet: bool, as_json: bool) -> int:
    """Prints counts, causes and time left; returns 0 done, 3 incomplete, 4 cells set aside, 5 store damaged."""
    from attnbench.engine.slurm import snapshot
    from attnbench.engine.states import states, summary

    listed, store = manifest(name, root), Store(root)
    with ThreadPoolExecutor(1) as other:  # the scheduler may take seconds to say nothing
        asked = other.submit(snapshot, store)
        evidence = store.scan((cell.id for cell in listed.cells), cache=listed.sweep)
        queue = asked.result()
    broken = [*(["SLURM does not answer, so what waits or runs there is not known"] if queue is None else [])]
    if (free := shutil.disk_usage(root).free) < FULL_DISK:
        broken.append(f"the disk of {root} is full: {free // 1024} KiB are free")
    told = summary(listed, states(listed.cells, evidence, queue, now=time.time()), broken=broken)
    told = with_stale(with_waiting(told, listed), evidence.values())
    if as_json:
        click.echo(json.dumps(told.json(), indent=1))
    elif not quiet:
        click.echo(spoken(told))
    return told.code


def with_stale(told: Any, evidence: Iterable[Evidence]) -> Any:
    """The same with the rows that other code made than today's."""
    stale = stale_rows(evidence)
    return replace(told, causes={**told.causes, STALE: stale}) if stale else told


def stale_rows(evidence: Iterable[Evidence]) -> int:
    """How many rows of these cells have another fingerprint than the code here."""
    from attnbench.host import shared

    made = [known.code for known in evidence if known.code]
    return len(made) - made.count(shared()) if made else 0


def with_waiting(told: Any, listed: Manifest) -> Any:
    """The same with the trainings that have no cells yet, because the trials that choose for them have not all ended.

    They make a sweep incomplete, unless cells that were set aside do so already.
    """
    if not (waiting := len(listed.waiting)):
        return told
    counts = {**told.counts, "waiting": waiting}
    code = codes.INCOMPLETE if told.code == codes.DONE else told.code
    left_s = round(told.left_s + listed.waiting_s, 1)
    knob = (listed.choose or {})["knob"]
    why = f"waiting: for the trials that choose {knob}; `attnbench sweep` goes on from there"
    causes = {**told.causes, why: waiting}
    return replace(told, total=told.total + waiting, counts=counts, causes=causes, left_s=left_s, code=code)


def spoken(told: Any) -> str:
    from attnbench.engine.progress import span

    counts = ", ".join(f"{count} {word}" for word, count in told.counts.items())
    lines = [f"{told.sweep}: {told.total} cells: {counts}."]
    lines += [f"  {count} x {cause}" for cause, count in told.causes.items()]
    if told.left_s:
        lines.append(f"About {span(told.left_s)} left.")
    return "\n".join(lines)


def report(names: Sequence[str], root: Path, *, quiet: bool, mixed: bool, anonymous: bool = False) -> None:
    """Writes tables, figures and a page of each sweep and prints its summary table; of several also one page of all."""
    sweeps, works = {name: manifest(name, root) for name in names}, []
    for name, listed in sweeps.items():
        works += [partial(staleness, name, listed, root), partial(tries, listed, root)]
    with meanwhile.begun(partial(load, list(sweeps.values()), root), *works) as (_, *answers):
        reports(sweeps, list(map(cache, answers)), root, quiet=quiet, mixed=mixed, anonymous=anonymous)


def load(sweeps: Iterable[Manifest], root: Path) -> None:
    """Loads what the knobs of mechanisms need, if there is a store of any of these sweeps to make rows from."""
    if any(Store(root).spec_path(cell.id).exists() for listed in sweeps for cell in listed.cells[:1]):
        import mechanisms  # noqa: F401


def staleness(name: str, listed: Manifest, root: Path) -> str:
    """A sentence on the rows of a sweep that other code made; empty if there are none."""
    stale = stale_rows(Store(root).scan((cell.id for cell in listed.cells), cache=name).values())
    return f"{stale} rows are {STALE}." if stale else ""


def tries(listed: Manifest, root: Path) -> dict[str, int]:
    """How often each cell of a sweep was tried."""
    return Store(root).tries(cell.id for cell in listed.cells)


def reports(
    sweeps: Mapping[str, Manifest],
    answers: Sequence[meanwhile.Work],
    root: Path,
    *,
    quiet: bool,
    mixed: bool,
    anonymous: bool,
) -> None:
    """What `report` does. answers: for each sweep what gives its `staleness`, and what gives its `tries`."""
    from rich.console import Console

    from attnbench.reports.anonymous import remaining
    from attnbench.reports.page import write
    from attnbench.reports.report import Late, made_report, screen

    console, store, parts = Console(), Store(root), []
    for (name, listed), told, tried in zip(sweeps.items(), answers[::2], answers[1::2], strict=True):
        folder = root / name
        made = made_report(store, listed, folder, mixed=mixed, hide=anonymous, late=Late(told, tried))
        parts.append(made.part)
        if anonymous:
            made.part.manifest.write(folder / "cells.json")
            for file in remaining(folder, made.part.veil):
                click.echo(f"{folder / file} is no file of the report and still names a host or a user.", err=True)
        if quiet:
            continue
        if text := told():
            click.echo(text, err=True)
        console.print(screen(made.part.frame, console.width, made.part.known))
        console.print(f"Tables and figures: {made.summary.parent}", soft_wrap=True, highlight=False)
    page = write.write(parts, root / write.NAME) if len(parts) > 1 else root / parts[0].manifest.sweep / write.NAME
    if not quiet:
        console.print(f"Page: {page}", soft_wrap=True, highlight=False)


def events(name: str, root: Path, *, quiet: bool) -> None:
    """Writes a sweep's training curves as event files for TensorBoard and prints how to look at them."""
    from attnbench import boards

    folder = boards.write(Store(root), manifest(name, root))
    if not quiet:
        click.echo(f"Training curves: tensorboard --logdir {folder}")


def ledger(root: Path, *, quiet: bool) -> None:
    """Writes claims.md and claims.csv under the root of results and prints the claims that agree or differ."""
    from attnbench.ledger.page import spoken, write_ledger

    found = write_ledger(root)
    if not quiet:
        click.echo(f"{spoken(found)}\n{root / 'claims.md'}")


def against(after: str, before: str, root: Path, *, quiet: bool) -> None:
    """Writes and prints what changed beyond noise between two sets of results."""
    from attnbench.reports import versus

    file, text = versus.write(after, before, root, Store)
    if not quiet:
        click.echo(f"{text}\n{file}")


def shelf(entries: list[dict[str, Any]]) -> str:
    """Entries of the catalogue for people: what each is, then a line for each knob."""
    return "\n\n".join(told(entry) for entry in entries)


def told(entry: dict[str, Any]) -> str:
    name = entry["name"]
    if "missing" in entry:
        return f"{name}  (cannot be used here: {entry['missing'].rstrip('.')})"
    if "question" in entry:
        return f"{name}  {entry['runs']} runs. {entry['question']}"
    facts = [f"fits {', '.join(entry['fits'])}", f"work {entry['order']}"] if "fits" in entry else []
    facts += [f"{number}: {way} is better" for number, way in entry.get("better", {}).items()]
    facts += [f"from {entry['plugin']}"] if "plugin" in entry else []
    head = [f"{name}  {entry['summary']}", *([f"    {'; '.join(facts)}"] if facts else [])]
    head += [f"    {entry['source']}"] if entry["source"] else []
    return "\n".join([*head, *(knob(line) for line in entry["knobs"])])


def knob(line: dict[str, Any]) -> str:
    default = json.dumps(line["default"]) if not isinstance(line["default"], str) else line["default"]
    kind = f"{line['type']} {line['bounds']}".strip()
    return f"    {line['name']} = {default}  [{kind}]  {line['about']}"


def logs(name: str, word: str, root: Path) -> str:
    """The latest attempt's output. Raises ValueError when no cell, or more than one, begins with the word."""
    listed, store = manifest(name, root), Store(root)
    found = [cell for cell in listed.cells if cell.id.startswith(word) or cell.label.startswith(word)]
    if len(found) != 1:
        told = "; ".join(f"{cell.id} {cell.label}" for cell in (found or listed.cells)[:8])
        raise ValueError(f"{len(found)} cells of {name} begin with {word!r}; give an id or a label, such as {told}.")
    return output(store, found[0])


def output(store: Store, cell: Cell) -> str:
    attempts = store.attempts(cell.id)
    if not attempts:
        return f"{cell.label} ({cell.id}): not tried yet."
    last = max(attempts, key=lambda attempt: attempt.started)
    log = store.spec_path(cell.id).parent / "attempts" / f"{last.uuid}.log"
    text = log.read_text(errors="replace") if log.is_file() else ""
    error = (last.end or {}).get("error") or {}
    return f"{cell.label} ({cell.id}), attempt {last.uuid} on {last.host}:\n{text}{error.get('traceback', '')}"
