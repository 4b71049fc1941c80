"""The table of widths of a sweep that makes its variants equally large or costly: what was solved, what was reached."""

import pandas as pd

from attnbench.reports.rows import records
from attnbench.reports.sheets import NOTHING, Sheet
from attnbench.reports.summary import apart, named, split

PREFIX = "equal."


def widths_sheets(frame: pd.DataFrame) -> list[Sheet]:
    """A sheet for each setting with a line for each variant; none where nothing was made equal."""
    ratios = [str(name) for name in frame.columns if str(name).startswith(PREFIX)]
    rows = [row for row in records(frame) if row["kind"] == "train"]
    return [sheet(rows, ratio) for ratio in ratios if rows]


def sheet(trained: list[dict], ratio: str) -> Sheet:
    what = ratio.removeprefix(PREFIX).removesuffix("_ratio")
    lines = []
    for settings, setting, rows in apart(trained):
        title = ", ".join(named(column, value) for column, value in zip(settings, setting, strict=True))
        for (variant,), own in split(rows, ["variant"]):
            first = own[0]
            columns = [name for name in (first.get("settled") or "").split() if name.startswith("model.")]
            width = ", ".join(f"{name.partition('.')[2]} {first[name]}" for name in columns) or NOTHING
            share = first.get(ratio)
            lines.append([title, str(variant), width, NOTHING if share is None else f"{share:.3f}"])
    return Sheet(
        title=f"Equal {what}",
        caption=f"The width that was solved for each variant, and its {what} over those of the variant that is the "
        "target. Whole models are left as they are.",
        head=["setting", "variant", "solved width", f"share of the target's {what}"],
        rows=lines,
    )
