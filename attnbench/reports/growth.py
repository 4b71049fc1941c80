"""How a cost grows with the number of tokens, and from which number on one is smaller than another; with intervals.

A cost is fitted by a + b N^p with a >= 0 on logarithms: a straight line through them takes a constant cost for a
smaller exponent (of an exponent of 2, with a constant as large as the rest, it makes 1.0). Uncertainty comes from what
is known of each point's own: from the spread between processes or, of one process, between its samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, inf, isfinite, log, log2, nan, sqrt

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import t as student

SIZES = 5  # fewer tell an exponent and a constant apart from nothing
REPLICAS = 300
LEAST_SPREAD = 0.002  # of a point's logarithm: what is never known better than that
NONE = 1e-12  # what stands for a cost of nothing, which has no logarithm
STEEPEST = 4.0
STEPS = 30  # of which a replica takes at most that many to its best exponent
LEAST, MOST = np.array([0.0, 0.0]), np.array([STEEPEST, 1 - 1e-7])  # of exponent and share
EXPONENTS = np.linspace(0.0, STEEPEST, 161)
SHARES = np.concatenate([[0.0], 1 - np.geomspace(1.0, 1e-5, 40)[1:]])  # of the constant in the cost of the least size
ORDERS = {
    "0": lambda _: 1.0,
    "N": lambda n: n,
    "N log N": lambda n: n * log2(n),
    "N^1.5": lambda n: n**1.5,
    "N^2": lambda n: n**2,
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a cost was at a size: the mean logarithm, its standard deviation, and its degrees of freedom.

    value: inf where memory ran out, which is a point of the curve, too.
    """

    size: float
    value: float
    spread: float = LEAST_SPREAD
    df: float = inf

    @property
    def low(self) -> float:
        return self.value * exp(-self._reach) if isfinite(self.value) else nan

    @property
    def high(self) -> float:
        return self.value * exp(self._reach) if isfinite(self.value) else nan

    @property
    def _reach(self) -> float:
        return float(student.ppf(0.975, self.df)) * self.spread


@dataclass(frozen=True, kw_only=True)
class Growth:
    """a + b N^p and the 95 % interval of p; last: the exponent between the two largest sizes, as they are.

    why: the sentence that refuses a fit; then there are no numbers.
    """

    p: float = nan
    low: float = nan
    high: float = nan
    a: float = nan
    b: float = nan
    last: float = nan
    why: str = ""

    def at(self, size: float) -> float:
        return self.a + self.b * size**self.p


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """From which size on a cost is smaller than another's.

    word: at (a size, with its interval), always, never, below (smaller only up to a size), or unknown.
    least, most: of the sizes that both were measured at.
    """

    word: str
    size: float = nan
    low: float = nan
    high: float = nan
    least: float = nan
    most: float = nan


def growth(points: Sequence[Point], seed: int = 0) -> Growth:
    """The exponent of these points; those without memory are no numbers to fit, and the curve ends before them."""
    known = sorted((point for point in points if isfinite(point.value) and point.value > 0), key=lambda one: one.size)
    last = slope(known)
    if len(known) < SIZES:
        return Growth(last=last, why=f"{len(known)} sizes tell no exponent; it takes {SIZES}")
    n, y, spread = columns(known)
    p, share, rest = fitted(n, y, spread)
    over = max(len(known) - 3, 1)
    spread = spread * sqrt(max(1.0, rest / over))  # a curve that is not of this form is less well known than its points
    model = np.log(share + (1 - share) * (n / n[0]) ** p)
    level = float(np.average(y - model, weights=spread**-2))
    drawn = draws(known, len(known), seed) * spread + model
    low, high = np.quantile(replicas(n, drawn, spread), (0.025, 0.975))
    scale = exp(level)
    return Growth(
        p=p,
        low=min(float(low), p),
        high=max(float(high), p),
        a=scale * share,
        b=scale * (1 - share) / n[0] ** p,
        last=last,
    )


def columns(points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = np.array([point.size for point in points], float)
    y = np.log([point.value for point in points])
    return n, y, np.array([max(point.spread, LEAST_SPREAD) for point in points])


def draws(points: Sequence[Point], count: int, seed: int) -> np.ndarray:
    """Errors in units of the spread, wider where that is itself known from few: Student's."""
    random = np.random.default_rng(seed)
    df = min(point.df for point in points)
    shape = (REPLICAS, count)
    if not isfinite(df):
        return random.standard_normal(shape)
    return random.standard_normal(shape) / np.sqrt(random.chisquare(df, (REPLICAS, 1)) / df)


def fitted(n: np.ndarray, y: np.ndarray, spread: np.ndarray) -> tuple[float, float, float]:
    """Exponent, share of the constant in the cost of the least size, and the sum of squares in units of the spread."""
    shape, p, share = curves(tuple(n))
    best = int(np.argmin(squares(y[None], shape, spread)[0]))

    def residuals(at: np.ndarray) -> np.ndarray:
        model = np.log(at[1] + (1 - at[1]) * (n / n[0]) ** at[0])
        rest = y - model
        return (rest - np.average(rest, weights=spread**-2)) / spread

    start = np.clip([p[best], share[best]], [1e-6, 1e-9], [STEEPEST - 1e-6, 1 - 1e-6])
    found = least_squares(residuals, start, bounds=([0.0, 0.0], [STEEPEST, 1 - 1e-7]), xtol=1e-10, ftol=1e-12)
    return float(found.x[0]), float(found.x[1]), float(2 * found.cost)


def replicas(n: np.ndarray, drawn: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The exponent of every drawn set of costs: from the best of a grid on by Levenberg and Marquardt's steps.

    The grid alone is too coarse for points known to a hundredth: its intervals would hold the exponent in 60 of 100.
    """
    shape, p, share = curves(tuple(n))
    best = np.argmin(squares(drawn, shape, spread), 1)
    at, damping = np.stack([p[best], share[best]], 1), np.full(len(drawn), 1e-3)
    rest, slopes = residuals(n, drawn, spread, at)
    for _ in range(STEPS):
        new = np.clip(at + damped(rest, slopes, at, damping), LEAST, MOST)
        tried, bent = residuals(n, drawn, spread, new)
        nearer = (tried**2).sum(1) < (rest**2).sum(1)
        at[nearer], rest[nearer], slopes[nearer] = new[nearer], tried[nearer], bent[nearer]
        damping *= np.where(nearer, 0.2, 5.0)
    return at[:, 0]


def residuals(n: np.ndarray, y: np.ndarray, spread: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows of logarithms [rows, sizes] what curves at [rows, 2] leave, and the slopes of these [rows, 2, sizes]."""
    p, share, x = at[:, :1], at[:, 1:], n / n[0]
    power = x**p
    cost = share + (1 - share) * power
    slopes = np.stack([(1 - share) * power * np.log(x) / cost, (1 - power) / cost], 1)
    return centred(y - np.log(cost), spread), centred(slopes, spread)


def damped(rest: np.ndarray, slopes: np.ndarray, at: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Steps of exponent and share [rows, 2]; what is at a bound and pulled beyond it stays there."""
    pull = np.einsum("rkn,rn->rk", slopes, rest)
    bend = np.einsum("rkn,rln->rkl", slopes, slopes)
    held = ((at <= LEAST) & (pull < 0)) | ((at >= MOST) & (pull > 0))
    pull = np.where(held, 0.0, pull)
    first, second = (bend[:, k, k] * (1 + damping) + 1e-12 for k in (0, 1))
    both = np.where(held.any(1), 0.0, bend[:, 0, 1])
    scale = first * second - both**2
    return (
        np.stack([second * pull[:, 0] - both * pull[:, 1], first * pull[:, 1] - both * pull[:, 0]], 1) / scale[:, None]
    )


@cache
def curves(sizes: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a grid of exponents and shares, logarithms of the curve, of which the least size has 0."""
    n = np.array(sizes) / sizes[0]
    p, share = (one.ravel() for one in np.meshgrid(EXPONENTS, SHARES, indexing="ij"))
    return np.log(share[:, None] + (1 - share[:, None]) * n ** p[:, None]), p, share


def centred(rows: np.ndarray, spread: np.ndarray) -> np.ndarray:
    weights = spread**-2 / (spread**-2).sum()
    return (rows - (rows @ weights)[..., None]) / spread


def squares(rows: np.ndarray, shape: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Sums of squares between every row and every curve, whose factor b is the best one."""
    rows, shape = centred(rows, spread), centred(shape, spread)
    return (shape**2).sum(1)[None] - 2 * rows @ shape.T + (rows**2).sum(1)[:, None]


def slope(points: Sequence[Point]) -> float:
    """The exponent between the two largest sizes."""
    if len(points) < 2:
        return nan
    small, large = points[-2:]
    return log(large.value / small.value) / log(large.size / small.size)


def declared(order: str, sizes: Sequence[float]) -> float:
    """The exponent that costs of a declared order show over these sizes: of N log N a little more than 1."""
    points = [Point(size=size, value=ORDERS[order](size)) for size in sorted(sizes)]
    n, y, spread = columns(points)
    return fitted(n, y, spread)[0] if order in ("N log N",) else slope(points)


def crossover(own: Sequence[Point], other: Sequence[Point], seed: int = 0) -> Crossover:
    """From which size on `own` is smaller than `other`, between sizes by straight lines through logarithms."""
    mine, theirs = by_size(own), by_size(other)
    sizes = sorted(size for size in mine.keys() & theirs.keys() if min(mine[size].value, theirs[size].value) < inf)
    if not sizes:
        return Crossover(word="unknown")
    pairs = [(mine[size], theirs[size]) for size in sizes]
    drawn = [ratios([pair[side] for pair in pairs], seed + side) for side in (0, 1)]
    with np.errstate(invalid="ignore"):
        gaps = drawn[0] - drawn[1]
    ends = {"least": sizes[0], "most": sizes[-1]}
    found = np.array([crossing(sizes, row) for row in gaps])
    low, high = np.quantile(found, (0.025, 0.975), method="nearest")
    middle = crossing(sizes, np.array([log_of(a) - log_of(b) for a, b in pairs]))
    if low == inf:
        return reverse(sizes, gaps, ends)
    if high == 0:
        return Crossover(word="always", **ends)
    if high == inf or (low == 0 and middle in (0, inf)):
        return Crossover(word="unknown", low=float(low), high=float(high), **ends)
    return Crossover(word="at", size=middle, low=float(low), high=float(high), **ends)


def reverse(sizes: Sequence[float], gaps: np.ndarray, ends: Mapping[str, float]) -> Crossover:
    """Of a cost that is surely larger at the largest size: whether it is smaller up to some size."""
    found = np.array([crossing(sizes, -row) for row in gaps])
    low, high = np.quantile(found, (0.025, 0.975), method="nearest")
    if low > 0 and high < inf:
        return Crossover(word="below", size=float(np.median(found)), low=float(low), high=float(high), **ends)
    return Crossover(word="never", **ends)


def by_size(points: Sequence[Point]) -> dict[float, Point]:
    return {point.size: point for point in points}


def log_of(point: Point) -> float:
    """The logarithm of a cost; of none at all one below those of all others."""
    return log(max(point.value, NONE)) if isfinite(point.value) else inf


def ratios(points: Sequence[Point], seed: int) -> np.ndarray:
    """Drawn logarithms of costs; without memory infinitely large."""
    level = np.array([log_of(point) for point in points])
    return level + draws(points, len(points), seed) * np.array([point.spread for point in points])


def crossing(sizes: Sequence[float], gaps: np.ndarray) -> float:
    """The size past which all gaps are negative: 0 where all are, infinite where the last one is not."""
    positive = np.flatnonzero(gaps >= 0)
    if not len(positive):
        return 0.0
    if (last := int(positive[-1])) == len(sizes) - 1:
        return inf
    before, after = gaps[last], gaps[last + 1]
    if not (isfinite(before) and isfinite(after)):
        return float(sizes[last + 1])  # where memory ran out for one of them: no later than there
    share = before / (before - after)
    return exp(log(sizes[last]) + share * log(sizes[last + 1] / sizes[last]))
