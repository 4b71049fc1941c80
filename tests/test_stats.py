"""Means, intervals, pairs and effects, each against another way to compute it."""

from itertools import product
from math import isnan, nan, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from attnbench.reports.collect import collect
from attnbench.reports.effects import effects
from attnbench.reports.stats import (
    Interval,
    difference,
    holm,
    paired,
    seeds_more,
    seeds_needed,
    t_interval,
)
from tests.made_rows import ablation, by_knobs, fail, training

LOSS = "result.rel_l2"
SLOPES = (-0.03, -0.02, -0.09, -0.03, -0.01, -0.02, -0.02, -0.01)


def test_an_interval_of_three_is_the_one_in_the_textbook():
    found = t_interval([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.30265
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half == pytest.approx(4.30265 / sqrt(3), rel=1e-5)


@pytest.mark.parametrize("n", [2, 5, 20])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_are_scipys(n: int, confidence: float):
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    found = t_interval(values, confidence)
    low, high = reference.t.interval(confidence, n - 1, values.mean(), reference.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


def test_one_value_has_a_mean_and_no_bounds_and_none_has_neither():
    one, none = t_interval([0.5]), t_interval([])
    assert (one.mean, one.n) == (0.5, 1)
    assert isnan(one.low)
    assert not one.separates
    assert none.n == 0
    assert isnan(none.mean)


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_hold_the_true_mean_as_often_as_they_say(n: int):
    draws = np.random.default_rng(7).normal(1.0, 0.3, (3000, n))
    held = np.mean([found.low <= 1.0 <= found.high for found in map(t_interval, draws)])
    assert held == pytest.approx(0.95, abs=0.012)  # three standard errors


def test_a_hole_is_not_averaged():
    with pytest.raises(ValueError, match="not finite"):
        t_interval([0.1, nan])


def test_pairs_are_differences_over_common_seeds():
    a, b = {0: 1.0, 1: 2.0, 2: 4.0, 9: 50.0}, {2: 4.5, 1: 2.2, 0: 1.6, 5: -70.0}
    found = paired(a, b)
    theirs = reference.ttest_rel([1.6, 2.2, 4.5], [1.0, 2.0, 4.0])
    bounds = theirs.confidence_interval()
    assert found.n == 3
    assert (found.mean, found.low, found.high, found.p) == pytest.approx(
        (1.3 / 3, bounds.low, bounds.high, theirs.pvalue)
    )


def test_equal_differences_are_certain_and_no_difference_is_none():
    assert difference([0.25, 0.25, 0.25]).p == 0
    assert difference([0.0, 0.0]).p == 1
    assert isnan(difference([0.25]).p)


def test_equal_differences_of_scores_in_steps_have_an_interval_that_says_what_their_p_says():
    """Two or three seeds that gain one of 64 examples each are no proof, and no interval without width."""
    for n in (2, 3):
        old = {seed: 0.5 + seed / 64 for seed in range(n)}
        found = paired(old, {seed: one + 1 / 64 for seed, one in old.items()})
        low, high = reference.t.interval(0.95, n - 1, 1 / 64, 1 / 64 / sqrt(n))
        assert (found.low, found.high) == pytest.approx((low, high))
        assert found.p > 0.05
        assert not found.separates
        assert seeds_more(found)
    assert paired({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}).low == 0


def test_holm_by_hand():
    assert holm([0.01, 0.04, nan, 0.03]) == pytest.approx([0.03, 0.06, nan, 0.06], nan_ok=True)
    assert holm([0.9, 0.6]) == [1.0, 1.0]


@pytest.mark.parametrize(("effect", "seeds"), [(2.0, 5), (1.0, 10), (0.5, 34), (0.2, 199)])
def test_seeds_needed_are_those_of_the_tables_of_power(effect: float, seeds: int):
    """Cohen's tables for a two-sided paired t test at 5 % and a power of 80 %, within a seed."""
    assert seeds_needed(effect, 1.0) == pytest.approx(seeds, abs=1)


def test_seeds_more_counts_from_those_there_are():
    values = [0.9, 1.0, -0.6, 0.8, 0.1]
    found = difference(values)
    assert not found.separates
    needed = seeds_needed(float(np.mean(values)), float(np.std(values, ddof=1)))
    assert needed is not None
    assert seeds_more(found) == needed - 5
    assert seeds_more(Interval(0.0, -1.0, 1.0, 5)) is None
    strict = seeds_needed(float(np.mean(values)), float(np.std(values, ddof=1)), 1 - 0.05 / 7)
    assert strict is not None
    assert seeds_more(found, 7) == strict - 5
    assert strict > needed + 5
    assert seeds_more(t_interval([1.0])) is None


def test_the_effect_of_a_knob_is_that_of_an_explicit_loop():
    store, manifest = ablation()
    cells = by_knobs(store)
    per_seed = []
    for seed in range(5):
        changes = [
            cells[seed, levels, window, "conv", up] - cells[seed, levels, window, "average", up]
            for levels, window, up in product((2, 3, 4), (2, 4), ("transposed", "nearest"))
        ]
        per_seed.append(np.mean(changes))
    found = effect(store, manifest, "downsample")
    low, high = reference.t.interval(0.95, 4, np.mean(per_seed), reference.sem(per_seed))
    assert (found["before"], found["after"]) == ("average", "conv")
    assert (found["n_pairs"], found["n_seeds"]) == (60, 5)
    assert (found["difference"], found["low"], found["high"]) == pytest.approx((np.mean(per_seed), low, high))
    assert found["p"] == pytest.approx(reference.ttest_rel(per_seed, np.zeros(5)).pvalue)
    assert found["percent"] == pytest.approx(100 * (1 / 1.1 - 1), abs=1.5)  # the rows are made that way


def test_an_idle_knob_neither_pairs_nor_parts():
    """At one level downsample changes nothing: that cell is the start of all four ways to sample, once a window."""
    store, manifest = ablation()
    cells = by_knobs(store)
    ways = list(product((2, 4), ("conv", "average"), ("transposed", "nearest")))
    loop = [
        np.mean([cells[seed, 2, w, d, u] - cells[seed, 1, w, "conv", "transposed"] for w, d, u in ways])
        for seed in range(5)
    ]
    found = effect(store, manifest, "levels", before=1)
    assert found["n_pairs"] == 5 * len(ways)
    assert found["difference"] == pytest.approx(np.mean(loop))


def test_an_idle_knob_has_no_effect_even_where_it_was_moved():
    store, manifest = ablation()
    frame = collect(store, manifest)
    moved = frame[(frame["mechanism.levels"] == 1).fillna(False)].assign(**{"mechanism.downsample": "average"})
    found = effects(pd.concat([frame, moved]), LOSS).set_index("knob").loc["downsample"]
    assert len(moved) == 12  # ten trainings, two prices
    assert found["n_pairs_asked"] == 60


def test_knobs_that_change_together_are_one_effect():
    store, manifest = ablation()
    table = effects(collect(store, manifest), LOSS)
    assert "stride and window" in set(table["knob"])
    assert not {"stride", "heads"} & set(table["knob"])


def test_a_combination_with_a_hole_is_left_out_of_every_seed_and_counted():
    """A cell of one window is lost: what is left is the effect at the other window, in all five seeds."""
    store, manifest = ablation()
    whole = effect(store, manifest, "shift")
    fail(store, training(manifest, "swin window=2 shift=True", 3), "oom")
    found = effect(store, manifest, "shift")
    assert (whole["n_pairs"], found["n_pairs"], found["n_pairs_asked"]) == (10, 5, 10)
    assert found["n_seeds"] == 5
    before, after = (
        [store.rows[training(manifest, f"swin window=4 shift={shift}", seed)]["result"]["rel_l2"] for seed in range(5)]
        for shift in (False, True)
    )
    assert found["difference"] == pytest.approx(np.mean(after) - np.mean(before))


def test_a_hole_does_not_pass_for_an_effect():
    """Seven combinations change by -0.02 on average in every seed, the eighth by -0.09; the eighth lacks a cell.

    Averaged over what each seed has left, four seeds would say -0.02875 and one -0.02.
    """
    store, manifest = ablation()
    slopes = dict(zip(product((2, 4), ("conv", "average"), ("transposed", "nearest")), SLOPES, strict=True))
    for id, asked in store.specs.items():
        if asked["kind"] == "train" and (asked["mechanism"] or {}).get("name") == "mano":
            knobs = asked["mechanism"]["knobs"]
            slope = slopes[knobs["window"], knobs["downsample"], knobs["upsample"]] if knobs["levels"] > 1 else 0
            store.rows[id]["result"]["rel_l2"] = {2: 0.9, 4: 0.2}[knobs["window"]] + 0.01 * asked["seed"] + slope
    fail(store, training(manifest, "mano window=2 levels=2 downsample=average upsample=transposed", 4), "oom")
    found = effect(store, manifest, "levels", before=1)
    assert (found["n_pairs"], found["n_pairs_asked"], found["n_seeds"]) == (35, 40, 5)
    assert found["difference"] == pytest.approx(-0.02, abs=1e-12)
    assert found["high"] < -0.007  # equal to rounding, so their spread is taken for a step of the measure, 0.01
    starts = [(3 * 0.9 + 4 * 0.2) / 7 + 0.01 * seed for seed in range(5)]
    assert found["percent"] == pytest.approx(np.mean([100 * -0.02 / start for start in starts]))


def test_a_seed_that_failed_everywhere_is_left_out_and_the_others_stay_whole():
    store, manifest = ablation()
    for cell in manifest.cells:
        if cell.seed == 2:
            fail(store, cell.id, "timeout")
    found = effect(store, manifest, "shift")
    assert (found["n_pairs"], found["n_pairs_asked"], found["n_seeds"]) == (8, 10, 4)


def test_an_effect_with_a_hole_in_every_combination_is_no_number():
    store, manifest = ablation()
    for window, seed in ((2, 0), (4, 1)):
        fail(store, training(manifest, f"swin window={window} shift=True", seed), "oom")
    found = effect(store, manifest, "shift")
    assert (found["n_pairs"], found["n_pairs_asked"], found["n_seeds"]) == (0, 10, 0)
    assert isnan(found["difference"])


def effect(store, manifest, knob: str, before=None) -> dict:
    table = effects(collect(store, manifest), LOSS)
    rows = [row for row in table.to_dict("records") if row["knob"] == knob and before in (None, row["before"])]
    assert len(rows) == 1
    return rows[0]
