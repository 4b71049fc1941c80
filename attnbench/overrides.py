"""Overrides from the command line: `--set task.epochs=2` changes a sweep file in memory before it is expanded."""

from pathlib import Path
from typing import Any

import tasks
from attnbench import models, probes
from attnbench._sections import Choose, Equal, Frame, Slurm
from attnbench._yaml import SweepError, plain, value
from mechanisms import find as find_mechanism
from mechanisms import nearest

OWNERS = {"task": "tasks", "model": "models", "mechanism": "mechanisms", "baseline": "baselines"}
MAPS = {"slurm": Slurm, "choose": Choose, "equal": Equal}
FIND = {"task": tasks.find, "model": models.find, "mechanism": find_mechanism, "baseline": models.find}


def apply(file: Path, text: dict[str, Any], setting: str) -> None:
    """Writes one override into the text of a sweep file.

    `task.epochs=2` sets a knob of every task that has it, `mechanism.mano.levels=[1, 2]` that of one entry by name,
    `seeds=[0]`, `device=cpu` and `slurm.hours=2` the other sections.
    Raises SweepError for a path that leads nowhere, naming the nearest.
    """
    path, equals, written = setting.partition("=")
    owner, *rest = path.strip().split(".")
    if not equals or not written.strip():
        raise refusal(file, setting, "write it as path=value, such as task.epochs=2.")
    if owner in OWNERS and rest:
        return set_knob(file, text, (owner, *rest), setting)
    maps = MAPS | {name: probes.find(name).config for name in probes.COMMANDS if name in text}
    if len(rest) == 1 and owner in maps and rest[0] in maps[owner].model_fields:
        text[owner] = text.get(owner) or {}
        text[owner][rest[0]] = plain(value(written))
        return None
    if not rest and owner in Frame.model_fields and owner not in (*maps, "figures", "runs"):
        text[owner] = plain(value(written))
        return None
    inside = (f"{section}.{word}" for section, kind in maps.items() for word in kind.model_fields)
    words = [*(f"{word}.KNOB" for word in OWNERS), "seeds", "device", *inside]
    raise refusal(file, setting, f"there is no {path!r}.{nearest(path, words)} There is {', '.join(words)}.")


def set_knob(file: Path, text: dict[str, Any], path: tuple[str, ...], setting: str) -> None:
    """path: (owner, knob) or (owner, name, knob)."""
    owner, knob, name = path[0], path[-1], path[1] if len(path) == 3 else None
    entries = [entry for entry in text.get(OWNERS[owner]) or [] if isinstance(entry, dict) and "name" in entry]
    names = [str(entry["name"]) for entry in entries]
    if not names:
        raise refusal(file, setting, f"the file has no {OWNERS[owner]}.")
    if len(path) > 3 or (name and name not in names):
        hint = f"its {OWNERS[owner]} are {', '.join(names) or 'none'}.{nearest(name, names)}"
        raise refusal(file, setting, hint)
    fields = {name: FIND[owner](name).config.model_fields for name in dict.fromkeys(names)}
    hit = [entry for entry in entries if name in (None, entry["name"]) and knob in fields[str(entry["name"])]]
    if not hit:
        knobs = sorted({field for entry in fields for field in fields[entry] if name in (None, entry)})
        raise refusal(file, setting, f"there is no knob {knob!r}.{nearest(knob, knobs)} There is {', '.join(knobs)}.")
    for entry in hit:
        entry[knob] = plain(value(setting.partition("=")[2]))


def refusal(file: Path, setting: str, sentence: str) -> SweepError:
    return SweepError(file, None, f"--set {setting}: {sentence}")
