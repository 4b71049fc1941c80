"""The state of every cell, told from the store and the scheduler; values in, values out.

A scheduler that did not answer (`queue` is None) proves nothing: a cell is never called lost for that reason.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from attnbench.engine._records import AttemptInfo, memory
from attnbench.engine.codes import DAMAGED, DONE, INCOMPLETE, SET_ASIDE
from attnbench.engine.store import Evidence
from attnbench.manifest import Cell, Manifest, point

Word = Literal["new", "queued", "running", "lost", "retry", "ok", "oom", "timeout", "diverged", "failed", "corrupt"]
ROWS = ("ok", "oom", "timeout", "diverged")
FAILED = ("error", "killed", "machine")  # how attempts end that count against their cell


class Job(Protocol):
    """A job of the scheduler: its word for the state, and a few words for people."""

    @property
    def state(self) -> str: ...
    @property
    def detail(self) -> str: ...


class Snapshot(Protocol):
    """The live job, if any, in whose list each cell stands."""

    @property
    def cells(self) -> Mapping[str, Job]: ...


@dataclass(frozen=True)
class CellState:
    """What a cell is at, and why; wall_s of its row, once it has one.

    trouble: of a cell that waits or runs again, what became of the attempt before.
    """

    state: Word
    detail: str = ""
    wall_s: float | None = None
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A sweep at a glance. causes: how often each detail stands behind a state that needs an explanation.

    left_s: expected seconds until all cells have ended. code: exit code of `status`.
    """

    sweep: str
    total: int
    counts: Mapping[str, int]
    causes: Mapping[str, int]
    left_s: float
    code: int

    def json(self) -> dict[str, Any]:
        return asdict(self)


class Pace:
    """How long cells take: measured where the like has been measured, else estimated in proportion."""

    def __init__(self) -> None:
        self._variants: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self._kinds: dict[tuple[str | None, ...], list[float]] = defaultdict(list)
        self._measured_s = self._estimated_s = 0.0

    def add(self, cell: Cell, wall_s: float) -> None:
        """Takes note of a cell that ended by itself."""
        self._variants[like(cell)].append(wall_s)
        self._kinds[cell.kind, cell.mechanism].append(wall_s)
        self._measured_s += wall_s
        self._estimated_s += cell.estimate_s

    def expect_s(self, cell: Cell) -> float:
        """Of its variant, else of its kind and mechanism, else its estimate, scaled by how estimates did so far."""
        kind = None if cell.model is None else self._kinds.get((cell.kind, cell.mechanism))
        for known in (self._variants.get(like(cell)), kind):
            if known:
                return sum(known) / len(known)
        return cell.estimate_s * (self._measured_s / self._estimated_s if self._estimated_s else 1.0)

    def left_s(self, cells: Iterable[Cell], *, workers: int) -> float:
        """Time for all of these, training cells `workers` at once and all others one by one."""
        seconds = {"train": 0.0, "cost": 0.0}
        for cell in cells:
            seconds["train" if cell.kind == "train" else "cost"] += self.expect_s(cell)
        return seconds["train"] / workers + seconds["cost"]


def like(cell: Cell) -> tuple[str, ...]:
    """What cells share that take about as long: of bare mechanisms, whose sizes differ, all but round and seed."""
    return cell.kind, cell.variant if cell.model else point(cell.label)


def states(
    cells: Sequence[Cell], evidence: Mapping[str, Evidence], queue: Snapshot | None, *, now: float
) -> dict[str, CellState]:
    """The state of each cell. `now` in unix seconds, as the evidence's times."""
    return {cell.id: state(evidence[cell.id], queue, now=now) for cell in cells}


def state(known: Evidence, queue: Snapshot | None, *, now: float) -> CellState:
    """The state of one cell: a row says it all; else what lives, what was given up, what waits, what went wrong."""
    if known.corrupt:
        return CellState("corrupt", "a file of it was damaged; `attnbench sweep` makes it again")
    if known.status in ROWS:
        return CellState(known.status, wall_s=known.wall_s)
    if known.live:
        before = [info for info in known.attempts if info is not known.live]
        return CellState("running", _at_work(known.live, now), trouble=_trouble(before))
    if known.failed:
        return CellState("failed", _cause(known.failed))
    if queue and (job := queue.cells.get(known.id)):
        return _in_queue(known.attempts, job)
    return _left_alone(known.attempts, queue, now)


def _in_queue(attempts: Sequence[AttemptInfo], job: Job) -> CellState:
    """Of a cell without a living attempt in the list of a job: silent for a while, or not begun."""
    silent = attempts and attempts[-1].end is None and job.state == "RUNNING"
    return CellState("running" if silent else "queued", job.detail, trouble=_trouble(attempts))


def _left_alone(attempts: Sequence[AttemptInfo], queue: Snapshot | None, now: float) -> CellState:
    """Of a cell that no living attempt and no job has, by its last attempt."""
    if not attempts:
        return CellState("new")
    last = attempts[-1]
    if last.end is None:
        silent = f"no sign of it for {now - last.heartbeat:.0f} s"
        if queue is None and "nonce" in last.where and not last.here:
            return CellState("running", f"{silent}, and the scheduler did not answer")
        return CellState("lost", f"{silent}{memory(last)}")
    if last.end["outcome"] in FAILED:
        tries = sum(1 for info in attempts if info.end and info.end["outcome"] in FAILED)
        return CellState("retry", f"{tries} failed: {_cause({**(last.end['error'] or {}), **last.end})}")
    if last.end["outcome"] in ROWS:
        return CellState("lost", "its row is gone; `attnbench sweep` makes it again")
    return CellState("new", f"{last.end['outcome']} before it was finished", trouble=_trouble(attempts))


def _trouble(attempts: Sequence[AttemptInfo]) -> str:
    """What became of the last attempt, where that was no good end; nothing of one that made way for another."""
    last = attempts[-1] if attempts else None
    if last is None or (last.end and last.end["outcome"] in ("yielded", "done")):
        return ""
    place = f" on {last.where.get('node') or last.host}"
    if last.end is None:
        return f"the attempt before vanished{place}{memory(last)}"
    told = f": {_cause({**(last.end['error'] or {}), **last.end})}" if last.end["outcome"] in FAILED else ""
    return f"the attempt before ended{place} with '{last.end['outcome']}'{told}"


def _at_work(live: AttemptInfo, now: float) -> str:
    memory = "" if live.rss_mib is None else f", {live.rss_mib:.0f} MiB"
    return f"on {live.host} for {now - live.started:.0f} s{memory}"


def _cause(error: Mapping[str, Any]) -> str:
    """One line: the exception and where, or the signal."""
    first = str(error.get("message") or "").strip().splitlines()
    told = f": {first[0]}" if first else ""
    return f"{error.get('signature') or error.get('type') or 'error'}{told}"


def summary(manifest: Manifest, found: Mapping[str, CellState], *, broken: Sequence[str] = ()) -> Summary:
    """Counts, causes, time left and exit code; cells that are set aside or lost count as needing a word.

    broken: sentences about what holds up all open cells.
    """
    counts = Counter(cell.state for cell in found.values())
    spoken = ("failed", "corrupt", "lost", "retry")
    causes = Counter(f"{cell.state}: {cell.detail}" for cell in found.values() if cell.state in spoken)
    causes.update(f"{cell.state}: {cell.trouble}" for cell in found.values() if cell.trouble)
    pace = Pace()
    for cell in manifest.cells:
        if (wall_s := found[cell.id].wall_s) is not None and found[cell.id].state == "ok":
            pace.add(cell, wall_s)
    open_cells = [cell for cell in manifest.cells if found[cell.id].state not in (*ROWS, "failed")]
    workers = max(1, counts["running"])
    causes.update(dict.fromkeys(broken, len(open_cells)) if open_cells else {})
    left_s = round(pace.left_s(open_cells, workers=workers), 1)
    return Summary(
        sweep=manifest.sweep,
        total=len(manifest.cells),
        counts=dict(counts),
        causes=dict(causes.most_common()),
        left_s=left_s,
        code=_code(counts, incomplete=bool(open_cells)),
    )


def _code(counts: Mapping[str, int], *, incomplete: bool) -> int:
    if counts.get("corrupt"):
        return DAMAGED
    if incomplete:
        return INCOMPLETE
    return SET_ASIDE if counts.get("failed") else DONE
