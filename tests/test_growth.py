"""Exponents and crossovers of planted curves: functions of known order, with noise, must give the right answer at the
stated rate, and ties no answer.
"""

from math import exp, inf, log, log2

import numpy as np
import pytest
from scipy.optimize import minimize

from attnbench.reports.growth import SIZES, Growth, Point, crossover, declared, growth, replicas

DOUBLINGS = [2.0**power for power in range(8, 15)]
FIVE = [256.0, 1024.0, 4096.0, 9216.0, 16384.0]
NOISE = 0.03
PLANTED = {  # an overhead of 100 % is as large as the rest at 1,024 tokens
    "N": (lambda n: 1e-3 * n, 1.0),
    "N, overhead of 100 %": (lambda n: 1e-3 * (1024 + n), 1.0),
    "N^1.5": (lambda n: 1e-4 * n**1.5, 1.5),
    "N^1.5, overhead of 10 %": (lambda n: 1e-4 * (0.1 * 1024**1.5 + n**1.5), 1.5),
    "N^2": (lambda n: 1e-6 * n**2, 2.0),
    "N^2, overhead of 10 %": (lambda n: 1e-6 * (0.1 * 1024**2 + n**2), 2.0),
    "N^2, overhead of 100 %": (lambda n: 1e-6 * (1024**2 + n**2), 2.0),
}


def noisy(sizes, costs, random, spread=NOISE):
    drawn = np.array(costs) * np.exp(random.normal(0, spread, len(costs)))
    return [Point(size=size, value=float(cost), spread=spread) for size, cost in zip(sizes, drawn, strict=True)]


@pytest.mark.parametrize("sizes", [FIVE, DOUBLINGS], ids=["five sizes", "doublings"])
@pytest.mark.parametrize("name", PLANTED)
def test_the_interval_holds_a_planted_exponent_in_95_percent(name, sizes):
    cost, truth = PLANTED[name]
    random = np.random.default_rng(1)
    found = [growth(noisy(sizes, [cost(n) for n in sizes], random)) for _ in range(24)]
    held = sum(one.low <= truth <= one.high for one in found)
    assert held >= 20  # of a rate of 95 %, fewer come in one case of 200
    assert np.median([one.high - one.low for one in found]) < 0.3
    assert np.median([one.p for one in found]) == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize(
    ("cost", "truth", "sizes"),
    [
        (lambda n: 10 * 1024**2 + n**2, 2.0, FIVE),
        (lambda n: 1024 + n, 1.0, [64 * 2.0**power for power in range(8)]),
        (lambda n: 1024**1.5 + n**1.5, 1.5, [64 * 2.0**power for power in range(8)]),
    ],
    ids=["N^2 under ten times as much", "N with a constant", "N^1.5 with a constant"],
)
def test_points_known_to_a_hundredth_are_not_trusted_beyond_it(cost, truth, sizes):
    """Resampled exponents that only a grid could take would be off by as much as such an interval is wide."""
    random = np.random.default_rng(11)
    found = [growth(noisy(sizes, [cost(n) for n in sizes], random, 0.01), seed=draw) for draw in range(60)]
    assert sum(one.low <= truth <= one.high for one in found) >= 50  # of 95 %, fewer come in one case of 1,000
    assert np.median([one.high - one.low for one in found]) < 0.06


def test_resampled_exponents_are_those_of_a_slow_minimiser():
    random, n = np.random.default_rng(12), np.array(DOUBLINGS)
    spread = np.full(len(n), 0.02)
    rows = np.log(1024**1.5 + n**1.5) + random.normal(0, 0.02, (12, len(n)))
    for row, p in zip(rows, replicas(n, rows, spread), strict=True):

        def squares(at, row=row):
            rest = row - np.log(at[1] + (1 - at[1]) * (n / n[0]) ** at[0])
            return float(((rest - rest.mean()) ** 2).sum())

        slow = minimize(squares, [1.5, 0.9], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15})
        assert p == pytest.approx(slow.x[0], abs=1e-3)


def test_n_log_n_shows_its_own_exponent():
    random = np.random.default_rng(2)
    truth = declared("N log N", DOUBLINGS)
    assert 1.1 < truth < 1.2
    found = [growth(noisy(DOUBLINGS, [n * log2(n) for n in DOUBLINGS], random)) for _ in range(24)]
    assert sum(one.low <= truth <= one.high for one in found) >= 20
    assert not any(one.low <= 1.5 <= one.high for one in found)


def test_a_straight_line_through_logarithms_would_miss_what_the_fit_finds():
    cost, truth = PLANTED["N^2, overhead of 100 %"]
    costs = [cost(n) for n in FIVE[:1] + DOUBLINGS[1:5]]
    sizes = FIVE[:1] + DOUBLINGS[1:5]
    line = np.polyfit(np.log(sizes), np.log(costs), 1)[0]
    assert line < 1.5
    found = growth([Point(size=size, value=value) for size, value in zip(sizes, costs, strict=True)])
    assert found.p == pytest.approx(truth, abs=0.02)
    assert found.at(512) == pytest.approx(cost(512), rel=0.02)


def test_few_processes_widen_the_interval():
    cost, _ = PLANTED["N^2, overhead of 100 %"]
    points = noisy(DOUBLINGS, [cost(n) for n in DOUBLINGS], np.random.default_rng(3))
    sure = growth(points)
    few = growth([Point(size=one.size, value=one.value, spread=one.spread, df=2) for one in points])
    assert few.high - few.low > 1.2 * (sure.high - sure.low)


def test_the_interval_holds_where_the_spread_itself_is_estimated_from_three_processes():
    random, held = np.random.default_rng(4), 0
    for _ in range(24):
        logs = np.log([n**1.5 for n in FIVE])[:, None] + random.normal(0, 0.05, (5, 3))
        spread = float(np.sqrt(logs.var(1, ddof=1).mean() / 3))
        values = zip(FIVE, np.exp(logs.mean(1)), strict=True)
        found = growth([Point(size=size, value=float(value), spread=spread, df=10) for size, value in values])
        held += found.low <= 1.5 <= found.high
    assert held >= 20


def test_too_few_sizes_are_refused_with_a_sentence():
    found = growth([Point(size=size, value=size) for size in FIVE[: SIZES - 1]])
    assert "4 sizes" in found.why
    assert found.p != found.p
    assert found.last == pytest.approx(1.0)


def test_sizes_without_memory_are_not_fitted():
    points = [Point(size=size, value=size**2) for size in DOUBLINGS[:5]]
    points += [Point(size=size, value=inf) for size in DOUBLINGS[5:]]
    assert growth(points).p == pytest.approx(2, abs=0.01)


def test_a_constant_cost_tells_no_exponent():
    random = np.random.default_rng(5)
    found = growth(noisy(FIVE, [3.0] * 5, random))
    assert found.high - found.low > 1


def curves(where: float, random=None, *, spread=NOISE) -> tuple[list[Point], list[Point]]:
    """Full attention, and what is as dear as it at `where` tokens, growing with N."""
    full = [(n / where) ** 2 for n in FIVE]
    own = [n / where for n in FIVE]
    if random is None:
        return points(own), points(full)
    return noisy(FIVE, own, random, spread), noisy(FIVE, full, random, spread)


def points(values: list[float]) -> list[Point]:
    return [Point(size=n, value=value) for n, value in zip(FIVE, values, strict=True)]


@pytest.mark.parametrize("where", [700.0, 3000.0, 12000.0])
def test_a_planted_crossover_lies_in_its_interval(where):
    random, held = np.random.default_rng(6), 0
    for seed in range(60):
        found = crossover(*curves(where, random), seed=seed)
        assert found.word == "at"
        assert found.high / found.low < 1.6
        held += found.low <= where <= found.high
    assert held >= 52


def test_cheaper_everywhere_and_nowhere_are_said():
    assert crossover(*curves(20.0, np.random.default_rng(7))).word == "always"
    never = crossover(*curves(1e6, np.random.default_rng(7)))
    assert (never.word, never.least, never.most) == ("never", 256, 16384)


def test_what_is_cheaper_only_at_small_sizes_is_not_called_never():
    full, own = curves(3000.0, np.random.default_rng(8))
    found = crossover(own, full)
    assert found.word == "below"
    assert found.low <= 3000 <= found.high


def test_ties_are_not_told_apart():
    random = np.random.default_rng(9)
    words = []
    for seed in range(60):
        costs = [n**1.2 for n in FIVE]
        words.append(crossover(noisy(FIVE, costs, random), noisy(FIVE, costs, random), seed=seed).word)
    assert words.count("always") + words.count("never") <= 6
    assert words.count("unknown") >= 40


def test_where_full_attention_runs_out_of_memory_the_crossover_is_no_later():
    own = [Point(size=n, value=2 * n) for n in FIVE]
    full = [Point(size=n, value=n) for n in FIVE[:3]] + [Point(size=n, value=inf) for n in FIVE[3:]]
    found = crossover(own, full)
    assert (found.word, found.size) == ("at", FIVE[3])
    assert crossover(full, own).word == "below"


def test_nothing_in_common_is_unknown():
    assert crossover([Point(size=1, value=1.0)], [Point(size=2, value=1.0)]).word == "unknown"


def test_a_cost_of_nothing_is_cheaper():
    assert (
        crossover([Point(size=n, value=0.0) for n in FIVE], [Point(size=n, value=1.0) for n in FIVE]).word == "always"
    )


def test_a_points_interval_is_students():
    point = Point(size=1, value=10.0, spread=0.1, df=2)
    assert log(point.high / 10) == pytest.approx(4.303 * 0.1, rel=1e-3)
    assert point.low == pytest.approx(10 * exp(-0.4303), rel=1e-3)


def test_growth_is_the_same_each_time():
    points = noisy(FIVE, [n**2 for n in FIVE], np.random.default_rng(10))
    assert isinstance(growth(points), Growth)
    assert growth(points) == growth(points)
