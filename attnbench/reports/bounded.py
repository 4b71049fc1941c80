"""Intervals that stay where their measure can lie: a share between 0 and 1, an error not below 0.

The interval is Student's, cut off at the bounds. Cutting loses nothing: a true mean never lies beyond them, so the
cut interval holds it exactly as often as the whole one. That is what it says where seeds scatter around their mean
(95 % of the time at 3, 5 and 10 seeds) and too seldom where a seed succeeds or fails: with four of five succeeding, 48,
66 and 88 %, for three alike seeds say nothing of the fourth. No other interval of a mean is safe there with so few
(intervals that hold for every score in [0, 1], such as those of Phan et al., ICML 2021, https://arxiv.org/abs/2106.03163,
span most of [0, 1] at three seeds even where all agree to a hundredth), so tables of such tasks count the seeds that
solved them as well (`solved`).
"""

from dataclasses import replace
from math import inf
from typing import TypeVar

from attnbench.reports.columns import COLUMNS
from attnbench.reports.stats import Interval, Values, t_interval

SHARES = tuple(f"result.{name}" for name in ("accuracy", "top5", "miou", "agreement", "valid_accuracy"))
UNBOUNDED = ("result.above_floor",)  # a finite sample may be easier than its source
Kind = TypeVar("Kind", bound=Interval)


def bounds(measure: str) -> tuple[float, float]:
    """Between which values a column can lie; infinite where that is not known."""
    if measure in SHARES:
        return 0.0, 1.0
    known = measure in COLUMNS and measure not in UNBOUNDED
    return (0.0 if known and COLUMNS[measure].better == "lower" else -inf), inf


def mean_of(measure: str, values: Values) -> Interval:
    """`t_interval` of a measure's values, cut off at its bounds. Raises ValueError for values not finite."""
    return cut(t_interval(values), *bounds(measure))


def change_of(measure: str, found: Kind) -> Kind:
    """The interval of a difference cut off at the largest that there can be; p and n stay."""
    low, high = bounds(measure)
    return cut(found, low - high, high - low)


def cut(found: Kind, low: float, high: float) -> Kind:
    """The same with bounds inside [low, high], but never on the wrong side of the mean; nan stays nan."""
    if found.n < 2:
        return found
    return replace(found, low=min(max(found.low, low), found.mean), high=max(min(found.high, high), found.mean))
