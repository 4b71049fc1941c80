"""Where cells run side by side: a place on a core each, or on a GPU that so many may share; given out and taken back.

A cell never notices: on a CPU it has one thread wherever it runs, and what fails for want of memory while others were
beside it is no result, but runs again with fewer or none.
"""

import math
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attnbench.cell import Spec, canonical
from attnbench.engine._child import MIB, cores
from attnbench.engine._climb import Climb

Workers = int | Literal["auto"]
VISIBLE = "CUDA_VISIBLE_DEVICES"
ROOM = 0.8  # of the memory: what cells may be expected to fill before another one starts
UNSEEN_MIB = 1024.0  # what a cell is expected to hold while none has ended
ANSWER_S = 20  # how long nvidia-smi may take; it starts a driver that sleeps


@dataclass(eq=False, kw_only=True)
class Place:
    """One child's place. gpus: those that it sees; none given out: it sees what its parent sees.

    whole: nobody else comes to its GPUs. shared: somebody else has been there. width: children a GPU had as it began.
    """

    gpus: tuple[str, ...] = ()
    whole: bool = False
    shared: bool = False
    width: int = 1

    def environment(self) -> dict[str, str]:
        return {VISIBLE: ",".join(self.gpus)} if self.gpus else {}


class Places:
    """The places of one machine.

    most: children at once. gpus: given out, `each` to a child, and to at most `per_gpu` children. memory_mib: starts
    nothing that would probably fill it. climb: finds `per_gpu`. expected: seconds of cells, by their ids.
    """

    def __init__(
        self,
        most: int,
        *,
        gpus: Sequence[str] = (),
        each: int = 1,
        memory_mib: float | None = None,
        climb: Climb | None = None,
        expected: Mapping[str, float] | None = None,
    ):
        self._most, self._gpus, self._each = most, tuple(gpus), each
        self._per_gpu = 1 if climb or each > 1 or not gpus else math.ceil(most / len(gpus))
        self._memory_mib, self._climb, self._expected = memory_mib, climb, expected or {}
        self._taken: list[Place] = []
        self._peak_mib = 0.0  # of the largest cell that has ended

    @property
    def width(self) -> int:
        """How many cells may run at once, as things stand."""
        if not self._gpus:
            return self._most
        return max(1, min(self._most, len(self._gpus) * self._per_gpu // self._each))

    def full(self, held_mib: Sequence[float] = ()) -> bool:
        """Whether nothing more may start beside children that hold so much."""
        if self._taken and self._memory_mib is not None:
            each = max(self._peak_mib or UNSEEN_MIB, *held_mib, 0.0)
            if each * (len(self._taken) + 1) > ROOM * self._memory_mib:
                return True
        return len(self._taken) >= self.width

    def open(self, *, whole: bool = False) -> bool:
        """Whether there is a place, `whole`: one with GPUs of its own."""
        return len(self._taken) < self.width and (not self._gpus or len(self._free(whole)) >= self._each)

    def _free(self, whole: bool) -> list[str]:
        """The GPUs that have room, those with fewest children first."""
        loads = {gpu: sum(gpu in other.gpus for other in self._taken) for gpu in self._gpus}
        closed = {gpu for other in self._taken if other.whole for gpu in other.gpus}
        free = [gpu for gpu in self._gpus if gpu not in closed and loads[gpu] < (1 if whole else self._per_gpu)]
        return sorted(free, key=lambda gpu: loads[gpu])

    def take(self, *, whole: bool = False) -> Place | None:
        """A place, `whole`: with GPUs of its own; None while there is none."""
        if not self.open(whole=whole):
            return None
        place = Place(gpus=tuple(self._free(whole)[: self._each]), whole=whole, width=self._per_gpu)
        for other in self._taken:
            if set(place.gpus) & set(other.gpus):
                place.shared = other.shared = True
        self._taken.append(place)
        return place

    def give(self, place: Place, peak_mib: float = 0.0) -> None:
        """Takes a place back, from a child that held at most so much."""
        self._taken.remove(place)
        self._peak_mib = max(self._peak_mib, peak_mib)

    def crowded(self, place: Place) -> None:
        """From now on fewer at once, since there was too little memory for so many."""
        self.close()
        if place.shared:
            self._per_gpu = max(1, self._per_gpu - 1)
        else:
            self._most = max(1, len(self._taken) - 1)

    def look(self) -> None:
        """Looks at the memory of the GPUs now and then, as long as that decides anything."""
        if self._climb:
            self._climb.look()

    def close(self) -> None:
        """Finds out nothing more."""
        if self._climb:
            self._climb.close()
        self._climb = None

    def learn(self, place: Place, id: str, spec: Spec, wall_s: float) -> None:
        """Takes note of how long a cell took that ended by itself while others were waiting."""
        if self._climb and not place.whole:
            like, expected_s = canonical({**spec, "seed": None}), self._expected.get(id) or 1.0
            self._climb.ended(place.width, like, wall_s, expected_s)
            self._per_gpu = self._climb.width


def arranged(
    specs: Iterable[Spec], workers: Workers, *, memory_mib: float | None, expected: Mapping[str, float] | None = None
) -> Places:
    """The places for cells like these, of which one is looked at; `auto`: as many as this machine bears."""
    spec = next(iter(specs), {})
    if spec.get("nodes", 1) > 1:  # it has its job alone
        return Places(1)
    each = max(1, spec.get("gpus", 0))
    gpus = visible_gpus() if spec.get("device") == "cuda" else ()
    gpus = gpus if len(gpus) >= each else ()  # then the cell itself says what it misses
    given: dict[str, Any] = {"gpus": gpus, "each": each, "expected": expected}
    if workers != "auto":
        return Places(workers, **given)
    most = usable_cores()
    if gpus and each == 1 and most >= 2 * len(gpus):
        given["climb"] = Climb(gpus, most // len(gpus))
    elif spec.get("device") == "cuda":
        most = max(1, len(gpus) // each)
    elif not spec.get("threads", 1):  # it takes all cores
        most = 1
    return Places(most, memory_mib=free_mib(memory_mib), **given)


def usable_cores() -> int:
    """Processors that this process may keep busy: those it may run on, less where a container or a job has fewer."""
    found = [cores()]
    with suppress(OSError, ValueError):  # no such file, or the word "max"
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        found.append(quota // period)
    if "SLURM_JOB_ID" in os.environ:
        with suppress(KeyError, ValueError):
            found.append(int(os.environ["SLURM_CPUS_ON_NODE"]))
    return max(1, min(found))


def free_mib(limit_mib: float | None) -> float | None:
    """Memory for cells: the limit, or less where other programs hold so much that less is left."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = int(next(text for text in lines if text.startswith("MemAvailable:")).split()[1]) * 1024 / MIB
        return free if limit_mib is None else min(free, limit_mib)
    return limit_mib


def visible_gpus() -> tuple[str, ...]:
    """The GPUs of this process, by the words for CUDA_VISIBLE_DEVICES: those it was given, else all of the machine.

    A GPU that is cut into instances (MIG) counts by these. Found without torch, so that nothing is started on them.
    """
    given = os.environ.get(VISIBLE)
    if given is None and "SLURM_JOB_ID" in os.environ:
        given = os.environ.get("SLURM_JOB_GPUS")
    if given is None:
        return tuple(_listed())
    words = [word.strip() for word in given.split(",")]
    ends = [place for place, word in enumerate(words) if word in ("", "-1", "NoDevFiles", "none", "void")]
    return tuple(dict.fromkeys(words[: min(ends, default=len(words))]))  # CUDA too stops at the first wrong word


def _listed() -> list[str]:
    """What `nvidia-smi -L` lists: instances instead of a GPU that has some; nothing where there is no such program."""
    if not (program := shutil.which("nvidia-smi")):
        return []
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found: list[list[str]] = []
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        name = line.rpartition("UUID: ")[2].strip(" )")
        if line.startswith("GPU "):
            found.append([name])
        elif name.startswith("MIG-") and found:
            found[-1].append(name)
    return [name for gpu in found for name in (gpu[1:] or gpu)]
