"""Supervises a list of cells on this machine: each in a child process of its own, its outcome committed by us.

One thread, one loop. A cell waits for its turn or for another process that has it, is at work in a child, or is
settled: its row committed and its attempt's record closed.
"""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attnbench.cell import program
from attnbench.engine._child import Child, environment, memory_mib, wait
from attnbench.engine._clerk import Clerk, Due, Event
from attnbench.engine._job import Job, Limits, Timing
from attnbench.engine._places import Place, Places
from attnbench.engine._records import CHARGES, Attempt, make_scratch, scratch, sweep_scratch
from attnbench.engine._verdict import FULL, Verdict, judge, not_started, passing
from attnbench.engine.store import AlreadyDone, Store

CROWDED = "crowded"  # how an attempt ends that lacked memory, or on a shared GPU time, while others had it
ROOMIER = "others took memory or time from it; it runs again with fewer beside it"

__all__ = ["Event", "Limits", "Supervisor", "Timing"]


class Supervisor:
    """Brings cells to their rows, from the main thread of one process; `where` goes into every record and row."""

    def __init__(
        self,
        store: Store,
        *,
        data: Path | None,
        limits: Limits,
        watch: Callable[[Event], None],
        where: Mapping[str, Any],
        timing: Timing | None = None,
    ):
        self.timing = timing or Timing()
        self.tick: Callable[[], None] | None = None  # called a few times a second, for a display
        self._store, self._data, self._limits, self._watch = store, data, limits, watch
        self._where = {**where, "memory_mib": limits.memory_mib}
        self._clerk = Clerk(store, hold_s=self.timing.hold_s, watch=watch)
        self._jobs: list[Job] = []
        self._places = Places(1)
        self._apart: set[str] = set()  # cells that went wrong on a shared GPU, and have one to themselves next time
        self._queue: dict[str, float] = {}  # cells that wait, and the monotonic time before which they do
        self._ends: dict[str, str] = {}  # the word for each cell that has ended
        self._told: set[str] = set()  # cells whose waiting has been reported
        self._drained: str | None = None

    @property
    def width(self) -> int:
        """How many cells may run at once, as things stand."""
        return self._places.width

    def command(self, spec_path: Path, out_path: Path) -> list[str]:
        """What a cell's child runs."""
        data = [] if self._data is None else ["--data", str(self._data)]
        cell = ["--cell", str(spec_path.parent)]
        return [sys.executable, "-m", program(spec_path), str(spec_path), str(out_path), *data, *cell]

    def run(self, ids: Sequence[str], *, workers: int = 1, places: Places | None = None) -> Counter[str]:
        """Works until every cell has its row, is set aside, or `drain` was called; as many at once as have `places`.

        Without places at most `workers`, each with all that this process has.

        Returns how many cells came to which end: ok, oom, timeout, diverged (rows made here), done (there already, or
        made by another process meanwhile), failed (set aside), held (the disk took no row before a drain), or the
        reason of a drain. Raises OSError when the store cannot be written for a lasting reason.
        """
        self._queue, self._ends = dict.fromkeys(ids, 0.0), {}
        self._places = places or Places(workers)
        sweep_scratch()
        try:
            while self._jobs or self._clerk.held or self._queue or self._opened_again():
                self._turn()
                if self._drained and not self._jobs:
                    self._settled(self._clerk.again(now=True))
                    break
        except BaseException:
            self._abandon()
            raise
        finally:
            self._places.close()
        left = {"held": len(self._clerk.held), self._drained or "": len(self._queue)}
        return Counter(self._ends.values()) + Counter(left)

    def _opened_again(self) -> bool:
        """Takes up cells whose rows were damaged since they ended here, or that somebody opened again."""
        for id in self._store.unfinished(self._ends):
            del self._ends[id]
            self._queue[id] = 0.0
        return bool(self._queue)

    def drain(self, reason: str) -> None:
        """Kills the running cells and lets `run` return; `reason` ends their records. Safe in a signal handler."""
        self._drained = self._drained or reason
        for job in list(self._jobs):
            job.kill(reason)

    def _abandon(self) -> None:
        """Of a run that ends in an exception: no child lives on, and nobody waits for one."""
        for job in self._jobs:
            job.kill("stopped")
            job.child.collect()
            with suppress(OSError):  # the attempt is over without its record too, as soon as this process is
                job.attempt.end("stopped", wall_s=job.child.wall_s)
                self._store.tidy(job.id)
        self._jobs.clear()

    def _turn(self) -> None:
        """One pass of the loop: settle what is due, start what may start, sleep, look at what runs."""
        self._settled(self._clerk.again())
        self._fill()
        self._places.look()
        if self.tick:
            self.tick()
        wait([job.child for job in self._jobs], self._patience())
        for job in list(self._jobs):
            if (code := job.child.code()) is not None:
                self._over(job, code)
            else:
                job.look(self._limits, self.timing.beat_s)
        self._relieve()
        if self._limits.until and (end := self._limits.until()) is not None and time.time() >= end:
            self.drain("time limit")
        if self._drained:
            self.drain(self._drained)  # a child may have started just when the signal came

    def _patience(self) -> float:
        """Seconds to sleep: no longer than until something that waits becomes due."""
        if self._drained and not self._jobs:
            return 0.0
        due = [] if self._jobs else [*self._queue.values()]
        earliest = min(due, default=float("inf"))
        if not self._clerk.ready:
            earliest = max(self._clerk.paused_until, earliest if due else 0.0)
        return max(0.0, min(self.timing.poll_s, earliest - time.monotonic()))

    def _fill(self) -> None:
        """Starts cells while there are places, passing over those that need none; nothing while a row is held."""
        began = time.monotonic()
        for id in list(self._queue) if self._may_start() else ():
            now = time.monotonic()
            if now > began + self.timing.poll_s or not self._may_start():  # children must be looked at too
                return
            whole = id in self._apart
            if self._queue[id] > now or (whole and not self._places.open(whole=True)) or self._passed_over(id):
                continue
            if place := self._places.take(whole=whole):
                self._start(id, place)

    def _may_start(self) -> bool:
        held = [job.child.rss_mib for job in self._jobs]
        return not self._drained and self._clerk.ready and self._places.open() and not self._places.full(held)

    def _passed_over(self, id: str) -> bool:
        """Whether there is nothing to start now: the cell is finished, set aside, or another process has it."""
        try:
            if self._store.done(id):
                self._store.forget(id)  # a process that was killed right after its commit could not
                self._skip(id, "done")
            elif failed := self._store.failed(id):
                self._skip(id, "failed", str(failed.get("message") or failed["signature"]))
            elif rivals := self._store.rivals(id):
                self._defer(id, f"running elsewhere: {rivals[0].host}, process {rivals[0].pid}")
            else:
                return False
        except OSError as error:  # a damaged row cannot be moved away on a full disk
            if not passing(error):
                raise
            self._clerk.pause(id, error)
        return True

    def _skip(self, id: str, outcome: str, message: str | None = None) -> None:
        del self._queue[id]
        self._ends[id] = outcome
        self._watch(Event(kind="skip", id=id, outcome=outcome, message=message))

    def _defer(self, id: str, message: str) -> None:
        """Puts a cell behind the others, to be looked at again."""
        del self._queue[id]
        self._queue[id] = time.monotonic() + self.timing.look_s
        if id not in self._told:
            self._told.add(id)
            self._watch(Event(kind="wait", id=id, message=message))

    def _start(self, id: str, place: Place) -> None:
        """Begins an attempt and its child in this place, unless another process had the cell first."""
        job = None
        try:
            if attempt := self._begun(id, place):
                job = self._spawned(id, attempt, place)
        finally:
            if job is None:
                self._places.give(place)
        if job:
            self._jobs.append(job)
            self._watch(Event(kind="start", id=id))

    def _begun(self, id: str, place: Place) -> Attempt | None:
        """The attempt, once it is certain that it is ours to make."""
        gpus = {"gpus": list(place.gpus)} if place.gpus else {}
        try:
            attempt = self._store.begin(id, where=self._where | gpus)
        except AlreadyDone:
            self._skip(id, "done")
            return None
        except OSError as error:
            if not passing(error):
                raise
            self._clerk.pause(id, error)
            return None
        mine = (attempt.started, attempt.uuid)
        if earlier := [info for info in self._store.rivals(id) if (info.started, info.uuid) < mine]:
            # Both looked before either was to be seen; the one that began first goes on.
            self._defer(id, f"running elsewhere: {earlier[0].host}, process {earlier[0].pid}")
            self._clerk.settle(Due(id=id, attempt=attempt, verdict=Verdict(outcome="yielded")))
            return None
        del self._queue[id]
        return attempt

    def _spawned(self, id: str, attempt: Attempt, place: Place) -> Job | None:
        """The cell at work; None, and the attempt settled, when its spec is damaged or no process can be started."""
        try:
            spec = self._store.spec(id)
            folder = make_scratch(scratch(attempt.uuid, attempt.path if spec.get("nodes", 1) > 1 else None))
            command = self.command(self._store.spec_path(id), folder / "outcome.json")
            variables = environment(spec.get("threads", 0)) | place.environment()
            child = Child(command, log=attempt.log_path, environment=variables)
        except (OSError, ValueError) as error:
            self._settle(Due(id=id, attempt=attempt, verdict=not_started(error)))
            return None
        beat = time.monotonic() + self.timing.beat_s
        return Job(id=id, attempt=attempt, child=child, folder=folder, spec=spec, place=place, next_beat=beat)

    def _relieve(self) -> None:
        """Where several children together fill the memory, sends the youngest back, and runs fewer from then on.

        So a cell is out of memory only when it filled it alone.
        """
        limit_mib, living = self._limits.memory_mib, [job for job in self._jobs if not job.killed]
        if limit_mib is None or len(living) < 2 or sum(job.child.rss_mib for job in living) < FULL * limit_mib:
            return
        if memory_mib([pid for job in living for pid in job.child.family]) >= FULL * limit_mib:  # shared pages once
            living[-1].kill(CROWDED)
            self._places.crowded(living[-1].place)

    def _over(self, job: Job, code: int) -> None:
        wall_s, place = round(job.child.wall_s, 3), job.place
        verdict = judge(job.ending(code, self._limits), job.folder / "outcome.json", job.attempt.log_path)
        shutil.rmtree(job.folder, ignore_errors=True)  # before the row: nobody comes back to a cell that has one
        if place.shared and verdict.outcome not in ("ok", "diverged"):
            self._apart.add(job.id)
            if verdict.outcome in ("oom", "timeout"):
                verdict = Verdict(outcome=CROWDED)
                self._places.crowded(place)
        if verdict.outcome == "ok" and self._queue:
            self._places.learn(place, job.id, job.spec, wall_s)
        self._places.give(place, job.child.peak_mib)
        self._jobs.remove(job)
        finished = round(time.time(), 3)
        due = Due(id=job.id, attempt=job.attempt, verdict=verdict, spec=job.spec, wall_s=wall_s, finished=finished)
        self._settle(due)

    def _settle(self, due: Due) -> None:
        if self._clerk.settle(due):
            self._settled([due])

    def _settled(self, dues: Sequence[Due]) -> None:
        """Counts what has a row, and sends back what has none; for `yielded`, its cell waits already."""
        for due in dues:
            verdict = due.verdict
            message = str(verdict.error.get("message")) if verdict.error else None
            if verdict.row is not None:
                self._store.forget(due.id)
                word = "done" if due.duplicate else verdict.outcome
                self._finish(due, word, "another attempt had committed" if due.duplicate else message)
            elif verdict.outcome in CHARGES and (failed := self._store.failed(due.id)):
                self._finish(due, "failed", str(failed.get("message") or failed["signature"]))
            elif verdict.outcome != "yielded":
                self._queue[due.id] = time.monotonic() + self._again_s(due)
                self._watch(due.event(verdict.outcome, ROOMIER if verdict.outcome == CROWDED else message))

    def _finish(self, due: Due, word: str, message: str | None) -> None:
        self._ends[due.id] = word
        self._watch(due.event(word, message))

    def _again_s(self, due: Due) -> float:
        """Longer with every attempt that went wrong, for a machine's troubles take a while."""
        if due.verdict.error is None:
            return 0.0
        wrong = [info for info in self._store.attempts(due.id) if info.end and info.end["error"]]
        return min(60.0, self.timing.again_s * 2 ** max(0, len(wrong) - 1))
