"""What is said over tasks against loops that take one resample after the other, and with seeds that tasks lack."""

import numpy as np
import pytest
from scipy.stats import trim_mean

from attnbench.reports.overall import RESAMPLES, SEED, overall, tails
from attnbench.reports.transfer import between, transfers
from tests.test_overall import table

TASKS, SEEDS, CHANCE = 3, 20, 0.1


def test_numbers_over_tasks_are_those_of_a_loop_that_leaves_out_resamples_without_a_scale():
    """In one task full is so close to chance that about one resample in a hundred turns its scale over."""
    chance = np.random.default_rng(3)
    values = {
        name: chance.normal(mean, 0.05, (TASKS, SEEDS)) for name, mean in (("full", 0.3), ("x", 0.25), ("y", 0.4))
    }
    close = values["full"][0]
    values["full"][0] = CHANCE + 0.05 * ((close - close.mean()) / close.std(ddof=1) + 2.25 / np.sqrt(SEEDS))
    found, told = overall([table(f"t{t}", {name: own[t] for name, own in values.items()}) for t in range(TASKS)])
    assert found is not None
    assert told == []
    drawn = np.random.default_rng(SEED).integers(SEEDS, size=(RESAMPLES, TASKS, SEEDS))
    drawn[0] = np.arange(SEEDS)
    means: dict[str, list[float]] = {name: [] for name in values}
    better: dict[str, list[float]] = {name: [] for name in values}
    for resample in drawn:
        own = {name: np.array([one[t][resample[t]] for t in range(TASKS)]) for name, one in values.items()}
        if (own["full"].mean(axis=1) <= CHANCE).any():
            continue
        for name, runs in own.items():
            scores = (runs - CHANCE) / (own["full"].mean(axis=1, keepdims=True) - CHANCE)
            means[name].append(float(trim_mean(scores.ravel(), 0.25)))
            wins = [np.mean(a > b) + np.mean(a == b) / 2 for a, b in zip(*pairs(runs, own["full"]), strict=True)]
            better[name].append(float(np.mean(wins)))
    assert RESAMPLES * 0.97 < len(means["x"]) < RESAMPLES - 5
    ends = tails(SEEDS, TASKS * (SEEDS - 1))
    for shown, slow in ((found.mean, means), (found.better, better)):
        for name, one in shown.items():
            expected = (slow[name][0], *np.quantile(slow[name], ends))
            assert (one.mean, one.low, one.high) == pytest.approx(expected), name


def pairs(one: np.ndarray, other: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every run of one with every run of the other, task by task."""
    return [np.repeat(a, SEEDS) for a in one], [np.tile(b, SEEDS) for b in other]


def test_a_task_whose_scale_the_common_seeds_turn_over_is_left_out_in_a_sentence():
    """Full is better than chance with eight seeds, and worse in the three that the others have, too."""
    own = {"full": [0.05, 0.06, 0.07, 0.9, 0.91, 0.92, 0.9, 0.91], "x": [0.3, 0.31, 0.32], "y": [0.2, 0.21, 0.22]}
    fine = {name: [0.5, 0.51, 0.52] for name in own} | {"full": [0.9, 0.91, 0.92]}
    tables = [table("turned", own), table("one", fine), table("two", fine)]
    found, told = overall(tables)
    assert told == [
        "turned is left out over tasks: in the 3 seeds that all variants have in common full is not better than chance."
    ]
    assert found is not None
    assert found.mean == getattr(overall(tables[1:])[0], "mean", None)
    assert overall(tables[:2])[0] is None


def test_two_tasks_draw_their_seeds_apart():
    chance = np.random.default_rng(0)
    same = {f"v{i}": 0.5 + 0.01 * i + 0.02 * chance.normal(size=5) for i in range(5)}
    found = between(table("a", same), table("b", same))
    assert found is not None
    assert found.tau.mean == 1
    assert found.tau.low < 0.9


def test_what_is_remembered_between_pairs_of_tasks_changes_nothing():
    chance = np.random.default_rng(1)
    tables = [
        table(name, {f"v{i}": 0.1 * i + 0.1 * chance.normal(size=seeds) for i in range(5)})
        for name, seeds in (("a", 4), ("b", 6), ("c", 4), ("d", 5))
    ]
    apart = [between(one, other) for i, one in enumerate(tables) for other in tables[i + 1 :]]
    assert transfers(tables)[0] == apart
