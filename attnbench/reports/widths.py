"""The table of widths of a sweep that makes its variants equally large or costly: what was solved, what was reached."""

import pandas as pd

from attnbench.reports.rows import records
from attnbench.reports.sheets import NOTHING, Sheet
from attnbench.reports.summary import apart, named, split

PREFIX = "equal."
STEP = "training step later [ms]"
COUNTED = (
    "The width that was solved for each variant, and its {what} over those of the variant that is the target. Whole "
    "models are left as they are."
)
MEASURED = (
    "The width that was solved for each variant, and the time of its training step over that of the variant that is "
    "the target, both measured in turn in one process before the sweep; the records in `widths/` say when, where and "
    "with what quartiles. Beside it the step as it was measured later for each variant alone: median and quartiles. "
    "Whole models are left as they are."
)


def widths_sheets(frame: pd.DataFrame) -> list[Sheet]:
    """A sheet for each setting with a line for each variant; none where nothing was made equal."""
    ratios = [str(name) for name in frame.columns if str(name).startswith(PREFIX)]
    rows = [row for row in records(frame) if row["kind"] == "train"]
    return [sheet(rows, ratio) for ratio in ratios if rows]


def sheet(trained: list[dict], ratio: str) -> Sheet:
    what = ratio.removeprefix(PREFIX).removesuffix("_ratio")
    timed, lines = what == "latency", []
    for settings, setting, rows in apart(trained):
        title = ", ".join(named(column, value) for column, value in zip(settings, setting, strict=True))
        for (variant,), own in split(rows, ["variant"]):
            first = own[0]
            columns = [name for name in (first.get("settled") or "").split() if name.startswith("model.")]
            width = ", ".join(f"{name.partition('.')[2]} {first[name]}" for name in columns) or NOTHING
            share = first.get(ratio)
            told = [title, str(variant), width, NOTHING if share is None else f"{share:.3f}"]
            lines.append([*told, step(first)] if timed else told)
    return Sheet(
        title=f"Equal {what}",
        caption=MEASURED if timed else COUNTED.format(what=what),
        head=["setting", "variant", "solved width", f"share of the target's {what}", *([STEP] if timed else [])],
        rows=lines,
    )


def step(row: dict) -> str:
    """Median and quartiles of a training step in the cell that measured what the variant costs."""
    median, q25, q75 = (row.get(f"cost.train_step_ms{end}") for end in ("", "_q25", "_q75"))
    return NOTHING if median is None else f"{median:.3g} ({q25:.3g} – {q75:.3g})"  # noqa: RUF001 - an en dash
