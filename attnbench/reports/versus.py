"""What changed between two sets of results, as a page: reads both, compares them, writes Markdown."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from attnbench.reports.alike import matches_sheet
from attnbench.reports.changes import Change, Price
from attnbench.reports.collect import Results, gather
from attnbench.reports.columns import described, learn
from attnbench.reports.compare import ORIGINS, TIMES, Comparison, Side, compare
from attnbench.reports.effects import Row, Rows
from attnbench.reports.rows import counted, read_csv, records
from attnbench.reports.sheets import Sheet, around, markdown, small, three

LISTED = 8  # cells that a sentence names
SEEDLESS = "one seed, no interval"


def write(after: str, before: str, root: Path, store_at: Callable[[Path], Results]) -> tuple[Path, str]:
    """Compares the results `after` with those `before`, and writes the page into the folder of `after`.

    Either is a folder of results or the name of a sweep under `root`; store_at: the store under a root.
    Returns the page's path and text.
    Raises ValueError for a word that is neither, and for results without a cell in common.
    """
    folders = folder_of(after, root), folder_of(before, root)
    if folders[0] == folders[1]:
        raise ValueError(f"{after} and {before} are the same folder; --against wants another set of results.")
    text = page(compare(side(after, folders[0], store_at), side(before, folders[1], store_at)))
    file = folders[0] / f"against-{re.sub(r'[^A-Za-z0-9._]+', '-', before).strip('-.')}.md"
    file.write_text(text, encoding="utf-8", newline="\n")
    return file, text


def folder_of(word: str, root: Path) -> Path:
    """The folder with a rows.csv or a cells.json that a word names. Raises ValueError if there is none."""
    name = Path(word).stem if word.endswith((".yaml", ".yml")) else word
    for folder in (Path(name), root / name):
        if any((folder / file).is_file() for file in ("rows.csv", "cells.json")):
            return folder.resolve()
    known = ", ".join(sorted(file.parent.name for file in root.glob("*/rows.csv")))
    there = f" Under {root} there are {known}." if known else ""
    raise ValueError(f"{word} is no folder with a rows.csv or a cells.json, nor a sweep under {root}.{there}")


def side(name: str, folder: Path, store_at: Callable[[Path], Results]) -> Side:
    """The rows of a folder, from the store beside it where that has them, with the raw times of its cost cells."""
    from attnbench.manifest import Manifest

    if not (folder / "cells.json").is_file():
        return Side(name=name, rows=held(records(read_csv(folder / "rows.csv"))))
    manifest, store = Manifest.read(folder / "cells.json"), store_at(folder.parent)
    learn(manifest.better)
    rows = held(records(gather(store, manifest, folder, mixed=True).frame))
    costs = [id for id, row in rows.items() if row["kind"] == "cost"]
    raw = {id: (store.result(id) or {}).get("raw") or {} for id in costs}
    return Side(name=name, rows=rows, raw={id: one for id, one in raw.items() if any(name in one for name in TIMES)})


def held(rows: Rows) -> dict[str, Row]:
    """The rows that there are, by id."""
    return {row["id"]: row for row in rows if row["status"] != "missing"}


def page(found: Comparison) -> str:
    """The comparison in Markdown: what differs beyond noise first, then what is compared, then all numbers."""
    machines = tuple(f"Other {ORIGINS[name]}:" for name in ("host.device", "host.name", "cost.threads", "host.torch"))
    moved = any(one.startswith(machines) for one in found.origins) and bool(found.prices)
    warned = ["Costs were not measured on the same machine in the same way, and tell of that as well."] if moved else []
    facts = [*verdicts(found), *cells(found), *found.origins, *warned]
    parts = [f"# {found.after.name} against {found.before.name}\n", "".join(f"- {fact}\n" for fact in facts)]
    differing = [one for one in found.changes if not one.same]
    costs = [one for one in found.prices if one.verdict != "within noise" or one.cost in TIMES]
    parts += [markdown(measures_sheet(differing))] if differing else []
    parts += [markdown(costs_sheet(costs))] if costs else []
    parts += [markdown(matches_sheet(found.matched))] if found.matched else []
    return "\n".join(parts)


def verdicts(found: Comparison) -> list[str]:
    """What changed and what did not, in a sentence each."""
    same = sum(one.same for one in found.changes)
    told = [f"{len(found.changes)} measures compared, {same} of them equal to the last digit in every seed."]
    for word, things in (("measures", found.changes), ("costs", found.prices)):
        for verdict in ("better", "worse", "changed"):
            own = [one for one in things if one.verdict == verdict]
            told += [f"{len(own)} {word} {verdict}: {listed([called(one) for one in own])}."] if own else []
    judged = [one for one in (*found.changes, *found.prices) if one.verdict != "cannot tell"]
    if not any(one.verdict in ("better", "worse", "changed") for one in judged):
        told.append("Nothing changed beyond noise." if judged else "Nothing can be judged.")
    if blind := [called(one) for one in (*found.changes, *found.prices) if one.verdict == "cannot tell"]:
        told.append(f"Of {len(blind)} it cannot be told: {listed(blind)}.")
    return told


def called(one: Change | Price) -> str:
    column = one.measure if isinstance(one, Change) else f"cost.{one.cost}"
    return f"{one.variant}, {described(column).label}"


def listed(names: Sequence[str]) -> str:
    more = f"; and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return "; ".join(names[:LISTED]) + more


def cells(found: Comparison) -> list[str]:
    """Cells that ended in another way, and those that one set lacks."""
    told = [f"{found.common} cells in both."]
    ways = counted(one.differs for one in found.matched)
    told += [
        f"{count} of them, whose ids differ, were matched by what they ask; what differs: {way}." for way, count in ways
    ]
    ways = counted(f"{old} → {new}" for _, old, new in found.ended)
    told += [f"{count} ended in another way, {way}: {listed(of(found, way))}." for way, count in ways]
    for own, other, names in (
        (found.after.name, found.before.name, found.only_after),
        (found.before.name, found.after.name, found.only_before),
    ):
        told += [f"{len(names)} only in {own}, not compared with {other}: {listed(names)}."] if names else []
    return told


def of(found: Comparison, way: str) -> list[str]:
    return [label for label, old, new in found.ended if f"{old} → {new}" == way]


def measures_sheet(moved: Sequence[Change]) -> Sheet:
    """A line for each measure whose numbers are not all equal; changes beyond noise first."""
    order = sorted(moved, key=lambda one: (one.verdict in ("within noise", "cannot tell"), one.setting, one.variant))
    rows = [
        [
            *(one.setting, one.variant, described(one.measure).label, f"{one.before:#.4g}", f"{one.after:#.4g}"),
            bold(around(one.change, sign="+"), one.verdict),
            *(str(one.change.n), small(one.p), SEEDLESS if one.verdict == "cannot tell" else one.verdict),
        ]
        for one in order
    ]
    return Sheet(
        title="Measures",
        caption="Means over the seeds that both have ok, and the mean of the paired differences with 95 % t interval; "
        "bold if it differs from zero after Holm's correction over this table.",
        head=["setting", "variant", "measure", "before", "now", "change", "n", "p (Holm)", "verdict"],
        rows=rows,
    )


def costs_sheet(costs: Sequence[Price]) -> Sheet:
    """A line for each time, and for each other cost that changed; changes beyond noise first."""
    order = sorted(costs, key=lambda one: (one.verdict in ("within noise", "cannot tell"), one.setting, one.variant))
    rows = [
        [
            *(one.setting, one.variant, described(f"cost.{one.cost}").axis, three(one.before), three(one.after)),
            bold(f"{one.ratio:.3f}", one.verdict),
            *(one.by, small(one.p), one.verdict),
        ]
        for one in order
    ]
    return Sheet(
        title="Costs",
        caption="A time has changed if Mann-Whitney's test of the raw steps says so after Holm's correction, or, "
        "without raw steps, if the quartiles do not meet, and only from a factor of 1.1 on; a memory from this factor "
        "on; a count if it differs at all. Times of bare mechanisms, shown where they changed or cannot be judged, are "
        "tested by Welch's t test over processes. Marked times are not judged. On another machine, costs tell of that.",
        head=["setting", "variant", "cost", "before", "now", "ratio", "by", "p (Holm)", "verdict"],
        rows=rows,
    )


def bold(text: str, verdict: str) -> str:
    return f"**{text}**" if verdict in ("better", "worse", "changed") else text
