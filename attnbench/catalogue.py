"""What `attnbench list` shows: every mechanism, model and task with all its knobs, from a cache that needs no torch.

The cache is keyed by the contents of the catalogue's files, so it is never stale; making it imports them once.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from attnbench import plugins
from attnbench.paths import SHIPPED, cache

ROOT = Path(__file__).parent.parent
FOLDERS = {"mechanisms": ROOT / "mechanisms", "models": ROOT / "attnbench" / "models", "tasks": ROOT / "tasks"}
Entry = dict[str, Any]


def catalogue() -> dict[str, list[Entry]]:
    """Entries by kind: mechanisms, models, tasks."""
    file = cache() / f"catalogue-{key()}.json"
    if file.is_file():
        return json.loads(file.read_text())
    command = [sys.executable, "-m", "attnbench.catalogue"]
    places = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": places}
    made = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = json.loads(made)
    if refusal := found.get("refused"):
        raise ValueError(refusal)
    keep(file, made)
    return found


def keep(file: Path, text: str) -> None:
    """Writes the cache whole or not at all; where the folder cannot be written there is none, and all still works."""
    part = file.with_name(f".{uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text)
        part.replace(file)
    except OSError:
        return


def key() -> str:
    """Hash of every file that an entry is made from, plugins and this one included."""
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted([Path(__file__), *(file for folder in FOLDERS.values() for file in folder.glob("*.py"))]):
        digest.update(str(file.name).encode() + b"\0" + file.read_bytes() + b"\0")
    for file in plugins.files():
        digest.update(str(file).encode() + b"\0" + (file.read_bytes() if file.is_file() else b"") + b"\0")
    return digest.hexdigest()[:16]


def collected() -> dict[str, list[Entry]]:
    """Imports every file of the catalogue; one that is broken is an entry that says why."""
    import mechanisms
    import tasks
    from attnbench import models

    plugins.join()
    registries: dict[str, Any] = {"mechanisms": mechanisms, "models": models, "tasks": tasks}
    return {kind: [entry(kind, name, registry) for name in registry.names()] for kind, registry in registries.items()}


def entry(kind: str, name: str, registry: Any) -> Entry:
    try:
        found = registry.find(name)
    except ValueError as error:
        return {"name": name, "missing": str(error)}
    text = sys.modules[f"{'attnbench.models' if kind == 'models' else kind}.{name}"].__doc__ or ""
    told = {"name": name, "summary": text.split("\n\n")[0].strip(), "source": source(text), "version": found.version}
    if kind == "mechanisms":
        told |= {"fits": sorted(found.fits), "order": found.order}
        told |= {"bound_to_shape": "by its knobs" if callable(found.bound_to_shape) else found.bound_to_shape}
        guest = registry.mechanisms.guests.get(name)
        told |= {"plugin": str(guest)} if guest else {}
    if kind == "models":
        told |= {"mechanism_inside": found.socket}
    if kind == "tasks":
        told |= {"better": dict(found.better)}
    return told | {"knobs": [knob(*field) for field in found.config.model_fields.items()]}


def source(text: str) -> str:
    """The first address in a docstring."""
    found = re.search(r"https?://\S+", text)
    return found.group() if found else ""


def knob(name: str, field: Any) -> Entry:
    written = str(field.annotation).replace("typing.", "")
    kind = written if "[" in written or "|" in written else field.annotation.__name__
    bounds = ", ".join(bound(item) for item in field.metadata if bound(item))
    return {"name": name, "type": kind, "bounds": bounds, "default": field.default, "about": field.description or ""}


def bound(constraint: Any) -> str:
    """A pydantic constraint as people write it."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return " ".join(f"{sign} {getattr(constraint, name)}" for name, sign in signs.items() if hasattr(constraint, name))


def sweeps() -> list[Entry]:
    """The sweep files that ship, each with its question and number of runs."""
    return [{"name": file.stem, **head(file)} for file in sorted(SHIPPED.glob("*.yaml"))]


def head(file: Path) -> Entry:
    """Question and runs, read without a YAML parser: both stand on lines of their own."""
    text = file.read_text()
    found = {word: re.search(rf"^ *{word}:\s*(.+?)\s*(?:#.*)?$", text, re.MULTILINE) for word in ("question", "runs")}
    return {word: match.group(1) if match else "" for word, match in found.items()}


if __name__ == "__main__":
    try:
        told: dict[str, Any] = collected()
    except ValueError as wrong:  # a plugin that cannot be taken
        told = {"refused": str(wrong)}
    json.dump(told, sys.stdout)
