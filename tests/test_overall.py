"""Several tasks at once: means over them, profiles and transfer of ranks, with intervals that hold; or a refusal."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, trim_mean

from attnbench.reports import overall as module
from attnbench.reports.across import across
from attnbench.reports.collect import collect
from attnbench.reports.columns import learn
from attnbench.reports.overall import above, ahead, middle, occurrences, overall, several
from attnbench.reports.report import write_report
from attnbench.reports.stats import t_interval
from attnbench.reports.summary import Line, Table, tables
from attnbench.reports.transfer import between, tau
from tests.made_scores import planted

ACCURACY = "result.accuracy"
SD = 0.05


@pytest.fixture
def quick(monkeypatch):
    """Fewer resamples and a coarse figure, for many draws."""
    monkeypatch.setattr(module, "RESAMPLES", 400)
    monkeypatch.setattr("attnbench.reports.transfer.RESAMPLES", 400)
    monkeypatch.setattr(module, "GRID", np.array([0.5]))


def line(variant: str, values) -> Line:
    return Line(
        variant=variant,
        group=variant,
        asked=len(values),
        ok=len(values),
        values=dict(enumerate(map(float, values))),
        error=t_interval(values),
        spread=(0.0, 1.0),
        others={},
        costs={},
        cost_status="",
        timing="",
        trouble="",
    )


def table(setting: str, lines: Mapping[str, Any], measure: str = ACCURACY, chance: float | None = 0.1) -> Table:
    return Table(
        setting=setting,
        measure=measure,
        lines=tuple(line(name, own) for name, own in lines.items()),
        reference="full",
        levels={measure: {} if chance is None else {"chance": chance}},
    )


def draw(chance: np.random.Generator, seeds: int, count: int) -> list[Table]:
    """Tasks in which full scores 0.9, chance is 0.1, and x lies at 0.6, 0.6 + 0.2 / count and so on."""
    return [
        table(
            f"t{t}",
            {
                "full": 0.9 + SD * chance.normal(size=seeds),
                "x": 0.6 + 0.2 * t / count + SD * chance.normal(size=seeds),
            },
        )
        for t in range(count)
    ]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("count", "seeds", "share"), [(2, 3, 0.91), (4, 3, 0.91), (4, 5, 0.95), (8, 5, 0.95)])
def test_intervals_of_means_over_tasks_hold_them_as_often_as_their_page_says(count, seeds, share):
    chance = np.random.default_rng(0)
    runs = [(0.5 + 0.2 * t / count + SD * chance.normal(size=100_000)) / 0.8 for t in range(count)]
    truth, held, draws = trim_mean(np.concatenate(runs), 0.25), 0, 200
    for number in range(draws):
        found, told = overall(draw(np.random.default_rng([count, seeds, number]), seeds, count))
        assert found is not None, told
        held += found.mean["x"].low <= truth <= found.mean["x"].high
    assert held / draws == pytest.approx(share, abs=0.06)


@pytest.mark.usefixtures("quick")
def test_where_seeds_succeed_or_fail_intervals_over_tasks_hold_the_mean_in_80_of_100_as_their_page_says():
    """At three seeds, of which each solves a task with a chance of 0.7."""

    def scores(chance: np.random.Generator, size: int) -> np.ndarray:
        return np.where(chance.random(size) < 0.7, 0.8, 0.15) + 0.02 * chance.normal(size=size)

    truth = trim_mean((scores(np.random.default_rng(0), 200_000) - 0.1) / 0.8, 0.25)
    held, draws = 0, 200
    for number in range(draws):
        chance = np.random.default_rng([3, number])
        full = 0.9 + 0.02 * chance.normal(size=(4, 3))
        found, _ = overall([table(f"t{t}", {"full": full[t], "x": scores(chance, 3)}) for t in range(4)])
        assert found is not None
        held += found.mean["x"].low <= truth <= found.mean["x"].high
    assert held / draws == pytest.approx(0.8, abs=0.06)


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert all(middle(x) == pytest.approx(trim_mean(x, 0.25)) for x in (np.arange(n) ** 2.0 for n in range(1, 30)))


def test_the_probability_to_be_better_counts_pairs_of_runs_and_half_of_ties():
    one, other = np.array([[1.0, 2.0], [3.0, 3.0]]), np.array([[1.0, 0.0], [3.0, 4.0]])
    drawn = np.array([[[0, 1], [0, 1]], [[0, 0], [1, 1]]])  # each seed once; the first twice, the second twice
    first, second = (0.5 + 1 + 1 + 1) / 4, (0.5 + 0 + 0.5 + 0) / 4
    assert ahead(one, other, occurrences(drawn)) == pytest.approx([(first + second) / 2, (0.5 + 0) / 2])


def test_a_profile_counts_the_runs_above_each_level():
    chance = np.random.default_rng(0)
    runs, levels = chance.integers(0, 6, (5, 20)) / 4, np.linspace(0, 1.25, 6)
    loop = [[np.mean(own > level) for level in levels] for own in runs]
    assert above(runs, levels) == pytest.approx(np.array(loop))


def test_anchors_are_nought_and_one_and_errors_count_in_logarithms():
    """A hundredth is half way from one to a ten-thousandth; the control stands for a chance that nobody knows."""
    error = "result.rel_l2"
    noise = np.array([1.0, 1.001, 0.999, 1.0005])
    made = [
        table(name, {"full": 1e-4 * noise, "x": 1e-2 * noise, "identity": noise[::-1], "y": 2 * noise}, error, None)
        for name in ("a", "b")
    ]
    found, told = overall(made)
    assert not told
    assert found is not None
    means = {name: one.mean for name, one in found.mean.items()}
    assert means == pytest.approx({"full": 1.0, "x": 0.5, "identity": 0.0, "y": -np.log(2) / np.log(1e4)}, abs=1e-3)
    assert found.better["x"].mean == 0
    assert [one.mean for one in found.past["x"]] == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=0.5)
    assert found.profile["full"][0][0] == 1


@pytest.mark.usefixtures("quick")
def test_two_planted_alike_are_better_than_each_other_by_half():
    chance = np.random.default_rng(1)
    made = [
        table(f"t{t}", {"full": 0.8 + SD * chance.normal(size=60), "x": 0.8 + SD * chance.normal(size=60)})
        for t in (0, 1)
    ]
    found, _ = overall(made)
    assert found is not None
    assert found.better["x"].low < 0.5 < found.better["x"].high
    assert found.better["x"].mean == pytest.approx(0.5, abs=0.1)


GOOD = {"full": [0.90, 0.91, 0.92], "x": [0.5, 0.6, 0.55], "y": [0.3, 0.31, 0.35]}


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({name: own[:1] for name, own in GOOD.items()}, "with one seed"),
        (GOOD | {"x": [0.5]}, "1 seed in common, and 3 are needed"),
        (GOOD | {"full": [0.9, 0.1, 0.12]}, "full is not significantly better than chance"),
        ({"x": [0.5, 0.6, 0.55], "y": [0.1, 0.2, 0.3]}, "has no result of full"),
        ({"full": [0.90, 0.91, 0.92]}, "no two variants"),
    ],
)
def test_what_the_data_cannot_say_over_tasks_is_refused_in_a_sentence(second, why):
    made = [table("a", GOOD), table("b", second)]
    if "full" not in second:
        made[1] = Table(setting="b", measure=ACCURACY, lines=made[1].lines, reference="x", levels=made[1].levels)
    found, told = overall(made)
    assert found is None
    assert any(why in sentence for sentence in told)
    assert told[-1].startswith("Nothing is said over tasks: ")


def test_one_task_is_not_spoken_of_nor_are_sizes_of_one():
    assert not several([table("darcy, side 16", GOOD), table("darcy, side 32", GOOD)])
    assert across([table("a", GOOD)]).notes == ()


def scipys(one: np.ndarray, other: np.ndarray) -> float:
    found: Any = kendalltau(one, other)
    return float(found.statistic)


def test_tau_is_scipys():
    chance = np.random.default_rng(2)
    for _ in range(20):
        one, other = chance.integers(0, 4, (2, 6)).astype(float)
        assert tau(one, other) == pytest.approx(scipys(one, other))


def orders(chance: np.random.Generator, seeds: int, gap: float) -> tuple[Table, Table, float]:
    """Six variants, gaps apart, in two tasks that differ by two swaps of neighbours; and the tau of that."""
    means = gap * np.arange(6)
    other = means[[1, 0, 2, 4, 3, 5]]
    made = [
        table(name, {f"v{i}": own[i] + SD * chance.normal(size=seeds) for i in range(6)})
        for name, own in (("a", means), ("b", other))
    ]
    return made[0], made[1], scipys(means, other)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("seeds", "gap", "share"), [(3, 0.05, 0.95), (5, 0.05, 0.95), (10, 0.02, 0.93)])
def test_the_interval_of_tau_holds_the_planted_one(seeds, gap, share):
    held, safe, draws = 0, 0, 150
    for number in range(draws):
        one, other, truth = orders(np.random.default_rng([seeds, number]), seeds, gap)
        found = between(one, other)
        assert found is not None
        held += found.tau.low - 1e-9 <= truth <= found.tau.high + 1e-9
        safe += found.bounds[0] - 1e-9 <= truth <= found.bounds[1] + 1e-9
    assert held / draws >= share - 0.035
    assert safe / draws >= 0.95


@pytest.mark.usefixtures("quick")
def test_tau_of_near_ties_is_missed_by_its_interval_and_not_by_the_range_of_the_pairs():
    """Eight in one order, half a standard deviation apart: as the page warns, noise draws tau towards 0."""
    held, safe, draws, means = 0, 0, 60, 0.5 * SD * np.arange(8)
    for number in range(draws):
        chance = np.random.default_rng(number)
        sides = [table(name, {f"v{i}": means[i] + SD * chance.normal(size=5) for i in range(8)}) for name in ("a", "b")]
        found = between(sides[0], sides[1])
        assert found is not None
        held += found.tau.high >= 1 - 1e-9
        safe += found.bounds[1] >= 1 - 1e-9
    assert held / draws < 0.5
    assert safe / draws >= 0.95


def test_pairs_that_seeds_tell_apart_are_counted_alike_or_opposite():
    one, other, truth = orders(np.random.default_rng(3), 12, 0.5)
    found = between(one, other)
    assert found is not None
    assert (found.alike, found.opposite, found.open) == (13, 2, 0)
    assert found.tau.mean == found.bounds[0] == found.bounds[1] == pytest.approx(truth)


@pytest.mark.usefixtures("quick")
def test_ranks_of_unrelated_tasks_do_not_transfer():
    chance, held = np.random.default_rng(4), 0
    for _ in range(40):
        orders = [chance.permutation(8) for _ in range(2)]
        made = [
            table(name, {f"v{i}": own[i] * 0.1 + SD * chance.normal(size=5) for i in range(8)})
            for name, own in zip("ab", orders, strict=True)
        ]
        found = between(made[0], made[1])
        assert found is not None
        held += found.tau.low <= scipys(orders[0], orders[1]) <= found.tau.high
    assert held >= 35


SCORES = {"recall": GOOD, "listops": {**GOOD, "z": [0.1, 0.2, 0.3]}}


def test_the_report_has_pages_over_tasks_and_a_figure(tmp_path):
    store, manifest = planted(SCORES)
    text = write_report(store, manifest, tmp_path).read_text()
    assert "## Over 2 tasks" in text
    assert "| full | 1.0" in text
    assert "left out: z." in text
    assert "## Do ranks transfer between tasks?" in text
    assert "| recall → listops | 3 |" in text or "| listops → recall | 3 |" in text
    assert (tmp_path / "figures/profiles.png").is_file()
    assert "![profiles](figures/profiles.png)" in text
    assert r"listops $\to$ recall" in (tmp_path / "summary.tex").read_text()


def test_a_report_of_one_seed_says_once_that_it_says_nothing_over_tasks(tmp_path):
    store, manifest = planted(
        {task: {name: values[:1] for name, values in own.items()} for task, own in SCORES.items()}
    )
    text = write_report(store, manifest, tmp_path).read_text()
    said = (
        "Nothing is said over tasks, neither means nor whether ranks transfer: that takes 3 seeds, and no variant has"
    )
    assert text.count(f"{said} more than 1.") == text.count("over tasks") == 1
    assert "Over 2 tasks" not in text
    assert not (tmp_path / "figures/profiles.png").exists()


def test_the_names_of_variants_are_those_without_their_task():
    store, manifest = planted(SCORES)
    learn(manifest.better)
    found, _ = overall(tables(collect(store, manifest)))
    assert found is not None
    assert set(found.mean) == {"full", "x", "y"}
    assert found.dropped == ("z",)
    assert found.seeds == 3


def test_every_two_tasks_are_compared_once():
    made = [table(name, GOOD) for name in "abc"]
    assert [one.title for one in across(made).pages][-1].startswith("Do ranks")
    assert len(across(made).pages[-1].rows) == len(list(combinations("abc", 2)))
