"""Sets tables of a sweep as sheets of text, and sheets as Markdown or LaTeX; the same numbers give the same bytes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import Any

import pandas as pd

from attnbench.reports.cautions import cautions, paired_to, selection
from attnbench.reports.columns import described
from attnbench.reports.fronts import CAPTION, FRONTS, UNKNOWN, share
from attnbench.reports.letters import in_line, in_markdown, tex
from attnbench.reports.solved import SOLVED
from attnbench.reports.stats import Interval
from attnbench.reports.summary import Cost, Line, Table

NOTHING = "–"  # noqa: RUF001  an en dash: no such number


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of text. A field between two pairs of stars is bold; `starts` are the rows that open a group."""

    title: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    starts: frozenset[int] = frozenset()


def error_sheet(table: Table) -> Sheet:
    """Every variant's error with interval, and its paired difference to the reference."""
    first, further = described(table.measure), list(table.lines[0].others)
    against = table.reference or "a reference"
    past = [] if table.solved_from is None else [f"solved: past {table.solved_from:.3g}"]
    head = ["variant", "seeds", first.label, "min – max", *table.ranking.head, *past]  # noqa: RUF001
    rows = [
        [
            *(line.variant, seeds(line), mean(table, line), extremes(line), *table.ranking.fields(line.variant)),
            *([line.solved.text] if line.solved else []),
            *(around(line.others[name]) for name in further),
            *(change(line, table.reference), more(line), line.trouble or NOTHING),
        ]
        for line in table.lines
    ]
    levels = level_rows(table, further)
    return Sheet(
        title=f"{table.setting}: {'score' if first.better == 'higher' else 'error'}",
        caption=(
            "Mean over seeds with 95 % t interval, cut off at what the measure can be; seeds are those with a "
            f"result of those asked. {SOLVED if past else ''}{table.ranking.told}{paired_to(table)}{cautions(table)}"
        ).strip(),
        head=[*head, *(described(name).label for name in further), f"difference to {against}", "seeds more", "not ok"],
        rows=[*rows, *levels],
        starts=starts(table) | ({len(rows)} if levels else set()),
    )


def level_rows(table: Table, further: Sequence[str]) -> list[list[str]]:
    """A row for each level that the numbers are read against, in parentheses, for it is no variant."""

    def shown(name: str, word: str) -> str:
        found = table.levels.get(name, {}).get(word)
        return NOTHING if found is None else f"{found:#.4g}"

    words = dict.fromkeys(word for levels in table.levels.values() for word in levels)
    found = [(word, [shown(name, word) for name in (table.measure, *further)]) for word in words]
    middle = [NOTHING] * (1 + len(table.ranking.head) + (table.solved_from is not None))
    return [[f"({word})", NOTHING, first, *middle, *others, *[NOTHING] * 3] for word, (first, *others) in found]


def cost_sheet(table: Table) -> Sheet:
    """Every variant's weights, work, speed, memory and time; which weights are trained only where some are not."""
    partly = [name for name in ("cost.params_trained", "cost.params_pretrained") if tells(table, name)]
    head = [
        "variant",
        "parameters",
        *(f"of these {described(name).label.partition(' ')[2]}" for name in partly),
        "forward, per sample [FLOP]",
        "its FFTs [FLOP]",
        "training [samples/s]",
        "inference [samples/s]",
    ]
    known = {name: own for name, own in table.fronts.items() if own}
    head += ["peak, training [MiB]", "peak, inference [MiB]", *(f"front, {FRONTS[name]}" for name in known), "timing"]
    counts = ("cost.params", *partly, "cost.matmul_flops", "cost.fft_flops")
    speeds = ("cost.train_samples_per_s", "cost.infer_samples_per_s")
    rows = [
        [
            *(line.variant, *(priced(line, name, whole) for name in counts)),
            *(priced(line, name, quartiles) for name in speeds),
            *(priced(line, f"cost.memory_{phase}_mib", short) for phase in ("train", "infer")),
            *(share(own, line.variant) for own in known.values()),
            line.timing or NOTHING,
        ]
        for line in table.lines
    ]
    return Sheet(
        title=f"{table.setting}: cost",
        caption="Measured once per variant. Throughput: median and quartiles of repeated steps; a noisy one did not "
        "settle and is no ground for a comparison. FLOP counts the matrix products of a forward pass, and its Fourier "
        f"transforms apart. {CAPTION if known else UNKNOWN}".rstrip()
        + (selection(table.lines) if known else ""),
        head=head,
        rows=rows,
        starts=starts(table),
    )


def tells(table: Table, name: str) -> bool:
    """Whether a count of weights says more than that all are trained and none was pretrained."""
    found = [(line.costs[name].median, line.costs["cost.params"].median) for line in table.lines]
    usual = {"cost.params_trained": 1, "cost.params_pretrained": 0}[name]
    return any(isfinite(own) and own != usual * params for own, params in found)


def effects_sheet(effects: pd.DataFrame, measure: str) -> Sheet:
    """What each step of a knob changes, all else equal."""
    extra = [name for name in effects.columns if name.startswith(("task.", "model.")) or name in ("dtype", "device")]
    rows = [
        [
            *(str(row[name]) for name in ("task", "model", *extra, "mechanism", "knob")),
            f"{row['before']} → {row['after']}",
            *(changed(row), percent(row), paired_cells(row), str(row["n_seeds"]), small(row["p_holm"])),
        ]
        for row in effects.to_dict("records")
    ]
    head = ["task", "model", *extra, "mechanism", "knob", "step", f"change in {described(measure).label}", "change [%]"]
    owners = [row[: head.index("knob")] for row in rows]
    return Sheet(
        title="What a knob changes",
        caption="Mean paired difference between cells that differ in this knob alone, seed included: averaged within a "
        "seed, then over seeds, with 95 % t interval. Bold if it differs from zero after Holm's correction over this "
        "table. Knobs joined by `and` change together in this sweep; where a knob is idle it is not compared.",
        head=[*head, "pairs", "seeds", "p (Holm)"],
        rows=rows,
        starts=frozenset(i for i in range(1, len(rows)) if owners[i] != owners[i - 1]),
    )


def starts(table: Table) -> frozenset[int]:
    groups = [line.group for line in table.lines]
    return frozenset(i for i in range(1, len(groups)) if groups[i] != groups[i - 1])


def seeds(line: Line) -> str:
    """Numbers in the mean, of cells asked."""
    return f"{len(line.values)} / {line.asked}"


def around(interval: Interval, *, sign: str = "") -> str:
    """Such as 0.0386 [0.0353, 0.0418]; two digits of the interval's half decide how many are shown."""
    if interval.n == 0:
        return NOTHING
    if interval.n == 1:
        return f"{interval.mean:{sign}#.4g}"
    places = decimals(interval.half, interval.mean)
    mean, low, high = (f"{value:{sign}.{places}f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def plus_minus(interval: Interval | None, *, sign: str = "") -> str:
    """The same with less room, 0.0386 ± 0.0032, where mean and bounds allow."""
    if interval is None or interval.n < 2:
        return around(interval, sign=sign) if interval else NOTHING
    places = decimals(interval.half, interval.mean)
    if abs(interval.high + interval.low - 2 * interval.mean) > 0.5 * 10**-places:  # cut off at a bound
        return around(interval, sign=sign)
    return f"{interval.mean:{sign}.{places}f} ± {interval.half:.{places}f}"


def decimals(half: float, mean: float) -> int:
    """Decimal places that show two digits of an interval's half, or four of the mean where it has no width."""
    scale = half if half > 0 else abs(mean) / 100
    return min(max(1 - floor(log10(scale)), 0), 12) if scale > 0 else 1


def extremes(line: Line) -> str:
    if len(line.values) < 2:
        return NOTHING
    low, high = line.spread
    places = decimals(line.error.half, line.error.mean)
    return f"{low:.{places}f} – {high:.{places}f}"  # noqa: RUF001


def mean(table: Table, line: Line) -> str:
    """A variant's mean, bold if it is significantly best, or what became of its cells."""
    if not line.values:
        return line.trouble
    return f"**{around(line.error)}**" if line.variant == table.ranking.best else around(line.error)


def change(line: Line, reference: str | None) -> str:
    if line.variant == reference:
        return "reference"
    if line.change is None:
        return NOTHING
    shown = around(line.change, sign="+")
    return f"{f'**{shown}**' if line.separated and not line.selected else shown} (n = {line.change.n})"


def more(line: Line) -> str:
    if line.change is None or line.separated:
        return NOTHING
    return str(line.more) if line.more else "unknown" if line.change.n < 2 else "over 1000"


def priced(line: Line, name: str, show: Any) -> str:
    """A cost in numbers or, without a measurement, what became of it."""
    return show(line.costs[name]) if line.cost_status == "ok" else line.cost_status


def whole(cost: Cost) -> str:
    return f"{cost.median:,.0f}" if isfinite(cost.median) else NOTHING


def short(cost: Cost) -> str:
    return three(cost.median)


def quartiles(cost: Cost) -> str:
    if not isfinite(cost.q25 + cost.q75):
        return three(cost.median)
    return f"{three(cost.median)} ({three(cost.q25)} – {three(cost.q75)})"  # noqa: RUF001


def three(value: float) -> str:
    """Three digits, without exponents."""
    if not isfinite(value):
        return NOTHING
    return f"{value:,.{max(2 - floor(log10(abs(value))), 0)}f}" if value else "0"


def changed(row: dict[Any, Any]) -> str:
    shown = around(Interval(row["difference"], row["low"], row["high"], row["n_seeds"]), sign="+")
    return f"**{shown}**" if row["p_holm"] < 0.05 else shown


def percent(row: dict[Any, Any]) -> str:
    bounds = (row["percent"], row["percent_low"], row["percent_high"])
    return around(Interval(*bounds, row["n_seeds"]), sign="+") if isfinite(row["percent"]) else NOTHING


def paired_cells(row: dict[Any, Any]) -> str:
    found, asked = row["n_pairs"], row["n_pairs_asked"]
    return str(found) if found == asked else f"{found} of {asked}"


def small(p: float) -> str:
    if not isfinite(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown(sheet: Sheet) -> str:
    """A heading, a pipe table and its caption."""
    rows = [list(sheet.head), ["---"] * len(sheet.head), *sheet.rows]
    body = "\n".join("| " + " | ".join(map(in_line, row)) + " |" for row in rows)
    return f"## {in_line(sheet.title)}\n\n{body}\n\n{in_markdown(sheet.caption)}\n"


def latex(sheet: Sheet, label: str) -> str:
    """A `table*` with rules between groups, for booktabs and graphicx."""
    lines = [" & ".join(map(tex, sheet.head)) + r" \\", r"\midrule"]
    for i, row in enumerate(sheet.rows):
        lines += [r"\addlinespace"] if i in sheet.starts else []
        lines.append(" & ".join(map(tex, row)) + r" \\")
    columns, label = "l" + "r" * (len(sheet.head) - 1), re.sub(r"[^\w:.-]", "-", label, flags=re.ASCII)
    return "\n".join(
        [
            *(r"\begin{table*}", r"\centering", rf"\caption{{{tex(sheet.title + '. ' + sheet.caption)}}}"),
            *(rf"\label{{{label}}}", r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"),
            *(*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table*}", ""),
        ]
    )
