"""Sentences under a table on what its numbers do not say: chosen references, intervals of nothing, survivors' means."""

from collections.abc import Sequence

from attnbench.reports.ranking import NAMED
from attnbench.reports.summary import Line, Table


def paired_to(table: Table) -> str:
    """What the differences of a table are, and when they are bold; empty for one variant, which has none."""
    if len(table.lines) < 2:
        return ""
    chosen, family = "", "this table"
    if table.candidates > 1:  # the data chose it, which the correction must know
        chosen = f", the best of {table.candidates} that it might have been,"
        family = f"all pairs with one of these {table.candidates}"
    return (
        f"The difference is paired to {table.reference or 'a reference'}{chosen} over the seeds that both have (n). It "
        f"is bold if it differs from zero after Holm's correction over {family}; otherwise the next column counts the "
        "common seeds more that would separate the two with a chance of 80 %, at the level that the correction leaves "
        "while as many are open, if mean and spread stay as they are."
    )


def cautions(table: Table) -> str:
    """With a blank in front: what intervals without width say, and whose numbers are those of survivors."""
    flat = any(line.error.n > 1 and line.error.low == line.error.high for line in table.lines)
    told = " An interval without width says that these seeds agree, not that another would." if flat else ""
    lost = selection(table.lines)
    return told + lost + (" Their differences are never bold." if lost else "")


def selection(lines: Sequence[Line]) -> str:
    """With a blank in front, whose numbers are those of the trainings alone that ended well; empty if nobody's are."""
    names = list(dict.fromkeys(line.variant for line in lines if line.selected))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    told = f" Of {'; '.join(names[:NAMED])}{more} some trainings gave no number: what is said is of their others alone."
    return told if names else ""
