"""Axes of the page's figures: words, range and whether they are logarithmic, by the rules of the printed figures."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

from attnbench.reports.canvas import limits
from attnbench.reports.columns import described
from attnbench.reports.page.pack import rounded


def axis(column: str, numbers: Sequence[float], bounds: Iterable[float] = (), *, log_from: float = 6) -> dict[str, Any]:
    """An axis for these numbers of a column; `cut` says whether bounds go on beyond it.

    log_from: the factor between the smallest and the largest number from which the axis is logarithmic, as
        `canvas.scale` has it: never for a score of which more is better.
    """
    words = described(column)
    log = words.better != "higher" and spans(numbers, log_from)
    return {"label": words.axis, "column": column, **ranged(numbers, bounds, log=log)}


def ranged(numbers: Sequence[float], bounds: Iterable[float] = (), *, log: bool) -> dict[str, Any]:
    """The range of an axis by `canvas.limits`; 0 to 1 without any numbers."""
    finite = [one for one in numbers if isfinite(one) and (one > 0 or not log)]
    if not finite:
        return {"log": False, "low": 0, "high": 1, "cut": ""}
    positive = [one for one in bounds if isfinite(one) and (one > 0 or not log)]
    low, high, cut = limits(finite, positive, log=log)
    return {"log": log, "low": rounded(low), "high": rounded(high), "cut": cut}


def spans(numbers: Sequence[float], factor: float) -> bool:
    """Whether numbers are positive and lie apart by this factor."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) >= factor
