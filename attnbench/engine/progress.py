"""Shows how a sweep goes on: one display on a terminal, one line per finished cell elsewhere, nothing when quiet."""

import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from attnbench.engine._clerk import Event
from attnbench.engine.states import ROWS, Pace
from attnbench.manifest import Cell

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

SHOWN = 3  # labels of cells at work on one display


def span(seconds: float) -> str:
    """A duration as people say it: 41 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Takes a supervisor's events; use as `with Progress(...) as progress`, and call `refresh` now and then.

    Cells that were finished before count as done, but the time left is told by those that ended under its eyes.
    Writes to stderr, so that stdout stays free for what a command answers.
    """

    def __init__(self, cells: Sequence[Cell], *, workers: int = 1, quiet: bool = False, stream: TextIO | None = None):
        self._cells = {cell.id: cell for cell in cells}
        self._workers, self._quiet = workers, quiet
        self._stream = stream or sys.stderr
        self._pace = Pace()
        self._open = dict(self._cells)
        self._current: dict[str, float] = {}  # cells at work, and since when (monotonic)
        self._failed = 0
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "Progress":
        if not self._quiet and self._stream.isatty():
            self._open_bar()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.refresh()
        self._stop()

    @property
    def done(self) -> int:
        """Cells that need nothing more, those that were set aside included."""
        return len(self._cells) - len(self._open)

    def passed(self, ids: Iterable[str]) -> None:
        """Counts cells that had ended before, so that they are not among those that are left."""
        for id in ids:
            self._open.pop(id, None)

    def watch(self, event: Event) -> None:
        """Takes note of an event and shows what is worth a line."""
        cell = self._cells[event.id]
        if event.kind == "start":
            self._current[event.id] = time.monotonic()
        elif event.kind in ("end", "skip"):
            self._current.pop(event.id, None)
            self._ended(cell, event)
        if event.kind in ("end", "wait") or event.outcome == "failed":
            self._say(cell, event)
        self.refresh()

    def left_s(self) -> float:
        """Expected seconds until every open cell has ended."""
        now = time.monotonic()
        left_s = self._pace.left_s(self._open.values(), workers=self._workers)
        gone_s = sum(min(now - since, self._pace.expect_s(self._cells[id])) for id, since in self._current.items())
        return max(0.0, left_s - gone_s / self._workers)

    def refresh(self, workers: int | None = None) -> None:
        """Draws the display anew, at most ten times a second; `workers`: how many cells now run at once."""
        self._workers = workers or self._workers
        if self._bar is None or self._task is None:
            return
        labels = [self._cells[id].label for id in self._current]
        more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
        try:
            self._bar.update(
                self._task,
                completed=self.done,
                left=f"about {span(self.left_s())} left" if self._open else "",
                failed=f"{self._failed} failed" if self._failed else "",
                current=", ".join(labels[:SHOWN]) + more,
            )
            self._bar.refresh()
        except OSError:  # the terminal is gone, and the cells go on
            self._stop()

    def _stop(self) -> None:
        """The display's end; from then on, lines."""
        bar, self._bar = self._bar, None
        if bar:
            with suppress(OSError):
                bar.stop()

    def _ended(self, cell: Cell, event: Event) -> None:
        final = event.outcome in (*ROWS, "done", "failed")
        if final:
            self._open.pop(cell.id, None)
        self._failed += event.outcome == "failed"
        if event.kind == "end" and event.outcome == "ok" and event.wall_s is not None:
            self._pace.add(cell, event.wall_s)

    def _say(self, cell: Cell, event: Event) -> None:
        """One line: how many are done, what became of this one, how long it took, and the time left."""
        if self._quiet or (self._bar and event.outcome == "ok"):
            return
        took = f"{event.wall_s:.1f} s" if event.wall_s is not None else ""
        first = (event.message or "").strip().splitlines()[:1]
        left = f"about {span(self.left_s())} left" if self._open else ""
        word = event.outcome or "waits"
        text = f"[{self.done}/{len(self._cells)}] " + "  ".join(
            part for part in (f"{word:8}", took, cell.label, *first, left) if part
        )
        with suppress(OSError):  # a log on a full disk, or a terminal that is gone
            if self._bar:
                self._bar.console.print(text, markup=False, highlight=False)
            else:
                print(text, file=self._stream, flush=True)

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("left", "failed", "current")]
        console = Console(file=self._stream)
        # No thread of its own: children must come from a process that has only one.
        bar = Bar(MofNCompleteColumn(), BarColumn(20), *columns, console=console, auto_refresh=False)
        self._task = bar.add_task("", total=len(self._cells), left="", failed="", current="")
        bar.start()
        self._bar = bar
