"""Reads a sweep's results into one table: a row for every cell that was asked, whatever became of it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from attnbench.reports import meanwhile
from attnbench.reports.knobs import absent, fill_knobs
from attnbench.reports.mixtures import mixtures, refuse_mixtures
from attnbench.reports.rows import counted, once, read_csv, records, table, whole

if TYPE_CHECKING:
    from attnbench.manifest import Cell, Manifest

Flat = dict[str, Any]
BLOCKS = ("result", "cost", "host")
MEASURED = ("cost", "efficiency")  # kinds of cells whose numbers hold for one machine alone
SPEC = ("schema", "protocol", "kind", "mechanism", "site", "device", "dtype", "threads", "gpus")
ASKED = ("task", "model.", "mechanism.", "device", "dtype", "threads", "idle")


class Results(Protocol):
    """The part of a store that reading needs."""

    def spec(self, id: str) -> dict[str, Any]: ...
    def result(self, id: str) -> dict[str, Any] | None: ...
    def failed(self, id: str) -> dict[str, Any] | None: ...
    def tries(self, ids: Iterable[str]) -> dict[str, int]: ...


@dataclass(frozen=True)
class Gathered:
    """A sweep's rows and what a reader must know about them: where they come from, what is missing or mixed."""

    frame: pd.DataFrame
    notes: tuple[str, ...]


def collect(store: Results, manifest: "Manifest", *, mixed: bool = False) -> pd.DataFrame:
    """One row per cell of the manifest, sorted by id; training rows carry the cost.* columns of their cost cell.

    A cell without a row has the status `missing`, or `failed` if it was set aside.
    Raises ValueError when rows of different code or data would stand side by side, unless `mixed`.
    """
    rows = {cell.id: flat(store, cell, manifest.sweep, manifest.equal) for cell in manifest.cells}
    fill_knobs(list(rows.values()))
    fill_from_siblings(list(rows.values()))
    frame = table(with_cost(row, rows.get(row["cost_id"])) for row in rows.values())
    if not mixed:
        refuse_mixtures(frame, manifest.sweep)
    return frame


@once()
def gather(store: Results, manifest: "Manifest", folder: Path, *, mixed: bool = False) -> Gathered:
    """The rows in the store or, where it holds none of this sweep's, those of `folder`/rows.csv.

    Raises ValueError as `collect` does.
    """
    file = folder / "rows.csv"
    if file.is_file() and not any(store.result(cell.id) or store.failed(cell.id) for cell in manifest.cells):
        frame, notes = committed(store, manifest, file)
    else:
        frame = collect(store, manifest, mixed=True)
        notes = absences(frame)
    if not mixed:
        refuse_mixtures(frame, manifest.sweep)
    notes += [f"{sentence} They stand side by side because it was asked for." for sentence in mixtures(frame)]
    if waiting := len(manifest.waiting):
        notes.append(f"{waiting} trainings wait for the trials that choose for them, and are not in the tables.")
    return Gathered(frame, (*notes, *machines(frame), *gaps(frame)))


def machines(frame: pd.DataFrame) -> list[str]:
    """What a reader must know of where rows were made: costs from unlike machines, code that was not committed."""
    rows, notes = records(frame), []
    measured = [row for row in rows if row["kind"] in MEASURED and row["status"] == "ok"]
    for name, word in (
        ("host.device", "processors"),
        ("cost.threads", "numbers of threads"),
        ("host.torch", "torches"),
    ):
        if len(kinds := counted(row.get(name) for row in measured)) > 1:
            told = ", ".join(f"{count} on {kind}" for kind, count in kinds)
            notes.append(f"Costs were measured with {len(kinds)} {word} ({told}) and are no ground for a comparison.")
    if dirty := sum(str(row.get("code.dirty")) == "True" for row in rows):
        notes.append(f"{dirty} rows were made from a checkout with uncommitted changes.")
    for name, count in counted(row["mechanism"] for row in rows if str(row.get("host.unproven")) == "True"):
        notes.append(f"{count} rows of {name} were made although it breaks its contract (--unproven).")
    return notes


def committed(store: Results, manifest: "Manifest", file: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a file for the cells that are asked, those it lacks as missing, and a note of both."""
    frame = read_csv(file)
    held = {row["id"]: row for row in records(frame)}
    wanted = {cell.id for cell in manifest.cells}
    lacking, dropped = wanted - held.keys(), held.keys() - wanted
    of_none = all(row["status"] == "missing" for row in held.values())
    if of_none or len(lacking) == len(wanted):
        told = f"{file.name} holds none of the cells that are asked now; it describes another sweep."
        asked = collect(store, manifest, mixed=True)
        return asked, absences(asked) if of_none else [told]
    notes = [f"The store holds none of these cells: the rows were read from {file.name}, not made on this machine."]
    if not lacking and not dropped and whole(frame):
        return frame, notes
    if lacking or dropped:
        notes.append(f"{file.name} lacks {len(lacking)} of the cells asked; {len(dropped)} of its own are not asked.")
    others = replace(manifest, cells=tuple(cell for cell in manifest.cells if cell.id in lacking))
    missing = {row["id"]: row for row in records(collect(store, others, mixed=True))}
    return table(held.get(id) or missing[id] for id in wanted), notes


def flat(store: Results, cell: "Cell", sweep: str, equal: str = "") -> Flat:
    """One cell's record with its blocks spread into columns; equal: what its sweep makes equal."""
    record = store.result(cell.id)
    failure = None if record else store.failed(cell.id)
    spec = asked(store, cell.id, record)
    row: Flat = {"id": cell.id, "sweep": sweep, "kind": cell.kind, "variant": cell.variant, "label": cell.label}
    row |= {"kind": "trial"} if cell.trial else {}
    row |= {"settled": cell.settled} if cell.settled else {}
    row |= {f"equal.{equal}_ratio": cell.ratio} if equal and cell.kind == "train" else {}
    row |= {"model": cell.model, "mechanism": cell.mechanism, "seed": cell.seed, "cost_id": cell.cost_id}
    row |= {"status": record["status"] if record else "failed" if failure else "missing"} | described(spec)
    record = record or {"error": failure}
    for block in BLOCKS:
        row |= {f"{block}.{name}": value for name, value in (record.get(block) or {}).items()}
    code, data, error = (record.get(block) or {} for block in ("code", "data", "error"))
    row |= {"data.hash": None, **{f"data.{name}": value for name, value in data.items()}}
    row |= {
        **{f"code.{name}": code.get(name) for name in ("fingerprint", "entries", "commit", "dirty")},
    }
    row |= {name: record.get(name) for name in ("started", "finished", "wall_s")}
    return row | {"error": ": ".join(filter(None, (error.get("type"), error.get("message")))) or None}


def fill_from_siblings(rows: list[Flat]) -> None:
    """A cell that has not reached the store is described as the others of its variant: only the seed differs."""
    known = {(row["kind"], row["variant"]): row for row in rows if row["task"]}  # of probes no two are alike
    for row in rows:
        if row["kind"] == "trial":  # its variant's trials differ in what they try
            continue
        if not row["task"] and (sibling := known.get((row["kind"], row["variant"]))):
            row.update({name: value for name, value in sibling.items() if name.startswith(ASKED)})


def asked(store: Results, id: str, record: dict[str, Any] | None) -> dict[str, Any]:
    """What a cell asks; nothing where it has not reached the store yet."""
    if record:
        return record["spec"]
    try:
        return store.spec(id)
    except ValueError:  # never asked, or its note is damaged: a missing cell either way, which `sweep` asks again
        return {}


def described(spec: dict[str, Any]) -> Flat:
    """The columns of what was asked: task, model, mechanism and their knobs, and which of the knobs are idle."""
    row: Flat = {name: spec.get(name) for name in ("device", "dtype", "threads")}
    row["task"] = (spec.get("task") or {}).get("name")
    if site := spec.get("site"):
        row |= at_site(spec, site)
    for part in ("task", "model"):
        row |= {f"{part}.{knob}": value for knob, value in ((spec.get(part) or {}).get("knobs") or {}).items()}
    if mechanism := spec.get("mechanism"):
        row |= {f"mechanism.{knob}": value for knob, value in (mechanism.get("knobs") or {}).items()}
    return row


def at_site(spec: dict[str, Any], site: dict[str, Any]) -> Flat:
    """The columns of a bare mechanism's cell: where it stands, and the words that its kind of cells has."""
    shape = site["shape"]
    row = {word: value for word, value in spec.items() if word not in SPEC}
    row |= {"site.channels": site["channels"], "site.shape": "x".join(map(str, shape)), "site.tokens": prod(shape)}
    return row | {"site.causal": site["causal"]}


def absences(frame: pd.DataFrame) -> list[str]:
    """A sentence for each mechanism that is not here, so that its rows are only what they say themselves."""
    rows = (row for row in records(frame) if row["task"] or row.get("site.tokens"))
    names = sorted({row["mechanism"] for row in rows if row["mechanism"]})
    return [
        f"{name} is not among the mechanisms here, so knobs that its rows lack are blank; --plugin FILE fills them."
        for name in (meanwhile.asked(absent, names) if names else ())
    ]


def with_cost(row: Flat, cost: Flat | None) -> Flat:
    """A training row beside the price of its variant; what the training itself paid keeps its place."""
    if row["kind"] != "train" or cost is None:
        return row
    paid = {name: value for name, value in cost.items() if name.startswith("cost.")} if cost["status"] == "ok" else {}
    return {**paid, "cost.status": cost["status"], **row}


def gaps(frame: pd.DataFrame) -> list[str]:
    """For each kind of cell that has not finished whole, how many were asked and what became of them."""
    notes = []
    named = {"trial": "trials", "train": "trainings", "cost": "cost measurements"}
    kinds = dict.fromkeys([*named, *sorted({row["kind"] for row in records(frame)})])
    for kind, name in {kind: named.get(kind, f"cells of {kind}") for kind in kinds}.items():
        states = [row["status"] for row in records(frame) if row["kind"] == kind]
        if others := [f"{count} {state}" for state, count in counted(states) if state != "ok"]:
            notes.append(f"{len(states)} {name} asked: {states.count('ok')} ok, {', '.join(others)}.")
    return notes
