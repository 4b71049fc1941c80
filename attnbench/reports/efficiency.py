"""What bare mechanisms cost over sizes, from rows of the kind `efficiency`: points, curves, and their tables.

A point is a mechanism at a site in one setting, measured by one process or by several; what varies between processes is
the uncertainty of its time. Sizes at which memory ran out are points, too: they end a curve and are never left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, inf, isfinite, log, nan, sqrt
from statistics import mean, median
from typing import Any

import numpy as np
from scipy.stats import norm

from attnbench.reports.growth import LEAST_SPREAD, Crossover, Growth, Point, crossover, growth

Row = dict[str, Any]
KIND = "efficiency"
FULL = "full"
SETTING: tuple[str, ...] = ("device", "host.device", "dtype", "pass", "batch", "site.channels", "site.causal", "grid")
BUSY = 0.1  # share of the machine's cores that others used, above which a time is no ground for a verdict
BAD = ("oom", "timeout")  # what a curve ends at


@dataclass(frozen=True, kw_only=True)
class Place:
    """A variant at one site: its rows, one for each process. spread, df: of the mean logarithm of its time."""

    tokens: int
    shape: str
    rows: tuple[Row, ...]
    spread: float = LEAST_SPREAD
    df: float = inf

    @property
    def ok(self) -> list[Row]:
        return [row for row in self.rows if row["status"] == "ok" and number(row, "cost.step_ms") > 0]

    @property
    def status(self) -> str:
        """ok where any process ended well; else what became of them."""
        return "ok" if self.ok else ", ".join(sorted({row["status"] for row in self.rows}))

    @property
    def noisy(self) -> bool:
        return any(row.get("cost.noisy") or row.get("cost.shared") for row in self.ok)

    @property
    def contended(self) -> bool:
        """Whether others were at work meanwhile: no spread of its samples tells how much that added."""
        return any(number(row, "cost.foreign_cpu") > BUSY or row.get("cost.shared") for row in self.ok)

    @property
    def log_ms(self) -> float:
        return mean(log(row["cost.step_ms"]) for row in self.ok) if self.ok else nan

    @property
    def time(self) -> Point | None:
        """Milliseconds of a step; infinite where memory or time ran out, None where nothing is known."""
        if not self.ok:
            return Point(size=self.tokens, value=inf) if self.status in BAD else None
        return Point(size=self.tokens, value=exp(self.log_ms), spread=self.spread, df=self.df)

    @property
    def memory(self) -> Point | None:
        """MiB that the allocator held at most above the start of a step; infinite where memory ran out."""
        held = [number(row, "cost.memory_mib") for row in self.ok]
        held = [one for one in held if isfinite(one)]
        if held:
            return Point(size=self.tokens, value=median(held))
        return Point(size=self.tokens, value=inf) if self.status == "oom" else None

    def middle(self, column: str) -> float:
        """The median over processes; nan where none has the number."""
        found = [one for one in (number(row, column) for row in self.ok) if one == one]
        return median(found) if found else nan


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A variant over sizes in one setting."""

    variant: str
    mechanism: str
    setting: tuple[Any, ...]
    places: tuple[Place, ...]

    def points(self, what: str) -> list[Point]:
        """what: time or memory."""
        found = [getattr(place, what) for place in self.places]
        return [point for point in found if point is not None]

    def at(self, size: float, what: str) -> float:
        """The cost at a size between the measured ones, by straight lines through logarithms; nan without any."""
        points = [point for point in self.points(what) if isfinite(point.value) and point.value > 0]
        if not points:
            return nan
        sizes, values = (np.log([getattr(point, side) for point in points]) for side in ("size", "value"))
        return float(np.exp(np.interp(log(size), sizes, values)))

    @property
    def order(self) -> str:
        return next((str(row["cost.order"]) for place in self.places for row in place.ok if row.get("cost.order")), "")

    @cached_property
    def grown(self) -> dict[str, Growth]:
        return {what: growth(self.points(what)) for what in ("time", "memory")}

    @property
    def contended(self) -> bool:
        return any(place.contended for place in self.places)

    @property
    def largest(self) -> Place | None:
        """The largest size that fits."""
        return max((place for place in self.places if place.ok), key=lambda place: place.tokens, default=None)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """All curves of a sweep. settings: in their order; varying: the columns in which they differ."""

    curves: tuple[Curve, ...]
    settings: tuple[tuple[Any, ...], ...]
    varying: tuple[str, ...]
    processes: int = 1
    crossings: dict[tuple[str, tuple[Any, ...], str], Crossover] = field(default_factory=dict)

    def inside(self, setting: tuple[Any, ...]) -> list[Curve]:
        return [curve for curve in self.curves if curve.setting == setting]

    def named(self, setting: tuple[Any, ...]) -> str:
        """The setting in words: what differs between the settings of the sweep."""
        known = dict(zip(SETTING, setting, strict=True))
        words = [worded(name, known[name]) for name in self.varying]
        return ", ".join(word for word in words if word) or worded("pass", known["pass"])

    def crossing(self, curve: Curve, what: str) -> Crossover | None:
        """From which size on a curve lies below that of full attention; None for that itself and without it."""
        return self.crossings.get((curve.variant, curve.setting, what))


def worded(name: str, value: Any) -> str:
    """A value of a setting in words."""
    if name == "pass":
        return {"both": "forward and backward"}.get(str(value), str(value))
    if name == "site.causal":
        return "causal" if value else ""
    if name == "grid":
        return "grids" if value else "sequences"
    return f"{name.rpartition('.')[2]} {value}" if name in ("batch", "site.channels") else str(value)


def number(row: Row, column: str) -> float:
    value = row.get(column)
    return float(value) if isinstance(value, int | float) else nan


def costs(rows: Sequence[Row]) -> Costs | None:
    """The curves of these rows; None where none of them is of the kind."""
    own = [placed(row) for row in rows if row["kind"] == KIND and site(row)]
    if not own:
        return None
    if (
        len(devices := {row["host.device"] for row in own} - {None}) == 1
    ):  # cells that left no row were asked there, too
        own = [{**row, "host.device": device} for row in own for device in devices]
    groups: dict[tuple[str, tuple[Any, ...]], list[Row]] = {}
    for row in own:
        groups.setdefault((row["variant"], tuple(row.get(name) for name in SETTING)), []).append(row)
    made = [curve(variant, setting, group) for (variant, setting), group in sorted(groups.items(), key=str)]
    settings = sorted({one.setting for one in made}, key=in_order)
    made.sort(key=lambda one: (in_order(one.setting), one.variant != FULL, one.variant))
    varying: list[str] = [name for i, name in enumerate(SETTING) if len({setting[i] for setting in settings}) > 1]
    crossings = {}
    for setting in settings:
        inside = [one for one in made if one.setting == setting]
        full = next((one for one in inside if one.variant == FULL), None)
        for one, what in ((one, what) for one in inside for what in ("time", "memory")):
            if full and one is not full:
                crossings[one.variant, setting, what] = crossover(one.points(what), full.points(what))
    most = max(len(place.rows) for one in made for place in one.places)
    return Costs(
        curves=tuple(made), settings=tuple(settings), varying=tuple(varying), processes=most, crossings=crossings
    )


def in_order(setting: tuple[Any, ...]) -> list[tuple[float, str]]:
    """Sorts settings: numbers by size, forward before both."""
    known = {"forward": 0.0, "both": 1.0}
    return [
        (float(part) if isinstance(part, int | float) else known.get(str(part), 0.0), str(part)) for part in setting
    ]


def placed(row: Row) -> Row:
    """A row with whether its site is a grid, and with a device if it is only None."""
    return {"host.device": None, **row, "grid": "x" in str(row["site.shape"])}


def site(row: Row) -> bool:
    """Whether a row says where it was measured: one that never reached the store does not."""
    return row.get("site.tokens") is not None and row.get("site.shape") is not None


def curve(variant: str, setting: tuple[Any, ...], rows: Sequence[Row]) -> Curve:
    """A variant's rows as a curve, each point with the uncertainty that all points of the curve tell together."""
    sites: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        sites.setdefault((int(row["site.tokens"]), str(row["site.shape"])), []).append(row)
    bare = [Place(tokens=key[0], shape=key[1], rows=tuple(own)) for key, own in sorted(sites.items())]
    between, df = pooled([[log(row["cost.step_ms"]) for row in place.ok] for place in bare])
    places = []
    for place in bare:
        n = max(len(place.ok), 1)
        within = median([inside(row) for row in place.ok] or [nan])
        spread = max(between / sqrt(n), LEAST_SPREAD) if df else max(within, LEAST_SPREAD)
        places.append(Place(tokens=place.tokens, shape=place.shape, rows=place.rows, spread=spread, df=df or inf))
    return Curve(variant=variant, mechanism=str(rows[0]["mechanism"]), setting=setting, places=tuple(places))


def pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The standard deviation within groups, over all of them, and its degrees of freedom."""
    squares = sum((one - mean(group)) ** 2 for group in groups if len(group) > 1 for one in group)
    df = sum(len(group) - 1 for group in groups if len(group) > 1)
    return (sqrt(squares / df), df) if df else (0.0, 0)


def inside(row: Row) -> float:
    """The standard deviation of the logarithm of a median, as the samples of one process tell it."""
    low, high = number(row, "cost.step_ms_low"), number(row, "cost.step_ms_high")
    if low > 0 and high >= low:
        return (log(high) - log(low)) / (2 * float(norm.ppf(0.975)))
    q25, q75, n = (number(row, f"cost.{name}") for name in ("step_ms_q25", "step_ms_q75", "repeats"))
    if q25 > 0 and q75 >= q25 and n > 0:  # of too few samples for an interval
        return 1.2533 * (log(q75) - log(q25)) / 1.349 / sqrt(n)
    return LEAST_SPREAD
