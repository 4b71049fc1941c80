"""What the store writes: a row with its checksum, and the start, heartbeats and end of an attempt, line by line."""

import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any
from zlib import crc32

from attnbench.engine._files import write

Row = dict[str, Any]

SCHEMA = 1  # of a row; older ones are migrated when read
STATUSES = ("ok", "oom", "timeout", "diverged")
HEAD = ("schema", "id", "status", "generation", "attempt", "started", "finished", "wall_s")
BODY = ("spec", "result", "cost", "host", "data", "code", "raw", "error", "where")
SEAL = re.compile(rb'\{"crc":"([0-9a-f]{8})",')
OWNER = "owner"  # in a scratch folder, a link that names the process that made it
SILENT_S = 60.0  # an attempt elsewhere that has been silent for so long is over
HUNG_S = 600.0  # the same for one whose process still exists here: it may be stopped or stuck
SAME_TWICE = 2  # errors with one signature before a cell is set aside
CHARGED = 5  # errors, kills and losses of any kind before it is
CHARGES = ("error", "killed", "machine", "lost")
FULL = 0.9  # of the memory limit: what makes a death without a word a probable lack of memory
NUMBER, PERHAPS, TEXT = (int, float), (int, float, NoneType), (str, NoneType)
KEPT: dict[str, dict[str, Any]] = {  # what the lines of an attempt's file hold, to be believed
    "start": {"at": NUMBER, "host": str, "pid": int, "machine": str, "born": TEXT, "generation": int, "where": dict},
    "beat": {"at": NUMBER, "rss_mib": PERHAPS},
    "end": {"at": NUMBER, "outcome": str, "signature": TEXT, "error": (dict, NoneType), "wall_s": PERHAPS},
}


class Damaged(Exception):
    """These bytes are not what was written."""


def encode(row: Mapping[str, Any]) -> bytes:
    """A row as the bytes of its file: JSON whose first entry is the CRC of all that follows it.

    Raises ValueError for NaN or infinity.
    """
    ordered = {name: row[name] for name in (*HEAD, *BODY)}
    text = json.dumps(ordered, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    rest = text[1:].encode() + b"\n"
    return f'{{"crc":"{crc32(rest):08x}",'.encode() + rest


def decode(data: bytes, *, id: str, whole: bool = True) -> Row:
    """The row in these bytes; not `whole`: only the entries before the spec, which is fast.

    Raises Damaged when a byte of it has changed or it is another cell's, ValueError when it is of a later schema.
    """
    seal = SEAL.match(data)
    if not seal or int(seal[1], 16) != crc32(memoryview(data)[seal.end() :]):
        raise Damaged(id)
    row = json.loads((data if whole else data[: data.index(b',"spec":')] + b"}").decode())
    if row["id"] != id:
        raise Damaged(id)
    if row["schema"] > SCHEMA:
        raise ValueError(f"The row of cell {id} has schema {row['schema']}; this attnbench reads up to {SCHEMA}.")
    return row


@cache
def machine() -> str:
    """This machine as far as process ids mean something on it: host, boot and process namespace."""
    parts = [os.uname().nodename]
    with suppress(OSError):  # systems without /proc have one namespace
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def born(pid: int) -> str | None:
    """When a process started, in a form that no other process of the same pid shares; None if it has ended."""
    if Path("/proc/self/stat").exists():
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else fields[19]
        return None
    import psutil  # only where there is no /proc: it would slow down `status`

    with suppress(psutil.Error):
        return str(psutil.Process(pid).create_time())
    return None


def scratch(uuid: str, record: Path | None = None) -> Path:
    """The folder on this machine in which the child of an attempt leaves its outcome.

    record: the attempt's file, to have that folder beside it, where all nodes of a cluster see it.
    """
    return record.with_suffix(".scratch") if record else Path(tempfile.gettempdir()) / f"attnbench-{uuid}"


def make_scratch(folder: Path) -> Path:
    """Makes that folder, with a link in it that names this process."""
    folder.mkdir(mode=0o700)
    (folder / OWNER).symlink_to(f"{os.getpid()} {born(os.getpid())} {machine()}")
    return folder


def sweep_scratch() -> None:
    """Removes such folders on this machine whose processes were killed before they could."""
    for folder in left_scratch():
        shutil.rmtree(folder, ignore_errors=True)


def left_scratch() -> list[Path]:
    """The folders on this machine whose processes were killed before they could remove them."""
    left = []
    for folder in Path(tempfile.gettempdir()).glob("attnbench-*"):
        with suppress(OSError, ValueError):  # another user's, or just being removed
            pid, birth, where = str((folder / OWNER).readlink()).split(" ", 2)
            if where == machine() and born(int(pid)) != birth:
                left.append(folder)
    return left


@dataclass(frozen=True, kw_only=True)
class AttemptInfo:
    """An attempt as its file tells it. Times are unix seconds; `end` holds outcome, signature, error and wall_s."""

    uuid: str
    host: str
    pid: int
    started: float
    heartbeat: float
    rss_mib: float | None
    end: dict[str, Any] | None
    generation: int
    where: dict[str, Any]
    machine: str
    born: str | None

    @property
    def here(self) -> bool:
        """Whether its process ids mean something in this process."""
        return self.machine == machine()

    @property
    def own(self) -> bool:
        """Whether this very process wrote it."""
        return self.here and self.pid == os.getpid() and self.born == born(self.pid)

    def alive(self, now: float) -> bool:
        """Whether it may still be at work: on this machine its process is asked, elsewhere its heartbeat."""
        if self.end is not None:
            return False
        silent = now - self.heartbeat
        if self.here:
            return self.born is not None and born(self.pid) == self.born and silent < HUNG_S
        return -HUNG_S < silent < SILENT_S  # a beat from far in the future is a damaged one, or of a wrong clock


class Attempt:
    """The one writer of an attempt's file; made by `Store.begin`."""

    def __init__(self, path: Path, start: Mapping[str, Any]):
        self.path = path
        self.uuid = path.stem
        self.generation: int = start["generation"]
        self.started: float = start["at"]
        self.log_path = path.with_suffix(".log")
        self._torn = False
        self._start = line({"kind": "start", **start})
        write(path, self._start, os.O_EXCL)

    def heartbeat(self, rss_mib: float | None) -> None:
        """Says that the cell is still at work. Raises OSError; a beat that is missing harms nothing."""
        self._add({"kind": "beat", "at": round(time.time(), 3), "rss_mib": rss_mib}, durable=False)

    def end(
        self,
        outcome: str,
        signature: str | None = None,
        error: Mapping[str, Any] | None = None,
        wall_s: float | None = None,
        *,
        durable: bool = True,
    ) -> None:
        """Says how it ended. Raises OSError when the disk does not take it; it may be said again.

        durable: waits for the disk; where a row says it too, nothing hangs on it.
        """
        said = {"outcome": outcome, "signature": signature, "error": error, "wall_s": wall_s}
        self._add({"kind": "end", "at": round(time.time(), 3), **said}, durable=durable)

    def mend(self) -> bool:
        """Writes the file anew where somebody took it away or damaged its start; True if that was so."""
        if read_attempt(self.path):
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        write(self.path, self._start, os.O_EXCL)
        return True

    def _add(self, record: Mapping[str, Any], *, durable: bool) -> None:
        data = b"\n" * self._torn + line(record)  # half a line stands alone, so that it spoils no other
        self._torn = True
        write(self.path, data, os.O_APPEND, durable=durable)
        self._torn = False


def line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read_attempt(path: Path) -> AttemptInfo | None:
    """What an attempt's file says; None when it is gone or tells no start. Torn and damaged lines are passed over."""
    try:
        first, *rest = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    if not (start := _parse(first, "start")):
        return None
    end: dict[str, Any] = {}
    beat: dict[str, Any] = {}
    for text in reversed(rest):
        end = end or _parse(text, "end")
        if beat := _parse(text, "beat"):
            break
    told = {name: start[name] for name in ("host", "pid", "generation", "where", "machine", "born")}
    latest = max(start["at"], beat.get("at", 0.0))
    return AttemptInfo(
        uuid=path.stem, started=start["at"], heartbeat=latest, rss_mib=beat.get("rss_mib"), end=end or None, **told
    )


def _parse(text: bytes, kind: str) -> dict[str, Any]:
    """A line's record, if it is one of this kind; an empty one for another, and where the line is torn or damaged."""
    with suppress(ValueError):
        record, kept = json.loads(text), KEPT[kind]
        if isinstance(record, dict) and record.get("kind") == kind:
            whole = all(isinstance(record.get(name), allowed) for name, allowed in kept.items())
            return {**dict.fromkeys(kept), **record} if whole else {}
    return {}


def charge(info: AttemptInfo, now: float) -> str | None:
    """How an attempt counts against its cell: a word of CHARGES, or None for one that lives or was sent away."""
    if info.end is None:
        return None if info.alive(now) else "lost"
    return info.end["outcome"] if info.end["outcome"] in CHARGES else None


def memory(last: AttemptInfo) -> str:
    """Half a sentence for an attempt that vanished, if its last heartbeat tells why."""
    limit = last.where.get("memory_mib")
    if limit is None or last.rss_mib is None or last.rss_mib < FULL * limit:
        return ""
    return f"; its last heartbeat held {last.rss_mib:.0f} of {limit:.0f} MiB, so it probably ran out of memory"


def set_aside(attempts: Sequence[AttemptInfo], now: float) -> dict[str, Any] | None:
    """The error for which a cell is given up, from the attempts of one generation; None while it may be tried.

    Raising the same way twice is enough; being killed or lost may be the machine's fault and is forgiven longer.
    """
    charged = [info for info in attempts if charge(info, now)]
    errors = [info.end for info in charged if info.end and info.end["outcome"] == "error"]
    twice = Counter(end["signature"] for end in errors).most_common(1)
    if len(charged) < CHARGED and (not twice or twice[0][1] < SAME_TWICE):
        return None
    if last := [info.end for info in charged if info.end]:
        shown = [end for end in errors if end["signature"] == twice[0][0]] if twice else last
        return {**(shown[-1]["error"] or {}), "signature": shown[-1]["signature"], "tries": len(charged)}
    message = f"{len(charged)} attempts vanished with the process that watched them{memory(charged[-1])}."
    return {
        "type": "lost",
        "message": message,
        "frame": "",
        "traceback": "",
        "signature": "lost",
        "tries": len(charged),
    }
