"""How a cell's process ended, as what the store is told: a row, or an error that may be tried again."""

import errno
import json
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnbench.engine._child import read_outcome
from attnbench.engine._records import FULL, Row

OUTSIDE = (signal.SIGKILL, signal.SIGTERM)  # sent by somebody, never by the cell itself
PASSING = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT),  # the disk
    *(errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE),  # the machine
}
ROOM_KIB = 256  # less than this is a full disk
MACHINE = re.compile(  # what broken machines make a cell say; `[Errno 5]` is how Python opens an error of the disk
    rf"\[Errno ({errno.EIO}|{errno.ENOSPC}|{errno.EDQUOT}|{errno.EROFS}|{errno.ESTALE})\]"
    r"|uncorrectable ECC|\bXid\b|GPU is lost"
    r"|fallen off the bus|CUDA-capable device\(s\) is/are busy|no CUDA-capable device|NVLink error"
    r"|hardware stack error",
    re.IGNORECASE,
)
TAIL = 4000  # characters of a log that stand in for a traceback
PARTIAL = "partial.json"  # beside the outcome: blocks the child knew early, for rows of cells that had to be killed


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What goes into the store: `row` to be committed, or none; then how the attempt's record ends."""

    outcome: str
    row: Row | None = None
    signature: str | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a child ended. code: exit code or negative signal. killed: why we killed it, or None."""

    code: int
    killed: str | None
    peak_mib: float
    limit_mib: float | None
    limit_s: float | None


def judge(ending: Ending, outcome: Path, log: Path) -> Verdict:
    """What became of a cell. An outcome that lies there is good, however its process ended after that.

    What goes wrong while a disk is full is nobody's fault: the cell waits and is tried again.
    """
    verdict = _judge(ending, outcome, log)
    if verdict.outcome in ("error", "machine") and any(_no_room(file.parent) for file in (outcome, log)):
        return Verdict(outcome="stopped", error=verdict.error)
    return verdict


def _judge(ending: Ending, outcome: Path, log: Path) -> Verdict:
    try:
        found = read_outcome(outcome)
    except (ValueError, OSError) as error:
        return _broken("bad outcome", f"The outcome cannot be read: {error}.", log)
    if found is not None:
        return _told(found)
    if ending.killed == "timeout":
        return _row("timeout", _message("Timeout", f"Killed after its limit of {ending.limit_s:g} s."), outcome, {})
    if ending.killed == "oom" or (ending.code == -signal.SIGKILL and not ending.killed and _full(ending)):
        paid = {"memory_limit_mib": ending.limit_mib, "peak_rss_mib": round(ending.peak_mib, 1)}
        message = f"Held {ending.peak_mib:.0f} MiB of {ending.limit_mib:.0f} MiB when it was killed."
        return _row("oom", _message("OutOfMemory", message), outcome, paid)
    if ending.killed:
        return Verdict(outcome=ending.killed)
    return _died(ending.code, log)


def passing(error: OSError) -> bool:
    """Whether it may go away by itself, as a full disk does."""
    return error.errno in PASSING


def not_started(error: OSError | ValueError) -> Verdict:
    """A full disk or table of processes is nobody's fault; anything else is an error of the cell."""
    told = _message(type(error).__name__, f"The cell cannot be started: {error}")
    if isinstance(error, OSError) and passing(error):
        return Verdict(outcome="stopped", error=told)
    return Verdict(outcome="error", signature=f"start: {type(error).__name__}", error=told)


def _full(ending: Ending) -> bool:
    return ending.limit_mib is not None and ending.peak_mib >= FULL * ending.limit_mib


def _told(found: Row) -> Verdict:
    """What the child itself said; an error of the machine's does not count against the cell as its own would."""
    if found["status"] != "error":
        return Verdict(outcome=found["status"], row=found)
    error = found.get("error") or _message("Error", "The cell failed and did not say why.")
    outcome = "machine" if MACHINE.search(str(error.get("message"))) else "error"
    return Verdict(outcome=outcome, signature=f"{error.get('type')} at {error.get('frame') or '?'}", error=error)


def _no_room(folder: Path) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(folder).free < ROOM_KIB * 1024
    return False


def _died(code: int, log: Path) -> Verdict:
    if code >= 0:
        return _broken("no outcome", f"The process ended with exit code {code} and left no outcome.", log)
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
    verdict = _broken(f"signal {-code}", f"The process was ended by signal {-code} ({name}).", log)
    if -code in OUTSIDE:
        return Verdict(outcome="killed", signature=verdict.signature, error=verdict.error)
    return verdict


def _broken(signature: str, message: str, log: Path) -> Verdict:
    tail = ""
    with suppress(OSError):
        tail = log.read_bytes()[-TAIL:].decode(errors="replace")
    return Verdict(outcome="error", signature=signature, error=_message(signature, message) | {"traceback": tail})


def _row(status: str, error: dict[str, str], outcome: Path, paid: dict[str, Any]) -> Verdict:
    known = _early(outcome.with_name(PARTIAL))
    row = {"status": status, **known, "cost": known["cost"] | paid, "error": error}
    return Verdict(outcome=status, row=row, error=error)


def _early(path: Path) -> dict[str, dict[str, Any]]:
    """The blocks that a child wrote down before it was killed; empty ones if it did not come so far."""
    known = None
    with suppress(ValueError, OSError):  # absent, or killed while it wrote
        known = json.loads(path.read_bytes())
    blocks = known if isinstance(known, dict) else {}
    names = ("cost", "host", "data", "code")
    return {name: dict(blocks[name]) if isinstance(blocks.get(name), dict) else {} for name in names}


def _message(type: str, message: str) -> dict[str, str]:
    return {"type": type, "message": message, "frame": "", "traceback": ""}
