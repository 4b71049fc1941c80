"""Means and differences over seeds with t intervals, corrected for many comparisons; pure, n beside every number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, isfinite, nan, sqrt

import numpy as np
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
POWER = 0.80  # the chance of separating two, at which seeds are counted
SEEDS_AT_MOST = 1000
ROUNDING = 1e-9  # a spread of this share of the mean is rounding

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """A mean, its t interval and the number of values behind it; without two values there are no bounds (nan)."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2

    @property
    def separates(self) -> bool:
        """Whether zero lies outside; never without bounds."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Difference(Interval):
    """A mean difference over common seeds, with the two-sided p of a paired t test (nan without two seeds)."""

    p: float


def t_interval(values: Values, confidence: float = CONFIDENCE) -> Interval:
    """The mean of independent values and its two-sided Student interval. Raises ValueError for values not finite."""
    values = finite(values)
    n = len(values)
    if n == 0:
        return Interval(nan, nan, nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, nan, nan, 1)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * float(values.std(ddof=1)) / sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def difference(values: Values, confidence: float = CONFIDENCE, step: float = 0.0) -> Difference:
    """`t_interval` of differences that are already paired, with the two-sided p of their mean being zero.

    step: the least by which the measure moves. Scores counted on few examples repeat, and two or three equal
    differences are no proof of a spread of zero: theirs is taken for one step.
    """
    values = finite(values)
    found, n = t_interval(values, confidence), len(values)
    error = float(values.std(ddof=1)) / sqrt(n) if n > 1 else nan
    if step and found.mean and error <= ROUNDING * abs(found.mean):
        error = step / sqrt(n)
        half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error if isfinite(step) else 0.0
        found = Interval(found.mean, found.mean - half, found.mean + half, n)
    return Difference(**vars(found), p=p_of_zero(found, error))


def paired(a: Mapping[int, float], b: Mapping[int, float], confidence: float = CONFIDENCE) -> Difference:
    """Mean of b - a over the seeds that both have; n is their number."""
    seeds = sorted(a.keys() & b.keys())
    step = resolution([one[seed] for one in (a, b) for seed in seeds])
    return difference([b[seed] - a[seed] for seed in seeds], confidence, step)


def resolution(values: Values) -> float:
    """The smallest distance between two of these that are not equal, at which a measure may move; inf if all are."""
    gaps = np.diff(np.sort(finite(values)))
    apart = gaps[gaps > ROUNDING * np.abs(values).max()] if len(gaps) else gaps
    return float(apart.min()) if len(apart) else inf


def p_of_zero(found: Interval, error: float) -> float:
    """Two-sided p of a one-sample t test of a mean against zero. error: the standard error of that mean."""
    if found.n < 2:
        return nan
    if error <= ROUNDING * abs(found.mean):
        return 0.0 if found.mean else 1.0
    return float(2 * stdtr(found.n - 1, -abs(found.mean) / error))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction; a nan stays nan and is no member of the family."""
    corrected, worst = [nan] * len(ps), 0.0
    family = sorted((i for i, p in enumerate(ps) if isfinite(p)), key=lambda i: ps[i])
    for rank, i in enumerate(family):
        worst = max(worst, min(1.0, (len(family) - rank) * ps[i]))
        corrected[i] = worst
    return corrected


def seeds_needed(mean: float, deviation: float, confidence: float = CONFIDENCE, power: float = POWER) -> int | None:
    """How many common seeds give a chance of `power` that the interval of a paired difference leaves out zero.

    mean, deviation: of the differences. None where more than 1000 would be needed, or nothing is known.
    """
    if not (isfinite(mean) and isfinite(deviation)) or mean == 0:
        return None
    counts, quantiles = planned(confidence, power)
    enough = np.flatnonzero(counts >= (quantiles * deviation / mean) ** 2)
    return int(counts[enough[0]]) if len(enough) else None


@cache
def planned(confidence: float, power: float) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of seeds that are looked at, and for each the sum of the t quantiles of confidence and of power."""
    counts = np.arange(2, SEEDS_AT_MOST + 1)
    return counts, stdtrit(counts - 1, (1 + confidence) / 2) + stdtrit(counts - 1, power)


def seeds_more(found: Interval, tests: int = 1) -> int | None:
    """How many seeds more would likely separate two that are not separated; None where that cannot be told.

    tests: of those corrected together, how many are still open, so that each has only its share of the level.
    It takes the mean and spread seen so far for the true ones; that is a guide to planning, no promise.
    """
    if found.n < 2:
        return None
    deviation = found.half * sqrt(found.n) / float(stdtrit(found.n - 1, (1 + CONFIDENCE) / 2))
    needed = seeds_needed(found.mean, deviation, 1 - (1 - CONFIDENCE) / tests)
    return None if needed is None else max(needed - found.n, 1)


def finite(values: Values) -> np.ndarray:
    """Floats of shape [n]; a value that is no number is a hole that the caller should have left out."""
    array = np.asarray(values, dtype=np.float64)
    if array.size and not np.isfinite(array).all():
        raise ValueError(
            f"a mean was asked of {array.size} values of which some are not finite; leave those out first."
        )
    return array
