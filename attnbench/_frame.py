"""What a sweep file says beside its lists of entries, read strictly: its frame, its maps of knobs, its probes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnbench import probes
from attnbench._sections import BareFrame, Choose, Equal, Figure, Frame, Slurm
from attnbench._yaml import SweepError, line, plain
from mechanisms import KnobError, configure, nearest
from mechanisms._knobs import Config

LISTS = ("tasks", "models", "mechanisms", "baselines")
FRAME = tuple(Frame.model_fields)


def refuse_unknown_sections(file: Path, text: Mapping[str, Any]) -> None:
    words = (*FRAME, *LISTS, *probes.COMMANDS)
    for key in text:
        if key not in words:
            hint = f"there is no section {key!r}.{nearest(key, words)} A sweep file has {', '.join(words)}."
            raise SweepError(file, line(text, key), hint)


def read_frame(file: Path, text: Mapping[str, Any]) -> Frame:
    given = {key: plain(item) for key, item in text.items() if key in FRAME}
    for word, kind in (("slurm", Slurm), ("choose", Choose), ("equal", Equal)):
        if given.get(word) is not None:
            given[word] = read_section(file, text, word, kind)
    if isinstance(given.get("figures"), list):
        figures = text["figures"]
        given["figures"] = [read_section(file, figures, number, Figure) for number in range(len(figures))]
    try:
        bare = "tasks" not in text and not probes.COMMANDS.keys().isdisjoint(text)
        return configure(BareFrame if bare else Frame, given, of="sweep")
    except KnobError as error:
        raise SweepError(file, line(text, error.knob), str(error)) from None


def probed(file: Path, text: Mapping[str, Any]) -> dict[str, probes.Section]:
    """What the file asks of its mechanisms bare, by the name of the section. Raises SweepError."""
    asked = {name: probes.find(name).config for name in probes.COMMANDS if name in text}
    for word in LISTS if asked and "tasks" not in text else ():
        if word in text and word != "mechanisms":
            told = f"{word} are trained on tasks, and the section 'tasks' is missing; a bare mechanism needs neither."
            raise SweepError(file, line(text, word), told)
    return {name: read_section(file, text, name, config) for name, config in asked.items()}


def read_section(file: Path, above: Any, key: str | int, kind: type[Config]) -> Config:
    """One of the maps of knobs that a sweep file holds beside its lists of entries."""
    node, of = above[key], kind.__name__.lower()
    if not isinstance(node, dict):
        raise SweepError(file, line(above, key), f"{of} is a map of knobs; got {plain(node)!r}.")
    try:
        return configure(kind, plain(node), of=of)
    except KnobError as error:
        raise SweepError(file, line(node, error.knob), str(error)) from None
