"""The rules of the ledger, on intervals: numbers of one setting or of two, pairs of a place, places of a claim."""

from typing import Any

import numpy as np
import pytest

from attnbench.ledger.verdicts import of_place, of_places, of_value, tally
from attnbench.reports.stats import t_interval
from tests.test_ledger import DOWN, ordering, place, two, verdict


def test_a_number_of_the_same_setting_differs_by_chance_one_time_in_twenty():
    chance, draws = np.random.default_rng(8), 3000
    found = [of_value(t_interval(chance.normal(1, 0.1, 5)), chance.normal(1, 0.1), 0, same=True) for _ in range(draws)]
    assert found.count("differs") / draws == pytest.approx(0.05, abs=0.012)  # three standard errors
    far = [of_value(t_interval(chance.normal(1, 0.1, 5)), 2.0, 0, same=True) for _ in range(200)]
    assert far.count("differs") >= 195


@pytest.mark.parametrize(
    ("values", "published", "rounding", "same", "expected"),
    [
        ([1.0, 1.1, 0.9], 1.0, 0.0, False, "cannot tell"),
        ([1.0, 1.1, 0.9], 9.0, 0.0, False, "cannot tell"),
        ([1.0, 1.01, 0.99], 1.0, 0.0, True, "agrees"),
        ([1.0, 1.01, 0.99], 1.04, 0.0, True, "cannot tell"),
        ([1.0, 1.01, 0.99], 1.04, 0.02, True, "agrees"),
        ([1.0, 1.9, 0.1], 1.0, 0.0, True, "cannot tell"),  # so wide that it agrees with anything
        ([1.0], 1.0, 0.0, True, "cannot tell"),
        ([], 1.0, 0.0, True, "not run"),
        ([0.5, 0.5, 0.5], 0.5, 0.0, True, "agrees"),
        ([0.5, 0.5, 0.5], 0.51, 0.001, True, "cannot tell"),  # a spread of nothing is no known spread
    ],
)
def test_a_number_decides_only_in_its_own_setting(values, published, rounding, same, expected):
    assert of_value(t_interval(values), published, rounding, same=same) == expected


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ("agrees agrees", "agrees"),
        ("agrees cannot", "cannot tell"),
        ("agrees differs", "differs"),
        ("agrees not", "cannot tell"),
        ("not not", "not run"),
    ],
)
def test_a_place_holds_a_claim_only_in_all_its_pairs(pairs: str, expected: str):
    assert of_place(whole(pairs)) == expected


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ("agrees cannot", "agrees"),
        ("cannot differs not", "differs"),
        ("agrees differs", "cannot tell"),
        ("cannot not", "cannot tell"),
        ("not not", "not run"),
        ("", "not run"),
    ],
)
def test_places_that_cannot_tell_have_no_vote(places: str, expected: str):
    assert of_places(whole(places)) == expected


def whole(words: str) -> list[Any]:
    return [{"cannot": "cannot tell", "not": "not run"}.get(word, word) for word in words.split()]


def test_a_tally_says_how_many_places_say_what():
    assert tally(whole("agrees cannot cannot")) == "agrees in 1, cannot tell in 2 of 3 places"
    assert tally(whole("agrees")) == ""


@pytest.mark.parametrize("seeds", [2, 3])
def test_scores_in_steps_are_told_apart_under_a_tie_in_no_more_than_5_of_100(seeds: int):
    """Of 8 examples each: by chance two seeds gain as many in one of ten, which is no proof of a spread of zero."""
    chance, draws, wrong = np.random.default_rng(seeds), 800, 0
    for _ in range(draws):
        first, second = (chance.binomial(8, 0.5, (2, seeds)) + 1) / 9
        wrong += verdict(ordering(place(DOWN)), two(first, second)) != "cannot tell"
    assert wrong / draws <= 0.05 + 0.015  # two standard errors


def test_equal_gains_far_beyond_the_steps_of_a_measure_are_told():
    assert verdict(ordering(place(DOWN)), two([0.1, 0.101, 0.103], [0.5, 0.501, 0.503])) == "agrees"
