"""What a store knows about a cell, read from the cell's folder without changing anything."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnbench.engine import _files
from attnbench.engine._cache import Cache, mark
from attnbench.engine._records import AttemptInfo, Damaged, decode, read_attempt, set_aside

CHECKPOINT = "checkpoint"  # in the folder of a cell: what its child keeps for a child after it
GENERATION = re.compile(r"generation\.(\d+)")
FINGERPRINT = re.compile(rb'"code":\{[^{}]*"fingerprint":"([0-9a-f]+)"')  # in a row


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the store knows about one cell, read without changing anything; the food of `states`.

    status, wall_s, changed, code: of the committed row; changed is when its file last did, by the file system's clock,
        code the fingerprint of what made it.
    corrupt: the row is damaged, or was and has not been made again.
    attempts: those of the newest generation, oldest first; left out once there is a row. live: one still at work.
    left: beside the row lies what a killed process should have removed.
    """

    id: str
    status: str | None = None
    wall_s: float | None = None
    changed: float | None = None
    code: str | None = None
    corrupt: bool = False
    generation: int = 0
    attempts: tuple[AttemptInfo, ...] = ()
    live: AttemptInfo | None = None
    failed: Mapping[str, Any] | None = None
    left: bool = False


@dataclass(frozen=True)
class Look:
    """A look at many cells of the store under `root`; hurt: cells of which something lies in the quarantine."""

    root: Path
    hurt: Collection[str]
    now: float
    cache: Cache

    def at(self, id: str) -> Evidence:
        """What is known about one cell."""
        found = entries(self.root, id)
        number = newest(found)
        if row := found.get(row_name(number)):
            with suppress(FileNotFoundError):  # moved away meanwhile, or only just being made
                told = self._told(id, number, row)
                return replace(told, left=True) if any(map(_left, found)) else told
        mine = tuple(info for info in attempts(self.root, id) if info.generation == number) if found else ()
        live = next((info for info in mine if info.alive(self.now)), None)
        failed = set_aside(mine, self.now)
        return Evidence(id=id, corrupt=id in self.hurt, generation=number, attempts=mine, live=live, failed=failed)

    def _told(self, id: str, generation: int, entry: os.DirEntry[str]) -> Evidence:
        """What a row says, read if the cache does not know it. Raises FileNotFoundError when there is none."""
        found = entry.stat()  # before the bytes are read: what changes in between shows the next time
        own = mark(generation, found)
        if (told := self.cache.get(id, own)) is None:
            raw = _files.whole(entry.path, found.st_size)
            itself = raw.startswith(b"{")  # not a marker, which does not show whether the bytes behind it are the same
            data = raw if itself else _files.resolve(Path(entry.path), raw)
            try:
                row = decode(data, id=id, whole=False)
            except Damaged:
                return Evidence(id=id, corrupt=True, generation=generation)
            made = FINGERPRINT.search(data)
            told = row["status"], row["wall_s"], made[1].decode() if made else None
            if itself:
                self.cache.put(id, own, told)
        status, wall_s, code = told
        return Evidence(id=id, status=status, wall_s=wall_s, changed=found.st_ctime, code=code, generation=generation)


def entries(root: Path, id: str) -> dict[str, os.DirEntry[str]]:
    """What lies in a cell's folder; listing also makes network file systems look again."""
    with suppress(FileNotFoundError), os.scandir(f"{root}/cells/{id[:2]}/{id}") as found:
        return {entry.name: entry for entry in found}
    return {}


def newest(names: Iterable[str]) -> int:
    """The generation that files of these names in a cell's folder tell of."""
    return max((int(found[1]) for name in names if (found := GENERATION.fullmatch(name))), default=0)


def _left(name: str) -> bool:
    return name == CHECKPOINT or name.endswith(".tmp")


def row_name(generation: int) -> str:
    return f"result.{generation}.json" if generation else "result.json"


def attempts(root: Path, id: str) -> list[AttemptInfo]:
    """Every attempt of every generation, oldest first."""
    folder = root / "cells" / id[:2] / id / "attempts"
    paths: list[Path] = []
    with suppress(FileNotFoundError):  # it may be taken away while we look
        paths = list(folder.iterdir())
    infos = [read_attempt(path) for path in paths if path.suffix == ".jsonl"]
    return sorted((info for info in infos if info), key=lambda info: (info.started, info.uuid))
