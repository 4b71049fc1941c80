"""Do ranks in one task predict ranks in another? Kendall's tau between every two tasks, with two intervals.

Tau (Kendall, "A New Measure of Rank Correlation", Biometrika 1938; here tau-b) counts pairs of variants that both tasks
order alike against those that they order oppositely. Its interval is from a bootstrap over seeds, in each task by
itself, the same seeds for all variants; where variants nearly tie, noise draws it towards 0. Beside it stands what
needs no bootstrap: how many pairs are told apart in both tasks (as in `ranking`) and are ordered alike or oppositely,
and how many are not: if the former are right, tau lies between the two ways to fill in the latter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from attnbench.reports.columns import worth
from attnbench.reports.overall import RESAMPLES, SEED, SEEDS_AT_LEAST, around, plain, several
from attnbench.reports.ranking import Values, verdicts
from attnbench.reports.sheets import NOTHING, Sheet
from attnbench.reports.sheets import around as shown
from attnbench.reports.stats import Interval
from attnbench.reports.summary import Table

VARIANTS_AT_LEAST = 3


@dataclass(frozen=True)
class Known:
    """What was found of a setting with some variants, for every pair of tasks asks for it again.

    ahead: which variants are significantly ahead of which. means: over resampled seeds, see `resampled`.
    """

    ahead: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict)
    means: dict[tuple[str | int, ...], np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Two tasks, the variants that both have, and what their orders have in common.

    alike, opposite, open: pairs that are told apart in both tasks and ordered so; those that are not.
    """

    first: str
    second: str
    variants: int
    seeds: tuple[int, int]
    tau: Interval
    alike: int
    opposite: int
    open: int

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest tau that the pairs told apart leave."""
        pairs = self.alike + self.opposite + self.open
        return (self.alike - self.opposite - self.open) / pairs, (self.alike - self.opposite + self.open) / pairs


def transfers(tables: Sequence[Table]) -> tuple[list[Transfer], list[str]]:
    """Every two tables of different tasks, and a sentence on those of which nothing can be said."""
    if not several(tables):
        return [], []
    found, few = [], []
    known = Known()
    for one, other in combinations(tables, 2):
        if one.setting.partition(",")[0] == other.setting.partition(",")[0]:
            continue
        made = between(one, other, known)
        if made:
            found.append(made)
        else:
            few.append(f"{one.setting} and {other.setting}")
    told = f"Whether ranks transfer is not said of {'; '.join(few[:3])}" if few else ""
    told += f" and {len(few) - 3} more pairs of tasks" if len(few) > 3 else ""
    needed = f"that takes {VARIANTS_AT_LEAST} variants with {SEEDS_AT_LEAST} seeds in common in each."
    return found, [f"{told}: {needed}"] if few else []


def between(one: Table, other: Table, known: Known | None = None) -> Transfer | None:
    """What the orders of two tasks have in common; None with too few variants or seeds. known: of earlier pairs."""
    known = known or Known()
    values = [losses(table) for table in (one, other)]
    names = sorted(values[0].keys() & values[1].keys())
    seeds = [sorted(set.intersection(*(set(own[name]) for name in names))) for own in values] if names else [[], []]
    if len(names) < VARIANTS_AT_LEAST or min(map(len, seeds)) < SEEDS_AT_LEAST:
        return None
    means = []
    for table, own, held, before in zip((one, other), values, seeds, (0, len(seeds[0])), strict=True):
        if (key := (table.setting, before, *names)) not in known.means:
            known.means[key] = resampled(own, names, held, before)
        means.append(known.means[key])
    least = min(map(len, seeds))
    alike, opposite = counted(names, dict(zip((one.setting, other.setting), values, strict=True)), known)
    pairs = len(names) * (len(names) - 1) // 2
    return Transfer(
        first=one.setting,
        second=other.setting,
        variants=len(names),
        seeds=(len(seeds[0]), len(seeds[1])),
        tau=around(tau(means[0], means[1]), least, 2 * (least - 1)),
        alike=alike,
        opposite=opposite,
        open=pairs - alike - opposite,
    )


def losses(table: Table) -> dict[str, Values]:
    """Of each variant with results, its measure by seed, less being better."""
    return {
        plain(line.variant, table.setting): {seed: worth(table.measure, one) for seed, one in line.values.items()}
        for line in table.lines
        if line.values
    }


def resampled(values: dict[str, Values], names: list[str], seeds: list[int], before: int) -> np.ndarray:
    """Means of variants over resampled seeds, [resamples, variants]; the first row is over the seeds themselves.

    before: how many seeds the task has with which this one makes a pair as the second, so that it draws other ones.
    """
    own = np.array([[values[name][seed] for seed in seeds] for name in names])
    chance = np.random.default_rng(SEED)
    if before:
        chance.integers(before, size=(RESAMPLES, before))
    drawn = chance.integers(len(seeds), size=(RESAMPLES, len(seeds)))
    drawn[0] = np.arange(len(seeds))
    return own[:, drawn].mean(axis=2).T


def tau(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of variants, [resamples, variants] to [resamples]; 0 where all values of one tie."""
    pairs = [signs(means) for means in (one, other)]
    counts = [np.count_nonzero(own, axis=0) for own in pairs]
    scale = np.sqrt(counts[0] * counts[1])
    return (pairs[0] * pairs[1]).sum(axis=0, dtype=np.int32) / np.where(scale > 0, scale, 1)


def signs(means: np.ndarray) -> np.ndarray:
    """Of every two variants 1 where the first is larger, -1 where the second is, 0 where they tie.

    means: [resamples, variants]. Returns [pairs, resamples], in bytes, for there can be a million pairs.
    """
    own = np.ascontiguousarray(means.T)
    made = [(own[i] > own[i + 1 :]).astype(np.int8) - (own[i] < own[i + 1 :]) for i in range(len(own) - 1)]
    return np.concatenate(made)


def counted(names: list[str], values: Mapping[str, dict[str, Values]], known: Known) -> tuple[int, int]:
    """Pairs that are told apart in both and ordered alike, and oppositely; values: of both settings."""
    for setting, own in values.items():
        if (setting, *names) not in known.ahead:
            known.ahead[setting, *names] = verdicts(names, own)[0]
    first, second = (known.ahead[setting, *names] for setting in values)
    return int((first & second).sum()), int((first & second.T).sum())


def transfer_sheet(found: Sequence[Transfer]) -> Sheet:
    """A line for every two tasks."""
    rows = [
        [
            *(f"{one.first} → {one.second}", str(one.variants), " and ".join(map(str, one.seeds))),
            *(shown(one.tau, sign="+"), str(one.alike), str(one.opposite), str(one.open)),
            f"{one.bounds[0]:+.2f} … {one.bounds[1]:+.2f}" if one.open else NOTHING,
        ]
        for one in found
    ]
    labels = ["Kendall's tau", "pairs alike", "opposite", "not told apart", "tau by these pairs"]
    return Sheet(
        title="Do ranks transfer between tasks?",
        caption="Kendall's tau between the orders of all variants that two tasks have in common, controls too, each by "
        "the first measure of its task, with a 95 % interval from a bootstrap over seeds. Pairs of variants that are "
        "told apart in both tasks are ordered alike or oppositely; the last column says between which values tau lies "
        "if those are right, whatever the order of the others is. Where variants nearly tie, noise draws tau and its "
        "interval towards 0, so that they can miss the tau of the true means; the last column does not.",
        head=["tasks", "variants", "seeds", *labels],
        rows=rows,
    )
