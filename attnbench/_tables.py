"""Makes a sweep's tables and figures when it has come to its end, unless they hold its rows already."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from attnbench import reading, reports
from attnbench.engine.store import Store
from attnbench.manifest import Manifest

EVENTS = "tensorboard"  # see boards.py
MAKERS = (".py", ".html", ".css", ".js")
LARGE = 10_000  # cells; tables of more take many minutes and are left to `attnbench report`


def refresh(
    store: Store,
    asked: Manifest,
    say: Callable[[str], None],
    *,
    quiet: bool,
    mixed: bool,
    anonymous: bool = False,
) -> None:
    """Reports a sweep whose cells have ended, and notes of which rows, so that the next call need not."""
    name, folder = asked.sweep, store.root / asked.sweep
    if (count := len(asked.cells)) > LARGE:
        say(f"Tables and figures of {count} cells take a while; `attnbench report {name}` makes them.")
        return
    note, rows = store.root / "cache" / f"{name}.tables.json", digest(store, name, (mixed, anonymous))
    if noted(note) == {"rows": rows, "files": files(folder)}:
        say(f"Tables and figures of these rows are there: {folder}; `attnbench report {name}` makes them anew.")
        return
    reading.report([name], store.root, quiet=quiet, mixed=mixed, anonymous=anonymous)
    with suppress(OSError):  # without a note they are made again the next time
        note.parent.mkdir(exist_ok=True)
        part = note.with_name(f".{note.name}.{uuid4().hex}")
        part.write_text(json.dumps({"rows": rows, "files": files(folder)}))
        part.replace(note)


def digest(store: Store, name: str, asked: tuple[bool, ...]) -> str:
    """A hash of what tables are made from beside the manifest: rows' files, cells that failed, the code of reports."""
    cells = [cell.id for cell in reading.manifest(name, store.root).cells]
    made = hashlib.sha256(json.dumps(asked).encode())
    for id, known in sorted(store.scan(cells, cache=name).items()):
        failed = known.failed and (known.failed["signature"], known.failed["tries"])
        made.update(repr((id, known.status, known.changed, known.generation, failed)).encode())
    for path in sorted(path for home in reports.__path__ for path in Path(home).rglob("*") if path.suffix in MAKERS):
        made.update(hashlib.sha256(path.read_bytes()).digest())
    return made.hexdigest()


def noted(note: Path) -> object:
    """What was written down when the tables were made; nothing where that cannot be read."""
    with suppress(OSError, ValueError):
        return json.loads(note.read_bytes())
    return None


def files(folder: Path) -> dict[str, list[int]]:
    """Size and time of everything that lies in a sweep's folder, but for event files, which are no tables."""
    found = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*") if path.is_file()}
    found = {name: told for name, told in found.items() if not name.startswith(f"{EVENTS}/")}
    return {name: [told.st_size, told.st_mtime_ns] for name, told in sorted(found.items())}
