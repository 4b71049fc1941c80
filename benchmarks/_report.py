"""From the rows of a run: what was aimed at and what was measured, every pair, growth, crossing points, one figure."""

import json
from collections.abc import Iterable
from math import exp, log
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmarks._aims import GROWN, aims, grown
from benchmarks._rows import PASSES, calm, picked, ratio, read


def write(folder: Path) -> None:
    rows = read(folder / "rows.csv")
    where = json.loads((folder / "host.json").read_text())
    parts = [head(rows, where), "## Aims\n\n" + AIMED + table(aims(rows)), pairs(rows), catalogue(rows)]
    notes = folder / "notes.md"
    if notes.exists():
        parts.insert(2, notes.read_text().strip())
    (folder / "summary.md").write_text("\n\n".join(parts) + "\n")
    draw(rows, folder)


AIMED = """Only sizes that nobody disturbed count; `over ...` and `out of memory` miss an aim.

"""


def head(rows: pd.DataFrame, where: dict[str, Any]) -> str:
    told = ", ".join(f"{key} {value}" for key, value in where.items() if value and key not in ("device", "commit"))
    made = "; ".join(
        sorted({f"{device} at commit {commit}" for device, commit in zip(rows.device, rows.commit, strict=True)})
    )
    return f"""# Mechanisms beside what one would otherwise take

Made on {made}; {told}. Float32 on a CPU, bfloat16 on a GPU, batch 1, all cores. `python -m benchmarks.mechanism_speed`
makes it. A ratio is the median over rounds in which the modules of a group took turns, with its quartiles; below 1 the
first-named is faster; n is the number of rounds, all in one process, so the spread between processes is not in it. MiB
is the peak of what the allocator gave out in one pass. What would have taken over 10 s a step or over 10 GiB was not
run and stands as such; ~ marks times while other processes took over a tenth of the machine.

![time against tokens](time.png)"""


def table(rows: Iterable[dict[str, Any]]) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def cell(row: Any, base: str) -> str:
    """A time as it stands in a table, with its ratio to another's where there is one to give."""
    if row.status != "ok":
        return str(row.status)
    told = f"{row.ms:,.0f}" if row.ms >= 100 else f"{row.ms:.3g}"
    told = f"{told} ms{mark(row)}, {row.mib:,.0f} MiB, n {row.rounds:.0f}"
    found = None if base == row.label else ratio(row, base)
    return told if found is None else f"{told}, {found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"


def pairs(rows: pd.DataFrame) -> str:
    """Of every group that stands beside rivals: a table a group, a column a module."""
    parts = ["## Pairs\n\nEvery ratio is to the first column."]
    for group in [name for name in rows.group.unique() if not name.startswith("catalogue")]:
        found, base = [], picked(rows, group=group).label.iloc[0]
        for gradients, name in PASSES.items():
            own = picked(rows, group=group, gradients=gradients)
            for tokens in sorted(own.tokens.unique()):
                case: list[Any] = list(picked(own, tokens=tokens).itertuples())
                found.append({"pass": name, "tokens": f"{tokens:,}"} | {row.label: cell(row, base) for row in case})
        parts.append(f"### {group}\n\n{table(found)}")
    return "\n\n".join(parts)


def catalogue(rows: pd.DataFrame) -> str:
    """All mechanisms beside full attention: ratios by size, from where on they are faster, and how they grow."""
    parts = [
        "## All mechanisms beside fused full attention\n\nAt their defaults, 64 channels, 2 heads. Ratio of times to "
        "full attention at the same number of tokens; `full` itself in ms. Faster from: where the ratio crosses 1, "
        f"between sizes on a straight line in logarithms. Exponents p of a + b n^p over {GROWN[0]:,} to {GROWN[1]:,} "
        "tokens, of time and of memory, where at least four sizes ran undisturbed."
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
    found = None if alone else ratio(row, "full")
    return (f"{row.ms:.3g} ms" if found is None else f"{found[0]:.2g}") + mark(row)


def mark(row: Any) -> str:
    """Behind a time that others disturbed."""
    return "" if calm(row) else " ~"


def crossing(own: pd.DataFrame) -> str:
    """The number of tokens from which on a mechanism is faster than full attention."""
    rows: list[Any] = [row for row in own.itertuples() if calm(row)]
    known = [(int(row.Index), found[0]) for row in rows if (found := ratio(row, "full")) is not None]
    if not known:
        return "unknown"
    slower = [number for number, (_, value) in enumerate(known) if value >= 1]
    if not slower:
        return f"below {known[0][0]:,}"
    if slower[-1] == len(known) - 1:
        return f"above {known[-1][0]:,}"
    (n, r), (m, s) = known[slower[-1]], known[slower[-1] + 1]
    found = exp(log(n) + (log(m) - log(n)) * log(r) / (log(r) - log(s)))
    return f"{float(f'{found:.2g}'):,.0f}"


def exponent(own: pd.DataFrame, column: str) -> str:
    found = grown(own, column)
    return "" if found is None else f"{found:.2f}"


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
        lines = {drawn.get_label(): drawn for panel in line for drawn in panel.get_lines()}
        line[1].legend(lines.values(), lines, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    figure.savefig(folder / "time.png", dpi=130)
