"""Two sets of results of the same cells: which measures and which costs differ beyond noise.

A cell is the same in both if its id is: the same task, model, mechanism, knobs, seed and versions; of the others those
are compared too that ask the same, and the page names them (`alike`). Measures are
compared by variant, as paired differences over the seeds that both sets have, Holm-corrected over all. Times are
compared by Mann and Whitney's test of the raw steps where both stores have them, Holm-corrected, else by their
quartiles, which must not meet; either way they count as changed only from a factor of 1.1 on, as in asv
(https://asv.readthedocs.io), for two processes differ by more than the steps within one. What is marked as noisy or
shared is no ground for a verdict. Of bare mechanisms see `bare`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan

from attnbench.reports import bare
from attnbench.reports.alike import Match, aligned
from attnbench.reports.bounded import change_of
from attnbench.reports.changes import COUNTS, Change, Price, Verdict, both, changed, side_of, weighed
from attnbench.reports.columns import measured
from attnbench.reports.effects import Row, Rows
from attnbench.reports.stats import CONFIDENCE, holm
from attnbench.reports.summary import apart, by_seed, named, split

TIMES = ("train_step_ms", "infer_step_ms")
MEMORIES = ("memory_train_mib", "memory_infer_mib")
ORIGINS = {
    **{"code.commit": "commits", "code.fingerprint": "versions of the code"},
    **{"code.entries": "versions of files of the catalogue"},
    **{"data.hash": "data", "host.device": "processors", "host.name": "hosts", "cost.threads": "numbers of threads"},
    **{"host.torch": "versions of torch", "host.python": "versions of Python", "host.system": "systems"},
}
Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One set of results: what it is called, its rows by id, and by id of a cost cell its raw times, where known."""

    name: str
    rows: Mapping[str, Row]
    raw: Mapping[str, Samples] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that differs between two sets. ended: cells of other status, by label, with both. origins: what differs.

    matched: cells that are compared although their ids differ.
    """

    after: Side
    before: Side
    common: int
    changes: tuple[Change, ...]
    prices: tuple[Price, ...]
    ended: tuple[tuple[str, str, str], ...]
    only_after: tuple[str, ...]
    only_before: tuple[str, ...]
    origins: tuple[str, ...]
    matched: tuple[Match, ...] = ()


def compare(after: Side, before: Side) -> Comparison:
    """What changed from one set of results to another. Raises ValueError if they have no cell in common."""
    before, matched = aligned(after, before)
    ids = sorted(after.rows.keys() & before.rows.keys())
    if not ids:
        raise ValueError(f"{after.name} and {before.name} have no cell in common, so nothing can be compared.")
    ended = tuple(
        (str(after.rows[id]["label"]), str(before.rows[id]["status"]), str(after.rows[id]["status"]))
        for id in ids
        if after.rows[id]["status"] != before.rows[id]["status"]
    )
    return Comparison(
        after=after,
        before=before,
        common=len(ids),
        changes=tuple(changes(*([side.rows[id] for id in ids] for side in (after, before)))),
        prices=tuple(prices(after, before, ids)),
        ended=ended,
        only_after=labels(after, before),
        only_before=labels(before, after),
        origins=tuple(origins(*([side.rows[id] for id in ids] for side in (after, before)))),
        matched=matched,
    )


def labels(own: Side, other: Side) -> tuple[str, ...]:
    return tuple(sorted(str(row["label"]) for id, row in own.rows.items() if id not in other.rows))


def settled(rows: Rows) -> list[tuple[str, Rows]]:
    """The rows by setting, as tables name it."""
    found = []
    for names, values, own in apart(rows):
        found.append((", ".join(named(name, value) for name, value in zip(names, values, strict=True)), own))
    return found


def changes(after: Rows, before: Rows) -> list[Change]:
    """One for each setting, variant and measure, with p corrected over all that are not equal to the last digit."""
    earlier: dict[str, Row] = {row["id"]: row for row in before}
    found: list[Change] = []
    for setting, rows in settled([row for row in after if row["kind"] == "train"]):
        for (variant,), own in split(rows, ["variant"]):
            olds = [earlier[row["id"]] for row in own]
            for measure in measured([*own, *olds], own[0]):
                sides = [by_seed([row for row in some if row["status"] == "ok"], measure) for some in (olds, own)]
                if seeds := sorted(sides[0].keys() & sides[1].keys()):
                    old, new = ({seed: one[seed] for seed in seeds} for one in sides)
                    found.append(changed((setting, str(variant), measure), old, new))
    found += bare.changes(after, earlier)
    ps = holm([nan if one.same else one.change.p for one in found])
    return [replace(one, p=p, change=change_of(one.measure, one.change)) for one, p in zip(found, ps, strict=True)]


def prices(after: Side, before: Side, ids: Iterable[str]) -> list[Price]:
    """One for each cost that two cells both measured, with p corrected over the tests of times."""
    found: list[Price] = []
    rows = [after.rows[id] for id in ids if after.rows[id]["kind"] == "cost"]
    for setting, own in settled(rows):
        for new in own:
            old = before.rows[new["id"]]
            if new["status"] == old["status"] == "ok":
                found += [timed((setting, name), (new, old), (after, before)) for name in TIMES if both(new, old, name)]
                found += [weighed((setting, name), (new, old)) for name in (*MEMORIES, *COUNTS) if both(new, old, name)]
    found += bare.prices([after.rows[id] for id in sorted(ids)], before.rows)
    ps = holm([one.p for one in found])
    return [replace(one, p=p, verdict=tested(one, p)) for one, p in zip(found, ps, strict=True)]


def tested(one: Price, p: float) -> Verdict:
    """The verdict, taken back where a test of times does not hold after correction."""
    return one.verdict if not isfinite(one.p) or p < 1 - CONFIDENCE else "within noise"


def timed(of: tuple[str, str], rows: tuple[Row, Row], sides: tuple[Side, Side]) -> Price:
    """A time: tested on raw steps, else judged by quartiles, but neither where it is marked."""
    (setting, name), (new, old) = of, rows
    column = f"cost.{name}"
    after, before = float(new[column]), float(old[column])
    samples = [side.raw.get(row["id"], {}).get(name) for side, row in zip(sides, rows, strict=True)]
    ends = [row.get(f"{column}_{end}") for row in rows for end in ("q25", "q75")]
    bounds = [float(end) for end in ends if end is not None]
    p, by = nan, "quartiles"
    flags = ("noisy", "shared")
    if marked := [word for word in flags if any(str(row.get(f"cost.{word}")) == "True" for row in rows)]:
        by, verdict = " and ".join(marked), "cannot tell"
    elif samples[0] and samples[1]:
        p, by = mann_whitney(samples[0], samples[1]), "raw steps"
        verdict = side_of(after, before)
    elif len(bounds) < 4:
        by, verdict = "no quartiles", "cannot tell"
    else:
        apart_ = bounds[0] > bounds[3] or bounds[1] < bounds[2]
        verdict = side_of(after, before) if apart_ else "within noise"
    return Price(
        setting=setting, variant=str(new["variant"]), cost=name, before=before, after=after, by=by, verdict=verdict, p=p
    )


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> float:
    """Two-sided p of Mann and Whitney's test."""
    from scipy.stats import mannwhitneyu  # here, for it takes seconds to import

    return float(mannwhitneyu(one, other).pvalue)


def origins(after: Rows, before: Rows) -> list[str]:
    """A sentence for each thing that the two sets do not have in common: code, data, machines, versions."""
    told = []
    for column, word in ORIGINS.items():
        pair = [sorted({str(row[column]) for row in rows if row.get(column) is not None}) for rows in (before, after)]
        if pair[0] != pair[1]:
            old, new = (", ".join(one.removeprefix("sha256:")[:40] for one in side[:3]) or "none told" for side in pair)
            told.append(f"Other {word}: {old} before, {new} now.")
    return told
