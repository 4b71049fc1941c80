"""Ways to do the same work, each a process, take turns, so that other load falls on all alike; times and ratios."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnbench.host import Usage

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One run of one way. foreign: share of the cores that others used meanwhile. said: the last line it printed."""

    wall_s: float
    foreign: float | None
    said: Any


def turn(words: Sequence[str], variables: Mapping[str, str] | None = None) -> Turn:
    """Runs Python with these words and waits for its end. Raises CalledProcessError where it fails."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, **(variables or {})}
    before, spent_s = Usage.now(), children_s()
    done = subprocess.run([sys.executable, *words], env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    after = Usage.now()
    own_s = children_s() - spent_s
    foreign = before.foreign_until(Usage(after.wall_s, after.busy_s, before.own_s + own_s))
    return Turn(wall_s=after.wall_s - before.wall_s, foreign=foreign, said=json.loads(done.stdout.splitlines()[-1]))


def children_s() -> float:
    """Processor seconds of all processes that this one has waited for, and that these have."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ratio(mine: Sequence[Turn], base: Sequence[Turn]) -> str:
    """How many times as fast as the other, the median over rounds with its extremes: of pairs that ran in turn."""
    pairs = sorted(other.wall_s / one.wall_s for one, other in zip(mine, base, strict=True))
    return spread(statistics.median(pairs), pairs[0], pairs[-1], "{:.2f}")


def spread(middle: float, low: float, high: float, form: str) -> str:
    shown = form.format(middle)
    return f"{shown} ({form.format(low)} to {form.format(high)})" if low != high else shown


def disturbed(turns: Iterable[Turn]) -> str:
    """A mark for runs beside which others took over a tenth of the machine."""
    shares = [one.foreign for one in turns if one.foreign is not None]
    return f" ~{max(shares):.0%}" if shares and max(shares) > 0.1 else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(folder: Path, text: str, turns: Mapping[str, Sequence[Turn]], where: Mapping[str, Any]) -> None:
    """Leaves the table and the seconds of every run, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {
        "where": where,
        "when": time.strftime("%Y-%m-%d"),
        "turns": {name: [vars(t) for t in of] for name, of in turns.items()},
    }
    (folder / "turns.json").write_text(json.dumps(raw, indent=1) + "\n")
    (folder / "summary.md").write_text(text + "\n")
    print(text)
