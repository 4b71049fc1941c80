"""Holds every claim against what is in the results: evidence of each place, corrected together, and a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import exp, isfinite, log, nan
from pathlib import Path

from attnbench.ledger import evidence
from attnbench.ledger.evidence import Sample, Table
from attnbench.ledger.published import Claim
from attnbench.ledger.reruns import Pair, Place, Plan, Rerun, Unrun
from attnbench.ledger.verdicts import Verdict, of_direction, of_place, of_places, of_ratio, of_value, tally
from attnbench.reports.stats import Difference, Interval, difference, holm, t_interval

Counts = Mapping[str, tuple[str, bool | None]]
Tables = Mapping[str, Table | None]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One pair, or one number, of one place.

    about: what is compared. ours: in the unit of the measure; of a ratio, `better` over `worse`.
    gain: positive on the claimed side, None where the claim has no direction. p_holm: of the gain.
    test: what is tested on which rows; claims that rest on the same test count once among those corrected together.
    """

    about: str
    test: str = ""
    measure: str
    ours: Interval
    sample: Sample
    gain: Difference | None = None
    p_holm: float = nan
    verdict: Verdict = "not run"


@dataclass(frozen=True, kw_only=True)
class Site:
    """The evidence of one place. shares: how many of its cells another place of the claim rests on as well."""

    place: Place
    findings: tuple[Finding, ...]
    verdict: Verdict = "not run"
    shares: int = 0

    @property
    def cells(self) -> frozenset[tuple[str, str]]:
        """Ids of the cells that the place rests on, each with the measure that is read."""
        return frozenset((id, finding.measure) for finding in self.findings for id in finding.sample.ids)

    @property
    def commits(self) -> list[str]:
        return sorted({commit for finding in self.findings for commit in finding.sample.commits})


@dataclass(frozen=True, kw_only=True)
class Line:
    """A claim, what came out here, and the verdict. count: of a claim about weights, what our code has, in its unit."""

    claim: Claim
    verdict: Verdict
    rerun: Rerun | None = None
    unrun: Unrun | None = None
    sites: tuple[Site, ...] = ()
    count: str = ""

    @property
    def tally(self) -> str:
        return tally([site.verdict for site in self.sites])


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A line for every claim. family: how many directions were corrected together. notes: of the rows, by sweep."""

    lines: tuple[Line, ...]
    family: int
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def tables_of(plan: Plan, root: Path) -> Tables:
    """The rows under `root` of every sweep that a place names. Raises ValueError for rows of another sweep."""
    names = sorted({place.sweep for entry in plan.reruns.values() for place in entry.places})
    return {name: evidence.table(root, name) for name in names}


def judged(claims: Mapping[str, Claim], plan: Plan, tables: Tables, counts: Counts) -> Ledger:
    """Every claim beside the rows of sweeps.

    counts: of claims about counts, what our code has and whether that is what was printed, None if it cannot be told.
    Raises SweepError, with the line of the place, for columns that rows lack and filters that leave several variants.
    """
    found = {id: [searched(plan, id, i, tables) for i in range(len(plan.lines[id]))] for id in plan.reruns}
    family = {one.test: one.gain.p for own in found.values() for one in tested(own) if one.gain}
    corrected = dict(zip(family, holm(list(family.values())), strict=True))
    lines = [line(claim, plan, found.get(claim.id, []), corrected, counts) for claim in claims.values()]
    notes = {name: own.notes for name, own in tables.items() if own and own.notes}
    return Ledger(lines=tuple(lines), family=sum(map(isfinite, family.values())), notes=notes)


def tested(sites: list[Site]) -> list[Finding]:
    return [one for site in sites for one in site.findings if one.gain]


def searched(plan: Plan, id: str, number: int, tables: Tables) -> Site:
    """The evidence of one place, without verdicts yet. Raises SweepError with its line."""
    entry = plan.reruns[id]
    place = entry.places[number]
    if (own := tables[place.sweep]) is None:
        return Site(place=place, findings=())
    if told := evidence.unknown_column(place, own.columns):
        plan.refuse(id, number, told)
    try:
        return Site(place=place, findings=tuple(findings(entry, place, own)))
    except ValueError as error:
        plan.refuse(id, number, str(error))


def findings(entry: Rerun, place: Place, own: Table) -> list[Finding]:
    if entry.kind == "value":
        sample = evidence.valued(place, own.rows)
        return [Finding(about="", measure=place.measure, ours=interval(sample), sample=sample)]
    return [weighed(entry, place, pair, own) for pair in place.pairs]


def weighed(entry: Rerun, place: Place, pair: Pair, own: Table) -> Finding:
    """One pair as an interval, and as a gain where the claim has a direction."""
    measure, ratio = pair.measure or place.measure, entry.kind == "ratio"
    sample = evidence.compared(place, pair, own.rows, logs=ratio)
    values = list(sample.by_seed.values())
    ours = interval(sample)
    if ratio:
        ours = Interval(exp(ours.mean), exp(ours.low), exp(ours.high), ours.n)
        down = log(entry.claimed or 1) < 0
    elif (down := evidence.lower_is_better(place, pair)) is None:
        raise ValueError(f"which side of {measure} is better is not known; say `side: lower` or `side: higher`.")
    gain = difference([-value if down else value for value in values], step=sample.step) if entry.direction else None
    test = repr((place.sweep, measure, ratio, *(sorted(one.items()) for one in (place.where, pair.better, pair.worse))))
    return Finding(about=about(pair), test=test, measure=measure, ours=ours, sample=sample, gain=gain)


def interval(sample: Sample) -> Interval:
    return t_interval(list(sample.by_seed.values()))


def about(pair: Pair) -> str:
    """A pair as people say it, without what both sides have: `levels 3 against levels 2`."""
    both = {
        name for name, value in pair.better.items() if name in pair.worse and evidence.same(value, pair.worse[name])
    }
    sides = ({name: value for name, value in side.items() if name not in both} for side in (pair.better, pair.worse))
    said = f"{' against '.join(map(words, sides))}"
    return f"{said} ({words({name: pair.better[name] for name in sorted(both)})})" if both else said


def words(wanted: Mapping[str, object]) -> str:
    """A filter as people say it: `mano, levels 2`."""
    said = [
        str(value) if name in ("mechanism", "model", "task") else f"{name.rpartition('.')[2]} {told(value)}"
        for name, value in wanted.items()
    ]
    return ", ".join(said)


def told(value: object) -> str:
    return "by default" if value is None else str(value)


def line(
    claim: Claim,
    plan: Plan,
    sites: list[Site],
    corrected: Mapping[str, float],
    counts: Counts,
) -> Line:
    """A claim with its verdict. corrected: p of each test after correction."""
    entry = plan.reruns.get(claim.id)
    if entry is None:
        return Line(claim=claim, verdict="not run", unrun=plan.unrun[claim.id])
    if entry.kind == "count":
        ours, holds = counts[claim.id]
        return Line(claim=claim, verdict=of_count(holds), rerun=entry, count=ours)
    sites = [decided(claim, entry, site, corrected) for site in sites]
    sites = [replace(site, shares=shared(site, sites)) for site in sites]
    return Line(claim=claim, verdict=of_places([site.verdict for site in sites]), rerun=entry, sites=tuple(sites))


def of_count(holds: bool | None) -> Verdict:
    return "cannot tell" if holds is None else "agrees" if holds else "differs"


def decided(claim: Claim, entry: Rerun, site: Site, corrected: Mapping[str, float]) -> Site:
    made = [
        replace(one, p_holm=p, verdict=verdict(claim, entry, one, p))
        for one in site.findings
        for p in [corrected.get(one.test, nan)]
    ]
    return replace(site, findings=tuple(made), verdict=of_place([one.verdict for one in made]))


def verdict(claim: Claim, entry: Rerun, one: Finding, p: float) -> Verdict:
    if one.sample.lost:
        return "cannot tell"  # what is left is a selection
    if entry.kind == "value":
        digits = len(claim.value.partition(".")[2])
        return of_value(one.ours, float(claim.value), 0.5 * 10.0**-digits, same=entry.same_setting)
    if one.gain is None:
        return of_value(one.ours, entry.claimed or nan, 0.0, same=entry.same_setting)
    if entry.kind == "ordering":
        return of_direction(one.gain, p)
    return of_ratio(one.gain, p, one.ours, entry.claimed or nan, same=entry.same_setting)


def shared(site: Site, sites: list[Site]) -> int:
    others = [other.cells for other in sites if other is not site]
    return len(site.cells.intersection(frozenset().union(*others)))
