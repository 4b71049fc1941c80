"""One line per variant: means over seeds with intervals, paired differences, costs, and what became of failed cells."""

from dataclasses import dataclass, field, replace
from math import inf, isfinite, nan
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from attnbench.reports.bounded import change_of, mean_of
from attnbench.reports.columns import described, measured, worth
from attnbench.reports.effects import Rows, varying
from attnbench.reports.fronts import FRONTS, chances, cost_side
from attnbench.reports.ranking import UNRANKED, Ranking, adjusted, differences
from attnbench.reports.ranking import rank as standings
from attnbench.reports.references import references
from attnbench.reports.rows import counted, records
from attnbench.reports.solved import WAY, Rate, rate, threshold
from attnbench.reports.stats import CONFIDENCE, Difference, Interval, paired, seeds_more

COSTS = (
    *("cost.params", "cost.params_trained", "cost.params_pretrained", "cost.matmul_flops", "cost.fft_flops"),
    *("cost.train_samples_per_s", "cost.infer_samples_per_s"),
    *("cost.memory_train_mib", "cost.memory_infer_mib"),
)
REFERENCE = "full"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A variant's price in one unit: the median, and quartiles where the measurement has them (nan elsewhere)."""

    median: float
    q25: float = nan
    q75: float = nan


@dataclass(frozen=True, kw_only=True)
class Line:
    """One variant in one setting.

    group: its mechanism, or its model where that is a whole model without a mechanism inside.
    asked, ok: numbers of its training cells; values: the first measure by seed, of those that are ok.
    spread: smallest and largest of the values. others: intervals of the further measures.
    change: paired to the reference over common seeds, None for the reference itself and where no seed is common.
    more: seeds that would likely separate the two, None if separated or unknown. p_holm: of the change, corrected.
    diverged, missing: number of trainings that did, or are. solved: seeds that did, None where that is not asked.
    trouble: what became of cells that are not ok, in words with counts; empty if all are.
    cost_status: of its cost cell. timing: `noisy`, `shared` (the node was not its own), both or nothing.
    """

    variant: str
    group: str
    asked: int
    ok: int
    values: dict[int, float]
    error: Interval
    spread: tuple[float, float]
    others: dict[str, Interval]
    costs: dict[str, Cost]
    cost_status: str
    timing: str
    trouble: str
    change: Difference | None = None
    p_holm: float = nan
    more: int | None = None
    diverged: int = 0
    missing: int = 0
    solved: Rate | None = None

    @property
    def separated(self) -> bool:
        """Whether it differs from the reference beyond the spread of seeds, after Holm's correction."""
        return self.change is not None and self.change.separates and self.p_holm < 0.05

    @property
    def selected(self) -> bool:
        """Whether some of its trainings ended without a number, so that its values are those of a selection."""
        return 0 < len(self.values) < self.asked - self.missing


@dataclass(frozen=True, kw_only=True)
class Table:
    """All variants in one setting, such as one task at one size; `reference` is a variant's name, None without any.

    candidates: number of variants of which the reference is the best, so that the data chose it.
    levels: for each measure, what its numbers are read against, such as the level of chance.
    solved_from: the score past which a seed has solved the task, None where seeds do not succeed or fail.
    ranking: what can be said of the order of the lines.
    fronts: for each cost, the chance of each variant to be on the front of it and the measure; empty if unknown.
    """

    setting: str
    measure: str
    lines: tuple[Line, ...]
    reference: str | None
    levels: dict[str, dict[str, float]] = field(default_factory=dict)
    solved_from: float | None = None
    ranking: Ranking = UNRANKED
    fronts: dict[str, dict[str, float]] = field(default_factory=dict)
    candidates: int = 1


def tables(frame: pd.DataFrame, way: float = WAY) -> list[Table]:
    """One table per task and whatever of its knobs varies, each with a line for every variant that was asked.

    Groups are ordered by their best variant, variants within a group by error; those without a number come last.
    way: the share of the way from chance to 1, past which a seed has solved a task.
    """
    trained = [row for row in records(frame) if row["kind"] == "train"]
    found = []
    for settings, setting, rows in apart(trained):
        like = [row for row in trained if row["task"] == rows[0]["task"]]
        first, *further = measured(like, frame.columns)
        lines = [line(str(variant), own, first, further) for (variant,), own in split(rows, ["variant"])]
        name = ", ".join(named(column, value) for column, value in zip(settings, setting, strict=True))
        reference = reference_of(lines, first)
        levels = {one: references(one, rows) for one in (first, *further)}
        past = threshold(first, levels[first], way)
        found.append(
            Table(
                setting=name,
                measure=first,
                lines=tuple(counted_solved(one, past) for one in compared(ranked(lines, first), reference, first)),
                reference=reference,
                levels=levels,
                solved_from=past,
                ranking=standing(lines, first),
                fronts={name: on_front(lines, first, name) for name in FRONTS},
                candidates=len(candidates(lines)),
            )
        )
    return found


def apart(trained: Rows) -> list[tuple[list[str], tuple[Any, ...], Rows]]:
    """The rows by task and by whatever of its knobs varies within it: names of columns, their values, the rows."""
    found = []
    for _, own in split(trained, ["task"]):
        settings = ["task", *varying(own, ("task.", "dtype", "device"))]
        found += [(settings, setting, rows) for setting, rows in split(own, settings)]
    return found


def split(rows: Rows, names: list[str]) -> list[tuple[tuple[Any, ...], Rows]]:
    """The rows by their values in some columns, in an order that depends on the values alone."""
    places: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # of values in the order, for there are fewer than rows
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        values = tuple([row[name] for name in names])
        if values not in places:
            places[values] = tuple(map(number_first, values))
        groups.setdefault(places[values], []).append(row)
    return [(tuple(groups[place][0][name] for name in names), groups[place]) for place in sorted(groups)]


def number_first(value: Any) -> tuple[str, float, str]:
    """Sorts numbers by size, words after them, nothing last."""
    if isinstance(value, int | float):
        return "0", float(value), ""
    return ("2", 0.0, "") if value is None else ("1", 0.0, str(value))


def named(column: str, value: Any) -> str:
    if value is None:
        return "task not yet known" if column == "task" else f"{column.rpartition('.')[2]} by default"
    return str(value) if column == "task" else f"{column.rpartition('.')[2]} {value}"


def line(variant: str, rows: Rows, measure: str, further: list[str]) -> Line:
    """One variant's rows, one per seed, as a line without its comparison."""
    ok = [row for row in rows if row["status"] == "ok"]
    values = by_seed(ok, measure)
    return Line(
        variant=variant,
        group=str(rows[0]["mechanism"] or rows[0]["model"]),
        asked=len(rows),
        ok=len(ok),
        values=values,
        error=mean_of(measure, list(values.values())),
        spread=(min(values.values(), default=nan), max(values.values(), default=nan)),
        others={name: mean_of(name, list(by_seed(ok, name).values())) for name in further},
        diverged=sum(row["status"] == "diverged" for row in rows),
        missing=sum(row["status"] == "missing" for row in rows),
        costs={name: cost(rows, name) for name in COSTS},
        cost_status=", ".join(words_in(rows, "cost.status")) or "not asked",
        timing=", ".join(word for word in ("noisy", "shared") if "True" in words_in(rows, f"cost.{word}")),
        trouble=trouble(rows, [row.get(measure) for row in ok], len(values)),
    )


def by_seed(rows: Rows, measure: str) -> dict[int, float]:
    """The finite values of a measure by seed, in order."""
    found = {row["seed"]: float(row[measure]) for row in rows if row.get(measure) is not None}
    return {seed: found[seed] for seed in sorted(found) if isfinite(found[seed])}


def cost(rows: Rows, name: str) -> Cost:
    """The median over a variant's rows, which share one measurement unless it is the training's own."""

    def middle(column: str) -> float:
        values = [float(row[column]) for row in rows if row.get(column) is not None]
        return median(values) if values else nan

    return Cost(median=middle(name), q25=middle(f"{name}_q25"), q75=middle(f"{name}_q75"))


def trouble(rows: Rows, measured: list[Any], used: int) -> str:
    """Such as `2 oom, 1 missing; cost oom`; nothing if every cell is ok and every number is used."""
    finite = sum(value is not None and isfinite(value) for value in measured)
    numberless, repeated = len(measured) - finite, finite - used
    words = [f"{count} {status}" for status, count in counted(row["status"] for row in rows) if status != "ok"]
    words += [f"{numberless} without a number"] if numberless else []
    words += [f"{repeated} of a seed that is there already"] if repeated else []
    prices = [f"cost {status}" for status in words_in(rows, "cost.status") if status != "ok"]
    return "; ".join(filter(None, (", ".join(words), *prices)))


def words_in(rows: Rows, name: str) -> list[str]:
    """The different values of a column that may be absent, as sorted words."""
    return sorted({str(row[name]) for row in rows if row.get(name) is not None})


def reference_of(lines: list[Line], measure: str) -> str | None:
    """The variant that others are compared with: the best of its candidates."""
    pool = candidates(lines)
    return min(pool, key=lambda line: rank(line, measure)).variant if pool else None


def candidates(lines: list[Line]) -> list[Line]:
    """Of `full`, or of all variants where there is none, those with most results: a lucky survivor is no reference."""
    measured = [line for line in lines if line.values]
    pool = [line for line in measured if line.group == REFERENCE] or measured
    most = max((len(line.values) for line in pool), default=0)
    return [line for line in pool if len(line.values) == most]


def rank(line: Line, measure: str) -> tuple[float, str]:
    """Sorts the better before the worse, and those without a number last."""
    return (worth(measure, line.error.mean) if line.values else inf), line.variant


def ranked(lines: list[Line], measure: str) -> list[Line]:
    best: dict[str, tuple[float, str]] = {}
    for own in lines:
        best[own.group] = min(best.get(own.group, (inf, own.group)), (rank(own, measure)[0], own.group))
    return sorted(lines, key=lambda line: (best[line.group], rank(line, measure)))


def standing(lines: list[Line], measure: str) -> Ranking:
    """What the seeds can say of the order; a variant that lacks results is not called best."""
    values = {line.variant: line.values for line in lines}
    whole = [line.variant for line in lines if len(line.values) == line.asked]
    return standings(values, described(measure).better or "lower", whole)


def on_front(lines: list[Line], measure: str, name: str) -> dict[str, float]:
    """The chance of each variant to be on the front of the measure and a cost."""
    prices = {line.variant: (line.costs[name].median, line.costs[name].q25, line.costs[name].q75) for line in lines}
    values = {line.variant: line.values for line in lines}
    return chances(values, prices, worse=round(worth(measure, 1.0)), dear=cost_side(name))


def counted_solved(line: Line, past: float | None) -> Line:
    return line if past is None else replace(line, solved=rate(line.values.values(), line.diverged, past))


def compared(lines: list[Line], reference: str | None, measure: str) -> tuple[Line, ...]:
    """The lines with their paired differences to the reference, Holm-corrected over the table."""
    base = next((line.values for line in lines if line.variant == reference), {})
    changes = [paired(base, line.values) if line.variant != reference else None for line in lines]
    changes = [change if change and change.n else None for change in changes]
    ps, open_ = corrected([change.p if change else nan for change in changes], lines, reference)
    full = [replace(line, change=change, p_holm=p) for line, change, p in zip(lines, changes, ps, strict=True)]
    told = (
        replace(line, more=seeds_more(line.change, open_)) if line.change and not line.separated else line
        for line in full
    )
    return tuple(replace(line, change=change_of(measure, line.change)) if line.change else line for line in told)


def corrected(ps: list[float], lines: list[Line], reference: str | None) -> tuple[list[float], int]:
    """Holm over the changes, and how many of the tests stay open, at least 1.

    Where the reference was chosen as the best of several, the family is all pairs with any of these: the best of many
    that are alike looks better than the others, and a correction over its own pairs alone would believe that.
    """
    others = {line.variant for line in candidates(lines)} - {reference}
    values = {line.variant: line.values for line in lines if line.values and line.variant != reference}
    names, rest = list(values), np.empty(0)
    if others:
        _, all_ps = differences(names, values)
        first, second = np.triu_indices(len(names), 1)
        chosen = np.array([name in others for name in names])
        rest = all_ps[first, second][chosen[first] | chosen[second]]
    family = adjusted(np.concatenate([ps, rest]))
    return family[: len(ps)].tolist(), max(int((family >= 1 - CONFIDENCE).sum()), 1)
