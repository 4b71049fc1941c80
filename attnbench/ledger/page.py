"""The ledger as a person reads it: claims.md, claims.csv, and a few lines for a terminal."""

import csv
import json
from collections.abc import Iterable, Sequence
from io import StringIO
from math import isfinite
from pathlib import Path

from attnbench import paths
from attnbench.ledger.judge import Finding, Ledger, Line, Site, judged, tables_of
from attnbench.ledger.published import Claim, published
from attnbench.ledger.reruns import reruns
from attnbench.ledger.verdicts import NARROW, VERDICTS
from attnbench.reports.columns import described
from attnbench.reports.sheets import NOTHING, around, small

RULES = f"""\
- **Ordering.** Two groups of rows are compared seed by seed, alike in everything else that was asked, and averaged over
  the other knobs within a seed. It agrees where the 95 % t interval of the paired difference over seeds lies on the
  claimed side and p, corrected by Holm over all {{family}} directions tested here, is below 0.05; it differs where
  the interval lies on the other side, as surely. So the chance that any tie on the whole page is told as an order is at
  most one in twenty, as far as differences over seeds are normal. All is said of our setting; the known differences
  stand beside it.
- **Ratio.** The same on the logarithm. The direction can agree or differ; its size agrees where the published factor
  lies in our interval, too, and can be refuted only where the setting is the same.
- **Value.** A number from another setting decides nothing: ours is shown, and the verdict is *cannot tell*. Of the same
  setting it agrees where it lies in our interval, and that is no wider than {2 * NARROW:.0%} of it; it differs where
  one training of ours more would lie as far off at most one time in twenty.
- **Count.** Made from the code itself on the meta device; it agrees where ours, rounded to the printed digits, is what
  was printed. Counts of the quality `computed` were worked out from a description, in most cases not printed by the
  paper: that they agree says that our code is what was described, and nothing about results.
- **Several pairs** of one place are one claim, which holds there if it holds in all of them, and is refuted by one.
- **Several places** are replications, or parts of another. One that cannot tell has no vote; where two contradict each
  other the claim cannot be told. How many say what stands beside the verdict, and cells that places share are counted.
- **What was measured once**, such as time and memory, has no interval and decides nothing. Where a cell diverged, ran
  out of memory or out of time, what is left is a selection, and the place cannot tell.

Quality of a source: `read` at the source; `second-hand`, from a digest of it; `computed` from what it states.
"""
AXES = {"cost.ms": "one pass [ms]", "cost.mib": "peak memory of one pass [MiB]"}  # of the benchmark of speed
KINDS = {"ordering": "orderings", "ratio": "ratios", "value": "numbers", "count": "counts", "": "without a rerun"}
FIELDS = (
    *("id", "paper", "arxiv", "table", "task", "dataset", "setting", "model", "metric", "unit", "published", "better"),
    *("source_quality", "note", "kind", "verdict", "places", "ours", "low", "high", "n", "evidence", "rests_on"),
    *("commits", "differences", "would", "why"),
)


def write_ledger(root: Path) -> Ledger:
    """Holds every claim against the rows under `root` and writes claims.md and claims.csv there.

    Raises ValueError for a file that is not exactly understood, and where nothing can be written.
    """
    from attnbench.ledger.counts import all_counted  # here, for it brings torch

    claims = published()
    plan = reruns(claims)
    ledger = judged(claims, plan, tables_of(plan, paths.writable(root)), all_counted(claims, plan))
    for name, text in (("claims.md", markdown(ledger)), ("claims.csv", table(ledger))):
        (root / name).write_text(text, encoding="utf-8", newline="\n")
    return ledger


def spoken(ledger: Ledger) -> str:
    """How many claims have which verdict, and those that agree or differ."""
    decided = [line for line in ledger.lines if line.verdict in ("agrees", "differs")]
    told = [
        f"{line.verdict:9}{line.claim.id}: {line.claim.stated}{f' ({line.tally})' if line.tally else ''}"
        for line in decided
        if not line.count
    ]
    for verdict in ("agrees", "differs"):
        if made := [line.claim.id for line in decided if line.count and line.verdict == verdict]:
            told.append(f"{verdict:9}{len(made)} counts made from the code: {', '.join(made)}")
    return "\n".join([*told, f"{len(ledger.lines)} claims: {counts(ledger)}."])


def counts(ledger: Ledger) -> str:
    verdicts = [line.verdict for line in ledger.lines]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)


def markdown(ledger: Ledger) -> str:
    """The page: counts, rules, a line for every claim, and the evidence of those with rows."""
    held = [line for line in ledger.lines if line.rerun and line.rerun.kind != "count"]
    counted = [line for line in ledger.lines if line.count]
    absent = [line for line in ledger.lines if line.unrun]
    parts = [
        "# Published claims beside our reruns\n\n`attnbench ledger` makes this page from the rows of the sweeps and "
        f"from the code.\n\n{by_kind(ledger)}",
        f"## How a verdict comes about\n\n{RULES.format(family=ledger.family)}",
        f"## Claims with rows to hold them against\n\n{overview(held)}",
        *map(section, held),
        f"## Counts of weights and work\n\n{count_lines(counted)}",
        f"## Not run\n\n{unrun_lines(absent)}",
    ]
    cautions = [f"- {name}: {note}\n" for name, notes in sorted(ledger.notes.items()) for note in notes]
    parts[1:1] = ["".join(cautions)] if cautions else []
    return "\n".join(parts)


def by_kind(ledger: Ledger) -> str:
    """How many claims of each kind have which verdict; counts by whether their source printed them."""
    kinds: dict[str, list[str]] = {}
    for line in ledger.lines:
        kind = KINDS[line.rerun.kind if line.rerun else ""]
        kind += f", {line.claim.source_quality}" if kind == "counts" else ""
        kinds.setdefault(kind, []).append(line.verdict)
    order = [name for word in KINDS.values() for name in sorted(kinds) if name.partition(",")[0] == word]
    rows = [[name, *(str(kinds[name].count(verdict)) for verdict in VERDICTS)] for name in order]
    verdicts = [line.verdict for line in ledger.lines]
    total = [f"{len(verdicts)} claims", *(str(verdicts.count(verdict)) for verdict in VERDICTS)]
    return pipe(["claims", *VERDICTS], [*rows, total])


def overview(lines: Iterable[Line]) -> str:
    head = ["claim", "source", "published", "quality", "verdict", "places"]
    rows = [
        [f"[{line.claim.id}](#{line.claim.id})", *cited(line.claim), bold(line.verdict), line.tally or NOTHING]
        for line in lines
    ]
    return pipe(head, rows)


def cited(claim: Claim) -> list[str]:
    """Where it was published, what, and how well the source is known."""
    return [claim.where, claim.stated, claim.source_quality]


def section(line: Line) -> str:
    """One claim with its evidence, a row for every pair, and what is known to differ."""
    assert line.rerun is not None
    head = ["place", "compared", "measure", "first", "second", *ours_head(line), "n", "p (Holm)", "verdict", "rows"]
    rows = [cells(site, one) for site in line.sites for one in site.findings]
    rows += [unseen(site) for site in line.sites if not site.findings]
    claim = line.claim
    note = f" {claim.note[0].upper()}{claim.note[1:]}." if claim.note else ""
    known = f"Known differences: {line.rerun.differences.strip()}"
    verdict = f"**{line.verdict}**" + (f" ({line.tally})" if line.tally else "")
    published = f"{claim.where}, {claim.source_quality}: *{claim.stated}*.{note} Verdict: {verdict}."
    return f"### {claim.id}\n\n{published}\n\n{pipe(head, rows)}\n{known}{factor(line)}{shares(line.sites)}\n"


def unseen(site: Site) -> list[str]:
    """The row of a place whose sweep has no rows here."""
    return [site.place.name or NOTHING, *[NOTHING] * 7, site.verdict, f"no rows of {site.place.sweep}"]


def factor(line: Line) -> str:
    """Of a ratio, how often the published factor lies in our interval, whatever the verdict."""
    bounded = [one.ours for site in line.sites for one in site.findings if one.ours.n > 1]
    if not (line.rerun and line.rerun.claimed and bounded):
        return ""
    inside = sum(ours.low <= line.rerun.claimed <= ours.high for ours in bounded)
    return f" The published factor, {line.rerun.claimed:g}, lies in {inside} of {len(bounded)} intervals."


def ours_head(line: Line) -> list[str]:
    assert line.rerun is not None
    return [{"ordering": "first − second", "ratio": "first / second", "value": "ours"}[line.rerun.kind]]  # noqa: RUF001


def cells(site: Site, one: Finding) -> list[str]:
    """One pair as a row of the evidence."""
    sample = one.sample
    pairs = f"{sample.pairs} of {sample.asked}" if sample.pairs != sample.asked else str(sample.pairs)
    sides = [f"{side:#.4g}" if isfinite(side) else NOTHING for side in (sample.first, sample.second)]
    kind = "measured once" if one.ours.n == 1 else f"{one.ours.n} seeds, {pairs} {'pairs' if one.about else 'cells'}"
    return [
        *(site.place.name or NOTHING, one.about or NOTHING, AXES.get(one.measure) or described(one.measure).axis),
        *(*sides, around(one.ours), kind),
        *(small(one.p_holm), one.verdict, f"{link(site.place.sweep)} at {', '.join(sample.commits) or NOTHING}"),
    ]


def shares(sites: Sequence[Site]) -> str:
    told = [
        f"{site.place.name or site.place.sweep} shares {site.shares} of its {len(site.cells)} cells"
        for site in sites
        if site.shares
    ]
    return f"\n\nPlaces are not independent: {'; '.join(told)} with other places of this claim." if told else ""


def link(sweep: str) -> str:
    return f"[{sweep}]({sweep}/summary.md)"


def count_lines(lines: Iterable[Line]) -> str:
    head = ["claim", "source", "published", "quality", "ours", "verdict", "what was counted"]
    rows = [
        [line.claim.id, *cited(line.claim), line.count, bold(line.verdict), line.rerun.differences.strip()]
        for line in lines
        if line.rerun
    ]
    return pipe(head, rows)


def unrun_lines(lines: Iterable[Line]) -> str:
    head = ["claim", "source", "published", "quality", "would run it", "why it was not run"]
    rows = [
        [line.claim.id, *cited(line.claim), f"`{line.unrun.would}`" if line.unrun.would else NOTHING, line.unrun.why]
        for line in lines
        if line.unrun
    ]
    return pipe(head, rows)


def bold(verdict: str) -> str:
    return f"**{verdict}**" if verdict in ("agrees", "differs") else verdict


def pipe(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(field.replace("|", "\\|") for field in row) + " |\n" for row in lines)


def table(ledger: Ledger) -> str:
    """A line for every claim as CSV; what has several numbers has them as JSON in `evidence`."""
    text = StringIO()
    made = csv.DictWriter(text, FIELDS, lineterminator="\n")
    made.writeheader()
    made.writerows(fields(line) for line in ledger.lines)
    return text.getvalue()


def fields(line: Line) -> dict[str, object]:
    """One claim's fields; `ours`, `low`, `high` and `n` where a single number stands against it."""
    claim = {name: getattr(line.claim, name) for name in FIELDS if hasattr(line.claim, name)}
    found = [one for site in line.sites for one in site.findings]
    ours: dict[str, object] = {"ours": line.count.replace(",", "")}
    if len(found) == 1 and (one := found[0].ours).n:
        bounds = {"ours": one.mean, "low": one.low, "high": one.high}
        ours = {"n": one.n, **{name: value for name, value in bounds.items() if isfinite(value)}}
    entry, unrun = line.rerun, line.unrun
    return {
        **claim,
        **ours,
        "published": line.claim.value,
        "kind": entry.kind if entry else "",
        "verdict": line.verdict,
        "places": line.tally,
        "evidence": json.dumps([evidence(site, one) for site in line.sites for one in site.findings]) if found else "",
        "rests_on": " ".join(dict.fromkeys(f"{site.place.sweep}/summary.md" for site in line.sites if site.findings)),
        "commits": " ".join(sorted({commit for site in line.sites for commit in site.commits})),
        "differences": entry.differences.strip() if entry else "",
        "would": (unrun.would or "") if unrun else "",
        "why": unrun.why if unrun else "",
    }


def evidence(site: Site, one: Finding) -> dict[str, object]:
    numbers = {"ours": one.ours.mean, "low": one.ours.low, "high": one.ours.high, "p_holm": one.p_holm}
    return {
        **{"place": site.place.name, "sweep": site.place.sweep, "compared": one.about, "measure": one.measure},
        **{name: value for name, value in numbers.items() if isfinite(value)},
        **{"n": one.ours.n, "pairs": one.sample.pairs, "asked": one.sample.asked, "lost": one.sample.lost},
        "verdict": one.verdict,
    }
