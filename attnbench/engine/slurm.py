"""Runs cells on SLURM: submits what nothing covers, watches the queue and the store, submits again what was lost.

No state but files and the queue: the call may be killed at any moment, and the same call again goes on where it was.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial

from attnbench.engine import _controller, _submission
from attnbench.engine._controller import Controller
from attnbench.engine._queue import QueueSnapshot, ask, available
from attnbench.engine._submission import Request, Resources
from attnbench.engine.codes import DONE, INCOMPLETE, REFUSED, SET_ASIDE
from attnbench.engine.local import closing, resume_line, stopped_by_signals
from attnbench.engine.progress import Progress
from attnbench.engine.store import Store
from attnbench.manifest import Cell

FIRST_NAP_S = 0.25  # between two looks at the store; later ones come less often

__all__ = ["QueueSnapshot", "Request", "Resources", "available", "cancel", "run_slurm", "snapshot"]


def run_slurm(store: Store, cells: Sequence[Cell], *, request: Request, wait: bool, quiet: bool) -> int:
    """Brings every cell to its end on SLURM and returns the exit code.

    0: every cell has a row; 1: given up; 3: jobs go on, with `wait` off or after a signal; 4: some cells are set aside.
    Raises ValueError when SLURM refuses what is asked, with its words.
    """
    with Progress(cells, workers=request.resources.parallel, quiet=quiet) as progress:
        control = Controller(store, cells, request, progress=progress, note=partial(_note, quiet=quiet))
        try:
            with _interrupted_by_signals():
                _loop(store, control, poll_s=request.site.poll_s, wait=wait)
                if not control.open:
                    control.see_off()
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):  # whoever is in a hurry leaves what is held to the next sweep
                control.release(snapshot(store))  # what was just submitted must not stay held
    if control.given_up:
        _note(control.given_up, quiet=False)
    if not quiet:
        with suppress(OSError):
            print(_closing(control))
    if control.given_up:
        return REFUSED
    return INCOMPLETE if control.open else SET_ASIDE if control.counts["failed"] else DONE


def snapshot(store: Store, *, timeout_s: float = 6) -> QueueSnapshot | None:
    """Every job of this store that SLURM knows; None when the scheduler does not answer in time, or is not there."""
    return _submission.snapshot(store.root, timeout_s=timeout_s)


def cancel(store: Store, ids: Collection[str]) -> list[str]:
    """Cancels the jobs in whose shards any of these cells stand; returns their ids.

    Raises ValueError when the scheduler does not answer.
    """
    if (seen := snapshot(store)) is None:
        raise ValueError("SLURM does not answer, so no job was cancelled; try again later.")
    wanted = set(ids)  # of two jobs with one cell both
    jobs = sorted({job.id for job in seen.jobs if job.live and not wanted.isdisjoint(seen.shards[job.id])})
    if jobs and ask("scancel", *jobs) is None:  # it also fails when one of them has just ended
        left = snapshot(store)
        if left is None or any(job.live and job.id in jobs for job in left.jobs):
            raise ValueError("SLURM did not cancel all of these jobs; try again later.")
    return jobs


def _loop(store: Store, control: Controller, *, poll_s: float, wait: bool) -> None:
    """Turns until all is done; without `wait`, until all is submitted, or nobody has answered for a while."""
    patience_ends = time.monotonic() + 2 * _controller.PATIENCE_S
    while not control.turn():
        if not wait and control.submitted:
            break
        if not wait and time.monotonic() > patience_ends:
            control.give_up((control.waits_for or "SLURM does not answer").rstrip("."))
            break
        _rest(store, control, poll_s)


def _rest(store: Store, control: Controller, poll_s: float) -> None:
    """Sleeps until the scheduler may be asked again, or until the store, looked at more often, has every cell's end."""
    end, nap_s = time.monotonic() + poll_s, FIRST_NAP_S
    while (left_s := end - time.monotonic()) > 0:
        time.sleep(min(left_s, nap_s))
        nap_s *= 1.5
        with suppress(OSError):  # a store that cannot be read for a while
            if all(store.done(id) or store.failed(id) for id in control.open):
                return


def _note(sentence: str, *, quiet: bool) -> None:
    if not quiet:
        with suppress(OSError):  # the terminal is gone, or a log on a full disk
            print(sentence, file=sys.stderr, flush=True)


def _interrupted_by_signals() -> AbstractContextManager[None]:
    """SIGTERM and the end of the terminal are Ctrl-C here; only where signals can be taken, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return nullcontext()

    def interrupt(_reason: str) -> None:
        raise KeyboardInterrupt

    return stopped_by_signals(interrupt)


def _closing(control: Controller) -> str:
    """What became of the cells, and how to go on when some are left."""
    lines = [closing(Counter(control.counts), sys.argv)] if control.counts else []
    if control.open and not control.given_up:
        lines.append(f"{len(control.open)} cells are with SLURM, which goes on without this process.")
    if control.open:
        waiting = [word for word in sys.argv if word != "--no-wait"]
        lines.append(f"To see them through: {resume_line(waiting)}")
    return "\n".join(lines)
