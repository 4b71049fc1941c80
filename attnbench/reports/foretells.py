"""Does the distance from full attention foretell the loss on a task? The atlas set against trainings.

Variants are those that a report has both in the atlas and trained, with the same knobs. Their distance is the mean
error of outputs over seeds at the site nearest in size to what the trained model has, their loss the mean of the task's
first measure. Spearman's rho counts only orders: +1 says that the nearer always has the smaller loss. Its interval is
from a bootstrap over variants, since it is variants, not seeds, for which one wants to foretell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, log, nan
from typing import Any

import numpy as np

from attnbench.reports.atlas import Spot
from attnbench.reports.columns import described, worth
from attnbench.reports.sheets import Sheet
from attnbench.reports.stats import Interval
from attnbench.reports.summary import Table

VARIANTS_AT_LEAST = 8  # with fewer a bootstrap over variants means little
RESAMPLES, SEED = 4000, 0


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """One task's losses and one input's distances, of the variants that have both.

    points: mechanism, variant, distance, loss. rho: of their ranks, with bounds of nan where there are too few.
    left_out: variants whose distance means nothing, for they do not share all of full attention's weights.
    """

    setting: str
    measure: str
    input: str
    place: str
    points: tuple[tuple[str, str, float, float], ...]
    rho: Interval
    left_out: tuple[str, ...]

    @property
    def enough(self) -> bool:
        return len(self.points) >= VARIANTS_AT_LEAST

    @property
    def sentence(self) -> str:
        """What can be said, n named."""
        what = f"{self.setting} and the distance on {self.input} inputs at {self.place} tokens"
        count = len(self.points)
        if not self.enough:
            return (
                f"Whether the distance foretells the loss is not said of {what}: {count} variants have both, and "
                f"{VARIANTS_AT_LEAST} are needed."
            )
        if isnan(self.rho.mean):
            return f"{what}: nothing is said, for the {count} variants all tie in one of the two."
        rho = f"Spearman's rho {self.rho.mean:+.2f} [{self.rho.low:+.2f}, {self.rho.high:+.2f}], n = {count} variants"
        if self.rho.low > 0:
            return f"{what}: the nearer to full attention, the smaller the loss ({rho})."
        if self.rho.high < 0:
            return f"{what}: the nearer to full attention, the larger the loss ({rho})."
        return f"{what}: whether the distance foretells the loss cannot be told ({rho})."


def pairings(tables: Sequence[Table], spots: Sequence[Spot], rows: Sequence[dict[str, Any]]) -> list[Pairing]:
    """Every task's table with every kind of input. rows: those of the trainings, with their knobs."""
    found = []
    trained = {row["variant"]: row for row in rows if row["kind"] == "train"} if spots else {}
    for table in tables if spots else ():
        for label in dict.fromkeys(one.input for one in spots):
            here = [one for one in spots if one.input == label and one.numbers.get("output_error")]
            made = pairing(table, here, trained, label)
            found += [made] if made else []
    return found


def pairing(table: Table, spots: Sequence[Spot], trained: dict[str, dict[str, Any]], label: str) -> Pairing | None:
    """None where nothing is both trained and in the atlas."""
    losses = {line.variant: line.error.mean for line in table.lines if line.error.n}
    wanted = {knobs(trained[name]): name for name in losses}
    both = [(one, wanted[key]) for one in spots if (key := knobs(one.first)) in wanted]
    both = [(one, name) for one, name in both if one.mechanism != "full"]
    if not both:
        return None
    place = nearest([one for one, _ in both], trained[both[0][1]])
    here = [(one, name) for one, name in both if one.place == place]
    points = tuple(
        (one.mechanism, one.variant, one.mean("output_error").mean, losses[name])
        for one, name in here
        if one.comparable
    )
    ends = [worth(table.measure, loss) for *_, loss in points]
    return Pairing(
        setting=table.setting,
        measure=table.measure,
        input=label,
        place=place,
        points=points,
        rho=correlation([distance for _, _, distance, _ in points], ends),
        left_out=tuple(sorted({one.variant for one, _ in here if not one.comparable})),
    )


def knobs(row: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two rows one variant of a mechanism; idle knobs have no say."""
    idle = str(row.get("idle") or "").split()
    own = {name: value for name, value in row.items() if name.startswith("mechanism.") and value is not None}
    said = {name: value for name, value in own.items() if name.partition(".")[2] not in idle}
    return row["mechanism"], *sorted((name, str(value)) for name, value in said.items())


def nearest(spots: Sequence[Spot], row: dict[str, Any]) -> str:
    """The place whose tokens are as many as the trained model's, or nearly; the largest where that is not known."""
    side = row.get("task.side")
    tokens = (side / (row.get("model.patch") or 1)) ** 2 if side else max(one.tokens for one in spots)
    return min(spots, key=lambda one: (abs(log(one.tokens / tokens)), one.place)).place


def correlation(one: Sequence[float], other: Sequence[float]) -> Interval:
    """Spearman's rho with a 95 % bootstrap interval over the pairs; bounds are nan with fewer than 8."""
    if len(one) < 2:
        return Interval(nan, nan, nan, len(one))
    pairs = np.array([one, other], dtype=float)
    rho = float(ranked(pairs[:, None])[0])
    if len(one) < VARIANTS_AT_LEAST or isnan(rho):
        return Interval(rho, nan, nan, len(one))
    drawn = np.random.default_rng(SEED).integers(len(one), size=(RESAMPLES, len(one)))
    found = ranked(pairs[:, drawn])
    low, high = np.nanquantile(found, [0.025, 0.975])
    return Interval(rho, float(low), float(high), len(one))


def ranked(pairs: np.ndarray) -> np.ndarray:
    """Spearman's rho of pairs [2, resamples, n]; nan where all of one side tie."""
    from scipy.stats import rankdata  # here, for it takes seconds to import

    x, y = (rank - rank.mean(-1, keepdims=True) for rank in rankdata(pairs, axis=-1))
    size = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.divide((x * y).sum(-1), size, out=np.full(len(size), np.nan), where=size > 0)


def told(one: Pairing) -> str:
    if not one.enough:
        return "too few variants"
    return (
        f"{one.rho.mean:+.2f} [{one.rho.low:+.2f}, {one.rho.high:+.2f}]" if one.rho.mean == one.rho.mean else "all tie"
    )


def sheet(found: Sequence[Pairing]) -> Sheet:
    """A line for each task and input."""
    rows = [
        [
            *(one.setting, described(one.measure).label, f"{one.input}, {one.place}", str(len(one.points))),
            told(one),
            ", ".join(one.left_out) or "–",  # noqa: RUF001
        ]
        for one in found
    ]
    return Sheet(
        title="Does the distance from full attention foretell the loss?",
        caption="Spearman's rho between the error of outputs in the atlas and the loss after training, over variants "
        "that have both with the same knobs, full attention itself left out; +1: the nearer, the better. 95 % interval "
        f"from a bootstrap over variants; with fewer than {VARIANTS_AT_LEAST} nothing is said. Left out are variants "
        "that do not share all of full attention's projections.",
        head=["task", "measure", "inputs of the atlas", "variants", "rho", "left out"],
        rows=rows,
    )
