"""What may be said of a claim from its evidence: the rules, as pure functions of intervals."""

from collections.abc import Sequence
from math import isfinite
from typing import Literal

from attnbench.reports.stats import Interval

Verdict = Literal["agrees", "differs", "cannot tell", "not run"]
VERDICTS: tuple[Verdict, ...] = ("agrees", "differs", "cannot tell", "not run")
LEVEL = 0.05
NARROW = 0.25  # of the published number: an interval whose half is wider agrees with nothing


def of_direction(gain: Interval, p_holm: float) -> Verdict:
    """Of a difference that is positive where the claim says so: agrees above zero, differs below.

    p_holm: of the difference, corrected over all directions in the ledger.
    """
    if gain.n == 0:
        return "not run"
    if not (gain.separates and p_holm < LEVEL):
        return "cannot tell"
    return "agrees" if gain.mean > 0 else "differs"


def of_ratio(gain: Interval, p_holm: float, ours: Interval, claimed: float, *, same: bool) -> Verdict:
    """Of a factor: its direction first; then its size, which can refute only where the setting is the same.

    gain: log of the ratio, positive on the claimed side of 1. ours: the ratio itself.
    """
    found = of_direction(gain, p_holm)
    if found != "agrees" or ours.low <= claimed <= ours.high:
        return found
    return "differs" if same else "cannot tell"


def of_value(ours: Interval, published: float, rounding: float, *, same: bool) -> Verdict:
    """Of a number; one from another setting decides nothing.

    rounding: half of the last digit that was printed. It agrees if it lies in the interval of our mean, and that is
    narrow; it differs if one more training of ours would lie as far off at most one time in twenty, for the published
    number may be of a single training.
    """
    if ours.n == 0:
        return "not run"
    if not same or not isfinite(ours.half):
        return "cannot tell"
    miss = max(abs(published - ours.mean) - rounding, 0.0)
    if miss and not ours.half:
        return "cannot tell"  # seeds that agree to the last digit do not say how far another would lie off
    if miss > ours.half * (ours.n + 1) ** 0.5:
        return "differs"
    return "agrees" if miss <= ours.half <= NARROW * abs(published) else "cannot tell"


def of_place(found: Sequence[Verdict]) -> Verdict:
    """Of all pairs of one place, which the claim asserts together: one that differs refutes it, all must agree."""
    if all(verdict == "not run" for verdict in found):
        return "not run"
    if "differs" in found:
        return "differs"
    return "agrees" if all(verdict == "agrees" for verdict in found) else "cannot tell"


def of_places(found: Sequence[Verdict]) -> Verdict:
    """Of several places: those that cannot tell have no vote, and where two contradict each other nothing is known."""
    agrees, differs = "agrees" in found, "differs" in found
    if agrees != differs:
        return "agrees" if agrees else "differs"
    return "cannot tell" if agrees or "cannot tell" in found else "not run"


def tally(found: Sequence[Verdict]) -> str:
    """Such as `agrees in 1 of 3 places`; empty for a single place."""
    if len(found) < 2:
        return ""
    told = [f"{verdict} in {count}" for verdict in VERDICTS if (count := list(found).count(verdict))]
    return f"{', '.join(told)} of {len(found)} places"
