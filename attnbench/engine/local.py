"""Runs cells on this machine: training cells side by side, then all others one by one and alone."""

import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from attnbench.engine._child import machine_mib
from attnbench.engine._packed import run_packed
from attnbench.engine._places import Workers
from attnbench.engine.codes import DONE, REFUSED, SET_ASIDE
from attnbench.engine.progress import Progress
from attnbench.engine.shard import Limits, Supervisor
from attnbench.engine.store import Store
from attnbench.manifest import Cell

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WORDS = ("ok", "oom", "timeout", "diverged", "done", "failed", "held", "stopped")


def run_local(
    store: Store, cells: Sequence[Cell], *, workers: Workers, data: Path | None, limits: Limits, quiet: bool
) -> int:
    """Brings every cell to its end and returns the exit code: 0 all have rows, 4 some are set aside, 1 interrupted.

    Training cells run `workers` at once, `auto`: as many as this machine bears. On Ctrl-C or SIGTERM the running cells
    are dropped, nothing finished is lost, and the command that goes on is printed. Without a limit of memory the
    machine's own is watched.
    """
    if limits.memory_mib is None:
        limits = replace(limits, memory_mib=machine_mib())
    ids: dict[str, list[str]] = {"train": [], "cost": []}
    for cell in cells:
        ids["train" if cell.kind == "train" else "cost"].append(cell.id)
    expected = {cell.id: cell.estimate_s for cell in cells}
    with Progress(cells, quiet=quiet) as progress:
        progress.passed(cell.id for cell in cells if store.done(cell.id) or store.failed(cell.id))
        supervisor = Supervisor(store, data=data, limits=limits, watch=progress.watch, where={"launcher": "local"})
        supervisor.tick = lambda: progress.refresh(workers=supervisor.width)
        with stopped_by_signals(supervisor.drain):
            counts = run_packed(supervisor, store, ids, workers=workers, limits=limits, expected=expected)
    if not quiet:
        with suppress(OSError):  # the terminal is gone, or a log on a full disk
            print(closing(counts, sys.argv))
    if counts["stopped"] or counts["held"]:
        return REFUSED
    return SET_ASIDE if counts["failed"] else DONE


def closing(counts: Counter[str], argv: Sequence[str]) -> str:
    """What became of the cells, and how to go on when some are left."""
    told = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word]) or "no cells"
    lines = [f"{sum(counts.values())} cells: {told}."]
    if counts["failed"]:
        lines.append(
            "Cells that failed alike twice are set aside: `attnbench status` says why, --retry takes them up again."
        )
    if counts["stopped"] or counts["held"]:
        lines.append(f"Nothing finished is lost. To go on: {resume_line(argv)}")
    return "\n".join(lines)


def resume_line(argv: Sequence[str]) -> str:
    """The command that was typed, to be typed again."""
    name = Path(argv[0]).name
    command = ["python", "-m", "attnbench"] if name in ("__main__.py", "-m", "-c") else [name]
    return shlex.join([*command, *argv[1:]])


@contextmanager
def stopped_by_signals(drain: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or hang-up drains; the second does what it always did."""
    before = {int(number): signal.getsignal(number) for number in SIGNALS}

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, before[number])
        drain("stopped")

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
