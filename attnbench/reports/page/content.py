"""Everything that a page shows, as plain values that JSON can hold."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.colors import to_hex

from attnbench.reports import canvas, sheets
from attnbench.reports.columns import COLUMNS, described
from attnbench.reports.letters import typed
from attnbench.reports.page import pack, plots, series
from attnbench.reports.page.part import Beside, Part
from attnbench.reports.rows import counted, ordered, records
from attnbench.reports.sheets import Sheet
from attnbench.reports.summary import apart, named

Found = dict[str, Any]
WORDS = {"train": "trainings", "cost": "cost measurements", "trial": "trials"}
TRACEBACK = 6000  # letters of a traceback that the page holds, from its end
SHORT = ("sweep", "kind", "status", "task", "variant", "seed")  # columns of the table of cells


def content(parts: Sequence[Part]) -> Found:
    """All parts of a page; every cell has one place in `cells`, to which figures and tables refer."""
    of = [pack.sorted_for_reading(records(part.frame)) for part in parts]
    rows = [row for own in of for row in own]
    for place, row in enumerate(rows):
        row["place"] = place
    return {
        "title": ", ".join(part.manifest.sweep for part in parts),
        "anonymous": any(part.veil.drawn for part in parts),
        "groups": groups(rows),
        "reports": [report(part, own) for part, own in zip(parts, of, strict=True)],
        "cells": cells(rows, parts),
    }


def groups(rows: Iterable[Found]) -> list[Found]:
    """Every mechanism, or whole model, with its colour and marker: those of the printed figures."""
    rows = list(rows)
    trained = [row for row in rows if row["kind"] == "train"]
    names = canvas.levels(trained, "mechanism")
    names += [name for name in canvas.levels(rows, "mechanism") if name not in names]
    hue, mark = canvas.colors(names), canvas.markers(names)
    return [{"name": str(name), "color": to_hex(hue[name]), "marker": mark[name]} for name in names]


def report(part: Part, rows: list[Found]) -> Found:
    """One sweep: its question, what is complete, and its figures and tables."""
    places: dict[str, dict[str, list[int]]] = {}
    for names, values, own in apart([row for row in rows if row["kind"] == "train"]):
        setting = ", ".join(named(column, value) for column, value in zip(names, values, strict=True))
        for row in own:
            places.setdefault(setting, {}).setdefault(str(row["variant"]), []).append(row["place"])
    sweep, owners = part.manifest.sweep, {str(row["variant"]): canvas.group(row) for row in rows}
    return {
        "sweep": sweep,
        "question": part.manifest.question,
        "notes": list(part.notes),
        "verdicts": [[table.setting, table.ranking.sentence] for table in part.known if table.ranking.sentence],
        "counts": counts(rows),
        "scope": scope(rows),
        "facts": facts(rows),
        "settings": [plots.setting(table, places.get(table.setting, {})) for table in part.known],
        "lines": {
            "efficiency": series.over_tokens(rows, "efficiency"),
            "atlas": series.over_tokens(rows, "atlas"),
            "curves": series.over_places(rows, part.curves),
            "trainings": series.trainings(rows, part.beside),
        },
        "sheets": [sheet(one, f"tab:{sweep}-{i}", owners) for i, one in enumerate(part.pages, 1)],
    }


def counts(rows: Iterable[Found]) -> list[Found]:
    """How many cells of each kind were asked, how many are ok, and what became of the others."""
    rows, found = list(rows), []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        states = [row["status"] for row in rows if row["kind"] == kind]
        others = ", ".join(f"{count} {state}" for state, count in counted(states) if state != "ok")
        found.append(
            {"kind": WORDS.get(kind, f"{kind} cells"), "asked": len(states), "ok": states.count("ok"), "others": others}
        )
    return found


def scope(rows: Iterable[Found]) -> list[Found]:
    """How many mechanisms, variants and seeds the trainings are of."""
    trained = [row for row in rows if row["kind"] == "train"]
    found = []
    for word, values in (
        ("mechanism", {canvas.group(row) for row in trained}),
        ("variant", {row["variant"] for row in trained}),
        ("seed", {row["seed"] for row in trained}),
    ):
        found += [{"count": len(values), "words": word + "s" * (len(values) != 1)}] if values else []
    return found


def facts(rows: Iterable[Found]) -> list[list[str]]:
    """With what the cells were made: each kind of device, library and code, with numbers where there are several."""
    rows = [row for row in rows if row["status"] not in ("missing", "failed")]
    names = {
        **{"host.device": "processor", "device": "device", "dtype": "numbers", "host.torch": "torch"},
        **{"host.cuda": "CUDA", "host.driver": "driver", "host.python": "Python", "code.commit": "commit"},
    }
    found = []
    for column, word in names.items():
        kinds = counted(str(row[column]) for row in rows if row.get(column) is not None)
        short = [(kind[:10] if column == "code.commit" else kind, count) for kind, count in kinds]
        told = short[0][0] if len(short) == 1 else ", ".join(f"{kind} ({count} cells)" for kind, count in short[:4])
        found += [[word, told + (f" and {len(short) - 4} more" if len(short) > 4 else "")]] if short else []
    return found


def sheet(one: Sheet, label: str, owners: Mapping[str, str]) -> Found:
    """A table as summary.md has it, with the mechanism that each of its lines is about, and its LaTeX.

    owners: of each variant, its mechanism.
    """
    names = sorted({name for name in owners.values() if name})
    column = list(one.head).index("mechanism") if "mechanism" in one.head else 0

    def owner(fields: Sequence[str]) -> str:
        first = typed(fields[column])
        return owners.get(first) or next((name for name in names if first.split(" ")[0] == name), "")

    return {
        "title": typed(one.title),
        "caption": typed(one.caption),
        "head": list(map(typed, one.head)),
        "rows": [list(fields) for fields in one.rows],
        "owners": [owner(fields) for fields in one.rows],
        "starts": sorted(one.starts),
        "latex": sheets.latex(one, label),
    }


def cells(rows: list[Found], parts: Sequence[Part]) -> Found:
    """All rows as compact columns, which of them a table shows first, and what stands in no column."""
    known = {id: one for part in parts for id, one in part.beside.items()}
    names = ordered({str(name) for part in parts for name in part.frame.columns} - {"label", "idle"})
    results = {name for name in names if name.startswith("result.")}
    ranked = [name for name, one in COLUMNS.items() if one.better and not one.detail and name in results]
    varied = [name for name in SHORT if len({row.get(name) for row in rows}) > 1 or name in ("kind", "status")]
    shown = [*varied, *ranked[:3], "wall_s", "host.device", "code.commit"]
    there = [row for row in rows if row["id"] in known]
    return {
        "n": len(rows),
        "columns": pack.packed(rows, names),
        "shown": [[name, described(name).axis] for name in shown if name in names],
        "owners": pack.column([canvas.group(row) for row in rows]),
        "tries": {str(row["place"]): tries for row in there if (tries := known[row["id"]].tries)},
        "tracebacks": {str(row["place"]): text for row in there if (text := traceback(known[row["id"]]))},
    }


def traceback(known: Beside) -> str:
    text = known.traceback
    return text if len(text) <= TRACEBACK else f"…{text[-TRACEBACK:]}"
