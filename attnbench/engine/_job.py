"""A cell at work: its attempt, its child and its place, what it may use, and how it is watched."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attnbench.cell import Spec
from attnbench.engine._child import Child
from attnbench.engine._places import Place
from attnbench.engine._records import Attempt
from attnbench.engine._verdict import FULL, Ending


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one cell may use. until: gives the unix time at which to stop all, or None while that is unknown."""

    cell_s: float | None = None
    memory_mib: float | None = None
    until: Callable[[], float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds between looks at things; the defaults disturb no measurement."""

    poll_s: float = 0.25  # memory, limits and signals
    beat_s: float = 10.0  # heartbeats
    look_s: float = 2.0  # at cells that another process has
    hold_s: float = 1.0  # before a full disk is tried again, doubling up to 30
    again_s: float = 1.0  # before a cell that failed is tried again, doubling


@dataclass(kw_only=True)
class Job:
    """A cell at work. killed: why we killed it, if we did."""

    id: str
    attempt: Attempt
    child: Child
    folder: Path
    spec: Spec
    place: Place
    next_beat: float
    killed: str | None = None

    def kill(self, why: str) -> None:
        self.killed = self.killed or why
        self.child.kill()

    def look(self, limits: Limits, beat_s: float) -> None:
        """Kills what is beyond its limits, and sends a heartbeat when it is time."""
        child = self.child
        child.measure()
        if limits.cell_s is not None and child.wall_s >= limits.cell_s:
            self.kill("timeout")
        if limits.memory_mib is not None and child.rss_mib >= FULL * limits.memory_mib:
            self.kill("oom")
        if time.monotonic() >= self.next_beat:
            self.next_beat = time.monotonic() + beat_s
            with suppress(OSError):  # a lease that is not renewed costs work at worst; the row is what counts
                self.attempt.heartbeat(round(child.rss_mib, 1))

    def ending(self, code: int, limits: Limits) -> Ending:
        """How it ended, for a verdict."""
        return Ending(
            code=code,
            killed=self.killed,
            peak_mib=self.child.peak_mib,
            limit_mib=limits.memory_mib,
            limit_s=limits.cell_s,
        )
