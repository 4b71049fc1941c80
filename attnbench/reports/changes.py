"""What became of one number between two sets of results, and the verdict on it."""

from dataclasses import dataclass
from math import isfinite, nan
from typing import Literal

from attnbench.reports.columns import described
from attnbench.reports.effects import Row
from attnbench.reports.stats import CONFIDENCE, Difference, paired, t_interval

FACTOR = 1.1  # from which a time or a memory has changed
COUNTS = ("params", "matmul_flops", "fft_flops", "bytes")
Verdict = Literal["better", "worse", "changed", "within noise", "cannot tell"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of one measure of one variant.

    before, after: means over the common seeds. change: after less before, paired. p: Holm-corrected.
    same: whether all values are equal to the last digit.
    """

    setting: str
    variant: str
    measure: str
    before: float
    after: float
    change: Difference
    p: float
    same: bool

    @property
    def verdict(self) -> Verdict:
        """What the seeds can say of it."""
        if self.same:
            return "within noise"
        if not isfinite(self.p):
            return "cannot tell"
        if self.p >= 1 - CONFIDENCE or not self.change.separates:
            return "within noise"
        up = described(self.measure).better == "higher"
        return "better" if (self.change.mean > 0) == up else "worse"


@dataclass(frozen=True, kw_only=True)
class Price:
    """What became of one cost of one variant: medians, their ratio, how it was judged, and the verdict."""

    setting: str
    variant: str
    cost: str
    before: float
    after: float
    by: str
    verdict: Verdict
    p: float = nan

    @property
    def ratio(self) -> float:
        return self.after / self.before if self.before else nan


def changed(of: tuple[str, str, str], old: dict[int, float], new: dict[int, float]) -> Change:
    setting, variant, measure = of
    return Change(
        setting=setting,
        variant=variant,
        measure=measure,
        before=t_interval(list(old.values())).mean,
        after=t_interval(list(new.values())).mean,
        change=paired(old, new),
        p=nan,
        same=old == new,
    )


def both(new: Row, old: Row, name: str) -> bool:
    """Whether both rows tell this cost."""
    return new.get(f"cost.{name}") is not None and old.get(f"cost.{name}") is not None


def side_of(after: float, before: float) -> Verdict:
    """Less is better, from the factor on."""
    if after > FACTOR * before:
        return "worse"
    return "better" if before > FACTOR * after else "within noise"


def weighed(of: tuple[str, str], rows: tuple[Row, Row]) -> Price:
    """A memory, which changes from the factor on, or a count, which has no noise."""
    (setting, name), (new, old) = of, rows
    after, before = float(new[f"cost.{name}"]), float(old[f"cost.{name}"])
    exact = name in COUNTS
    verdict: Verdict = ("changed" if after != before else "within noise") if exact else side_of(after, before)
    by = "exact" if exact else "factor"
    return Price(
        setting=setting, variant=str(new["variant"]), cost=name, before=before, after=after, by=by, verdict=verdict
    )
