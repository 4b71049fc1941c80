"""Scores between 0 and 1: intervals that stay there and hold what they say; the share of seeds that solve a task."""

from math import inf, isnan, nan

import numpy as np
import pytest
from scipy.stats import binom

from attnbench.manifest import Manifest
from attnbench.reports.bounded import bounds, change_of, cut, mean_of
from attnbench.reports.canvas import Drawing
from attnbench.reports.collect import collect
from attnbench.reports.columns import learn
from attnbench.reports.figures import draw
from attnbench.reports.report import sheets_of, write_report
from attnbench.reports.rows import records
from attnbench.reports.solved import rate, threshold, wilson
from attnbench.reports.stats import Interval, difference, paired, resolution, seeds_more, t_interval
from attnbench.reports.summary import tables
from tests.made_scores import planted

ACCURACY = "result.accuracy"
SEEDS = (3, 5, 10)
SCORES = {"full": [0.96, 0.90, 0.49], "agent": [1.0, 0.50, 0.51], "pool": [0.50, 0.49, 0.50]}
DRAWS = 4000


def covered(draws: np.ndarray, truth: float) -> float:
    """How often the interval of a row holds the true mean."""
    found = [mean_of(ACCURACY, own) for own in draws]
    assert all(0 <= one.low <= one.mean <= one.high <= 1 for one in found)
    return float(np.mean([one.low - 1e-12 <= truth <= one.high + 1e-12 for one in found]))


@pytest.mark.parametrize("n", SEEDS)
def test_an_interval_of_scores_that_scatter_holds_their_mean_in_95_of_100(n: int):
    chance = np.random.default_rng(n)
    assert covered(chance.normal(0.6, 0.05, (DRAWS, n)), 0.6) == pytest.approx(0.95, abs=0.011)
    wide = chance.beta(2, 2, (DRAWS, n))  # most t intervals of three of these run beyond a bound
    assert covered(wide, 0.5) == pytest.approx(0.95, abs=0.013)


@pytest.mark.parametrize(("n", "share"), [(3, 0.92), (5, 0.93), (10, 0.94)])
def test_near_its_bound_it_holds_it_a_little_more_seldom(n: int, share: float):
    draws = np.random.default_rng(n).beta(18, 2, (DRAWS, n))
    assert covered(draws, 0.9) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(("n", "share"), [(3, 0.48), (5, 0.66), (10, 0.88)])
def test_of_seeds_that_succeed_or_fail_it_holds_it_too_seldom_as_its_page_says(n: int, share: float):
    chance = np.random.default_rng(n)
    draws = np.where(chance.random((DRAWS, n)) < 0.8, 1.0, 0.5) + chance.normal(0, 1e-3, (DRAWS, n))
    assert covered(np.clip(draws, 0, 1), 0.9) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_the_interval_of_the_share_that_solved_holds_it_there(n: int, share: float):
    """Wilson's covers 95 % on average over shares, at single ones of few seeds a little less (Brown et al. 2001)."""
    counts = np.arange(n + 1)
    held = [low <= share <= high for low, high in (wilson(int(count), n) for count in counts)]
    assert float(binom.pmf(counts, n, share)[held].sum()) > 0.83


def test_wilsons_interval_is_the_formula():
    z, n, p = 1.959964, 3, 2 / 3
    middle, half = (p + z * z / (2 * n)), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(2, 3) == pytest.approx(
        ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)), rel=1e-5
    )
    assert all(map(isnan, wilson(0, 0)))


def test_cutting_keeps_the_mean_and_whatever_is_inside():
    whole = t_interval([0.96, 0.90, 0.49])
    assert whole.high > 1.4
    assert mean_of(ACCURACY, [0.96, 0.90, 0.49]) == Interval(whole.mean, whole.low, 1.0, 3)
    assert mean_of("result.rel_l2", [0.5, 0.1]).low == 0
    assert mean_of("result.unheard_of", [0.5, 0.1]).low < 0
    assert cut(Interval(1.2, 1.1, 1.3, 3), 0, 1) == Interval(1.2, 1.1, 1.2, 3)
    assert cut(Interval(0.5, nan, nan, 1), 0, 1).n == 1
    assert bounds("result.above_floor") == (-inf, inf)
    assert bounds("cost.memory_train_mib") == (-inf, inf)


def test_a_difference_of_scores_stays_between_minus_one_and_one_and_keeps_its_p():
    found = difference([-0.47, -0.40, 0.9])
    assert found.high > 1
    kept = change_of(ACCURACY, found)
    assert (kept.low, kept.high) == (found.low if found.low > -1 else -1, 1)
    assert (kept.p, kept.n) == (found.p, 3)
    assert change_of("result.rel_l2", found) == found


def test_the_cut_does_not_change_how_many_seeds_are_asked_for():
    """It is a guess from the spread that was seen, which a bound does not make smaller."""
    scores = {"full": [1.0, 0.5, 0.51], "agent": [0.5, 1.0, 0.99]}
    table = one_table(scores)
    line = next(line for line in table.lines if line.variant == "agent")
    values = [dict(enumerate(scores[name])) for name in ("full", "agent")]
    assert paired(values[0], values[1]).high > 1
    assert line.more == seeds_more(paired(values[0], values[1]))
    assert line.change is not None
    assert (line.change.low, line.change.high) == (-1, 1)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_two_alike_that_score_in_steps_are_told_apart_in_no_more_than_5_of_100(n: int):
    """Both score 1 or a test example less: equal differences repeat by chance, and are no proof."""
    draws = np.random.default_rng(n).choice([1.0, 0.9975], (2, DRAWS, n))
    pairs = [[dict(enumerate(map(float, side[i]))) for side in draws] for i in range(DRAWS)]
    assert float(np.mean([paired(one, other).p < 0.05 for one, other in pairs])) < 0.05 + 0.01


def test_equal_differences_count_where_they_are_large_beside_the_steps_of_their_measure():
    """Solved in each of three seeds or in none is no proof: two that each learn half the time do so once in 32."""
    fine = {0: 0.101, 1: 0.113, 2: 0.109}
    assert paired(fine, {seed: one + 0.1 for seed, one in fine.items()}).p < 0.005
    assert paired({0: 0.5, 1: 0.5, 2: 0.5}, {0: 1.0, 1: 1.0, 2: 1.0}).p > 0.2
    assert paired(fine, fine).p == 1
    assert resolution([0.5, 0.5 + 1e-15, 1.0]) == pytest.approx(0.5)
    assert resolution([0.5, 0.5]) == inf


def test_a_seed_has_solved_a_task_past_a_level_and_not_where_it_diverged():
    assert threshold(ACCURACY, {"chance": 0.5}) == 0.75
    assert threshold(ACCURACY, {"chance": 0.2}, 0.9) == pytest.approx(0.92)
    assert threshold("result.miou", {"chance": 0.1}) is None
    assert threshold(ACCURACY, {}) is None
    found = rate([0.96, 0.75, 0.49], 1, 0.75)
    assert (found.count, found.n) == (1, 4)


def test_the_table_counts_seeds_that_solved_in_such_a_task_only(tmp_path):
    store, manifest = planted({"images": SCORES, "darcy": {name: [0.1, 0.2, 0.3] for name in SCORES}})
    text = write_report(store, manifest, tmp_path).read_text()
    images, darcy = (text.partition(f"## {name}: ")[2].partition("\n## ")[0] for name in ("images", "darcy"))
    assert "| solved: past 0.75 |" in images
    assert "| 2 / 3 [0.21, 0.94] |" in images
    assert "Wilson" in images
    assert "solved" not in darcy
    assert "Wilson" not in darcy
    widths = {line.count("|") for line in images.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_a_sweep_says_from_where_on_a_task_is_solved():
    store, manifest = planted({"images": SCORES})
    learn(manifest.better)
    frame = collect(store, manifest)
    (sheet,) = [one for one in sheets_of(frame, tables(frame, 0.9)) if "score" in one.title]
    assert "solved: past 0.95" in sheet.head
    assert any("1 / 3" in field for field in sheet.rows[0])
    assert Manifest(sweep="", question="", device="cpu", cells=()).solved == 0.5


def test_no_bar_of_a_figure_leaves_what_can_be():
    store, manifest = planted({"images": SCORES})
    learn(manifest.better)
    for kind in ("variants", "scatter"):
        words = {"x": "cost.train_samples_per_s"} if kind == "scatter" else {}
        rows = [row | {"cost.train_samples_per_s": 1.0} for row in records(collect(store, manifest))]
        (axes,) = draw(rows, Drawing(name="a", kind=kind, y=ACCURACY, **words)).axes
        place = "get_ydata" if kind == "scatter" else "get_xdata"
        ends = [float(end) for line in axes.lines if line.get_gid() != "level" for end in getattr(line, place)()]
        assert min(ends) >= 0
        assert max(ends) <= 1


def one_table(scores):
    store, manifest = planted({"images": scores})
    learn(manifest.better)
    (table,) = tables(collect(store, manifest))
    return table
