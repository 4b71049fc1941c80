"""Ranks, letters and a bold best on planted ties and planted differences: wrong no more often than they say."""

import time
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from attnbench.reports.collect import collect
from attnbench.reports.columns import learn
from attnbench.reports.ranking import GROUPS, adjusted, differences, letters, rank
from attnbench.reports.report import screen, write_report
from attnbench.reports.stats import holm, paired
from tests.made_scores import planted

DRAWS = 400
NAMES = "abcdefgh"


def drawn(truth: list[float], seeds: int, draw: int, noise: str = "normal") -> dict[str, dict[int, float]]:
    """Errors with a part that all variants of a seed share, as paired seeds have, around the true means."""
    chance = np.random.default_rng([seeds, draw])
    common = chance.normal(0, 0.3, seeds)
    own = chance.normal(0, 0.1, (len(truth), seeds))
    if noise == "solved":  # a seed learns the task or learns nothing
        own = np.where(chance.random(own.shape) < 0.7, 0.0, 0.5) + 0.01 * own
    return {
        name: {seed: float(mean + common[seed] + own[i, seed]) for seed in range(seeds)}
        for i, (name, mean) in enumerate(zip(NAMES, truth, strict=False))
    }


@pytest.mark.parametrize("noise", ["normal", "solved"])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "truth", [[1.0, 1.0], [1.0] * 4, [1.0, 1.0, 3.0, 3.0]], ids=["two tie", "four tie", "two of four tie"]
)
def test_of_tied_variants_none_is_called_best_in_more_than_5_of_100(truth: list[float], seeds: int, noise: str):
    called = [rank(drawn(truth, seeds, draw, noise), "lower").best for draw in range(DRAWS)]
    assert np.mean([one is not None for one in called]) <= 0.05 + 0.022  # two standard errors


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "truth", [[1.0, 1.0, 1.1, 1.3, 2.0], [1.0, 1.4, 1.8, 1.8], [1.0] * 8], ids=["close", "far", "tied"]
)
def test_rank_intervals_hold_every_rank_of_a_variant_in_95_of_100(truth: list[float], seeds: int):
    held = np.zeros(len(truth))
    for draw in range(DRAWS):
        ranks = rank(drawn(truth, seeds, draw), "lower").ranks
        for i, mean in enumerate(truth):
            least, most = 1 + sum(o < mean for o in truth), len(truth) - sum(o > mean for o in truth)
            held[i] += ranks[NAMES[i]][0] <= least and ranks[NAMES[i]][1] >= most
    assert (held / DRAWS >= 0.95 - 0.022).all()


@pytest.mark.parametrize(("seeds", "share"), [(3, 0.6), (5, 0.99)])
def test_a_planted_best_is_found(seeds: int, share: float):
    found = [rank(drawn([1.0, 3.0, 3.0, 3.0], seeds, draw), "lower").best for draw in range(100)]
    assert np.mean([one == "a" for one in found]) > share
    turned = [rank(drawn([1.0, 1.0, 1.0, 3.0], seeds, draw), "higher").best for draw in range(100)]
    assert np.mean([one == "d" for one in turned]) > share


def matrix(names: Sequence[str], ahead: set[tuple[str, str]]) -> np.ndarray:
    return np.array([[(a, b) in ahead for b in names] for a in names])


def test_letters_are_shared_by_those_that_cannot_be_told_apart_and_by_no_others():
    chance = np.random.default_rng(0)
    for _ in range(50):
        names = list(NAMES)
        ahead = {(a, b) for a, b in combinations(names, 2) if chance.random() < 0.6}
        found = letters(names, matrix(names, ahead))
        assert found
        for a, b in combinations(names, 2):
            assert bool(set(found[a]) & set(found[b])) == ((a, b) not in ahead)


def test_letters_are_those_of_the_textbook():
    """Piepho's own example of a chain: each is apart from all but its neighbours."""
    ahead = {(a, b) for a, b in combinations("abcd", 2) if ord(b) - ord(a) > 1}
    assert letters("abcd", matrix("abcd", ahead)) == {"a": "a", "b": "ab", "c": "bc", "d": "c"}


def test_too_many_groups_have_no_letters():
    names = [f"v{i:02}" for i in range(2 * GROUPS)]
    chain = {(a, b) for a, b in combinations(names, 2) if int(b[1:]) - int(a[1:]) > 1}
    assert letters(names, matrix(names, chain)) == {}
    assert letters(names, matrix(names, set())) == dict.fromkeys(names, "a")


def test_all_pairs_at_once_are_the_paired_tests_one_by_one():
    chance = np.random.default_rng(3)
    scored = {name: {seed: float(chance.normal()) for seed in chance.permutation(6)[:4]} for name in NAMES}
    scored["g"] = {seed: one + 0.5 for seed, one in scored["a"].items()}
    scored["h"] = {7: 1.0}
    means, ps = differences(NAMES, scored)
    for (i, a), (j, b) in combinations(enumerate(NAMES), 2):
        one = paired(scored[a], scored[b])
        expected = [one.mean, one.p] if one.n > 1 else [np.nan, np.nan]
        assert [means[i, j], ps[i, j]] == pytest.approx(expected, nan_ok=True)
    for own in ps:
        assert adjusted(own) == pytest.approx(holm(own.tolist()), nan_ok=True)


def test_a_thousand_variants_are_ranked_in_seconds():
    chance = np.random.default_rng(0)
    scored = {f"v{i}": dict(enumerate(map(float, i + chance.normal(size=5)))) for i in range(1000)}
    start = time.perf_counter()
    found = rank(scored, "lower")
    assert time.perf_counter() - start < 10
    assert found.apart > 100_000


def test_one_seed_ranks_nothing_and_says_so():
    found = rank({"a": {0: 1.0}, "b": {0: 2.0}}, "lower")
    assert not found.ranks_anything
    assert found.sentence == "Nothing is ranked: no two variants have two seeds in common."
    assert found.fields("a") == found.head == []


@pytest.mark.parametrize("seeds", [3, 5])
def test_of_many_that_are_alike_nothing_is_ranked_in_95_of_100_tables(seeds: int):
    """Corrected over the pairs of each alone, some two of fifteen would be told apart in a quarter of tables."""
    ranked = 0
    for draw in range(DRAWS):
        chance = np.random.default_rng([seeds, draw])
        values = 1 + chance.normal(0, 0.3, seeds) + chance.normal(0, 0.1, (15, seeds))
        ranked += rank({f"v{i}": dict(enumerate(map(float, own))) for i, own in enumerate(values)}, "lower").apart > 0
    assert ranked / DRAWS <= 0.05 + 0.022  # two standard errors


def test_a_best_is_called_so_even_where_no_pair_bears_a_correction_over_all():
    chance = np.random.default_rng(0)
    scored = {name: dict(enumerate(map(float, 1 + chance.normal(0, 0.1, 3)))) for name in "bcdef"}
    scored["a"] = dict.fromkeys(range(3), 0.0)
    found = rank(scored, "lower")
    assert (found.best, found.ranks["a"]) == ("a", (1, 1))


def test_seeds_more_know_how_many_tests_are_open():
    """Against one variant the whole 5 % are left, against two that are alike a half each: 13 seeds, not 10."""
    away = np.array([2.1, 0.1, 2.0, -0.5, 1.3])
    away = 1 + (away - away.mean()) / away.std(ddof=1)
    scored = {"a": dict.fromkeys(range(5), 1.0), "b": dict(enumerate((1 + away).tolist()))}
    scored["c"] = dict(enumerate((1 + away[::-1]).tolist()))
    assert rank({name: scored[name] for name in "ab"}, "lower").more == pytest.approx(10 - 5, abs=1)
    assert rank(scored, "lower").more == pytest.approx(13 - 5, abs=1)


def test_a_best_is_best_of_those_that_have_results():
    scored = {"a": {0: 1.0, 1: 1.1, 2: 0.9}, "b": {0: 3.0, 1: 3.11, 2: 2.9}}
    assert rank(scored, "lower").sentence == "a is significantly best."
    assert rank(scored | {"c": {}}, "lower").sentence == "a is significantly best of the 2 with results."


def test_a_single_variant_has_no_rank_and_no_sentence():
    found = rank({"a": {0: 1.0, 1: 1.1}, "b": {}}, "lower")
    assert (found.best, found.sentence) == (None, "")


def test_the_side_that_is_better_has_two_names():
    with pytest.raises(ValueError, match="lower or higher"):
        rank({}, "smaller")


APART = {"full": [0.10, 0.11, 0.12], "mano": [0.30, 0.311, 0.32], "swin": [0.31, 0.308, 0.325], "linear": [None] * 3}


def table_of(scores, tmp_path) -> list[str]:
    store, manifest = planted({"darcy": scores})
    text = write_report(store, manifest, tmp_path).read_text()
    part = text.partition("darcy: error\n")[2].partition("\n## ")[0]
    assert len({line.count("|") for line in part.splitlines() if line.startswith("|")}) == 1
    return part.splitlines()


def line_of(lines: list[str], variant: str) -> list[str]:
    row = next(line for line in lines if line.startswith(f"| {variant} |"))
    return [field.strip() for field in row.split("|")[1:-1]]


def test_the_best_is_bold_where_it_is_significantly_best_in_both_tables(tmp_path):
    lines = table_of(APART, tmp_path)
    head = line_of(lines, "variant")
    assert head[4:6] == ["rank", "group"]
    assert line_of(lines, "full")[2].startswith("**0.110")
    assert line_of(lines, "full")[4:6] == ["1", "a"]
    assert line_of(lines, "mano")[2].startswith("0.31")
    assert line_of(lines, "mano")[4:6] == line_of(lines, "swin")[4:6] == ["2 – 3", "b"]  # noqa: RUF001
    assert line_of(lines, "linear")[4:6] == ["–", "–"]  # noqa: RUF001
    assert any("full is significantly best of the 3 with results." in line for line in lines)
    latex = (tmp_path / "summary.tex").read_text()
    assert r"full & 3 / 3 & \textbf{0.110" in latex
    assert r"mano & 3 / 3 & 0.31" in latex


def test_a_table_of_ties_has_no_ranks_and_no_bold_best(tmp_path):
    lines = table_of(APART | {"full": [0.31, 0.30, 0.33]}, tmp_path)
    assert "rank" not in line_of(lines, "variant")
    assert "**" not in "".join(line for line in lines if line.startswith("|"))
    told = "Nothing is ranked: no two of these 3 variants can be told apart when all pairs are corrected together; "
    assert any(told in line for line in lines)


def test_a_best_that_lacks_results_is_not_called_so(tmp_path):
    lines = table_of(APART | {"full": [0.10, 0.11, 0.12, None], "mano": [0.30, 0.311, 0.32, 0.3]}, tmp_path)
    assert line_of(lines, "full")[4] == "1"
    assert "**" not in line_of(lines, "full")[2]
    assert any("None is called best: full, ahead of all others, lacks results" in line for line in lines)


def test_it_says_how_many_seeds_would_tell_the_first_two_apart():
    """Differences of 0.5 that scatter by 1 need 34 seeds in all, by Cohen's tables."""
    away = np.array([1.5, -0.5, 1.5, -0.5, 0.5])
    away = 0.5 + (away - away.mean()) / away.std(ddof=1)
    scored = {"a": dict.fromkeys(range(5), 1.0), "b": dict(enumerate((1 + away).tolist()))}
    found = rank(scored, "lower")
    assert found.more == pytest.approx(34 - 5, abs=1)
    assert found.sentence.endswith(
        f"told apart; {found.more} common seeds more would likely tell a from b, if mean and spread stay as they are."
    )


def test_the_terminal_says_what_is_ranked():
    store, manifest = planted({"darcy": APART})
    learn(manifest.better)
    assert "full is significantly best of the 3 with results." in str(screen(collect(store, manifest)).caption)


def test_the_terminal_says_of_every_table_what_is_ranked():
    accuracies = {name: [None if one is None else 1 - one for one in own] for name, own in APART.items()}
    store, manifest = planted({"darcy": APART, "images": accuracies})
    learn(manifest.better)
    said = str(screen(collect(store, manifest)).caption).splitlines()
    assert [line for line in said if line.endswith("with results.")] == [
        f"{task}: full · {task} is significantly best of the 3 with results." for task in ("darcy", "images")
    ]
