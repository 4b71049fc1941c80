"""What is said over several tasks, as pages: how variants do over all, and whether ranks in one predict another's."""

from collections.abc import Sequence
from dataclasses import dataclass

from attnbench.reports.cautions import selection
from attnbench.reports.overall import CHANCE, PAST, SEEDS_AT_LEAST, Overall, overall, several
from attnbench.reports.sheets import NOTHING, Sheet, around
from attnbench.reports.stats import Interval
from attnbench.reports.summary import Table
from attnbench.reports.transfer import transfer_sheet, transfers


@dataclass(frozen=True)
class Across:
    """Pages, sentences on what cannot be said, and the numbers for a figure; all empty for a single task."""

    pages: tuple[Sheet, ...]
    notes: tuple[str, ...]
    overall: Overall | None


def across(tables: Sequence[Table]) -> Across:
    """What can be said over the tasks of these tables."""
    seeds = max((len(line.values) for table in tables for line in table.lines), default=0)
    if several(tables) and seeds < SEEDS_AT_LEAST:
        told = (
            f"Nothing is said over tasks, neither means nor whether ranks transfer: that takes {SEEDS_AT_LEAST} seeds"
        )
        return Across((), (f"{told}, and no variant has more than {seeds}.",), None)
    whole, left_out = overall(tables)
    found, untold = transfers(tables)
    pages = [*([overall_sheet(whole)] if whole else []), *([transfer_sheet(found)] if found else [])]
    lost = selection([line for table in tables for line in table.lines]) if pages else ""
    seeds_said = [f"Over tasks only the seeds count that all variants there have.{lost}"] if lost else []
    return Across(tuple(pages), (*left_out, *untold, *seeds_said), whole)


def overall_sheet(whole: Overall) -> Sheet:
    """A line for each variant that all tasks have, the largest mean first."""
    order = sorted(whole.mean, key=lambda name: (-whole.mean[name].mean, name))
    rows = [
        [
            *(name, around(whole.mean[name])),
            share(whole.better[name]) if name in whole.better else "reference",
            *(share(one) for one in whole.past[name]),
        ]
        for name in order
    ]
    scales = "; ".join(f"{task.setting}: {task.control or CHANCE}" for task in whole.tasks)
    dropped = f" Not in all tasks, and left out: {', '.join(whole.dropped)}." if whole.dropped else ""
    few = " Intervals of three seeds are too narrow: they hold the true value in about 91 of 100, in 80 where a seed "
    few = f"{few}succeeds or fails." * (whole.seeds < 5)
    return Sheet(
        title=f"Over {len(whole.tasks)} tasks",
        caption=f"Scores of {whole.seeds} seeds in each task, so that {whole.full} is 1 and 0 is ({scales}); errors in "
        "logarithms. Interquartile mean: without the lowest and the highest quarter of all runs. Better: the "
        f"probability that a run beats one of {whole.full} in the same task, mean over tasks. Then the share of runs "
        "that reach a score. 95 % intervals from a bootstrap over seeds within tasks; nothing here is corrected for "
        "the number of variants, and an interval without width says that all runs agree, not that all others would."
        f"{few}{dropped}",
        head=[
            "variant",
            "interquartile mean",
            f"better than {whole.full}",
            *(f"runs from {level:g}" for level in PAST),
        ],
        rows=rows,
    )


def share(found: Interval) -> str:
    """A share with its interval, such as 0.50 [0.17, 0.83]."""
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]" if found.n else NOTHING
