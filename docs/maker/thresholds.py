"""The numbers on which a timing is judged, from the code that judges."""

from attnbench import measure
from attnbench.reports import changes, fronts, overall, ranking, stats, transfer
from maker.markdown import table


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def timing() -> str:
    """A table of what a timed step must have, and when a timing is noisy."""
    lines = [
        ("warm-up, at least", f"{measure.WARM_STEPS} steps and {measure.WARM_S:g} s"),
        ("warm-up ends when", f"the last three steps agree within {percent(measure.CALM)}"),
        ("warm-up, at most", f"{measure.WARM_CAP_S:g} s"),
        ("measured steps, at least", f"{measure.REPEATS} steps and {measure.REPEAT_S:g} s"),
        (
            "measuring ends when",
            f"the median's 95 % interval reaches at most {percent(measure.CALM)} to each side",
        ),
        ("measuring, at most", f"{measure.REPEAT_CAP_S:g} s"),
        ("a timing is `noisy` when", "fewer steps were made or the median is not known so well"),
        ("a cost row is `noisy` when", f"that, or other processes used over {percent(measure.BUSY)} of the cores"),
    ]
    return table(["what", "value"], lines)


def statistics() -> str:
    """A table of the numbers behind the tables' verdicts."""
    lines = [
        ("level of intervals and tests", percent(stats.CONFIDENCE)),
        ("chance at which seeds still needed are counted", percent(stats.POWER)),
        ("seeds above which none are named", f"{stats.SEEDS_AT_MOST:,}"),
        ("groups above which no letters are given", str(ranking.GROUPS)),
        ("resamples of every bootstrap", f"{overall.RESAMPLES:,}"),
        ("common seeds that a front takes", str(fronts.SEEDS_AT_LEAST)),
        ("common seeds that a statement over tasks takes", str(overall.SEEDS_AT_LEAST)),
        ("variants that a statement on transfer takes", str(transfer.VARIANTS_AT_LEAST)),
        ("factor from which a time or a memory has changed, in a comparison", f"{changes.FACTOR:g}"),
    ]
    return table(["what", "value"], lines)
