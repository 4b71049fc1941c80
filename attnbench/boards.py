"""Event files for TensorBoard: the curves of a sweep's trainings, from the checkpoints of those that run and from rows.

    python -m attnbench.boards ROOT SWEEP      writes what is new every few seconds, until it is told to end

Nothing of a training knows of it: a process beside it reads what trainings leave anyway, so that no number, no id and
no fingerprint of code can depend on it. Each cell has a folder of its own, which only whoever holds a lock writes to.
A step is written once, however often cells or this process are killed: what is there already is read back first, and
where a training began anew with other numbers the old ones are purged, as TensorBoard's own writers do it.
"""

import fcntl
import importlib.util
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from attnbench.engine._child import environment
from attnbench.engine.store import Store
from attnbench.manifest import Cell, Manifest

FOLDER = "tensorboard"  # in that of a sweep
EVENTS = "events.out.tfevents."  # opens the name of an event file; a number ends it
EVERY_S = 10.0  # between two looks; a training leaves a checkpoint a minute, and at the end of an epoch after 6 s
TRAIN, VALID = "train_loss", "valid_score"  # tags; the second is what chooses the epoch, lower being better
Series = Mapping[str, Sequence[float]]  # of a tag: the values of epochs 1, 2, ...


def needed() -> None:
    """Raises ValueError where the package that writes event files is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package tensorboard: pip install 'attnbench[tensorboard]'.")


@contextmanager
def watching(root: Path, sweep: str, *, asked: bool) -> Iterator[None]:
    """Within it a process of low priority writes the events of a sweep under this root, if that is asked for."""
    if not asked:
        yield
        return
    command = [sys.executable, "-m", "attnbench.boards", str(root), sweep]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment(1)):
        yield  # at whose end, or with whose process, the pipe closes


@dataclass
class Board:
    """The event files of one sweep, as one process writes them.

    known: of each cell, its values that are written, by tag. files: of each, the file that this process has begun.
    seen: of each file of the store that was read, its time and size. ended: cells that nobody will train again.
    """

    store: Store
    folder: Path
    known: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    def update(self, manifest: Manifest) -> int:
        """Writes what is new of every training; returns how many values that were.

        Nothing where another process writes to the same folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return 0
            trainings = [cell for cell in manifest.cells if cell.kind == "train" and cell.id not in self.ended]
            return sum(self.look(cell) for cell in trainings)

    def look(self, cell: Cell) -> int:
        """Brings a cell whose row or checkpoint is another than at the last look; returns the number of values.

        What is noted was so before anything was read, and is noted when all is written: a row that comes in between,
        and what a full disk had no room for, are new at the next look.
        """
        folder, told = self.store.spec_path(cell.id).parent, {}
        for path in (*folder.glob("result*.json"), folder / "checkpoint" / "state.pt"):
            with suppress(FileNotFoundError):
                told[str(path)] = (path.stat().st_mtime_ns, path.stat().st_size)
        if not any(self.seen.get(path) != found for path, found in told.items()):
            return 0
        ended = (self.store.done(cell.id) or {}).get("status") == "ok"
        count = self.bring(cell)
        self.seen |= told
        if ended:
            self.ended.add(cell.id)
        return count

    def bring(self, cell: Cell) -> int:
        """Writes what a cell's folder lacks of its curves; returns the number of values."""
        series, folder = curves(self.store, cell.id), self.folder / place(cell)
        if not any(series.values()):
            return 0
        old = self.written(cell.id, folder)
        kept = min((alike(old.get(tag, []), own) for tag, own in series.items()), default=0)
        new = {tag: [(step, own[step - 1]) for step in range(kept + 1, len(own) + 1)] for tag, own in series.items()}
        if any(new.values()):
            begun_anew = any(len(own) > kept for own in old.values())
            file = self.files.pop(cell.id, None) or following(folder)
            append(file, new, purge=kept + 1 if begun_anew else None)
            self.files[cell.id] = file  # none that a write has failed in, for what comes after a torn end is lost
            self.known[cell.id] = {tag: list(own) for tag, own in series.items()}
        return sum(map(len, new.values()))

    def written(self, id: str, folder: Path) -> dict[str, list[float]]:
        """What event files hold of a cell; they are read where another process may have been the last to write."""
        there = sorted(folder.glob(f"{EVENTS}*"))
        if id not in self.known or there[-1:] != [self.files.get(id)]:
            self.files.pop(id, None)
            self.known[id] = read(folder)
        return self.known[id]


def write(store: Store, manifest: Manifest) -> Path:
    """Writes the event files of a sweep from its rows, and from the checkpoints of those that run; their folder.

    Raises ValueError where the package is missing.
    """
    needed()
    board = Board(store, store.root / manifest.sweep / FOLDER)
    board.update(manifest)
    return board.folder


def curves(store: Store, id: str) -> dict[str, list[float]]:
    """A training's curves so far, from its row or, before there is one, from its checkpoint; empty without either."""
    if row := store.result(id):
        raw = {name: own for name, own in (row.get("raw") or {}).items() if name == TRAIN or name.startswith("valid_")}
        found = {TRAIN if name == TRAIN else VALID: own for name, own in raw.items()}
        return {tag: [float("nan") if one is None else float(one) for one in own] for tag, own in found.items()}
    state = checkpoint(store.spec_path(id).parent / "checkpoint" / "state.pt")
    return {TRAIN: state.get("losses", []), VALID: state.get("scores", [])}


def checkpoint(file: Path) -> dict[str, Any]:
    """What a training's checkpoint holds; nothing where there is none, or none that is whole."""
    import torch  # here, for a report of rows alone does without

    with suppress(OSError, RuntimeError, ValueError, EOFError):
        digest, _, rest = file.read_bytes().partition(b"\n")
        if sha256(rest).hexdigest().encode() == digest:
            payload = BytesIO(rest.partition(b"\n")[2])
            return torch.load(payload, map_location="cpu", weights_only=True)
    return {}


def place(cell: Cell) -> str:
    """The folder of a cell: its label, as file systems take it, and the start of its id."""
    return f"{re.sub(r'[^A-Za-z0-9._]+', '-', cell.label).strip('-.')}-{cell.id[:6]}"


def alike(old: Sequence[float], new: Sequence[float]) -> int:
    """How many values at the start are the same, as event files keep them."""
    both = min(len(old), len(new))
    with np.errstate(over="ignore"):
        pair = [np.asarray(values[:both], dtype=np.float32) for values in (old, new)]
    other = np.flatnonzero(~np.isclose(*pair, rtol=0, atol=0, equal_nan=True))
    return int(other[0]) if len(other) else both


def read(folder: Path) -> dict[str, list[float]]:
    """The values that event files hold, by tag, in the order of steps."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    if not folder.is_dir():
        return {}
    found = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    found.Reload()
    return {tag: [event.value for event in found.Scalars(tag)] for tag in found.Tags()[SCALARS]}


def following(folder: Path) -> Path:
    """A new event file, which readers, going by names, take after all that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{EVENTS}{len(list(folder.glob(f'{EVENTS}*'))):06d}"


def append(file: Path, series: Mapping[str, Sequence[tuple[int, float]]], *, purge: int | None) -> None:
    """Writes (epoch, value) of each tag to an event file. purge: from which epoch on older values are void."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    made: tuple[Any, Any] = event_pb2, summary_pb2  # whose names are there only when they run
    now, Event, SessionLog, Summary = time.time(), made[0].Event, made[0].SessionLog, made[1].Summary
    events = [] if file.exists() else [Event(wall_time=now, file_version="brain.Event:2")]
    if purge is not None:
        events.append(Event(wall_time=now, step=purge, session_log=SessionLog(status=SessionLog.START)))
    for step, tag, value in sorted((step, tag, value) for tag, own in series.items() for step, value in own):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        events.append(Event(wall_time=now, step=step, summary=summary))
    with file.open("ab") as out:
        records = RecordWriter(out)
        for event in events:
            records.write(event.SerializeToString())


def main() -> None:
    """Writes until whoever started it closes its standard input, or is gone, and then what is still new."""
    root, sweep = Path(sys.argv[1]), sys.argv[2]
    os.nice(10)
    board, file, ended = Board(Store(root), root / sweep / FOLDER), root / sweep / "cells.json", False
    while True:
        with suppress(OSError, json.JSONDecodeError):  # a disk that is full for a while
            if file.is_file():
                board.update(Manifest.read(file))
        if ended:
            return
        ended = bool(select.select([sys.stdin], [], [], EVERY_S)[0])


if __name__ == "__main__":
    main()
