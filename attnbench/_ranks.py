"""The processes that train one cell together, each on a GPU of its own, and the one outcome of them all.

The child process of such a cell trains nothing itself: it starts them, in its own session so that they are killed with
it, and waits. Each leaves `rank<number>.json` beside the outcome, at its very end. When one fails, those that wait for
it fail after it or wait for ever, so the outcome of the cell is that of the first that told of a failure. Where one was
killed, the child ends in the same way, so that the cell's supervisor sees what it would have seen of one process.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

LOOK_S = 0.05  # between two looks at the processes
GRACE_S = 5.0  # after the first failure, for the others to tell of theirs
PR_SET_PDEATHSIG = 1
STARTER = "ATTNBENCH_STARTER"  # variable with the process that has started a rank
ENDED = "ended"  # in what a rank leaves: when that was, in seconds of the machine's monotonic clock
MEETING = "meeting"  # beside the outcome: the file by which they find each other
FIRST = "first.json"  # the same: what the first that failed has left

Outcome = dict[str, Any]


def together(outcome: Path, size: int, words: Sequence[str]) -> Outcome:
    """Runs this program so many times, with a rank after the words; returns the cell's outcome.

    Ends this process where one of them ended without telling why.
    """
    meeting(outcome).unlink(missing_ok=True)
    command = [sys.executable, "-m", "attnbench.run", *words, "--rank"]
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(size):
            left_by(outcome, number).unlink(missing_ok=True)
            ranks.append(subprocess.Popen([*command, str(number)], env=os.environ | {STARTER: str(os.getpid())}))
        codes = watch(ranks)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    for number, code in enumerate(codes):
        if code is not None and code < 0:
            print(f"Process {number} of {size} was ended by signal {-code}.", file=sys.stderr, flush=True)
    told = [json.loads(file.read_text()) for number in range(size) if (file := left_by(outcome, number)).exists()]
    return settled(codes, told)


def never() -> bool:
    return False


def watch(
    ranks: Sequence[subprocess.Popen[bytes]], *, leader: bool = True, stop: Callable[[], bool] = never
) -> list[int | None]:
    """Exit codes, None of one that runs: when the first has ended well, or a while after one has failed.

    leader: the first is the first of the cell; else all are waited for. stop: asked at every look whether to return.
    """
    until = float("inf")
    while True:
        codes = [rank.poll() for rank in ranks]
        if (leader and codes[0] == 0) or None not in codes or time.monotonic() > until or stop():
            return codes
        if any(codes):
            until = min(until, time.monotonic() + GRACE_S)
        time.sleep(LOOK_S)


def settled(codes: Sequence[int | None], told: Sequence[Outcome]) -> Outcome:
    """The outcome of the cell. Ends this process where there is none.

    A process whose peer has gone tells of an error, or aborts; neither is why the cell failed.
    """
    failed = sorted((found for found in told if found["status"] != "ok"), key=lambda found: found[ENDED])
    killed = [-code for code in codes if code is not None and code < 0 and code != -signal.SIGABRT]
    if codes[0] == 0:
        failed, killed = list(told[:1]), []
    if killed:
        end_by(killed[0])
    if not failed:
        code = next(filter(None, codes), 1)
        if code < 0:
            end_by(-code)
        sys.exit(code)
    return {name: value for name, value in failed[0].items() if name != ENDED}


def end_by(number: int) -> NoReturn:
    """Ends this process by a signal."""
    if number != signal.SIGKILL:  # which nobody can handle
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # for a signal that ends nothing


def meeting(outcome: Path) -> Path:
    return outcome.with_name(MEETING)


def left_by(outcome: Path, number: int) -> Path:
    return outcome.with_name(f"rank{number}.json")


def bound() -> None:
    """Lets this process end with the one that started it, whatever ends that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ.get(STARTER, os.getppid())):
        os._exit(1)


def leave(found: Outcome, file: Path) -> NoReturn:
    """Ends this process with its outcome in a file, before any other can notice that it is gone."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(found | {ENDED: time.monotonic()}))
    part.replace(file)
    if found["status"] != "ok":
        with suppress(OSError):  # another was first; clocks of several nodes would not tell
            os.link(file, file.with_name(FIRST))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(int(found["status"] != "ok"))
