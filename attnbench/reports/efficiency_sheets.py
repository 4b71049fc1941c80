"""Tables of what bare mechanisms cost: at each size beside full attention, growth, crossover, share of the limit."""

from math import exp, inf, isfinite, nan, sqrt
from typing import Any

from scipy.stats import t as student

from attnbench.reports.efficiency import FULL, Costs, Curve, Place
from attnbench.reports.growth import Crossover, Growth, declared
from attnbench.reports.sheets import NOTHING, Sheet, three

NEAR = 0.1  # by which an exponent may miss the declared one and still be called as declared
WIDE = 0.5  # what lies between two orders: an interval as wide as that tells none
ABOVE = 1.0  # share of a limit beyond which the count must be wrong


def efficiency_sheets(known: Costs) -> list[Sheet]:
    """Every table of these costs."""
    tables = [table(known, setting, what) for setting in known.settings for what in ("time", "memory")]
    return [*tables, growth_sheet(known), *crossover_sheets(known), roofline_sheet(known)]


def notes(known: Costs) -> list[str]:
    """What a reader must know of these rows: contention, too few samples, counts that cannot be right."""
    places = [place for curve in known.curves for place in curve.places]
    found = []
    if noisy := sum(place.noisy for place in places):
        found.append(
            f"{noisy} of {len(places)} points are noisy (marked ~): the median was not known to 2 %, there were fewer "
            "than 30 samples, or others used over a tenth of the machine meanwhile. They are no ground for a claim."
        )
    if wrong := [f"{curve.variant} at {place.shape}" for curve in known.curves for place in beyond(curve)]:
        found.append(
            f"{len(wrong)} points lie above what the machine can do ({', '.join(wrong[:4])}): their work or traffic is "
            "counted wrongly, or the limit was measured while others were at work; their shares are not shown."
        )
    if known.processes == 1:
        found.append(
            "Every point is one process, so its interval is that of the median of its samples. Times differ more "
            "between processes: `rounds` measures that."
        )
    return found


def beyond(curve: Curve) -> list[Place]:
    """The points whose share of the limit is above 1."""
    return [place for place in curve.places if place.middle("cost.peak_share") > ABOVE]


def table(known: Costs, setting: tuple[Any, ...], what: str) -> Sheet:
    """Time or memory of every variant at every size, with how many times less it is than full attention's."""
    inside = known.inside(setting)
    sizes = sorted({(place.tokens, place.shape) for curve in inside for place in curve.places})
    full = next((curve for curve in inside if curve.variant == FULL), None)
    rows = []
    for curve in by_cost(inside, what):
        places = {(place.tokens, place.shape): place for place in curve.places}
        others = {(place.tokens, place.shape): place for place in full.places} if full and full is not curve else {}
        rows.append([curve.variant, *(field(places.get(size), others.get(size), what) for size in sizes)])
    unit, caption = UNITS[what]
    beside = " In parentheses, how many times less than fused full attention; bold where that is sure." if full else ""
    return Sheet(
        title=f"{known.named(setting)}: {what} [{unit}]",
        caption=f"{caption}{beside} An entry oom ran out of memory. ~ marks a noisy one.",
        head=["variant", *(shape for _, shape in sizes)],
        rows=rows,
    )


UNITS = {
    "time": (
        "ms",
        "Median time of a step with 95 % interval, over processes where there are several, else over samples.",
    ),
    "memory": ("MiB", "Peak of what the allocator held above the start of a step, in a pass of its own."),
}


def by_cost(curves: list[Curve], what: str) -> list[Curve]:
    """Full attention first, then those that cost least at the largest size that all have reached."""

    def key(curve: Curve) -> tuple[bool, float, str]:
        last = curve.points(what)
        return curve.variant != FULL, last[-1].value if last else float("inf"), curve.variant

    return sorted(curves, key=key)


def field(own: Place | None, other: Place | None, what: str) -> str:
    """One entry: the number with its interval, and how it stands to full attention."""
    if own is None:
        return NOTHING
    point = getattr(own, what)
    if point is None or not isfinite(point.value):
        return own.status if own.status != "ok" else NOTHING
    text = three(point.value)
    if what == "time":
        text += f" [{three(point.low)}, {three(point.high)}]{' ~' if own.noisy else ''}"
    return f"{text}{times(own, other, what)}"


def times(own: Place, other: Place | None, what: str) -> str:
    """How many times less than the other, bold where an interval of 95 % leaves no doubt."""
    mine, theirs = getattr(own, what), getattr(other, what) if other else None
    if mine is None or theirs is None or not mine.value:
        return ""
    if not isfinite(theirs.value):
        return " (**full does not fit**)"
    ratio = theirs.value / mine.value
    reach = float(student.ppf(0.975, min(mine.df, theirs.df))) * sqrt(mine.spread**2 + theirs.spread**2)
    sure = ratio * exp(-reach) > 1 and not (what == "time" and (own.noisy or (other and other.noisy)))
    return f" ({'**' if sure else ''}{three(ratio)}x{'**' if sure else ''})"


def growth_sheet(known: Costs) -> Sheet:
    """Fitted exponents of time and memory beside the declared order, and the largest size that fits."""
    rows, starts, before = [], set(), None
    for curve in known.curves:
        if before not in (None, curve.setting):
            starts.add(len(rows))
        before = curve.setting
        largest = curve.largest
        rows.append(
            [
                *([known.named(curve.setting)] if len(known.settings) > 1 else []),
                curve.variant,
                curve.order or NOTHING,
                *exponent(curve, "time"),
                *exponent(curve, "memory"),
                ended(curve) if largest else NOTHING,
            ]
        )
    part = ["exponent", "last step", "verdict"]
    return Sheet(
        title="Growth with the number of tokens",
        caption="Cost fitted by a + b N^p, a at least 0, on logarithms; p with 95 % interval by a parametric bootstrap "
        "over what is known of each point, wider where the curve is not of this form. The last step is the exponent "
        "between the two largest sizes. `slower` and `faster` say where the interval stands to the declared order over "
        "these sizes, with 0.1 for nothing: slower means that the declared growth is not reached yet; "
        "an interval of 0.5 or wider tells no order. Sizes at which "
        "memory ran out end a curve and are not fitted.",
        head=[
            *(["setting"] if len(known.settings) > 1 else []),
            *("variant", "declared work", *(f"time: {word}" for word in part)),
            *(*(f"memory: {word}" for word in part), "largest that fits"),
        ],
        rows=rows,
        starts=frozenset(starts),
    )


def ended(curve: Curve) -> str:
    """The largest size that fits, and what came beyond it."""
    largest = curve.largest
    assert largest is not None
    beyond = [place for place in curve.places if place.tokens > largest.tokens]
    return f"{largest.shape}, then {beyond[0].shape} {beyond[0].status}" if beyond else f"{largest.shape} or more"


def exponent(curve: Curve, what: str) -> list[str]:
    """The exponent, the local one, and how it stands to the declared one."""
    found = curve.grown[what]
    last = f"{found.last:.2f}" if isfinite(found.last) else NOTHING
    if found.why:
        return [found.why, last, NOTHING]
    return [f"{found.p:.2f} [{found.low:.2f}, {found.high:.2f}]", last, verdict(found, curve, what)]


def verdict(found: Growth, curve: Curve, what: str) -> str:
    """Whether the interval holds the exponent that the declared order shows over these sizes."""
    sizes = [point.size for point in curve.points(what) if isfinite(point.value)]
    order = "N" if curve.order == "0" else curve.order  # whatever hands on its tokens touches them
    if not order or (curve.order == "0" and found.p < 1):
        return NOTHING
    if what == "time" and curve.contended:
        return "cannot tell ~"
    wanted = declared(order, sizes)
    if found.low - NEAR > wanted:
        return "faster"
    if found.high + NEAR < wanted:
        return "slower"
    return "as declared" if found.high - found.low < WIDE else "cannot tell"


def crossover_sheets(known: Costs) -> list[Sheet]:
    """From which number of tokens on each variant is faster, and needs less memory, than full attention."""
    rows = [
        [
            *([known.named(curve.setting)] if len(known.settings) > 1 else []),
            curve.variant,
            crossed(known.crossing(curve, "time")) + (" ~" if shaky(known, curve) else ""),
            crossed(known.crossing(curve, "memory")),
        ]
        for curve in known.curves
        if known.crossing(curve, "time")
    ]
    if not rows:
        return []
    return [
        Sheet(
            title="From which size on it is cheaper than full attention",
            caption="Numbers of tokens, with 95 % interval by a bootstrap over the points of both curves, which are "
            "joined by straight lines through logarithms; nothing is extrapolated. Full attention is the fused one. "
            "Where it runs out of memory, whatever still fits is cheaper from there. ~: others were at work meanwhile.",
            head=[
                *(["setting"] if len(known.settings) > 1 else []),
                *("variant", "faster from [tokens]", "less memory from [tokens]"),
            ],
            rows=rows,
        )
    ]


def shaky(known: Costs, curve: Curve) -> bool:
    """Whether others were at work while one of the two curves was measured."""
    full = next((one for one in known.inside(curve.setting) if one.variant == FULL), curve)
    return curve.contended or full.contended


def crossed(found: Crossover | None) -> str:
    """A crossover in words."""
    if found is None:
        return NOTHING
    ends = f"{found.least:,.0f} to {found.most:,.0f}" if found.most == found.most else "no common size"
    if found.word == "at":
        low = f"{found.low:,.0f}" if found.low > 0 else f"below {found.least:,.0f}"
        middle = f"{found.size:,.0f} " if 0 < found.size < inf else ""
        return f"{middle}[{low}, {found.high:,.0f}]"
    if found.word == "below":
        return f"only up to {found.size:,.0f} [{found.low:,.0f}, {found.high:,.0f}]"
    if found.word == "unknown" and found.low > 0:
        return f"cannot tell in {ends}, not before {found.low:,.0f}"
    return {"always": f"always in {ends}", "never": f"never in {ends}"}.get(found.word, f"cannot tell in {ends}")


def roofline_sheet(known: Costs) -> Sheet:
    """At the largest size of every variant: work, traffic, and the achieved share of what the machine can do."""
    rows = []
    for curve in known.curves:
        if (place := curve.largest) is None:
            continue
        flops, moved = place.middle("cost.step_flops"), place.middle("cost.bytes")
        point = place.time
        seconds = point.value / 1e3 if point else nan
        reached = place.middle("cost.peak_share")
        limits = {str(row["cost.limit"]) for row in place.ok if row.get("cost.limit")}
        rows.append(
            [
                *([known.named(curve.setting)] if len(known.settings) > 1 else []),
                *(curve.variant, place.shape, three(flops / 1e6), three(moved / 2**20)),
                *(three(flops / moved) if moved else NOTHING, three(flops / seconds / 1e9)),
                *(three(place.middle("cost.peak_gflops")), three(place.middle("cost.peak_gbps"))),
                f"{reached:.1%}" if 0 <= reached <= ABOVE else "above 1: refused" if reached > ABOVE else NOTHING,
                ", ".join(sorted(limits)) or NOTHING,
            ]
        )
    return Sheet(
        title="Share of what the machine can do",
        caption="At the largest size that fits. Work: matrix products and Fourier transforms of a step, counted. "
        "Traffic: compulsory, that is tokens, weights and gradients once. Limits: a large matrix product of the same "
        "dtype and a triad over as many bytes, measured in the same process. The share is the time that the nearer "
        "limit would take over the time that was taken; above 1 the count must be wrong, and it is refused.",
        head=[
            *(["setting"] if len(known.settings) > 1 else []),
            *("variant", "size", "work [MFLOP]", "traffic [MiB]", "intensity [FLOP/B]", "achieved [GFLOP/s]"),
            *("products [GFLOP/s]", "triad [GB/s]", "share", "limit"),
        ],
        rows=rows,
    )
