"""What the controller sees to beside submitting: full disks and queues, nodes that lose cells, jobs gone silent."""

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from attnbench.engine import _freeze
from attnbench.engine._queue import Job, QueueSnapshot, ask
from attnbench.engine._records import AttemptInfo, born, charge, machine, memory, sweep_scratch
from attnbench.engine._submission import MAKER, Request, Submission
from attnbench.engine.settings import SiteSettings
from attnbench.engine.store import ABANDONED_S, Evidence, Store

CELL_BYTES = 16 * 1024  # what a row, its attempts and their logs take at least
LOSSES = 2  # on one node before jobs avoid it
DEAF_S = 300.0  # a running job that gave no sign for so long has no supervisor any more
UNSURE = re.compile(  # what sbatch says when the job may have been taken, or may be a moment later
    r"munge|authenticat|credential|unable to contact|timed out|connection|zero bytes|socket", re.IGNORECASE
)
FULL = re.compile(  # what it says when the queue holds as many jobs as we may have
    r"MaxSubmit|MaxJobs?(Per|Count|Limit)|temporarily unable|queue full|resource temporarily", re.IGNORECASE
)
CLEAR = re.compile(  # what it says when it has certainly taken no job and never will
    r"invalid|violates|not available|cannot be satisfied|denied|permission|unrecognized|exceed|too large|must be",
    re.IGNORECASE,
)


def shortage(root: Path, cells: int) -> str | None:
    """A sentence, if the disk of the store has no room for the code of a submission and the rows of its cells."""
    place = next(path for path in (root, *root.parents) if path.exists())
    free, needed = shutil.disk_usage(place).free, _freeze.size() + CELL_BYTES * cells
    if free >= needed:
        return None
    return f"{place} has {free / 2**20:.1f} MiB free, and {cells} cells need {needed / 2**20:.1f}; this waits for room."


def refusal(words: str) -> str:
    """What sbatch meant: `full` (not now), `clear` (never), or `unsure` (it may have taken the jobs)."""
    if FULL.search(words):
        return "full"
    return "clear" if CLEAR.search(words) and not UNSURE.search(words) else "unsure"


def last_words(root: Path, refused: str) -> str:
    """In brackets, why jobs end at once: what sbatch said, else the last line of the log that was written last."""
    if refused:
        return f" ({refused})"
    said = []
    for log in root.glob("submissions/*/submitit/*_log.err"):
        with suppress(OSError):  # somebody may clear logs away
            if lines := log.read_text(errors="replace").strip().splitlines():
                said.append((log.stat().st_mtime, f"{lines[-1]}; see {log}"))
    return f" ({max(said)[1]})" if said else ""


def avoiding(request: Request, evidence: Iterable[Evidence]) -> tuple[Request, list[str]]:
    """The request without nodes on which attempts at these cells were lost twice, and which those are.

    Where no other node would be left, or SLURM does not say which there are, all are taken.
    """
    now = time.time()
    lost = Counter(node(info) for known in evidence for info in known.attempts if _lost(info, now))
    bad = {name for name, count in lost.items() if name and count >= LOSSES}
    if not bad or not bad < usable(request.site):
        return request, []
    before = str(request.site.options.get("exclude") or "")
    excluded = ",".join(sorted({*filter(None, before.split(",")), *bad}))
    site = replace(request.site, options={**request.site.options, "exclude": excluded})
    return replace(request, site=site), sorted(bad)


def usable(site: SiteSettings) -> set[str]:
    """The nodes that jobs may get; empty when SLURM does not answer."""
    partition = ["-p", site.partition] if site.partition else []
    said = (ask("sinfo", "-h", "-N", "-o", "%N %t", *partition) or "").split("\n")
    pairs = [line.split() for line in said if line.strip()]
    return {name for name, state in pairs if not state.startswith(("down", "drain", "drng", "fail", "unk", "maint"))}


def node(info: AttemptInfo) -> str:
    return str(info.where.get("node") or "")


def _lost(info: AttemptInfo, now: float) -> bool:
    return charge(info, now) in ("killed", "machine", "lost") and not memory(info)


class Deaf:
    """Remembers since when a running job has shown no sign of life in the store."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[object, float]] = {}  # the last sign of a job, and when it was first seen

    def jobs(self, seen: QueueSnapshot, evidence: Mapping[str, Evidence]) -> list[Job]:
        """Jobs that SLURM calls running although nothing of their open cells has moved for DEAF_S."""
        now, before, found = time.monotonic(), self._since, []
        self._since = {}
        for job in seen.jobs:
            cells = [evidence[id] for id in seen.shards[job.id] if id in evidence]
            if job.state != "RUNNING" or not cells or any(known.live for known in cells):
                continue
            sign = (len(cells), max((_sign(info) for known in cells for info in known.attempts), default=0.0))
            last, since = before.get(job.id, (None, now))
            self._since[job.id] = (sign, since if last == sign else now)
            if now - self._since[job.id][1] >= DEAF_S:
                found.append(job)
        return found


class Waiting:
    """Remembers which array tasks wait: of one that a person cancels while others wait on, squeue shows nothing."""

    def __init__(self) -> None:
        self._before: list[Job] = []

    def cancelled(self, seen: QueueSnapshot, root: Path) -> list[Job]:
        """Tasks that have vanished without having been started since the last look."""
        listed, waiting = {job.id for job in seen.jobs}, [job for job in seen.jobs if job.state == "PENDING"]
        arrays = {job.array for job in waiting}
        gone = [job for job in self._before if job.id not in listed and job.array in arrays]
        self._before = waiting
        return [job for job in gone if not Submission(root / "submissions" / job.nonce).started(job)]


def _sign(info: AttemptInfo) -> float:
    return max(info.heartbeat, info.end["at"] if info.end else 0.0)


def unneeded(store: Store, seen: QueueSnapshot) -> list[Job]:
    """Living jobs all of whose cells have ended."""
    live = [job for job in seen.jobs if job.live]
    known = store.scan({cell for job in live for cell in seen.shards[job.id]})
    return [job for job in live if all(known[id].status or known[id].failed for id in seen.shards[job.id])]


def tidy_up(store: Store, seen: Mapping[str, Evidence]) -> None:
    """Removes what killed processes left beside rows, and on this machine, once no later attempt will come by."""
    with suppress(OSError):  # what is left over harms nothing
        for id, known in seen.items():
            if known.left:
                store.clean(id)
        sweep_scratch()


def sweep_away(root: Path) -> None:
    """Removes what controllers that were killed left half-written.

    That is drafts of files that are there, and submissions without an intent, which never reached the scheduler.
    """
    for draft in root.glob("submissions/*/*.tmp"):
        if draft.with_name(draft.name.rsplit(".", 2)[0]).exists():
            draft.unlink(missing_ok=True)
    for folder in half_written(root):
        shutil.rmtree(folder, ignore_errors=True)


def half_written(root: Path) -> list[Path]:
    """Submissions without an intent whose controller is dead."""
    return [folder for folder in root.glob("submissions/*") if not (folder / "intent.json").exists() and _left(folder)]


def _left(folder: Path) -> bool:
    with suppress(OSError, ValueError, KeyError):
        maker = json.loads((folder / MAKER).read_bytes())
        if maker["machine"] == machine():
            return born(maker["pid"]) != maker["born"]
    with suppress(FileNotFoundError):
        return time.time() - folder.stat().st_mtime > ABANDONED_S
    return False
