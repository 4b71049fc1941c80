"""What must hold at the end of every fault, whatever was broken: the seven invariants of a sweep, each a check.

    I1  every cell ends with one row whose checksum is right, or set aside
    I2  bytes that were committed stay as they are
    I3  no attempt starts after its cell's commit
    I4  `attnbench status` ends within ten seconds, whatever is broken, and names the cause
    I5  nothing is left over: no job, no process, no half-written file, no attempt that looks alive
    I6  the next `attnbench sweep` starts nothing
    I7  the numbers are those of a run without a fault, bit for bit

A check that held is noted for the table of faults (tests/fault_table.py).
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attnbench.engine._records import AttemptInfo, decode, scratch
from attnbench.engine.store import Store
from tests.fake_cell import runs, until

ROOT = Path(__file__).parents[1]
STATUS_S = 10.0
held: list[str] = []  # by the test that runs: emptied before each
happened: list[str] = []  # the same: what became of its cells


def note(name: str, story: str = "") -> None:
    """Writes down that an invariant held, or what became of the cells."""
    if name and name not in held:
        held.append(name)
    if story:
        happened[:] = [story]


class Witness:
    """Sees every row within a moment of its commit and keeps its bytes, from a thread of its own."""

    def __init__(self, root: Path) -> None:
        self._root, self._ends = root, threading.Event()
        self.seen: dict[Path, bytes] = {}
        self._hurt: set[Path] = set()
        threading.Thread(target=self._watch, daemon=True).start()

    def look(self) -> None:
        for path in self._root.glob("cells/??/*/result*.json"):
            if path not in self.seen and path not in self._hurt:
                with suppress(OSError):  # it may be moved to the quarantine while we look
                    self.seen[path] = path.read_bytes()

    def forget(self, path: Path) -> None:
        """A test hurts this one on purpose."""
        self._hurt.add(path)
        self.seen.pop(path, None)

    def bytes_are_unchanged(self) -> None:
        """I2. The watch is over then."""
        self._ends.set()
        self.look()
        hurt = [str(path) for path, data in self.seen.copy().items() if path.read_bytes() != data]
        assert not hurt
        note("I2")

    def _watch(self) -> None:
        while not self._ends.wait(0.1):
            self.look()


def every_cell_has_one_row_or_is_set_aside(store: Store, ends: Mapping[str, str]) -> None:
    """I1: `ends` says for each cell with which status, or `failed`."""
    found = {}
    for id in ends:
        folder = store.spec_path(id).parent
        newest = store.generation(id)
        rows = [path.read_bytes() for path in folder.glob(f"result.{newest}.json" if newest else "result.json")]
        assert len(rows) <= 1
        found[id] = decode(rows[0], id=id)["status"] if rows else "failed" if store.failed(id) else "open"
    assert found == dict(ends)
    note("I1")


def nothing_started_after_a_commit(store: Store, ids: Iterable[str]) -> None:
    """I3: of a record made after the row, no process came; a process has a log."""
    late = []
    for id in ids:
        rows = sorted(store.spec_path(id).parent.glob("result*.json"), key=lambda path: path.stat().st_ctime)
        if not rows or len(rows) != store.generation(id) + 1:
            continue
        committed = rows[-1].stat().st_ctime + 0.002  # records are rounded
        folder = store.spec_path(id).parent / "attempts"
        after = [info for info in store.attempts(id) if info.started > committed]
        late += [info for info in after if (folder / f"{info.uuid}.log").exists()]
    assert not late
    note("I3")


def status(store: Store, name: str, *, cause: str = "") -> tuple[int, dict[str, Any]]:
    """I4: the exit code of the real command and what it says as JSON; `cause`, or one between bars, is in one."""
    began = time.monotonic()
    command = [sys.executable, "-m", "attnbench", "status", name, "--results", str(store.root), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - began < STATUS_S
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    if cause:
        assert any(word in said for said in told["causes"] for word in cause.split("|")), told
        note("I4")
    return done.returncode, told


def nothing_is_left(store: Store, ids: Sequence[str], pids: Callable[[], Iterable[int]], *, live: Callable[[], bool]):
    """I5, within ten seconds. pids: all processes that the cells ever had. live: whether a job of ours still is."""
    until(lambda: not live())
    until(lambda: not [pid for pid in pids() if runs(pid)])
    until(lambda: not ours(store))
    now = time.time()
    attempts = [info for id in ids for info in store.attempts(id)]
    assert not [info for info in attempts if info.alive(now)]
    assert not [info.uuid for info in attempts if scratch(info.uuid).exists()]
    assert not [str(path) for path in store.root.rglob("*.tmp")]
    note("I5")


def ours(store: Store) -> list[int]:
    """Processes of jobs that were submitted for this store."""
    names = {f"SLURM_JOB_NAME=an-{folder.name}".encode() for folder in store.root.glob("submissions/*")}
    found = []
    for process in Path("/proc").glob("[0-9]*") if names else ():
        with suppress(OSError):  # it may end while we look
            if names & set((process / "environ").read_bytes().split(b"\0")):
                found.append(int(process.name))
    return found


def nothing_starts_again(again: Callable[[], int], count: Callable[[], Any], *, code: int) -> None:
    """I6: `again` is the sweep once more, `count` all that it could add to."""
    before = count()
    assert again() == code
    assert count() == before
    note("I6")


def numbers_are_the_same(rows: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    """I7: results by cell or seed, of those cells that have one."""
    assert rows == expected
    note("I7")


def story(rows: Sequence[Mapping[str, Any]], attempts: Sequence[AttemptInfo], submissions: int | None = None) -> str:
    """What became of a sweep in one line: `6 rows; 7 attempts: 6 ok, 1 vanished; 2 submissions`."""
    words = Counter(info.end["outcome"] if info.end else "vanished" for info in attempts)
    ended = ", ".join(f"{count} {word}" for word, count in words.most_common())
    told = [counted(len(rows), "row"), f"{counted(len(attempts), 'attempt')}: {ended}"]
    if submissions is not None:
        told.append(counted(submissions, "submission"))
    return "; ".join(told)


def counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
