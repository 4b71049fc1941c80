"""Writes what a person reads of a sweep: its rows, summary tables, figures, and the table at the end in a terminal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich import box
from rich.table import Table as Screen
from rich.text import Text

from attnbench.reports import anonymous, atlas, letters, sheets
from attnbench.reports.across import Across, across
from attnbench.reports.collect import Results, gather
from attnbench.reports.columns import described, learn, measured
from attnbench.reports.effects import effects
from attnbench.reports.efficiency import Costs, costs
from attnbench.reports.efficiency_sheets import crossover_sheets, growth_sheet
from attnbench.reports.probed import Probed, probed
from attnbench.reports.rows import filtered, once, records, seldom_collected, write_csv, write_parquet
from attnbench.reports.summary import Line, Table, tables
from attnbench.reports.trials import trials_sheets
from attnbench.reports.widths import widths_sheets

if TYPE_CHECKING:
    from attnbench.manifest import Manifest
    from attnbench.reports.page.part import Part

WIDE = 100  # columns of a terminal from which costs stand beside errors


def write_report(store: Results, manifest: "Manifest", folder: Path, *, mixed: bool = False) -> Path:
    """Makes rows.csv, rows.parquet, curves.csv if there are curves, summary.md, summary.tex, figures/ and report.html
    in `folder`; returns the path of summary.md.

    Raises ValueError, before anything is written, when the rows should not be compared or a figure names no column.
    """
    return made_report(store, manifest, folder, mixed=mixed).summary


@dataclass(frozen=True)
class Made:
    """What was written of a sweep: the path of its summary, and its part of a page."""

    summary: Path
    part: "Part"


@dataclass(frozen=True)
class Late:
    """What is asked for at last: a sentence that only the page has, and how often each cell was tried.

    tried: None where the store is to be asked.
    """

    told: Callable[[], str] = str
    tried: Callable[[], Mapping[str, int] | None] = lambda: None


LATE = Late()


@once()
@seldom_collected()
def made_report(
    store: Results,
    manifest: "Manifest",
    folder: Path,
    *,
    mixed: bool = False,
    hide: bool = False,
    late: Late = LATE,
) -> Made:
    """Does what `write_report` says. hide: without names of hosts and users and without paths, in all files."""
    from attnbench.reports import figures, places  # here, for they bring matplotlib
    from attnbench.reports.page import part, write

    learn(manifest.better)
    kept = places.Kept(store)
    gathered = gather(kept, manifest, folder, mixed=mixed)
    curves = places.curves_of(kept, manifest, folder)
    veil = anonymous.OPEN
    if hide:
        manifest, gathered, veil = anonymous.hidden(manifest, gathered)
    frame = gathered.frame
    asked = figures.checked(manifest.figures or figures.standard(frame, curves), frame)
    with figures.writing(frame, asked, folder / "figures", curves) as names:
        known, over, bare, pages = said(frame, manifest)
        if (guarded := letters.guarded_table(frame)) is not frame:
            pages = said(guarded, manifest)[-1]
        write_csv(frame, folder / "rows.csv")
        write_parquet(frame, folder / "rows.parquet")
        places.write_curves(curves, folder / places.FILE)
        (folder / "summary.tex").write_text(latex(manifest.sweep, pages), encoding="utf-8", newline="\n")
        names += figures.write_profiles(over.overall, folder / "figures") if over.overall else []
        names += bare.draw(folder / "figures")
        summary, notes = folder / "summary.md", (*gathered.notes, *over.notes, *bare.notes)
        sentences = letters.guarded_within(notes, frame)
        summary.write_text(markdown(manifest, sentences, pages, names), encoding="utf-8", newline="\n")
        own = {"manifest": manifest, "frame": frame, "known": known, "pages": pages, "curves": curves, "veil": veil}
        own |= {"beside": part.beside(kept, manifest, veil, late.tried())}
        page = part.Part(**own, notes=(*notes, *filter(None, [late.told()])))
    write.write([page], folder / write.NAME)  # when all figures are there, whose processes need the cores
    return Made(summary, page)


def said(frame: pd.DataFrame, manifest: "Manifest") -> tuple[list[Table], Across, Probed, list[sheets.Sheet]]:
    """The tables of the rows, what holds over tasks and of bare mechanisms, and all of it as sheets."""
    known = tables(frame, manifest.solved)
    over, bare = across(known), probed(frame, known)
    pages = [*sheets_of(frame, known), *over.pages, *widths_sheets(frame), *trials_sheets(frame, manifest.choose)]
    return known, over, bare, [*pages, *bare.pages]


def sheets_of(frame: pd.DataFrame, known: list[Table] | None = None) -> list[sheets.Sheet]:
    """Error and cost per setting, then the effects of knobs if any differs."""
    pages = [sheet(table) for table in known or tables(frame) for sheet in (sheets.error_sheet, sheets.cost_sheet)]
    rows = records(frame)
    names = [row["task"] for row in rows]
    for task in sorted({row["task"] for row in rows if row["kind"] == "train"}, key=str):
        own = filtered(frame, [name == task for name in names])
        measure = measured(records(own), frame.columns)[0]
        found = effects(own if measure in own else own.assign(**{measure: None}), measure)
        pages += [sheets.effects_sheet(found, measure)] if len(found) else []
    return pages


def markdown(manifest: "Manifest", notes: Sequence[str], pages: list[sheets.Sheet], figures: list[str]) -> str:
    """The page: question, what to know about the rows, tables, figures."""
    known = "".join(f"- {letters.in_markdown(note)}\n" for note in notes)
    asked = letters.in_paragraphs(letters.guarded(manifest.question))
    parts = [f"# {letters.in_line(letters.guarded(manifest.sweep))}\n\n{asked}\n", known, *map(sheets.markdown, pages)]
    pictures = "\n".join(f"![{name}](figures/{name}.png)" for name in figures)
    return "\n".join(part for part in [*parts, f"## Figures\n\n{pictures}\n" if figures else ""] if part)


def latex(sweep: str, pages: list[sheets.Sheet]) -> str:
    """The same tables for a paper."""
    opening = "% Tables of a sweep; they need \\usepackage{booktabs} and \\usepackage{graphicx}.\n"
    return opening + "\n".join(sheets.latex(page, f"tab:{sweep}-{i}") for i, page in enumerate(pages, 1))


@once()
def screen(frame: pd.DataFrame, width: int = 120, known: Sequence[Table] | None = None) -> Screen:
    """The end of a sweep for a terminal of `width` columns; a narrow one leaves the costs out.

    known: the tables of the frame, where they are made already.
    """
    found, wide = tables(frame) if known is None else known, width >= WIDE
    if not found and (bare := costs(records(frame))):
        return bare_screen(bare, width)
    if not found and (spots := atlas.spots(records(frame))):
        return atlas_screen(spots, width)
    look = {"caption_justify": "left", "box": box.SIMPLE_HEAD, "pad_edge": False}
    made = Screen(caption=Text(caption(frame, found, wide=wide)), width=width, **look)
    made.add_column("variant", overflow="fold", ratio=1)
    head = "error" if all(described(table.measure).better == "lower" for table in found) else "score"
    for name in ("seeds", head, *(("difference", "train/s", "peak MiB") if wide else ()), "not ok"):
        made.add_column(name, justify="right", overflow="fold")
    for table in found:
        if len(found) > 1:
            made.add_row(Text(table.setting, style="bold"))
        for line in table.lines:
            made.add_row(*map(Text, fields(table, line, wide)))
        for name, level in table.levels.get(table.measure, {}).items():
            made.add_row(*map(Text, [f"({name})", "", f"{level:#.4g}", *([""] * 3 if wide else []), ""]), style="dim")
        made.add_section()
    return made


def bare_screen(known: Costs, width: int) -> Screen:
    """The end of a sweep that trained nothing: from how many tokens on mechanisms are cheaper than full."""
    look = {"caption_justify": "left", "box": box.SIMPLE_HEAD, "pad_edge": False}
    cells = [place for curve in known.curves for place in curve.places]
    ok, noisy = (sum(found) for found in zip(*((place.status == "ok", place.noisy) for place in cells), strict=True))
    text = f"{ok} of {len(cells)} points ok, {noisy} noisy."
    made = Screen(caption=Text(text), width=width, **look)
    for page in [*crossover_sheets(known)] or [growth_sheet(known)]:
        for place, name in enumerate(page.head):
            made.add_column(Text(name), overflow="fold", justify="right" if place > 1 else "left")
        for row in page.rows:
            made.add_row(*map(Text, row))
    return made


def atlas_screen(spots: Sequence[atlas.Spot], width: int) -> Screen:
    """The end of a sweep that trained nothing: how far outputs are from full attention's, by input and size."""
    look = {"caption_justify": "left", "box": box.SIMPLE_HEAD, "pad_edge": False}
    ok, asked = sum(len(spot.numbers.get("output_error", {})) for spot in spots), sum(spot.asked for spot in spots)
    text = f"{ok} of {asked} cells ok. Error of outputs against full attention with the same weights, 0 being itself: "
    text += "means with 95 % t intervals over seeds."
    made = Screen(caption=Text(text), width=width, **look)
    places = list(dict.fromkeys((spot.input, spot.place) for spot in spots))
    found = {(spot.variant, spot.input, spot.place): spot.mean("output_error") for spot in spots}
    made.add_column("variant", overflow="fold", ratio=1)
    for place in places:
        made.add_column(Text(", ".join(place)), overflow="fold", justify="right")
    for variant in dict.fromkeys(spot.variant for spot in spots):
        errors = [found.get((variant, *place)) for place in places]
        made.add_row(*map(Text, [variant, *(atlas.shown(one) if one else sheets.NOTHING for one in errors)]))
    return made


def fields(table: Table, line: Line, wide: bool) -> list[str]:
    """One variant's fields on the screen."""
    error = sheets.plus_minus(line.error)
    costs = [
        "reference" if line.variant == table.reference else sheets.plus_minus(line.change, sign="+"),
        sheets.priced(line, "cost.train_samples_per_s", sheets.short) + (" ~" if line.timing else ""),
        sheets.priced(line, "cost.memory_train_mib", sheets.short),
    ]
    return [line.variant, sheets.seeds(line), error, *(costs if wide else []), line.trouble]


def caption(frame: pd.DataFrame, found: Sequence[Table], *, wide: bool) -> str:
    """How many cells are ok, what the numbers are, and what the marks mean that a screen has."""
    trained = [row for row in records(frame) if row["kind"] == "train"]
    ok = sum(row["status"] == "ok" for row in trained)
    labels = dict.fromkeys(described(table.measure).label for table in found)
    told = " or ".join(labels) or "error"
    text = f"{ok} of {len(trained)} trainings ok. Mean {told}, ± half of its 95 % t interval over seeds."
    against = ", ".join(sorted({table.reference for table in found if table.reference}))
    text += f" Differences are paired to {against}." if against and wide else ""
    noisy = any(row.get(f"cost.{word}") for row in trained for word in ("noisy", "shared"))
    text += " ~ marks timings that are noisy or were taken on a shared node." if noisy and wide else ""
    ranked = [(table.setting, table.ranking.sentence) for table in found if table.ranking.sentence]
    if len(found) == 1:
        return " ".join([text, *(sentence for _, sentence in ranked)])
    return "\n".join([text, *(f"{setting}: {sentence}" for setting, sentence in ranked)])
