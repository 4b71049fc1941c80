"""Draws the figures that a sweep names, from its rows alone; a cell that failed is named on them."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import matplotlib as mpl
import pandas as pd

from attnbench.reports import curves, places, profiles, scatter, strips
from attnbench.reports.canvas import STYLE, Drawing, Kind
from attnbench.reports.columns import COLUMN_WORDS, COLUMNS, NEEDED, PLACES, known_column, measured, measures, misplaced
from attnbench.reports.effects import varying
from attnbench.reports.references import above_floor
from attnbench.reports.rows import once, records
from attnbench.reports.saving import save, save_all
from attnbench.reports.summary import named, split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attnbench.reports.overall import Overall

LONGEST = 120  # letters of a file's name
WORDS = tuple(field.name for field in fields(Drawing))
DRAW = {"variants": strips.variants, "scatter": scatter.scatter, "lines": curves.lines, "curves": places.over_places}


@dataclass(frozen=True)
class Part:
    """A figure of one setting: its rows, its file's name, and the setting for its title (empty if there is but one)."""

    rows: list[dict[str, Any]]
    name: str
    setting: str


def checked(figures: Iterable[Mapping[str, Any]], frame: pd.DataFrame) -> list[Drawing]:
    """The figures as drawings. Raises ValueError for an unknown word, kind, column or mechanism, or a missing word."""
    found = [drawing(figure, frame) for figure in figures]
    for name in (one.name for one in found):
        if sum(other.name == name for other in found) > 1:
            raise ValueError(f"two figures are named {name!r}; give each a name of its own.")
    return found


def drawing(figure: Mapping[str, Any], frame: pd.DataFrame) -> Drawing:
    """One figure whose words and columns are all known."""
    given = {word: value for word, value in figure.items() if value is not None}
    of = f"figure {given.get('name', '?')}"
    refuse_words(given, of)
    for word in COLUMN_WORDS:
        if given.get(word):
            beside = COLUMNS if word in ("x", "y") else ()  # known, though nothing may have measured it yet
            known_column(given[word], [*frame.columns, *beside], of=of)
    if wrong := misplaced(given["kind"], given):
        raise ValueError(f"{of}: {wrong}")
    mechanisms = sorted({row["mechanism"] for row in records(frame) if row["mechanism"]})
    if given.get("mechanism") not in (None, *mechanisms):
        raise ValueError(f"{of}: no row has mechanism {given['mechanism']!r}; there are {', '.join(mechanisms)}.")
    return Drawing(**given)


def refuse_words(given: Mapping[str, Any], of: str) -> None:
    """Raises ValueError for words that no figure of this kind has, or a word that it lacks."""
    for word in given:
        if word not in WORDS:
            raise ValueError(f"{of} has no word {word!r}; it takes {', '.join(WORDS)}.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", given.get("name", "")):
        raise ValueError(f"{of}: a name is made of letters, digits, - and _, for files are named after it.")
    if given.get("kind") not in get_args(Kind):
        raise ValueError(f"{of}: kind is one of {', '.join(get_args(Kind))}; got {given.get('kind')!r}.")
    for word in NEEDED[given["kind"]]:
        if word not in given:
            raise ValueError(f"{of} needs the word {word!r}, a column of the rows.")


def standard(frame: pd.DataFrame, known: places.Curves) -> list[dict[str, Any]]:
    """What is drawn if a sweep names no figure: every variant's error, error against speed and memory, and the curves
    that trainings left.

    Of several tasks each has a panel and its own first measure; curves over places a figure.
    """
    if all(row["kind"] not in ("train", "trial") for row in records(frame)):
        return []
    left = [name for name in PLACES if any(name in own for own in known.values())]
    several = len({row["task"] for row in records(frame) if row["kind"] == "train"}) > 1
    y = "" if several else measures(frame.columns)[0]
    if y == "result.bits_per_byte" and any(above_floor(row) for row in records(frame)):
        y = "result.above_floor"
    panel = {"y": y, "panel": "task" if several else None}
    wanted: list[dict[str, Any]] = [
        {"name": "variants", "kind": "variants", **panel},
        {"name": "speed", "kind": "scatter", "x": "cost.train_samples_per_s", "color": "mechanism", **panel},
        {"name": "memory", "kind": "scatter", "x": "cost.memory_train_mib", "color": "mechanism", **panel},
    ]
    there = {"", "result.above_floor", *frame.columns}
    drawn = [figure for figure in wanted if {figure["y"], figure.get("x", y)} <= there]
    return drawn + [{"name": name.removeprefix("raw."), "kind": "curves", "y": name} for name in left]


@contextmanager
def writing(frame: pd.DataFrame, asked: Iterable[Drawing], folder: Path, known: places.Curves) -> Iterator[list[str]]:
    """Draws all figures into `folder`, in every format, beside what its block does; all are there at its end.

    Gives the names of the files without ending. A drawing becomes a figure for each setting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[Path, Callable[[], Figure]] = {}
    rows = 0
    with once():
        for drawing in asked:
            for part in parts(frame, drawing):
                title = ", ".join(filter(None, (drawing.title, part.setting))) or None
                y = drawing.y or ("" if drawing.panel else measured(part.rows, part.rows[0])[0])
                found[folder / part.name] = partial(drawn, part.rows, replace(drawing, title=title, y=y), known)
                rows += len(part.rows)
    with save_all(found, rows):
        yield [path.name for path in found]


def write(frame: pd.DataFrame, drawing: Drawing, folder: Path, known: places.Curves) -> list[str]:
    """`writing` of one drawing, with nothing beside it."""
    with writing(frame, [drawing], folder, known) as names:
        return names


def write_profiles(over: "Overall", folder: Path) -> list[str]:
    """The figure of what is said over tasks; returns the name of its file without ending."""
    with mpl.rc_context(STYLE):
        save(profiles.profiles(over), folder / profiles.NAME)
    return [profiles.NAME]


def drawn(rows: list[dict[str, Any]], drawing: Drawing, known: places.Curves) -> "Figure":
    """A figure of rows with what is not in the table: how far above a floor they are, and their curves."""
    further = ({**above_floor(row), **known.get(row["id"], {})} for row in rows)
    return draw([{**row, **more} if more else row for row, more in zip(rows, further, strict=True)], drawing)


def draw(rows: list[dict[str, Any]], drawing: Drawing) -> "Figure":
    """One figure of these training rows, for any canvas; nothing of pyplot's state is touched."""
    with mpl.rc_context(STYLE):
        return DRAW[drawing.kind](rows, drawing)


def parts(frame: pd.DataFrame, drawing: Drawing) -> list[Part]:
    """The training rows apart by task and by knobs of the task that vary, unless the figure itself shows those."""
    trained = [row for row in records(frame) if row["kind"] == "train"]
    shown = {getattr(drawing, word) for word in COLUMN_WORDS}
    tasks = [own for _, own in split(trained, ["task"])]
    knobs = dict.fromkeys(name for own in tasks for name in varying(own, ("task.", "dtype", "device")))
    settings = [name for name in (*(["task"] if len(tasks) > 1 else []), *knobs) if name not in shown]
    if not settings:
        return [Part(trained, drawing.name, "")]
    found = []
    for setting, rows in split(trained, settings):
        pairs = [pair for pair in zip(settings, setting, strict=True) if pair[1] is not None or len(tasks) == 1]
        words = ", ".join(named(column, value) for column, value in pairs)
        name = f"{drawing.name}-{re.sub(r'[^A-Za-z0-9.]+', '-', words)}"[:LONGEST]
        taken, further = {part.name for part in found}, (f"{name}-{i}" for i in range(2, 2 + len(found)))
        found.append(Part(rows, next(one for one in (name, *further) if one not in taken), words))
    return found
