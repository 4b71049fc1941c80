"""The store of cells: what was asked, every attempt at it, and one row that nobody can replace.

    cells/<ab>/<id>/spec.json                what was asked
    cells/<ab>/<id>/attempts/<uuid>.jsonl    start, heartbeats, end; `.log` what the cell printed
    cells/<ab>/<id>/result.json              the row; `result.<n>.json` after `generation.<n>` was opened
    quarantine/<id>.<uuid>.json              damaged files, never deleted
    cache/<name>.json                        what `scan` read in rows; see `_cache`

Whoever starts a cell makes its attempt durable first and looks for a row after that; so none starts after a commit.
Attempts save work, nothing more: that a cell has one row rests on `link` alone, and no lock outlives its owner.
"""

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from attnbench.cell import Spec, canonical, identity
from attnbench.engine import _evidence, _files
from attnbench.engine._cache import Cache
from attnbench.engine._evidence import Evidence, Look
from attnbench.engine._records import (
    SCHEMA,
    STATUSES,
    Attempt,
    AttemptInfo,
    Damaged,
    Row,
    born,
    decode,
    encode,
    line,
    machine,
    read_attempt,
    scratch,
    set_aside,
)
from attnbench.engine._still import still

__all__ = ["AlreadyDone", "Evidence", "Store"]

ABANDONED_S = 3600.0  # a temporary file that belongs to no attempt is left over after so long
AGAIN_S = 0.05  # before a name is tried again that somebody has taken without a row


class AlreadyDone(Exception):
    """The cell has its row: there is nothing to start."""


class Store:
    """The cells under one folder. Any number of processes and machines may use it at once."""

    def __init__(self, root: Path):
        self.root = root
        self._folders = _files.Names()

    def ask(self, spec: Spec) -> str:
        """Writes down what is asked, once, and returns its id. A damaged note is moved away and written anew."""
        id, data = identity(spec), canonical(spec).encode() + b"\n"
        path = self.spec_path(id)
        path.parent.mkdir(parents=True, exist_ok=True)
        while (raw := self._bytes(path)) != data:
            if _files.create(path, data, owner="spec", durable=False, alike=True):  # a child reads it as a plain file
                break
            if raw is not None:
                self._quarantine(path, raw, id)
        return id

    def spec(self, id: str) -> Spec:
        """What was asked. Raises ValueError if nothing was, or if the note is damaged."""
        data = self._bytes(self.spec_path(id))
        if data is None:
            raise ValueError(f"The spec of cell {id} is not in {self.root}; `attnbench sweep --retry` writes it again.")
        with suppress(ValueError):
            spec = json.loads(data)
            if identity(spec) == id:
                return spec
        raise ValueError(f"The spec of cell {id} in {self.root} is damaged; `attnbench sweep --retry` writes it again.")

    def spec_path(self, id: str) -> Path:
        """The file that a child process reads its spec from."""
        return self._folder(id) / "spec.json"

    def result(self, id: str) -> Row | None:
        """The row of the newest generation, or None; a damaged one goes to the quarantine, and the cell has none."""
        return self._row(id, self.generation(id), whole=True)

    def done(self, id: str) -> Row | None:
        """As `result`, with the entries that come before the spec only; fast.

        A draft that a killed writer left beside the row goes then, for no later attempt will come by.
        """
        if any(name.endswith(".tmp") for name in self._names(id)):
            self.tidy(id)
        return self._row(id, self.generation(id), whole=False)

    def generation(self, id: str) -> int:
        """How often the cell was opened again by `retry`."""
        return _evidence.newest(self._names(id))

    def retry(self, id: str, *, after: int | None = None) -> int:
        """Opens the generation after that one, or the newest: it has neither row nor attempts. Returns its number.

        Two that do so at once open one; so do two that have seen the same generation.
        """
        number = (self.generation(id) if after is None else after) + 1
        path = self._folder(id) / f"generation.{number}"
        with suppress(FileExistsError):
            _files.write(path, b"", os.O_EXCL)
        _files.sync_folder(path.parent)
        return number

    def begin(self, id: str, *, where: Mapping[str, Any]) -> Attempt:
        """Starts an attempt: its record is durable, and only then is a row looked for.

        `where` says on whose behalf: launcher, job, limit of memory. Raises AlreadyDone if there is a row,
        OSError if the disk does not take the record.
        """
        folder = self._folder(id) / "attempts"
        folder.mkdir(parents=True, exist_ok=True)
        self.tidy(id)
        owner = {"host": os.uname().nodename, "pid": os.getpid(), "machine": machine(), "born": born(os.getpid())}
        start = {"at": round(time.time(), 3), **owner, "generation": self.generation(id), "where": dict(where)}
        attempt = Attempt(folder / f"{uuid4().hex}.jsonl", start)
        self._folders.sync(folder, 4)  # up to the root, for `ask` does not wait for the disk
        if self._row(id, attempt.generation, whole=False):
            attempt.end("done")
            raise AlreadyDone(id)
        return attempt

    def commit(self, id: str, row: Mapping[str, Any], attempt: str) -> Literal["committed", "duplicate"]:
        """Makes `row` the row of its cell, unless there is one: then it is kept beside it as a duplicate.

        row: status and the blocks result, cost, host, data, code, raw, error; `wall_s` and `finished` if known.
        attempt: uuid of the attempt that made it; the row belongs to the generation the attempt began in.
        A duplicate lies in attempts/<uuid>.dup.json with `equal`: whether its result block is the committed one.
        Raises OSError when the disk does not take it, and may be called again.
        """
        full = self._complete(id, row, attempt)
        path, data = self._result(id, full["generation"]), encode(full)
        while not _files.create(path, data, owner=attempt):
            if not (winner := self._row(id, full["generation"], whole=True)):
                time.sleep(AGAIN_S)  # it was damaged and has been moved away, or is only just being made
                continue
            if winner["attempt"] == attempt:
                break  # an earlier call came as far as the link
            twin = line({**full, "equal": full["result"] == winner["result"]})
            _files.create(self._folder(id) / "attempts" / f"{attempt}.dup.json", twin, owner=attempt)
            return "duplicate"
        return "committed"

    def attempts(self, id: str) -> list[AttemptInfo]:
        """Every attempt of every generation, oldest first."""
        return _evidence.attempts(self.root, id)

    def tries(self, ids: Iterable[str]) -> dict[str, int]:
        """How many attempts at each of these cells are noted; without those of which nothing is."""
        found = {}
        for id in ids:
            with suppress(FileNotFoundError), os.scandir(f"{self.root}/cells/{id[:2]}/{id}/attempts") as entries:
                found[id] = sum(entry.name.endswith(".jsonl") for entry in entries)
        return found

    def rivals(self, id: str) -> list[AttemptInfo]:
        """Attempts of the newest generation that other processes may still be at work on."""
        number, now = self.generation(id), time.time()
        found = self.attempts(id)
        return [info for info in found if info.generation == number and info.alive(now) and not info.own]

    def failed(self, id: str) -> dict[str, Any] | None:
        """The error for which the cell was set aside: type, message, frame, traceback, signature, tries; or None."""
        if "attempts" not in self._names(id):  # as of most cells of a large sweep
            return None
        number = self.generation(id)
        if self._row(id, number, whole=False):
            return None
        return set_aside([info for info in self.attempts(id) if info.generation == number], time.time())

    @still()
    def scan(self, ids: Iterable[str], *, cache: str = "") -> dict[str, Evidence]:
        """What is known about each of these cells; nothing is moved, and nothing written but the cache.

        cache: name under which what rows say is remembered, for a large set of cells that is looked at often.
        """
        hurt = {path.name.partition(".")[0] for path in self._quarantined()}
        known = Cache(self.root / "cache" / f"{cache}.json" if cache else None)
        look = Look(self.root, hurt, time.time(), known)
        found = {id: look.at(id) for id in ids}
        known.save()
        return found

    def unfinished(self, ids: Iterable[str]) -> list[str]:
        """Those of these cells that are asked for and have neither a row nor were set aside."""
        found = self.scan(ids)
        ended = {id for id, known in found.items() if known.status or known.failed}
        return [id for id in found if id not in ended and self.spec_path(id).exists()]

    def tidy(self, id: str) -> None:
        """Removes what dead attempts at this cell left over: half-written files, and their scratch folders."""
        now = time.time()
        attempts = {info.uuid: info for info in self.attempts(id)}
        for name in self._names(id):
            if name.endswith(".tmp"):
                self._drop(self._folder(id) / name, attempts, now)
        for info in attempts.values():
            if not info.alive(now):
                shutil.rmtree(scratch(info.uuid), ignore_errors=True)
                shutil.rmtree(self._folder(id) / "attempts" / f"{info.uuid}.scratch", ignore_errors=True)

    def clean(self, id: str) -> None:
        """Removes what killed processes left beside the row of a cell."""
        if self.done(id):
            self.forget(id)

    def forget(self, id: str) -> None:
        """Deletes what attempts at a finished cell had kept for those after them."""
        shutil.rmtree(self._folder(id) / _evidence.CHECKPOINT, ignore_errors=True)

    def _drop(self, path: Path, attempts: Mapping[str, AttemptInfo], now: float) -> None:
        owner = attempts.get(path.name.partition(".")[0])
        with suppress(FileNotFoundError):
            if not owner.alive(now) if owner else now - path.stat().st_mtime > ABANDONED_S:
                path.unlink()

    def _folder(self, id: str) -> Path:
        return self.root / "cells" / id[:2] / id

    def _names(self, id: str) -> Sequence[str]:
        return list(_evidence.entries(self.root, id))

    def _result(self, id: str, generation: int) -> Path:
        return self._folder(id) / _evidence.row_name(generation)

    def _row(self, id: str, generation: int, *, whole: bool) -> Row | None:
        path = self._result(id, generation)
        while path.name in self._names(id):
            try:
                raw = path.read_bytes()
                data = _files.resolve(path, raw)
            except FileNotFoundError:
                return None  # moved away by another reader, or its marker is just being made
            try:
                return decode(data, id=id, whole=whole)
            except Damaged:
                self._quarantine(path, raw, id)
        return None

    def _bytes(self, path: Path) -> bytes | None:
        with suppress(FileNotFoundError):
            return _files.read(path)
        return None

    def _quarantine(self, path: Path, raw: bytes, id: str) -> None:
        _files.quarantine(path, raw, self.root / "quarantine" / f"{id}.{uuid4().hex}.json")

    def _quarantined(self) -> Iterable[Path]:
        folder = self.root / "quarantine"
        return folder.iterdir() if folder.is_dir() else ()

    def _complete(self, id: str, row: Mapping[str, Any], attempt: str) -> Row:
        """The row with what the store knows: its cell, its attempt, and when and where it was made."""
        assert row["status"] in STATUSES, row["status"]
        info = read_attempt(self._folder(id) / "attempts" / f"{attempt}.jsonl")
        assert info, f"attempt {attempt} has no start record"
        finished = row.get("finished") or round(time.time(), 3)
        blocks = {name: row.get(name) or {} for name in ("result", "cost", "host", "data", "code", "raw")}
        return {
            "schema": SCHEMA,
            "id": id,
            "status": row["status"],
            "generation": info.generation,
            "attempt": attempt,
            "started": info.started,
            "finished": finished,
            "wall_s": row.get("wall_s") or round(finished - info.started, 3),
            "spec": row.get("spec") or self.spec(id),
            **blocks,
            "error": row.get("error"),
            "where": {"host": info.host, "pid": info.pid, **info.where},
        }
