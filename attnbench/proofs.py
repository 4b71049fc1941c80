"""No cell runs on an unproven mechanism: before a sweep starts, the quick checks of the contract are made once.

For every mechanism of the cells that are to run, with its default knobs and with theirs, at a small place of their
setting. What was found is kept in the user's cache under a hash of everything that it rests on.
"""

import ast
import hashlib
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attnbench import oracles, paths
from attnbench.catalogue import keep
from attnbench.contract.card import CHECKS, drawn
from attnbench.contract.slots import Subject
from attnbench.host import UNPROVEN, version
from attnbench.sweep import Planned, setting_of
from mechanisms import Mechanism, mechanisms
from mechanisms._stages import each

CONTRACT = Path(__file__).parent / "contract"
HOUSE = Path(__file__).parent.parent / "mechanisms"
OURS = ("mechanisms", "tasks", "attnbench")


class Claim(NamedTuple):
    """A mechanism with knobs in a setting, of which correctness is to be shown."""

    entry: Mechanism
    knobs: Mapping[str, Any]
    setting: str

    @property
    def label(self) -> str:
        knobs = ", ".join(f"{knob}={value}" for knob, value in self.knobs.items())
        return f"{self.entry.name} ({knobs})" if knobs else self.entry.name


def refuse_unproven(cells: Iterable[Planned], say: Callable[[str], None], *, anyway: bool) -> None:
    """Raises ValueError, naming the first check that failed, when a mechanism of these cells is not what it declares.

    anyway: run it nevertheless. Its name then stands in the environment, and every row of it says `host.unproven`.
    """
    unproven: dict[str, str] = {}
    for claim in claims(cells):
        if why := claim.entry.absence("cpu"):
            say(f"{why.rstrip('.')}, so it could not be proved here; its rows say host.unproven.")
            unproven[claim.entry.name] = why
        elif not (red := failures(claim, say)):
            continue
        elif why := declined(claim):
            say(f"{why.rstrip('.')}, so {claim.label} could not be proved here; its rows say host.unproven.")
            unproven[claim.entry.name] = why
        else:
            unproven[claim.entry.name] = red[0]
            if not anyway:
                raise ValueError(refusal(claim, red[0]))
            say(f"{claim.label} runs unproven: {red[0]}")
    os.environ.pop(UNPROVEN, None)
    if unproven:
        os.environ[UNPROVEN] = ",".join(unproven)


def refusal(claim: Claim, red: str) -> str:
    way = f"`{command(claim)}` tells more, --unproven runs it nevertheless"
    return f"{claim.label} breaks its contract, so nothing runs: {red}; {way}."


def command(claim: Claim) -> str:
    """What to type for the whole card: a plugin by its file, and the knobs with which it failed."""
    name = claim.entry.name
    knobs = [f"--{knob}={json.dumps(value)}" for knob, value in claim.knobs.items()]
    return shlex.join(["attnbench", "check", str(mechanisms.guests.get(name, name)), *knobs])


def claims(cells: Iterable[Planned]) -> list[Claim]:
    """Each mechanism with its defaults and with every set of knobs that these cells use, once."""
    found: dict[str, Claim] = {}
    for cell in cells:
        if cell.mechanism is None:
            continue
        entry, setting = cell.mechanism.entry, cell.site.setting if cell.site else setting_of(cell.task.config.port)
        for knobs in ({}, *each(cell.mechanism.config)):
            used = {name: value for name, value in knobs.items() if value != entry.config.model_fields[name].default}
            found[json.dumps([entry.name, setting, used], sort_keys=True)] = Claim(entry, used, setting)
    return list(found.values())


def failures(claim: Claim, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """What is wrong with it, from the cache if it was looked at before; nothing for a mechanism that keeps its word."""
    file = paths.cache() / "proofs" / f"{claim.entry.name}-{key(claim)}.json"
    if file.is_file():
        return json.loads(file.read_text())
    say(f"Proving {claim.label} ...")
    red = looked(claim)
    keep(file, json.dumps(red))
    return red


def looked(claim: Claim) -> list[str]:
    """The quick checks, stopping at the first that fails."""
    subject = Subject(entry=claim.entry, knobs=claim.knobs, settings=(claim.setting,))
    try:
        slots = {over: over(subject) for over in (Subject.usual, Subject.base)}
    except ValueError as error:
        return [f"no small place was found to prove it at: {error}"]
    for check in CHECKS:
        if check.quick is None:
            continue
        over = slots[Subject.usual] if check.over is Subject.usual else slots[Subject.base]
        line = drawn(check.name, check.quick, over)
        if line.word == "fail":
            number = "" if line.number is None else f" ({line.number:.3g})"
            return [f"{line.name}: {line.about}{number}"]
    return []


def declined(claim: Claim) -> str | None:
    """Why this machine cannot run it with these knobs, by its own words; None where that is not what is wrong."""
    try:
        return Subject(entry=claim.entry, knobs=claim.knobs, settings=(claim.setting,)).usual()[0].declined()
    except Exception:  # whatever it is, it is what the proof tells
        return None


def key(claim: Claim) -> str:
    """Hash of the claim, and of every file and every version of a library that its proof rests on."""
    files, libraries = rests_on(claim.entry)
    about = [claim.setting, dict(claim.knobs), torch.__version__, {name: version(name) for name in sorted(libraries)}]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def rests_on(entry: Mechanism) -> tuple[set[Path], set[str]]:
    """Its own file and those of modules that it is built from, their plumbing, slow forms, checks; and libraries."""
    slow = [Path(folder) for folder in oracles.__path__]
    files = {file for folder in (HOUSE, *slow) for file in folder.glob("_*.py")} | set(CONTRACT.glob("*.py"))
    for name in filter(None, (entry.name, entry.reference)):
        files |= {file for file in (folder / f"{name}.py" for folder in slow) if file.is_file()}
    module = entry.module.__module__
    found, libraries = sources(module, Path(str(sys.modules[module].__file__)))
    return files | found, libraries


def sources(module: str, file: Path) -> tuple[set[Path], set[str]]:
    """A module's file and all that it imports, and these import; and the installed libraries among them, by name.

    A library counts by its version, but the package that brings the module itself counts file by file.
    """
    found, libraries, left, package = set(), set(), [(module, file)], package_of(file)
    while left:
        module, file = left.pop()
        if file in found:
            continue
        found.add(file)
        for name in imports(module, file):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top in libraries:
                continue
            start = whereabouts(top)
            if start and installed(start) and top not in OURS and not (package and start.is_relative_to(package)):
                libraries.add(top)
            elif other := whereabouts(name):
                left.append((name, other))
    return found, libraries


def imports(module: str, file: Path) -> list[str]:
    """Full names of what a file may import, anywhere in it; of `from a import b`, a and a.b."""
    if file.suffix != ".py":
        return []
    around, found = module if file.name == "__init__.py" else module.rpartition(".")[0], []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            near = node.level and not around  # outside a package, which its import tells
            base = "" if near else importlib.util.resolve_name("." * node.level + (node.module or ""), around)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    steps = (name.split(".") for name in found if name)
    return sorted({".".join(parts[:end]) for parts in steps for end in range(1, len(parts) + 1)})


def whereabouts(name: str) -> Path | None:
    """The file of a module; None for what is no module, or has no file."""
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # no module, or one whose package cannot be imported: nothing can rest on it
        return None
    return Path(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None


def installed(file: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(file.parts))


def package_of(file: Path) -> Path | None:
    """The outermost folder of the package in which a file lies; None for a file by itself."""
    folders = [folder for folder in file.parents if (folder / "__init__.py").is_file()]
    return folders[-1] if folders else None
