"""From the rows of a run: what was aimed at and what was measured, every pair, growth, crossing points, one figure."""

import json
from collections.abc import Iterable
from math import exp, log
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from attnbench.contract.growth import fit
from benchmarks._aims import aims

BUSY = 0.1  # share of the machine's cores that others took, above which a timing is marked
PASSES = {False: "forward", True: "forward and backward"}
GROWN = (2**12, 2**18)  # sizes over which exponents are fitted


def write(folder: Path) -> None:
    rows = pd.read_csv(folder / "rows.csv")
    where = json.loads((folder / "host.json").read_text())
    parts = [head(where), "## Aims\n\n" + table(aims(rows)), pairs(rows), catalogue(rows)]
    notes = folder / "notes.md"
    if notes.exists():
        parts.insert(2, notes.read_text().strip())
    (folder / "summary.md").write_text("\n\n".join(parts) + "\n")
    draw(rows, folder)


def head(where: dict[str, Any]) -> str:
    told = ", ".join(f"{key} {value}" for key, value in where.items() if value and key != "device")
    return f"""# Mechanisms beside what one would otherwise take

Machine: {where["device"]}; {told}. Float32 on a CPU, bfloat16 on a GPU, batch 1, all cores. Made by `python -m
benchmarks.mechanism_speed`. A ratio is the median over rounds in which the modules of a group took turns, with a 95 %
bootstrap interval; below 1 the mechanism is faster. MiB is the peak of what the allocator gave out in one pass. What
would have taken over 10 s a step or over 10 GiB was not run and stands as such; ~ marks times while other processes
took over a tenth of the machine.

![time against tokens](time.png)"""


def table(rows: Iterable[dict[str, Any]]) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def cell(row: Any, *, ratio: bool) -> str:
    """A time as it stands in a table, with its ratio where there is one to give."""
    if row.status != "ok":
        return str(row.status)
    time = f"{row.ms:,.0f}" if row.ms >= 100 else f"{row.ms:.3g}"
    told = f"{time} ms{mark(row)}, {row.mib:,.0f} MiB"
    return f"{told}, {row.ratio:.2f} [{row.ratio_low:.2f}, {row.ratio_high:.2f}]" if ratio else told


def pairs(rows: pd.DataFrame) -> str:
    """Of every group that stands beside rivals: a table a group, a column a module."""
    parts = ["## Pairs\n\nEvery ratio is to the first column."]
    for group in [name for name in rows.group.unique() if not name.startswith("catalogue")]:
        found = []
        for gradients, name in PASSES.items():
            own = picked(rows, group=group, gradients=gradients)
            for tokens in sorted(own.tokens.unique()):
                case: list[Any] = list(picked(own, tokens=tokens).itertuples())
                cells = {row.label: cell(row, ratio=i > 0) for i, row in enumerate(case)}
                found.append({"pass": name, "tokens": f"{tokens:,}"} | cells)
        parts.append(f"### {group}\n\n{table(found)}")
    return "\n\n".join(parts)


def catalogue(rows: pd.DataFrame) -> str:
    """All mechanisms beside full attention: ratios by size, from where on they are faster, and how they grow."""
    parts = [
        "## All mechanisms beside fused full attention\n\nAt their defaults, 64 channels, 2 heads. Ratio of times to "
        "full attention at the same number of tokens; `full` itself in ms. Faster from: where the ratio crosses 1, "
        f"between sizes on a straight line in logarithms. Exponents p of a + b n^p over {GROWN[0]:,} to {GROWN[1]:,} "
        "tokens, of time and of memory."
    ]
    for group in [name for name in rows.group.unique() if name.startswith("catalogue")]:
        for gradients, name in PASSES.items():
            case = picked(rows, group=group, gradients=gradients)
            if len(case):
                parts.append(f"### {group.removeprefix('catalogue ')}, {name}\n\n{table(ratios(case))}")
    return "\n\n".join(parts)


def ratios(case: pd.DataFrame) -> list[dict[str, Any]]:
    found, sizes = [], sorted(case.tokens.unique())
    for label in case.label.unique():
        own = picked(case, label=label).set_index("tokens")
        cells = {
            f"{size:,}": short(own.loc[size], alone=label == "full") if size in own.index else "" for size in sizes
        }
        grown = {"faster from": "" if label == "full" else crossing(own), "time": exponent(own, "ms")}
        found.append({"mechanism": label} | cells | grown | {"memory": exponent(own, "mib")})
    return found


def short(row: Any, *, alone: bool) -> str:
    if row.status != "ok":
        return str(row.status)
    told = f"{row.ms:.3g} ms" if alone or pd.isna(row.ratio) else f"{row.ratio:.2g}"
    return told + mark(row)


def mark(row: Any) -> str:
    """Behind a time that others disturbed."""
    return " ~" if row.foreign_cpu > BUSY else ""


def crossing(own: pd.DataFrame) -> str:
    """The number of tokens from which on a mechanism is faster than full attention."""
    known = own.dropna(subset=["ratio"]).ratio
    slower = known[known >= 1]
    if known.empty:
        return "unknown"
    if slower.empty:
        return f"below {known.index[0]:,}"
    after = known[known.index > slower.index[-1]]
    if after.empty:
        return f"above {known.index[-1]:,}"
    (n, r), (m, s) = (slower.index[-1], slower.iloc[-1]), (after.index[0], after.iloc[0])
    found = exp(log(n) + (log(m) - log(n)) * log(r) / (log(r) - log(s)))
    return f"{float(f'{found:.2g}'):,.0f}"


def exponent(own: pd.DataFrame, column: str) -> str:
    found = grown(own, column)
    return "" if found is None else f"{found:.2f}"


def grown(own: pd.DataFrame, column: str) -> float | None:
    """The exponent over the sizes of GROWN; None where fewer than three ran."""
    costs = {size: cost for size, cost in own[column].dropna().items() if GROWN[0] <= int(str(size)) <= GROWN[1]}
    return fit([int(str(size)) for size in costs], [float(str(c)) for c in costs.values()]) if len(costs) >= 3 else None


def picked(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Rows whose columns hold these values."""
    for column, value in values.items():
        rows = rows.loc[rows[column] == value]
    return rows


def draw(rows: pd.DataFrame, folder: Path) -> None:
    """Time of one pass against tokens, a panel a setting and pass; full attention black, sizes not run left out."""
    groups = [name for name in rows.group.unique() if name.startswith("catalogue")]
    figure = Figure(figsize=(12, 5.2 * max(1, len(groups))), layout="constrained")
    panels = figure.subplots(max(1, len(groups)), 2, squeeze=False)
    for line, group in zip(panels, groups, strict=False):
        for panel, gradients in zip(line, PASSES, strict=True):
            case = picked(rows, group=group, gradients=gradients, status="ok")
            for number, label in enumerate(case.label.unique()):
                own = picked(case, label=label)
                style = {"color": "black", "linewidth": 2.5} if label == "full" else {"color": f"C{number % 10}"}
                dash = ("-", "--", ":")[number // 10 % 3]
                panel.loglog(own.tokens, own.ms, dash, label=label, marker="o", markersize=3, **style)
            panel.set(
                xlabel="tokens", ylabel="ms a pass", title=f"{group.removeprefix('catalogue ')}: {PASSES[gradients]}"
            )
            panel.set_xscale("log", base=2)
        line[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    figure.savefig(folder / "time.png", dpi=130)
