"""What the seeds can rank and what they cannot: rank intervals, groups that cannot be told apart, and the best, if any.

Every two variants are compared by a paired t test over the seeds that both have, and each test is corrected by Holm
over all that either of the two takes part in. A variant's rank then lies between one more than the number of those
significantly better and the number of all less those significantly worse. Such an interval holds the rank, or all ranks
that a tie spans, in 95 % of cases for each variant (Mogstad, Romano, Shaikh, Wilhelm, "Inference for Ranks", Review of
Economic Studies 2024, https://doi.org/10.1093/restud/rdad006: their marginal sets, here from t tests, for a bootstrap
of three seeds holds less than it says). That is so for each by itself: of 15 that are alike, some two would be told
apart in a quarter of tables. Nothing is ranked unless two differ after correction over all pairs or one is ahead of
all others. The best is significantly best if its interval is 1 alone. Variants with a letter in common cannot be
told apart (Piepho, "An Algorithm for a Letter-Based Representation of All-Pairwise Comparisons", JCGS 2004).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from string import ascii_lowercase

import numpy as np
from scipy.special import stdtr

from attnbench.reports.stats import CONFIDENCE, ROUNDING, paired, seeds_more

NOTHING = "–"  # noqa: RUF001  an en dash: no such number
HEAD = ("rank", "group")
RANKS = (
    "Rank: the ranks that a variant may have, from paired t tests with all others, Holm-corrected over those of each; "
    "a mean is bold if it is significantly best. Those of each variant hold in 95 of 100 tables, not all together. "
)
LETTERS = "Variants with a letter in common cannot be told apart. "
GROUPS = 12  # above which letters tell a reader nothing
LETTERED, HOPELESS = 100, 500  # variants, and groups on the way, above which they are not looked for
NAMED = 6  # variants that a sentence names
Values = Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What can be said of some variants' order.

    order: by mean, for reading. ranks: of each the least and the largest it may have.
    letters: of each, a letter for every group it is in; empty where there are too many groups to read.
    best: the one that is significantly best, None if none is. tied: those of which the first cannot be told apart.
    compared: number of pairs with two seeds in common. apart: of those that can be told apart.
    more: common seeds that would likely tell the first from the next of which it cannot, as `stats.seeds_more` guesses.
    absent: number of variants without any result, of which nothing is said.
    """

    order: tuple[str, ...]
    ranks: Mapping[str, tuple[int, int]]
    letters: Mapping[str, str]
    best: str | None
    tied: tuple[str, ...]
    compared: int
    apart: int
    more: int | None = None
    absent: int = 0

    @property
    def ranks_anything(self) -> bool:
        """Whether any two can be told apart."""
        return self.apart > 0

    def fields(self, variant: str) -> list[str]:
        """A variant's rank, such as `2 – 4`, and its letters; no fields where nothing is ranked."""  # noqa: RUF002
        if not self.ranks_anything:
            return []
        low, high = self.ranks.get(variant, (0, 0))
        shown = str(low) if low == high else f"{low} – {high}"  # noqa: RUF001
        letters = [self.letters.get(variant, NOTHING)] if self.letters else []
        return [shown if low else NOTHING, *letters]

    @property
    def head(self) -> list[str]:
        """What `fields` are called."""
        return list(HEAD[: 1 + bool(self.letters)]) if self.ranks_anything else []

    @property
    def told(self) -> str:
        """What a caption says of it, with a blank at the end; empty for less than two variants."""
        explained = [RANKS, LETTERS if self.letters else ""] if self.ranks_anything else []
        return "".join([*explained, f"{self.sentence} " if self.sentence else ""])

    @property
    def sentence(self) -> str:
        """What the data rank, or that they rank nothing, and why."""
        if len(self.order) < 2:
            return ""
        if not self.apart:
            alike = f"of these {len(self.order)} variants can be told apart"
            alike += " when all pairs are corrected together" if len(self.order) > 2 else ""
            why = alike if self.compared else "variants have two seeds in common"
            return f"Nothing is ranked: no two {why}{self.wait}."
        if self.best:
            return f"{self.best} is significantly best{self.of}."
        if self.ranks[self.order[0]][0] > 1:
            return f"None is called best: {self.order[0]}, which has the best mean, is behind over common seeds."
        if not self.tied:
            return f"None is called best: {self.order[0]}, ahead of all others, lacks results that were asked."
        more = f" and {len(self.tied) - NAMED} more" if len(self.tied) > NAMED else ""
        return (
            f"None is significantly best: {self.order[0]}, which has the best mean, cannot be told apart from "
            f"{'; '.join(self.tied[:NAMED])}{more}{self.wait}."
        )

    @property
    def of(self) -> str:
        """Among whom the best is best, where some have no result."""
        return f" of the {len(self.order)} with results" if self.absent else ""

    @property
    def wait(self) -> str:
        """How many seeds more would likely tell the first two that tie apart; empty if that is not known."""
        if not self.more:
            return ""
        seeds = f"{self.more} common seed{'' if self.more == 1 else 's'} more"
        return f"; {seeds} would likely tell {self.order[0]} from {self.tied[0]}, if mean and spread stay as they are"


UNRANKED = Ranking(order=(), ranks={}, letters={}, best=None, tied=(), compared=0, apart=0)


def rank(values: Mapping[str, Values], better: str, whole: Sequence[str] | None = None) -> Ranking:
    """Ranks variants by a measure as far as their seeds can.

    values: of each variant, its measure by seed; those without any are left out. better: `lower` or `higher`.
    whole: those that have all results that were asked and may be called best; all if not given.
    Raises ValueError for another word than these two.
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"better is lower or higher; got {better!r}.")
    sign = 1 if better == "lower" else -1
    scored = {name: {seed: sign * one for seed, one in own.items()} for name, own in values.items() if own}
    order = sorted(scored, key=lambda name: (sum(scored[name].values()) / len(scored[name]), name))
    ahead, compared = verdicts(order, scored)
    behind, before = ahead.sum(axis=0), ahead.sum(axis=1)
    ranks = {name: (1 + int(behind[i]), len(order) - int(before[i])) for i, name in enumerate(order)}
    first = order[0] if order else None
    tied = tuple(other for i, other in enumerate(order[1:], 1) if not (ahead[0, i] or ahead[i, 0]))
    alone = first is not None and len(order) > 1 and ranks[first] == (1, 1)
    return Ranking(
        order=tuple(order),
        ranks=ranks,
        letters=letters(order, ahead),
        best=first if alone and (whole is None or first in whole) else None,
        tied=tied,
        compared=compared,
        apart=int(ahead.sum()),
        more=seeds_more(paired(scored[order[0]], scored[tied[0]]), still_open(ahead, order.index(tied[0])))
        if tied
        else None,
        absent=len(values) - len(order),
    )


def still_open(ahead: np.ndarray, other: int) -> int:
    """How many tests are open that are corrected with that of the first and another, in the larger family."""
    known = (ahead | ahead.T).sum(axis=1)
    return len(ahead) - 1 - int(min(known[0], known[other]))


def verdicts(order: Sequence[str], scored: Mapping[str, Values]) -> tuple[np.ndarray, int]:
    """Which are significantly ahead of which, less being better, [variants, variants], and how many pairs compared."""
    means, ps = differences(order, scored)
    corrected = np.array([adjusted(own) for own in ps]).reshape(ps.shape)
    apart = np.fmax(corrected, corrected.T) < 1 - CONFIDENCE
    ahead = apart & (means > 0)
    if not (anything(ps) or (len(order) > 1 and ahead.all(axis=1, where=~np.eye(len(order), dtype=bool)).any())):
        ahead[:] = False
    return ahead, int(np.isfinite(ps).sum()) // 2


def anything(ps: np.ndarray) -> bool:
    """Whether any two differ after correction over all pairs."""
    return bool((adjusted(ps[np.triu_indices(len(ps), 1)]) < 1 - CONFIDENCE).any())


def differences(order: Sequence[str], scored: Mapping[str, Values]) -> tuple[np.ndarray, np.ndarray]:
    """Means of all paired differences and their p as `stats.paired` has them, [variants, variants]; nan without two."""
    seeds = sorted({seed for name in order for seed in scored[name]})
    values = np.array([[scored[name].get(seed, nan) for seed in seeds] for name in order]).reshape(
        len(order), len(seeds)
    )
    means, ps = (np.full((len(order), len(order)), nan) for _ in range(2))
    for i, own in enumerate(values):
        away = values - own  # of every other from this one
        n = np.isfinite(away).sum(axis=1)
        rows = np.flatnonzero((n > 1) & (np.arange(len(order)) != i))
        if not len(rows):
            continue
        means[i, rows] = np.nanmean(away[rows], axis=1)
        error = np.nanstd(away[rows], axis=1, ddof=1) / np.sqrt(n[rows])
        exact = error <= ROUNDING * np.abs(means[i, rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            ps[i, rows] = 2 * stdtr(n[rows] - 1, -np.abs(means[i, rows]) / error)
        for j in map(int, rows[exact]):
            ps[i, j] = paired(scored[order[i]], scored[order[j]]).p
    return means, ps


def adjusted(ps: np.ndarray) -> np.ndarray:
    """`stats.holm` of many."""
    family = np.flatnonzero(np.isfinite(ps))
    family = family[np.argsort(ps[family], kind="stable")]
    found = np.full(len(ps), nan)
    found[family] = np.minimum(np.maximum.accumulate(ps[family] * np.arange(len(family), 0, -1)), 1)
    return found


def letters(order: Sequence[str], ahead: np.ndarray) -> dict[str, str]:
    """Of each variant its letters; two share one if and only if they cannot be told apart. None for over 12 groups.

    Starts from one group of all, parts every group at each pair that can be told apart, and drops what another holds.
    """
    groups: list[frozenset[int]] = [frozenset(range(len(order)))]
    for pair in np.argwhere(ahead | ahead.T if len(order) <= LETTERED else np.zeros((0, 2))).tolist():
        parts = [group - {one} for group in groups if group.issuperset(pair) for one in pair]
        groups = [group for group in groups if not group.issuperset(pair)]
        for part in parts:
            if not any(part <= group for group in groups):
                groups = [group for group in groups if not group <= part] + [part]
        if len(groups) > HOPELESS:
            break
    if len(groups) > GROUPS or len(order) > LETTERED:
        return {}
    ordered = sorted(groups, key=sorted)
    return {
        name: "".join(word for word, group in zip(ascii_lowercase, ordered, strict=False) if i in group)
        for i, name in enumerate(order)
    }
