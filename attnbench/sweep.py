"""A sweep file becomes cells: a list is an axis, anything else is fixed, and nothing is guessed or repaired."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tasks
from attnbench import models
from attnbench._cells import WAITS, Planned, Variant, cost_cell
from attnbench._choose import Rows
from attnbench._choose import refuse as refuse_choice
from attnbench._entries import Chosen, Part, Stages, chosen, parts
from attnbench._equal import Equaliser, equalising
from attnbench._figure_words import refuse_figures
from attnbench._frame import LISTS, probed, read_frame, refuse_unknown_sections
from attnbench._sections import BareFrame, Frame
from attnbench._several import refuse_gpus
from attnbench._widths import Ask, Find
from attnbench._yaml import SweepError, line, load
from attnbench.engine._still import still
from attnbench.overrides import apply
from attnbench.probes._expand import Asked
from mechanisms import Mechanism, nearest
from mechanisms import find as find_mechanism
from tasks import Port

RESERVED = ("cells", "quarantine", "submissions", "cache")


def nothing(_: Any) -> None:
    """Nobody has run or measured it."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was found out before: the row of a cell, from which knobs are chosen, and widths that were measured."""

    rows: Rows = nothing
    widths: Find = nothing


NOTHING = Known()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep file, expanded.

    cells: its distinct cells, trainings first in the order of the file, then what they cost, then those of probes.
    folded: trainings that the file describes more than once, because knobs were idle or values repeated.
    left_out: mechanism and task, where the file says that those that do not fit are left out.
    waiting: trainings whose knobs are not all chosen yet, since trials are still to run; their ids stand for that.
    again: the same plan from the rows that are there then.
    unmeasured: widths of equal latency that are to be measured; until then the cells are not those of the sweep.
    """

    file: Path
    name: str
    frame: Frame
    device: str
    cells: tuple[Planned, ...]
    folded: int = field(default=0)
    left_out: tuple[tuple[str, str], ...] = ()
    waiting: tuple[Planned, ...] = ()
    again: Callable[[Rows], "Plan"] | None = field(default=None, compare=False)
    unmeasured: tuple[Ask, ...] = ()

    @property
    def trainings(self) -> list[Planned]:
        return [cell for cell in self.cells if cell.spec["kind"] == "train"]


def frame_of(file: Path, settings: Sequence[str] = ()) -> Frame:
    """What a sweep file says beside its lists, before it is known where it will run. Raises SweepError."""
    text = load(file)
    refuse_unknown_sections(file, text)
    for setting in settings:
        apply(file, text, setting)
    return read_frame(file, text)


def expand(
    file: Path, *, device: str, settings: Sequence[str] = (), only: Sequence[str] = (), widths: Find = nothing
) -> Plan:
    """Every cell of a sweep file.

    device: cpu or cuda, for files that leave it open.
    settings: overrides such as "task.epochs=2"; with them, or with `only`, `runs` is not compared.
    only: names of mechanisms and baselines to keep.
    widths: finds the record of a width of equal latency.
    Raises SweepError, a ValueError that names file and line, for anything that is not exactly understood.
    """
    return expand_text(file, load(file), Known(widths=widths), device=device, settings=settings, only=only)


@still()
def expand_text(
    file: Path,
    text: dict[str, Any],
    known: Known = NOTHING,
    *,
    device: str,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Plan:
    """The same for a sweep file's contents; `file` names it in refusals."""
    refuse_unknown_sections(file, text)
    for setting in settings:
        apply(file, text, setting)
    frame = read_frame(file, text)
    needed = None if isinstance(frame, BareFrame) else "tasks"
    sections = {section: parts(file, text, section, needed=section == needed) for section in LISTS}
    keep(file, sections, only)
    asked = device
    device = device if frame.device == "auto" else frame.device
    equaliser = equalising(file, text, frame, sections["models"], device, known.widths)

    def again(rows: Rows) -> Plan:
        return expand_text(file, text, replace(known, rows=rows), device=asked, settings=settings, only=only)

    entries = list(chosen(file, sections["tasks"], tasks.find))
    omitted = tuple(left_out(file, frame, sections["mechanisms"], entries))
    if frame.choose:
        refuse_choice(file, text, frame, sections["tasks"], [tasks.find(part.name) for part in sections["tasks"]])
    variants = (one for task in entries for one in fillings(file, frame, sections, task, device, equaliser))
    trainings = [cell for variant in variants for cell in variant.cells(file, text, frame, known.rows)]
    distinct = {cell.id: cell for cell in trainings}
    waiting = {id: cell for id, cell in distinct.items() if WAITS in cell.settled}
    refuse_whole(file, text, frame, list(distinct.values()), counted=not (settings or only))
    asked_bare = Asked(file=file, text=text, sections=probed(file, text), device=device)
    bare, misfits = alone(asked_bare, frame, sections["mechanisms"], counted=not (settings or only))
    ready = (cell for id, cell in distinct.items() if id not in waiting)
    last = {cell.cost_id: cell for cell in distinct.values()}  # of each variant, for all of them cost the same
    return Plan(
        file=file,
        name=named(file, settings, only),
        frame=frame,
        device=device,
        cells=(*ready, *map(cost_cell, last.values()), *bare),
        folded=len(trainings) - len(distinct),
        left_out=(*omitted, *misfits),
        waiting=tuple(waiting.values()),
        again=again,
        unmeasured=tuple(equaliser.unmeasured) if equaliser else (),
    )


def alone(
    asked: Asked, frame: Frame, written: Sequence[Part], *, counted: bool
) -> tuple[list[Planned], list[tuple[str, str]]]:
    """The cells that look at mechanisms bare, and the mechanisms that are left out where they do not fit."""
    leave_out = frame.misfits == "leave_out"
    cells = asked.cells(written, leave_out=leave_out, counted=counted)
    return cells, asked.left_out(written) if leave_out else []


def refuse_whole(file: Path, text: Mapping[str, Any], frame: Frame, cells: Sequence[Planned], *, counted: bool) -> None:
    """Raises SweepError for what shows only when all cells are known."""
    if counted and len(cells) != frame.runs:
        told = f"runs announces {frame.runs} cells, and it describes {len(cells)} distinct cells; correct one."
        raise SweepError(file, line(text, "runs"), told)
    refuse_gpus(file, text, frame, cells)
    refuse_figures(file, text, frame, cells)


def named(file: Path, settings: Sequence[str], only: Sequence[str]) -> str:
    """The sweep's name, that of its folder under results: the file's; with overrides a name of its own, so that the
    tables of the whole sweep stay. Raises SweepError for a name that the store needs itself."""
    if file.stem in RESERVED:
        raise SweepError(file, None, f"{file.stem!r} is a folder of the store; give the file another name.")
    words = "\n".join([*sorted(settings), *sorted(only)])
    return f"{file.stem}@{hashlib.sha256(words.encode()).hexdigest()[:6]}" if words else file.stem


def keep(file: Path, sections: dict[str, list[Part]], only: Sequence[str]) -> None:
    """Leaves only the named mechanisms and baselines."""
    names = [part.name for section in ("mechanisms", "baselines") for part in sections[section]]
    for word in only:
        if word not in names:
            raise SweepError(
                file, None, f"--only {word}: it has {', '.join(dict.fromkeys(names))}.{nearest(word, names)}"
            )
    if only:
        for section in ("mechanisms", "baselines"):
            sections[section] = [part for part in sections[section] if part.name in only]
        if not sections["mechanisms"]:
            sections["models"] = []  # backbones without anything to put into them


def fillings(
    file: Path, frame: Frame, sections: dict[str, list[Part]], task: Chosen, device: str, equaliser: Equaliser | None
) -> Iterator[Variant]:
    """Every backbone with every mechanism, then every whole model."""
    if bool(sections["models"]) != bool(sections["mechanisms"]):
        raise SweepError(file, None, "models and mechanisms belong together: a model is built around a mechanism.")
    made: dict[Stages, list[Chosen]] = {}  # models with as many stages have the same in them
    for model in chosen(file, sections["models"], models.find):
        refuse_other_socket(file, model, socket=True)
        stages = Stages(model.name, getattr(model.config, "stages", 1))
        if stages not in made:
            made[stages] = fitting(file, frame, sections["mechanisms"], task, device, stages)
        inside = made[stages]
        if equaliser is None:
            yield from (Variant(task, model, mechanism, device) for mechanism in inside)
            continue
        settled = (f"model.{equaliser.equal.knob}",)
        for one in equaliser.solve(task, model, inside):
            yield Variant(task, one.model, one.mechanism, device, settled, one.ratio)
    for baseline in chosen(file, sections["baselines"], models.find):
        refuse_other_socket(file, baseline, socket=False)
        yield Variant(task, baseline, None, device)


def fitting(
    file: Path, frame: Frame, written: Sequence[Part], task: Chosen, device: str, stages: Stages
) -> list[Chosen]:
    """Every mechanism that goes into a model of these stages. Raises SweepError for one that does not."""
    inside = list(chosen(file, written, find_mechanism, stages))
    if frame.misfits == "leave_out":
        inside = [mechanism for mechanism in inside if fits(mechanism.entry, task)]
    for mechanism in inside:
        refuse_misfit(file, mechanism, task, device)
    return inside


def refuse_other_socket(file: Path, model: Chosen, *, socket: bool) -> None:
    if model.entry.socket != socket:
        place = "baselines: it is a whole model" if socket else "models: it is built around a mechanism"
        raise SweepError(file, model.line, f"{model.name} belongs under {place}.")


def refuse_misfit(file: Path, mechanism: Chosen, task: Chosen, device: str) -> None:
    """A mechanism that cannot serve the task, or cannot run here, is refused, never skipped in silence."""
    if why := mechanism.entry.absence(device):
        raise SweepError(file, mechanism.line, why)
    if not fits(mechanism.entry, task):
        setting, serves = setting_of(task.config.port), ", ".join(sorted(mechanism.entry.fits))
        sentence = f"{mechanism.name} does not fit {task.name}, a {setting} task: it serves {serves}."
        raise SweepError(file, mechanism.line, sentence)


def fits(entry: Mechanism, task: Chosen) -> bool:
    return setting_of(task.config.port) in entry.fits


def left_out(file: Path, frame: Frame, written: Sequence[Part], entries: Sequence[Chosen]) -> list[tuple[str, str]]:
    """Mechanism and task of what does not fit. Raises SweepError for a mechanism that fits none of the tasks."""
    found = []
    for part in written if frame.misfits == "leave_out" else ():
        entry = find_mechanism(part.name)
        missing = [task.name for task in entries if not fits(entry, task)]
        if entries and len(missing) == len(entries):
            raise SweepError(file, part.line, f"{part.name} fits none of the tasks {', '.join(missing)}.")
        found += [(part.name, name) for name in missing]
    return list(dict.fromkeys(found))


def setting_of(port: Port) -> str:
    return "grid" if len(port.shape) == 2 else "causal" if port.causal else "sequence"
