"""Tells the store how attempts ended, and holds in memory what the disk does not take until it does."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attnbench.engine._records import Attempt
from attnbench.engine._verdict import Verdict
from attnbench.engine.store import Store

LOG = logging.getLogger("attnbench.held")  # whole rows, so that they can be saved by hand if this process dies too
LONGEST_S = 30.0  # between two tries


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to a cell, for progress. outcome: of `end` and `skip`, a word of the counts that `run` returns."""

    kind: Literal["start", "end", "skip", "wait"]
    id: str
    outcome: str | None = None
    wall_s: float | None = None
    message: str | None = None


@dataclass(kw_only=True)
class Due:
    """What the store still has to be told about an attempt that is over. duplicate: another one had committed."""

    id: str
    attempt: Attempt
    verdict: Verdict
    spec: Mapping[str, Any] | None = None
    wall_s: float | None = None
    finished: float = 0.0
    committed: Literal["committed", "duplicate"] | None = None
    held: bool = False

    @property
    def duplicate(self) -> bool:
        return self.committed == "duplicate"

    def event(self, outcome: str, message: str | None) -> Event:
        """What happened, for those who watch."""
        return Event(kind="end", id=self.id, outcome=outcome, wall_s=self.wall_s, message=message)


class Clerk:
    """The one who writes rows and end records. While he holds some, or has just been refused, nothing new starts."""

    def __init__(self, store: Store, *, hold_s: float, watch: Callable[[Event], None]):
        self.held: list[Due] = []
        self._store, self._hold_s, self._watch = store, hold_s, watch
        self.paused_until = 0.0  # monotonic
        self._pause_s = hold_s

    @property
    def ready(self) -> bool:
        return not self.held and time.monotonic() >= self.paused_until

    def settle(self, due: Due) -> bool:
        """Commits the row and closes the record of an attempt; False if that has to wait for the disk."""
        try:
            self._tell(due)
        except OSError as error:
            self.pause(due.id, error)
            self._keep(due)
            return False
        self._pause_s = self._hold_s
        return True

    def again(self, *, now: bool = False) -> list[Due]:
        """Tries what is held once more when it is time, or `now`; returns what the disk has taken."""
        if not now and time.monotonic() < self.paused_until:
            return []
        waiting, self.held = self.held, []
        return [due for due in waiting if self.settle(due)]

    def pause(self, id: str, error: OSError) -> None:
        """Lets some time pass, each time longer, before anything is written again."""
        self.paused_until = time.monotonic() + self._pause_s
        message = f"paused for {self._pause_s:g} s, since the store cannot be written: {error}"
        self._pause_s = min(LONGEST_S, 2 * self._pause_s)
        self._watch(Event(kind="wait", id=id, message=message))

    def _tell(self, due: Due) -> None:
        if due.attempt.mend() and due.spec is not None:  # somebody took the cell's folder away
            self._store.ask(dict(due.spec))
        verdict = due.verdict
        if verdict.row is not None and due.committed is None:
            row = {**verdict.row, "spec": due.spec, "wall_s": due.wall_s, "finished": due.finished}
            due.committed = self._store.commit(due.id, row, due.attempt.uuid)
        outcome = "duplicate" if due.duplicate else verdict.outcome
        due.attempt.end(outcome, verdict.signature, verdict.error, due.wall_s, durable=due.committed is None)
        self._store.tidy(due.id)

    def _keep(self, due: Due) -> None:
        self.held.append(due)
        if due.verdict.row is not None and not due.held:
            LOG.error("attnbench-row %s", json.dumps({"id": due.id, "attempt": due.attempt.uuid, **due.verdict.row}))
        due.held = True
