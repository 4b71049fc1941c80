"""What rows said when they were last read: a cache, so that a look at 100,000 cells reads none of their rows again.

    cache/<name>.json    one line with schema and checksum of the next, then a list for each column

It may be deleted at any moment and is never believed against the files. The folder of every cell is listed all the
same, and an entry counts only while the row's file is the one that was read: same generation, inode, size, time of its
bytes and time of its inode. A row that was added, moved to the quarantine, opened again, copied or written over differs
in one of these and is read. What none of them shows is a byte that turned under the file system; such a row is noticed
by whatever reads it whole, as `report` and `doctor` do with every row.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4
from zlib import crc32

Mark = tuple[int, int, int, int, int]  # generation, inode, size, when the bytes and when the inode changed, in ns
Told = tuple[str, float, str | None]  # status, seconds, and the fingerprint of the code that made it

SCHEMA = 2
COLUMNS = ("id", "generation", "inode", "size", "bytes_ns", "inode_ns", "status", "wall_s", "code")
WORTH = 500  # rows that had to be read, from which on it pays to write them down
SETTLED_NS = 2 * 10**9  # a file that changed later may change again without that its times show it
ABANDONED_S = 3600.0  # a file beside the cache is nobody's after so long


def mark(generation: int, found: os.stat_result) -> Mark:
    """What tells the file of a row from any other, and from itself with other bytes."""
    return generation, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Cache:
    """What rows told, by their cells, as far as their files are still the same.

    Without a file it holds nothing. Any number of processes may use one at once; the last to write it wins.
    """

    def __init__(self, file: Path | None):
        self._file = file
        self._now_ns = time.time_ns()
        self._old = read(file) if file else {}
        self._seen: dict[str, tuple[Mark, Told]] = {}
        self._read = 0

    def get(self, id: str, found: Mark) -> Told | None:
        """What the row with this mark told, if it was read before."""
        entry = self._old.get(id)
        if entry is None or entry[0] != found:
            return None
        self._seen[id] = entry
        return entry[1]

    def put(self, id: str, found: Mark, told: Told) -> None:
        """Takes note of a row that was read whole, after its file had this mark."""
        self._read += 1
        if self._now_ns - found[-1] > SETTLED_NS:
            self._seen[id] = (found, told)

    def save(self) -> None:
        """Writes down what was seen, where that spares enough reading; a disk that does not take it harms nothing."""
        if self._file and self._read >= WORTH:
            with suppress(OSError):
                write(self._file, self._seen)


def read(file: Path) -> dict[str, tuple[Mark, Told]]:
    """The entries of a cache; none where it is missing, torn, or another program's."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        head, rest = file.read_bytes().split(b"\n", 1)
        told = json.loads(head)
        if told == {"schema": SCHEMA, "crc": crc32(rest)}:
            columns = json.loads(rest)
            ids, *marks, status, wall_s, code = (columns[name] for name in COLUMNS)
            entries = zip(zip(*marks, strict=True), zip(status, wall_s, code, strict=True), strict=True)
            return dict(zip(ids, entries, strict=True))
    return {}


def write(file: Path, entries: dict[str, tuple[Mark, Told]]) -> None:
    """Appears whole or not at all. Raises OSError when the disk does not take it."""
    rows = [(id, *found, *told) for id, (found, told) in entries.items()]
    columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=False))
    rest = json.dumps(columns, separators=(",", ":")).encode()
    file.parent.mkdir(exist_ok=True)
    part = file.with_name(f".{file.name}.{uuid4().hex}")
    try:
        part.write_bytes(json.dumps({"schema": SCHEMA, "crc": crc32(rest)}).encode() + b"\n" + rest)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
        sweep_up(file)


def sweep_up(file: Path) -> None:
    """Removes what killed writers left beside a cache."""
    for path in file.parent.glob(f".{file.name}.*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()
