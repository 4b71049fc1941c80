"""The reference of a row's columns, from what tables and figures know of them."""

from attnbench.reports.columns import COLUMNS, PLACES, Column
from maker.markdown import table

GROUPS = {
    "result.": "What came out",
    "cost.": "What it cost",
    "raw.": "Curves that a training leaves",
    "": "Others",
}


def group(name: str) -> str:
    return next(start for start in GROUPS if name.startswith(start))


def line(name: str, column: Column) -> tuple[str, ...]:
    told = f"{column.label}; along: {PLACES[name].axis}" if name in PLACES else column.label
    side = f"{column.better} is better" if column.better else ""
    shown = "tables, rows and figures" if column.better and not column.detail else "rows and figures"
    return f"`{name}`", told, column.unit, side, shown if name.startswith("result.") else ""


def reference() -> str:
    """A table for each group of columns."""
    found = []
    for start, title in GROUPS.items():
        lines = [line(name, column) for name, column in COLUMNS.items() if group(name) == start]
        if lines:
            found.append(f"### {title}\n\n{table(['column', 'what it is', 'unit', 'side', 'shown in'], lines)}")
    return "\n".join(found)
