"""How many children a GPU takes: twice as many as long as that gives more cells an hour and memory is far from full.

Found out on real cells, whose rows count: what they compute does not depend on what runs beside them.
"""

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import mean, median

from attnbench.engine._question import Question

GAIN = 1.1  # cells an hour of twice as many children, below which it is not worth it
HALF_FULL = 0.4  # of a GPU's memory: above it, twice as many might not find room
LOOK_S = 2.0  # between two looks at the memory
ANSWER_S = 20.0  # how long one may take

Walls = Mapping[str, Sequence[tuple[float, float]]]  # by what cells are alike in: seconds taken, seconds expected


class Climb:
    """One calibration. width: children for each GPU, so far; `most` at most."""

    def __init__(self, gpus: Sequence[str], most: int):
        self.width = 1
        self._most, self._needed = most, len(gpus)
        self._gauge: Gauge | None = Gauge(gpus)
        self._walls: dict[int, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))

    def look(self) -> None:
        if self._gauge:
            self._gauge.look()

    def close(self) -> None:
        """Leaves the width as it is."""
        if self._gauge:
            self._gauge.close()
        self._gauge = None

    def ended(self, width: int, like: str, wall_s: float, expected_s: float) -> None:
        """Takes note of a cell that began when each GPU had so many children; decides once enough of them have."""
        if not self._gauge or width != self.width:
            return
        walls = self._walls[width]
        walls[like].append((wall_s, expected_s))
        if sum(map(len, walls.values())) < width * self._needed or self._gauge.highest is None:
            return
        if width > 1 and gain(self._walls[width // 2], walls) < GAIN:
            self.width = width // 2
            self.close()
        elif 2 * width > self._most or self._gauge.highest > HALF_FULL:
            self.close()
        else:
            self.width *= 2
            self._gauge.highest = None


def gain(before: Walls, after: Walls) -> float:
    """Cells an hour with twice as many children over those before: by cells that are alike, else by what was expected.

    Twice as many children that each take as long do twice the work.
    """
    if both := before.keys() & after.keys():
        return 2 / median(_seconds(after[like]) / _seconds(before[like]) for like in both)
    return 2 / (_slowness(after) / _slowness(before))


def _seconds(walls: Sequence[tuple[float, float]]) -> float:
    return mean(wall_s for wall_s, _ in walls)


def _slowness(walls: Walls) -> float:
    return median(wall_s / expected_s for of in walls.values() for wall_s, expected_s in of)


class Gauge:
    """The fullest memory that any of these GPUs had, as a share of its size; None until nvidia-smi has told one."""

    def __init__(self, gpus: Sequence[str]):
        self.highest: float | None = None
        program = shutil.which("nvidia-smi")
        asked = [
            "--query-gpu=memory.used,memory.total,compute_mode",
            "--format=csv,noheader,nounits",
            "-i",
            ",".join(gpus),
        ]
        self._question = Question([program, *asked], every_s=LOOK_S, answer_s=ANSWER_S) if program else None

    def look(self) -> None:
        """Asks every few seconds, and takes the answer in a later call."""
        said = self._question.look() if self._question else None
        for line in (said or "").splitlines():
            with suppress(ValueError, ZeroDivisionError):  # an instance of a GPU has no numbers of its own
                used, total, mode = line.split(",")
                share = float(used) / float(total) if mode.strip() == "Default" else 1.0  # it takes one process only
                self.highest = max(self.highest or 0.0, share)

    def close(self) -> None:
        """Waits for no answer."""
        if self._question:
            self._question.close()
