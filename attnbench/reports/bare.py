"""Two sets of results of bare mechanisms: which times, memories, counts and distances differ beyond noise.

A time at a site is the mean logarithm over the processes that both sets have; how much processes differ, all sites of
a curve tell together (`efficiency.curve`). Two times differ if Welch's t test says so after correction, and only from a
factor of 1.1 on, as with whole models. What is marked as noisy, or where others were at work, has no verdict.
"""

from collections.abc import Mapping
from math import exp, inf, isfinite, nan, sqrt

from scipy.special import stdtr

from attnbench.reports.atlas import ERRORS, input_of, place_of, several
from attnbench.reports.changes import Change, Price, both, changed, side_of, weighed
from attnbench.reports.effects import Row, Rows
from attnbench.reports.efficiency import KIND, SETTING, Place, curve, placed, site, worded
from attnbench.reports.summary import by_seed, split

WHERE = tuple(name for name in SETTING if name != "host.device")  # other machines are told of, not taken apart
WEIGHED = ("memory_mib", "matmul_flops", "bytes")


def prices(after: Rows, before: Mapping[str, Row]) -> list[Price]:
    """One for each time, memory and count of a variant at a site that both sets measured; no p is corrected yet.

    before: rows by id, among them those of `after`.
    """
    own = [placed(row) for row in after if row["kind"] == KIND and site(row)]
    own = [row for row in own if row["status"] == before[row["id"]]["status"] == "ok"]
    varying = [name for name in WHERE if name == "pass" or len({row.get(name) for row in own}) > 1]
    found: list[Price] = []
    for (variant, *_), group in split([{**dict.fromkeys(WHERE), **row} for row in own], ["variant", *WHERE]):
        olds = places([before[row["id"]] for row in group])
        for key, new in places(group).items():
            told = [word for name in varying if (word := worded(name, new.rows[0][name]))]
            setting, old = ", ".join([new.shape, *told]), olds[key]
            found.append(timed((setting, str(variant)), new, old))
            ends = new.ok[0], before[new.ok[0]["id"]]
            found += [weighed((setting, name), ends) for name in WEIGHED if both(*ends, name)]
    return found


def places(rows: Rows) -> dict[tuple[int, str], Place]:
    """The places of one variant in one setting, by tokens and shape."""
    return {(place.tokens, place.shape): place for place in curve(str(rows[0]["variant"]), (), rows).places}


def timed(of: tuple[str, str], new: Place, old: Place) -> Price:
    """The time of a step: tested over processes, but not where one is marked."""
    setting, variant = of
    after, before = exp(new.log_ms), exp(old.log_ms)
    verdict, p = side_of(after, before), nan
    if new.noisy or old.noisy or new.contended or old.contended:
        by, verdict = "noisy or shared", "cannot tell"
    else:
        by = "processes" if len(new.ok) > 1 and len(old.ok) > 1 else "one process"
        p = welch(new, old)
    return Price(
        setting=setting, variant=variant, cost="step_ms", before=before, after=after, by=by, verdict=verdict, p=p
    )


def welch(one: Place, other: Place) -> float:
    """Two-sided p of Welch's t test of two mean logarithms, whose spreads and degrees of freedom are known."""
    squares = one.spread**2, other.spread**2
    lost = sum(square**2 / place.df for square, place in zip(squares, (one, other), strict=True))
    df = sum(squares) ** 2 / lost if lost else inf
    return float(2 * stdtr(df if isfinite(df) else 1e9, -abs(one.log_ms - other.log_ms) / sqrt(sum(squares))))


def changes(after: Rows, before: Mapping[str, Row]) -> list[Change]:
    """What became of each distance from full attention, over the seeds that both sets have; no p is corrected yet.

    before: rows by id, among them those of `after`.
    """
    own = [row for row in after if row["kind"] == "atlas" and row.get("site.tokens") is not None]
    ways, wide = several(own), len({row["site.channels"] for row in own}) > 1
    keyed = [{**row, "where": f"{input_of(row, ways)}, {place_of(row, wide=wide)}"} for row in own]
    found: list[Change] = []
    for (where, variant), group in split(keyed, ["where", "variant"]):
        for measure in (f"result.{name}" for name in ERRORS):
            pairs = [(before[row["id"]], row) for row in group]
            pairs = [pair for pair in pairs if all(row["status"] == "ok" for row in pair)]
            old, new = (by_seed([pair[side] for pair in pairs], measure) for side in (0, 1))
            if seeds := sorted(old.keys() & new.keys()):
                held = ({seed: one[seed] for seed in seeds} for one in (old, new))
                found.append(changed((str(where), str(variant), measure), *held))
    return found
