"""A report that does not say who made it: no host names, no user names, no paths, in any of its files.

What can be told from a commit, a job's text or a sweep's own name stays; the page and the README say so.
"""

import getpass
import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.reports.collect import Gathered
from attnbench.reports.rows import records, table

if TYPE_CHECKING:
    from attnbench.manifest import Manifest

DROPPED = ("host.name", "host.slurm_job")
KEPT = ("id", "cost_id", "sweep", "kind", "status", "task", "model", "mechanism")  # names of the catalogue, and ids
COMMON = {"root", "user", "users", "admin", "ubuntu", "runner", "nobody", "localhost", "home", "tmp", "none"}
PART = r"[^\s/\\'\"<>|:,;()\[\]{}]+"
PATH = re.compile(
    r"(?<=\")(?:~|[A-Za-z]:)?[/\\][^\"\n]*(?=\")|(?<=')(?:~|[A-Za-z]:)?[/\\][^'\n]*(?=')|"  # in quotes, with blanks
    rf"(?:file://|(?<![\w./~]))~?(?:/(?!/){PART})+/?"  # /home/jane/x, ~/x; no address, no fraction
    rf"|(?<!\w)[A-Za-z]:\\(?:{PART}\\?)*|\\\\(?:{PART}\\?)+"
)
ALONE = re.compile(r"(?:~|[A-Za-z]:)?[/\\][^\"'\n]+")
SHORT = re.compile(r"/[A-Za-z]?")  # such as the slash of `samples /s`
OWNER = re.compile(r"[/\\](?:home|Users)[/\\]([^/\\\s'\"]+)")
TEXTS = (".csv", ".html", ".json", ".md", ".svg", ".tex", ".txt", ".log")
SOURCE = re.compile(r"[\w.-]+\.py")


@dataclass(frozen=True)
class Veil:
    """Takes names and paths out of text.

    words: names of hosts and users, of each what stands in its place. home: of the user here, which may have blanks in
    it. paths: numbers of those that rows name, so that two that differ still differ. drawn: whether it hides anything.
    """

    words: dict[str, str]
    home: str
    paths: dict[str, int]
    drawn: bool = True

    def text(self, told: str) -> str:
        """The text without them; of a path in a traceback the name of a Python file is kept."""
        if not self.drawn:
            return told
        told = PATH.sub(self._path, self.homeless(told))
        for word in sorted(self.words, key=lambda word: (-len(word), word)):
            told = named(word).sub(self.words[word], told)
        return told

    def homeless(self, told: str) -> str:
        return told.replace(self.home, "/home") if self.home else told

    def _path(self, match: re.Match[str]) -> str:
        found = match.group()
        if SHORT.fullmatch(found):
            return found
        number = f" {self.paths[found]}" if len(self.paths) > 1 and found in self.paths else ""
        last = re.split(r"[/\\]", found)[-1]
        return f"(path{number})" + (f"/{last}" if SOURCE.fullmatch(last) else "")

    def value(self, one: Any) -> Any:
        """The same of a value that may be text, or hold some; one that is a path and nothing else may have blanks."""
        if isinstance(one, str):
            return self.text(f'"{one}"')[1:-1] if self.drawn and ALONE.fullmatch(one) else self.text(one)
        if isinstance(one, dict):
            return {self.value(key): self.value(inside) for key, inside in one.items()}
        return [self.value(inside) for inside in one] if isinstance(one, list | tuple) else one


OPEN = Veil({}, "", {}, drawn=False)


def hidden(manifest: "Manifest", gathered: Gathered) -> tuple["Manifest", Gathered, Veil]:
    """The list of a sweep's cells and its rows without names and paths, and the veil for what else is written."""
    rows = records(gathered.frame)
    veil = veil_of(rows)
    kept = [{name: value for name, value in row.items() if name not in DROPPED} for row in rows]
    veiled = table({name: one if name in KEPT else veil.value(one) for name, one in row.items()} for row in kept)
    cells = tuple(
        replace(cell, label=veil.text(cell.label), variant=veil.text(cell.variant)) for cell in manifest.cells
    )
    told = {"question": veil.text(manifest.question), "waiting": tuple(map(veil.text, manifest.waiting))}
    slurm = veil.value(dict(manifest.slurm)) if manifest.slurm else manifest.slurm
    notes = tuple(map(veil.text, gathered.notes))
    return replace(manifest, cells=cells, slurm=slurm, **told), Gathered(veiled, notes), veil


def veil_of(rows: Iterable[dict[str, Any]]) -> Veil:
    """The veil over what these rows name, and over this machine and its user."""
    rows = list(rows)
    texts = [value for row in rows for name, value in row.items() if isinstance(value, str) and name not in KEPT]
    hosts = {str(row["host.name"]) for row in rows if row.get("host.name")} | {socket.gethostname()}
    hosts |= {host.partition(".")[0] for host in hosts}
    users = {owner for text in texts for owner in OWNER.findall(text)} | own_names()
    catalogue = {str(row[name]).lower() for row in rows for name in KEPT if row.get(name)}
    usable = {word for word in hosts | users if len(word) > 1 and word.lower() not in COMMON | catalogue}
    words = {word: "(host)" if word in hosts else "(user)" for word in usable}
    home = str(Path.home())
    veil = Veil(words, home if len(home) > 1 and home != "/root" else "", {})
    told = {f'"{text}"' if ALONE.fullmatch(text) else text for text in set(texts)}
    paths = {match.group() for text in told for match in PATH.finditer(veil.homeless(text))}
    return replace(veil, paths={path: number for number, path in enumerate(sorted(paths), 1)})


def named(word: str) -> re.Pattern[str]:
    """A name where it stands alone, in whatever case."""
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", re.IGNORECASE)


def own_names() -> set[str]:
    """What the user is called here."""
    found = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")} | {Path.home().name}
    with suppress(OSError, KeyError, ImportError):  # nobody has to be known to the system
        found.add(getpass.getuser())
    return found - {""}


def remaining(folder: Path, veil: Veil) -> list[str]:
    """Text files in a folder that still name a host, a user or a home, for no report wrote them."""
    marks = [*map(named, veil.words), *([re.compile(re.escape(veil.home))] if veil.home else [])]
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in TEXTS)
    texts = ((file, file.read_text(encoding="utf-8", errors="replace")) for file in files)
    return [file.relative_to(folder).as_posix() for file, text in texts if any(mark.search(text) for mark in marks)]
