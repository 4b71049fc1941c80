"""Solve rates: of a task that seeds succeed or fail at, the share of seeds that went most of the way from chance to 1.

On such a task the mean over few seeds hides what happened and its interval is not safe (`bounded`): on Path-X, 4 of 10
seeds learned nothing (https://github.com/lindermanlab/S5/issues/10). Counts have an interval that is: Wilson, "Probable
inference, the law of succession, and statistical inference", JASA 1927, as in scipy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from math import nan

from attnbench.reports.stats import CONFIDENCE

SOLVED = "Solved: seeds past this score, and the 95 % Wilson interval of their share; a diverged one is not. "
MEASURE = "result.accuracy"  # the measure of tasks with right and wrong answers
CHANCE = "chance"
WAY = 0.5  # share of the way from chance to 1, past which a seed has solved a task, where a sweep names none


@dataclass(frozen=True)
class Rate:
    """So many of n seeds solved a task; low and high: Wilson's interval of their share, nan without a seed."""

    count: int
    n: int
    low: float
    high: float

    @property
    def text(self) -> str:
        """Such as `2 / 3 [0.21, 0.94]`, or an en dash."""
        return f"{self.count} / {self.n} [{self.low:.2f}, {self.high:.2f}]" if self.n else "–"  # noqa: RUF001


def threshold(measure: str, levels: dict[str, float], way: float = WAY) -> float | None:
    """The score past which a seed has solved a task; None for tasks without right and wrong answers or known chance.

    measure: the one that ranks in the task. levels: what it is read against.
    """
    chance = levels.get(CHANCE)
    return chance + way * (1 - chance) if measure == MEASURE and chance is not None else None


def rate(values: Iterable[float], diverged: int, level: float) -> Rate:
    """How many seeds are past a level; one that diverged is not. Cells that never ended do not count."""
    scores = list(values)
    count, n = sum(score > level for score in scores), len(scores) + diverged
    return Rate(count, n, *wilson(count, n))


@cache
def wilson(count: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of a share. Raises ValueError for more successes than trials."""
    from scipy.stats import binomtest  # here, for it takes seconds to import

    if n == 0:
        return nan, nan
    found = binomtest(count, n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)
