"""Work that a second process does while this one goes on, where there is a core for it; else it is done when asked for.

A report begins with what takes long and needs the disk or torch, and with what brings pandas and matplotlib: seconds of
either, and neither needs the other's. The process is forked before anything large is loaded, and only ever answers.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pickle import PicklingError
from typing import Any

Work = Callable[[], Any]
PR_SET_PDEATHSIG = 1
SECOND: ContextVar[Connection | None] = ContextVar("SECOND", default=None)


@contextmanager
def begun(*works: Work) -> Iterator[list[Work]]:
    """Begins these works one after the other in a second process; gives for each a call that returns what it returns.

    Without such a process, or where it could not do a work, the call does it here, and raises what it raises.
    """
    if not room():
        yield list(works)
        return
    here, there = Pipe()
    process = get_context("fork").Process(target=serve, args=(there, works, os.getpid()), daemon=True)
    with here, there:
        try:
            process.start()
        except OSError:  # no memory, or too many processes
            yield list(works)
            return
        there.close()
        token = SECOND.set(here)
        try:
            yield [partial(fetched, here, number, work) for number, work in enumerate(works)]
        finally:
            SECOND.reset(token)
            process.terminate()
            process.join()


def asked(work: Callable[..., Any], *given: Any) -> Any:
    """What `work` returns for these values, from the second process if there is one: what it needs is loaded there."""
    here = SECOND.get()
    return work(*given) if here is None else fetched(here, partial(work, *given), partial(work, *given))


def room() -> bool:
    """Whether a second process can be had and is of use: a core for it, and torch not loaded here already."""
    alone = threading.active_count() == 1  # else a fork may keep locks that nobody opens
    return alone and cores() > 1 and "torch" not in sys.modules


def cores() -> int:
    """How many cores forked processes can be given; 1 where a fork is not safe."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def fetched(here: Connection, wanted: int | Work, work: Work) -> Any:
    """What the second process answers; else the work is done here."""
    try:
        here.send(wanted)
        done, value = here.recv()
    except Exception:  # it is gone, or what is asked or answered cannot go from one to the other, as a plugin's class
        return work()
    return value if done else work()


def bound(parent: int) -> None:
    """Ends this process, a child of that one, when that one ends, however it does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)


def serve(there: Connection, works: tuple[Work, ...], parent: int) -> None:
    """The second process: does its works and answers, requests first, until it is ended."""
    bound(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first one is told, and ends this one
    left, results = list(enumerate(works)), {}
    while True:
        try:
            wanted = there.recv() if there.poll(0 if left else None) else None
            while isinstance(wanted, int) and wanted not in results:
                number, work = left.pop(0)
                results[number] = attempted(work)
            if wanted is not None:
                answer(there, results[wanted] if isinstance(wanted, int) else attempted(wanted))
            elif left:
                number, work = left.pop(0)
                results[number] = attempted(work)
        except (EOFError, OSError):
            return


def answer(there: Connection, found: tuple[bool, Any]) -> None:
    """Sends what an attempt found, or that it failed where what it found cannot be sent."""
    try:
        there.send(found)
    except (AttributeError, TypeError, PicklingError):
        there.send((False, None))


def attempted(work: Work) -> tuple[bool, Any]:
    """Whether a work could be done, and what it returned; what it raised the first process will see by itself."""
    try:
        return True, work()
    except Exception:
        return False, None
