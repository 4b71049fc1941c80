"""The rules of the ledger, on intervals: numbers of one setting or of two, pairs of a place, places of a claim."""

from typing import Any

import numpy as np
import pytest

from attnbench.ledger.verdicts import of_place, of_places, of_value, tally
from attnbench.reports.stats import t_interval


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
