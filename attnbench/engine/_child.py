"""One child process: started so that it dies with its parent, watched from outside, ended with all it has started."""

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attnbench

STATUSES = ("ok", "oom", "diverged", "error")
BLOCKS = ("result", "cost", "host", "data", "code", "raw")
FAMILY_S = 2.0  # how often all processes are looked through for those of the child's session
PR_SET_PDEATHSIG = 1
MIB = 2**20


class Child:
    """A running cell. Make it from the main thread: Linux kills it when the *thread* that made it ends."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str]):
        """Raises OSError when it cannot be started."""
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
                preexec_fn=preparation(),  # safe: the supervisor has one thread
            )
        self.pid = self._process.pid
        self.peak_mib = self.rss_mib = 0.0
        self._began = time.monotonic()
        self.family, self._counted = (self.pid,), self._began
        self._handle = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None

    def fileno(self) -> int | None:
        """A file descriptor that becomes readable when the child ends; None where the system has none."""
        return self._handle

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self._began

    def code(self) -> int | None:
        """Exit code, the negative of a signal, or None while it runs. Nothing it has started outlives it."""
        if self._process.returncode is None and hasattr(os, "waitid"):
            if not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return None
            self.kill()  # before its pid is given back, for the group has the same number
        code = self._process.poll()
        if code is not None and self._handle is not None:
            os.close(self._handle)
            self._handle = None
        return code

    def kill(self) -> None:
        """Kills the child and what it has started; safe in a signal handler, and nothing after its end."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def collect(self) -> None:
        """Waits for the end of a child that was killed."""
        while self.code() is None:
            wait([self], 1.0)

    def measure(self) -> None:
        """Notes the memory that the child and its descendants hold now."""
        now = time.monotonic()
        if now - self._counted > FAMILY_S:
            self.family, self._counted = tuple(session(self.pid)) or (self.pid,), now
        self.rss_mib = memory_mib(self.family)
        self.peak_mib = max(self.peak_mib, self.rss_mib)


def wait(children: Sequence[Child], seconds: float) -> None:
    """Sleeps until a child ends, at most so long."""
    handles = [handle for child in children if (handle := child.fileno()) is not None]
    if len(handles) == len(children):
        poll = select.poll()
        for handle in handles:
            poll.register(handle, select.POLLIN)
        poll.poll(seconds * 1000)
    else:
        time.sleep(min(seconds, 0.05))


def preparation() -> Callable[[], None]:
    """What a child does between fork and exec, all of it looked up beforehand."""
    parent, libc = os.getpid(), None
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None)

    def prepare() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a scheduler's notice is for the supervisor alone
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the call above
                os._exit(1)

    return prepare


@contextmanager
def beside(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Iterable[str]]:
    """The lines of a process that works beside this one: it hears no Ctrl-C, and neither outlives us nor an error."""
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=preparation(),  # safe: nothing has started a thread that could hold a lock
    ) as child:
        assert child.stdout is not None
        try:
            yield child.stdout
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise


def environment(threads: int) -> dict[str, str]:
    """Variables for a child: so many threads (0: all cores), and packages from where this one was imported."""
    count = str(threads or cores())
    home = Path(attnbench.__file__).parents[1]
    path = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    if home.name not in ("site-packages", "dist-packages"):
        path.insert(0, str(home))
    return {
        **os.environ,
        "PYTHONSAFEPATH": "1",  # a tasks.py in the user's folder must not stand in for ours
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
    }


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def session(leader: int) -> list[int]:
    """The processes of a session; empty where there is no /proc."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):  # it may end while we look
            if (folder / "stat").read_text().rpartition(")")[2].split()[3] == str(leader):
                members.append(int(folder.name))
    return members


def memory_mib(pids: Sequence[int]) -> float:
    """Resident memory of these processes; of several, each one's share of the pages they share."""
    total = 0.0
    for pid in pids:
        with suppress(OSError, StopIteration):  # it may have ended
            if len(pids) == 1:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                total += pages * os.sysconf("SC_PAGE_SIZE") / MIB
            else:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += int(next(text for text in lines if text.startswith("Pss:")).split()[1]) / 1024
    return total


def machine_mib() -> float | None:
    """Memory that one process may hope for here: the machine's, or its container's; None if that is unknown."""
    found = []
    with suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB)
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(ValueError, OSError):  # absent, or the word "max"
            found.append(int(Path(limit).read_text()) / MIB)
    return min(found) if found else None


def read_outcome(path: Path) -> dict[str, Any] | None:
    """What a child left: its status and blocks; None if it left nothing.

    Numbers that are not finite become None, and in the result they make the status `diverged`.
    Raises ValueError when the file is no outcome.
    """
    try:
        outcome = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(outcome, dict) or outcome.get("status") not in STATUSES:
        raise ValueError(f"status is one of {', '.join(STATUSES)}")
    if wrong := [name for name in BLOCKS if not isinstance(outcome.get(name, {}), dict)]:
        raise ValueError(f"{wrong[0]} is an object")
    if not isinstance(outcome.get("error") or {}, dict):
        raise ValueError("error is an object or null")
    finite = _finite(outcome)
    if outcome["status"] == "ok" and finite.get("result") != outcome.get("result"):
        message = "A number of the result is not finite."
        finite |= {"status": "diverged", "error": {"type": "Diverged", "message": message}}
    return finite


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
