"""A cell of milliseconds that does what its spec says: `fake_cell.py SPEC OUTCOME`; with it, what tests need to use it.

Run as a script it imports nothing but the standard library, so a hundred of them take seconds.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def command(self: object, spec_path: Path, out_path: Path) -> list[str]:
    """In the place of `Supervisor.command`."""
    del self
    return [sys.executable, "-I", "-S", __file__, str(spec_path), str(out_path)]


def spec(trace: Path, seed: int, do: str = "ok", **more: object) -> dict[str, Any]:
    """A cell that notes each of its starts in `trace` and then does `do`."""
    return {"trace": str(trace), "seed": seed, "do": do, "threads": 1, **more}


def starts(trace: Path) -> list[tuple[int, int]]:
    """Every start so far, as seed and process id."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines]


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits for something to come true, not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)


def runs(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def error(frame: str) -> dict[str, Any]:
    told = {"type": "RuntimeError", "message": "no", "frame": frame, "traceback": "Traceback ..."}
    return {"status": "error", "error": told}


def hang() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    time.sleep(60)


def segfault() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # and no memory dump in the folder of the tests
    os.kill(os.getpid(), signal.SIGSEGV)


def grow(mib: int) -> None:
    held = bytearray(os.urandom(2**20) * mib)
    time.sleep(60)
    del held


def hold(mib: int, seconds: float) -> None:
    held = bytearray(os.urandom(2**20)) * mib
    time.sleep(seconds)
    del held


def broken(asked: dict, before: int, ok: dict[str, Any]) -> dict[str, Any]:
    """So many times an error with the message that was asked for, the same each time."""
    if before >= asked["times"]:
        return ok
    told = {"type": "RuntimeError", "message": asked["message"], "frame": "f.py:1", "traceback": "Traceback ..."}
    return {"status": "error", "error": told}


def creep(mib: int) -> None:
    """Takes so much at once, and then more so slowly that heartbeats see it."""
    held = [bytes([1]) * (2**20 * mib)]
    for _ in range(200):
        held.append(bytes([1]) * 2**22)
        time.sleep(0.3)


def act(asked: dict, before: int) -> dict[str, Any] | None:
    """The outcome of one start; `before` starts of the same cell came earlier."""
    do, ok = asked["do"], {"status": "ok", "result": {"score": asked["seed"] / 7}, "raw": {"curve": [0.1] * 3}}
    if do == "ok" or (do.endswith("-once") and before):
        time.sleep(asked.get("sleep", 0.0))
        return ok | {"raw": {"curve": [0.1] * asked.get("points", 3)}}
    acts = {
        "raise": lambda: error("f.py:1"),
        "raise-once": lambda: error("f.py:1"),
        "raise-elsewhere": lambda: error(f"f.py:{min(before, 2)}"),
        "segfault": segfault,
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "killed-once": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "hang": hang,
        "hang-once": hang,
        "grow": lambda: grow(asked["mib"]),
        "hold": lambda: (hold(asked["mib"], asked["sleep"]), ok)[1],
        "oom": lambda: {"status": "oom", "error": {"type": "OutOfMemoryError", "message": "CUDA out of memory"}},
        "oom-once": lambda: {"status": "oom", "error": {"type": "OutOfMemoryError", "message": "CUDA out of memory"}},
        "broken": lambda: broken(asked, before, ok),
        "creep": lambda: creep(asked["mib"]),
        "family": lambda: subprocess.Popen(["sleep", "60"]),
        "diverged": lambda: {"status": "diverged", "result": {}, "error": {"type": "Diverged", "message": "NaN"}},
        "nan": lambda: ok | {"result": {"score": float("nan")}},
        "nonsense": lambda: {"status": "fine"},
        "notice": lambda: (os.kill(os.getpid(), signal.SIGUSR2), ok)[1],
        "environment": lambda: ok | {"host": {name: os.environ.get(name) for name in asked["names"]}},
    }
    return acts[do]()


def main(spec_path: str, out_path: str) -> None:
    asked = json.loads(Path(spec_path).read_text())
    before = sum(1 for seed, _ in starts(Path(asked["trace"])) if seed == asked["seed"])
    with Path(asked["trace"]).open("a") as trace:
        trace.write(f"{asked['seed']} {os.getpid()}\n")
    print("a word in the log", flush=True)
    if isinstance(outcome := act(asked, before), dict):
        part = Path(out_path + ".part")
        part.write_text(json.dumps(outcome))
        part.replace(out_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
