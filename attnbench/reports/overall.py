"""Variants over several tasks: interquartile means, performance profiles and the probability to beat full attention.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021,
https://arxiv.org/abs/2108.13264 (rliable). In every task a score is put between two anchors: 0 is the level of chance
or, where none is known, the control `identity`, and 1 is `full`; errors count in logarithms. A task in which full is
not significantly above its zero gives no scale and is left out.

Intervals are from a bootstrap over seeds, in each task by itself, the same seeds for all variants, the anchors drawn
along. Few seeds make a bootstrap too narrow; its percentiles are widened as Hesterberg, "What Teachers Should Know
about the Bootstrap", 2015, section 5.3 (https://arxiv.org/abs/1411.5279), by a t quantile with (seeds - 1) for every
task. A simulation in the tests finds the true mean in 91 % of them at 3 seeds, and in 95 % at 5 and 10.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from scipy.special import ndtr, stdtrit

from attnbench.reports.columns import described
from attnbench.reports.stats import CONFIDENCE, Interval, t_interval
from attnbench.reports.summary import REFERENCE, Line, Table

CONTROL, CHANCE = "identity", "chance"
RESAMPLES, SEED = 2000, 0
SEEDS_AT_LEAST = 3
PAST = (0.25, 0.5, 0.75, 1.0)  # of normalised scores, in the table
DRAWN = 30  # variants in the figure, the first of the first task's table
GRID = np.linspace(-0.25, 1.5, 71)  # of normalised scores, in the figure
Lines = dict[str, Line]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task's scale. lines: its variants by their names without the task. full, zero: names of the anchors.

    level: the score that counts as 0 where it is chance, as larger is better, else None.
    """

    setting: str
    measure: str
    lines: Lines
    full: str
    control: str | None
    level: float | None

    def score(self, value: float) -> float:
        """A value as larger is better, errors in logarithms."""
        return value if described(self.measure).better == "higher" else -log(value)


@dataclass(frozen=True, kw_only=True)
class Overall:
    """What can be said of variants over tasks.

    mean: interquartile mean of normalised scores. better: probability that a run of it beats one of full (none for
    full). profile: of GRID, the share of runs with a larger score, with its bounds, [3, len(GRID)]; of
    the first 30.
    past: the same at PAST. seeds: how many all have in common. dropped: variants that some task lacks.
    """

    tasks: tuple[Task, ...]
    seeds: int
    mean: dict[str, Interval]
    better: dict[str, Interval]
    past: dict[str, list[Interval]]
    profile: dict[str, np.ndarray]
    dropped: tuple[str, ...]
    full: str


def several(tables: Sequence[Table]) -> bool:
    """Whether tables are of more than one task."""
    return len({table.setting.partition(",")[0] for table in tables}) > 1


def overall(tables: Sequence[Table]) -> tuple[Overall | None, list[str]]:
    """The variants over all tasks that have a scale, and sentences on what is left out or cannot be said."""
    if not several(tables):
        return None, []
    found = [scaled(table) for table in tables]
    tasks = tuple(one for one in found if isinstance(one, Task))
    told = [one for one in found if isinstance(one, str)]
    tasks, names, seeds, without = comparable(tasks)
    told += without
    fulls = {task.full for task in tasks} & set(names)
    if why := refusal(tasks, names, seeds, fulls):
        return None, [*told, f"Nothing is said over tasks: {why}."]
    made = resampled(tasks, names, seeds, min(fulls))
    everyone = dict.fromkeys(name for task in tasks for name in task.lines)
    dropped = tuple(name for name in everyone if name not in names)
    return Overall(tasks=tasks, seeds=len(seeds), dropped=dropped, full=min(fulls), **made), told


def comparable(tasks: tuple[Task, ...]) -> tuple[tuple[Task, ...], list[str], list[int], list[str]]:
    """The tasks, the variants and the seeds that all of them have, and sentences on tasks that these seeds turn over.

    A task can have a scale over all its seeds and none over those that the variants of all tasks have in common.
    """
    names = [name for name in (tasks[0].lines if tasks else ()) if all(name in task.lines for task in tasks)]
    seeds = common(tasks, names)
    once = np.arange(len(seeds))[None]
    turned = [task for task in tasks if seeds and np.isnan(scale(task, seeds, once)[1]).any()]
    if not turned:
        return tasks, names, seeds, []
    told = [
        f"{task.setting} is left out over tasks: in the {len(seeds)} seeds that all variants have in common "
        f"{task.full} is not better than {task.control or CHANCE}."
        for task in turned
    ]
    left, names, seeds, further = comparable(tuple(task for task in tasks if task not in turned))
    return left, names, seeds, [*told, *further]


def refusal(tasks: Sequence[Task], names: Sequence[str], seeds: Sequence[int], fulls: set[str]) -> str:
    """Why nothing can be said over these tasks; empty if it can."""
    if len(tasks) < 2:
        return f"{len(tasks)} of them {'has' if len(tasks) == 1 else 'have'} a scale, and two are needed"
    if len(fulls) != 1 or len(names) < 2:
        return "no two variants, the same full attention among them, have results in all of them"
    if len(seeds) < SEEDS_AT_LEAST:
        held = f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'}"
        return f"their variants have {held} in common, and {SEEDS_AT_LEAST} are needed"
    return ""


def scaled(table: Table) -> Task | str:
    """A table as a task with a scale, or a sentence on why it has none."""
    lines = {plain(line.variant, table.setting): line for line in table.lines if line.values}
    full = next((name for name, line in lines.items() if line.variant == table.reference), None)
    if full is None or lines[full].group != REFERENCE:
        return f"{table.setting} is left out over tasks: it has no result of {REFERENCE}."
    if (
        described(table.measure).better != "higher"
        and min(v for own in lines.values() for v in own.values.values()) <= 0
    ):
        return f"{table.setting} is left out over tasks: an error of 0 has no logarithm."
    controls = [name for name, line in lines.items() if line.group == CONTROL]
    level = table.levels.get(table.measure, {}).get(CHANCE)
    if level is None and not controls:
        return f"{table.setting} is left out over tasks: neither chance nor {CONTROL} says where its scale begins."
    task = Task(
        setting=table.setting,
        measure=table.measure,
        lines=lines,
        full=full,
        control=controls[0] if level is None else None,
        level=level,
    )
    gap = span(task)
    if not gap.low > 0:  # nor with one seed, which has no interval
        zero = task.control or CHANCE
        few = " with one seed" if gap.n < 2 else ""
        return f"{table.setting} is left out over tasks: {full} is not significantly better than {zero}{few}."
    return task


def span(task: Task) -> Interval:
    """How far full is above zero."""
    ones = task.lines[task.full].values
    if task.level is not None:
        return t_interval([task.score(one) - task.score(task.level) for one in ones.values()])
    zeros = task.lines[str(task.control)].values
    return t_interval([task.score(ones[s]) - task.score(zeros[s]) for s in sorted(ones.keys() & zeros.keys())])


def plain(variant: str, setting: str) -> str:
    """A variant's name without the part that names the task."""
    task = setting.partition(",")[0]
    return " · ".join(part for part in variant.split(" · ") if part.split(" ")[0] != task) or variant


def common(tasks: Sequence[Task], names: Sequence[str]) -> list[int]:
    """The seeds that all these variants, and the controls, have in all tasks."""
    held = [set(task.lines[name].values) for task in tasks for name in (*names, *filter(None, [task.control]))]
    return sorted(set.intersection(*held)) if held else []


def resampled(tasks: Sequence[Task], names: list[str], seeds: list[int], full: str) -> dict:
    """Everything that is said of each variant, from normalised scores and their resamples over seeds."""
    drawn = np.random.default_rng(SEED).integers(len(seeds), size=(RESAMPLES, len(tasks), len(seeds)))
    drawn[0] = np.arange(len(seeds))  # the first is no resample but the seeds themselves
    zero, gap = np.stack([scale(task, seeds, drawn[:, t]) for t, task in enumerate(tasks)], axis=-1)
    kept = np.isfinite(gap).all(axis=1)  # without resamples in which a scale has turned over
    zero, gap, drawn = zero[kept, :, None], gap[kept, :, None], drawn[kept]
    few = {"seeds": len(seeds), "degrees": len(tasks) * (len(seeds) - 1)}
    times, each = occurrences(drawn), np.arange(len(tasks))[:, None]
    found: dict[str, dict] = {"mean": {}, "better": {}, "past": {}, "profile": {}}
    base = (scores(tasks, full, seeds) - zero[0]) / gap[0]
    for i, name in enumerate(names):
        own = scores(tasks, name, seeds)
        runs = np.sort(((own[each, drawn] - zero) / gap).reshape(len(drawn), -1))
        found["mean"][name] = around(middle(runs), **few)
        if name != full:
            found["better"][name] = around(ahead((own - zero[0]) / gap[0], base, times), **few)
        found["past"][name] = [around(np.count_nonzero(runs >= level, axis=1) / runs.shape[1], **few) for level in PAST]
        if i < DRAWN:
            shares = above(runs, GRID)
            found["profile"][name] = np.stack([shares[0], *np.quantile(shares, tails(**few), axis=0)])
    return found


def scores(tasks: Sequence[Task], name: str, seeds: Sequence[int]) -> np.ndarray:
    """A variant's scores before they are normalised, [tasks, seeds]."""
    return np.array([[task.score(task.lines[name].values[seed]) for seed in seeds] for task in tasks])


def scale(task: Task, seeds: Sequence[int], drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zero of a task's scale and the way from there to one, [resamples]; no number where full fell to zero or below."""
    one = scores([task], task.full, seeds)[0][drawn].mean(axis=1)
    if task.level is not None:
        zero = np.full(len(drawn), task.score(task.level))
    else:
        zero = scores([task], str(task.control), seeds)[0][drawn].mean(axis=1)
    return zero, np.where(one > zero, one - zero, np.nan)


def middle(runs: np.ndarray) -> np.ndarray:
    """Interquartile mean over the last axis, whose values rise: the mean without the lowest and the highest quarter."""
    outside = runs.shape[-1] // 4
    return runs[..., outside : runs.shape[-1] - outside].mean(axis=-1)


def occurrences(drawn: np.ndarray) -> np.ndarray:
    """How often each seed is in each resample: [resamples, tasks, seeds] to [tasks, seeds, resamples]."""
    seeds = np.arange(drawn.shape[2])[:, None]
    return (drawn.transpose(1, 2, 0)[:, None] == seeds[..., None]).sum(axis=2, dtype=float)


def ahead(own: np.ndarray, base: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Probability that a run of the first beats one of the second, ties half, mean over tasks, for each resample.

    Without products of matrices, whose threads would take the cores from figures that are being drawn.
    own, base: scores [tasks, seeds], on a scale that all resamples keep the order of. times: as from `occurrences`.
    Returns [resamples].
    """
    total = np.zeros(times.shape[2])
    for mine, others, often in zip(own, base, times, strict=True):
        order = np.argsort(others)
        reached = np.zeros((len(others) + 1, len(total)))  # of how many runs of the others the lowest are
        np.cumsum(often[order], axis=0, out=reached[1:])
        below, level = (np.searchsorted(others[order], mine, side=side) for side in ("left", "right"))
        total += ((reached[below] + reached[level]) * often).sum(axis=0) / 2
    return total / len(own) / own.shape[1] ** 2


def above(runs: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Share of runs [resamples, runs] that are above each of some rising levels, [resamples, levels].

    The runs may be in any order; where they rise they are found three times as fast.
    """
    below = np.searchsorted(levels, runs, side="left")  # how many levels a run is above
    places = below + (len(levels) + 1) * np.arange(len(runs))[:, None]
    counts = np.bincount(places.ravel(), minlength=len(runs) * (len(levels) + 1)).reshape(len(runs), -1)
    return 1 - np.cumsum(counts, axis=1)[:, :-1] / runs.shape[1]


def around(values: np.ndarray, seeds: int, degrees: int, confidence: float = CONFIDENCE) -> Interval:
    """The first value, and the interval of all, widened for few seeds."""
    low, high = np.quantile(values, tails(seeds, degrees, confidence))
    return Interval(float(values[0]), float(low), float(high), seeds)


def tails(seeds: int, degrees: int, confidence: float = CONFIDENCE) -> list[float]:
    """Which two quantiles of resamples bound an interval."""
    tail = float(ndtr(-sqrt(seeds / (seeds - 1)) * stdtrit(degrees, (1 + confidence) / 2)))
    return [tail, 1 - tail]
