"""Fronts of quality against cost: a chance for each variant that is large where it should be, and no more often."""

from math import nan

import numpy as np
import pytest

from attnbench.reports.canvas import Drawing
from attnbench.reports.collect import collect
from attnbench.reports.columns import learn
from attnbench.reports.figures import draw
from attnbench.reports.fronts import chances, cost_side, drawn, means, share, undominated
from attnbench.reports.report import write_report
from attnbench.reports.rows import records
from attnbench.reports.summary import tables
from tests.made_scores import planted

EXACT = {"a": (100.0, nan, nan), "b": (100.0, nan, nan)}


def scores(chance: np.random.Generator, seeds: int, *truth: float) -> dict[str, dict[int, float]]:
    common = chance.normal(0, 0.3, seeds)
    own = [mean + common + chance.normal(0, 0.1, seeds) for mean in truth]
    return {name: dict(enumerate(map(float, values))) for name, values in zip("abcdef", own, strict=False)}


@pytest.mark.parametrize("seeds", [3, 5])
def test_of_two_alike_neither_is_surely_on_the_front_in_more_than_5_of_100(seeds: int):
    """Each may be so in one direction only, hence 2.5 % for the chance of 0.975."""
    found = [chances(scores(np.random.default_rng(i), seeds, 1, 1), EXACT, worse=1, dear=1)["b"] for i in range(600)]
    assert np.mean(np.array(found) > 0.975) <= 0.025 + 0.013
    assert np.mean(np.array(found) > 0.95) <= 0.05 + 0.018
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_planted_front_is_found(seeds: int):
    """a is best, b cheapest, c in between in both, d worse than c and dearer."""
    prices = {
        "a": (300.0, 290.0, 310.0),
        "b": (100.0, 97.0, 103.0),
        "c": (200.0, 195.0, 205.0),
        "d": (250.0, 245.0, 255.0),
    }
    found = chances(scores(np.random.default_rng(seeds), seeds, 1, 9, 3, 6), prices, worse=1, dear=1)
    assert [found[name] > 0.97 for name in "abcd"] == [True, True, True, False]
    assert found["d"] < 0.03
    turned = {name: (1000 / middle, nan, nan) for name, (middle, _, _) in prices.items()}
    assert chances(scores(np.random.default_rng(seeds), seeds, 1, 9, 3, 6), turned, worse=1, dear=-1) == pytest.approx(
        found, abs=0.05
    )


def test_better_and_dearer_are_turned_by_their_sides():
    own = scores(np.random.default_rng(0), 5, 1, 5)
    assert chances(own, EXACT, worse=1, dear=1) == {"a": 1.0, "b": 0.0}
    assert chances(own, EXACT, worse=-1, dear=1) == {"a": 0.0, "b": 1.0}


def test_times_whose_quartiles_meet_leave_both_on_the_front_at_times():
    own = scores(np.random.default_rng(0), 5, 1, 5)
    found = chances(own, {"a": (100.0, 90.0, 110.0), "b": (99.0, 89.0, 109.0)}, worse=1, dear=-1)
    assert found["a"] == 1
    assert found["b"] == pytest.approx(0.47, abs=0.05)  # the chance to be the faster one


def test_draws_have_the_median_and_the_quartiles_that_were_measured():
    found = drawn((100.0, 80.0, 101.0), np.random.default_rng(0))
    assert np.quantile(found, [0.25, 0.5, 0.75]) == pytest.approx([80, 100, 101], rel=0.02)


def test_resampled_means_scatter_as_a_t_distribution():
    own = np.random.default_rng(0).normal(size=(1, 10))
    found = means(own, np.random.default_rng(1))[:, 0]
    t = (found - own.mean()) / (own.std(ddof=1) / np.sqrt(10))
    assert np.quantile(t, [0.025, 0.975]) == pytest.approx([-2.262, 2.262], abs=0.25)


def loop(losses: np.ndarray, costs: np.ndarray) -> list[bool]:
    points = list(zip(losses.tolist(), costs.tolist(), strict=True))
    return [not any(x <= a and y <= b and (x, y) != (a, b) for x, y in points) for a, b in points]


def test_the_front_is_that_of_a_loop():
    chance = np.random.default_rng(0)
    points = chance.integers(0, 5, (2, 50, 30)).astype(float)
    points[:, :, 7] = points[:, :, 3] = 0  # two that are best in both
    points[:, :2, 9] = points[:, :2, 4] = points[:, :2, 3]  # and four
    found = undominated(points[0], points[1]).tolist()
    assert found == [loop(*own) for own in points.swapaxes(0, 1)]
    assert undominated(points[0, 0], points[1, 0]).tolist() == found[0]
    assert undominated(points[0, 0, :1], points[1, 0, :1]).tolist() == [True]


@pytest.mark.parametrize(
    ("values", "prices"),
    [
        ({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.0}}, EXACT),
        ({"a": {0: 1.0, 1: 2.0, 2: 3.0}}, EXACT),
        ({"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 1.0, 1: 2.0, 3: 3.0}}, EXACT),
        ({"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 1.0, 1: 2.0, 2: 3.0}}, EXACT | {"b": (nan, nan, nan)}),
    ],
    ids=["two seeds", "one variant", "no common seeds", "no price"],
)
def test_without_seeds_or_prices_no_front_is_told(values, prices):
    assert chances(values, prices, worse=1, dear=1) == {}


def test_a_chance_is_never_shown_as_a_certainty():
    shown = [share({"a": chance}, "a") for chance in (0.0, 0.4, 1.0)]
    assert shown == ["< 0.01", "0.40", "> 0.99"]
    assert share({}, "a") == "–"  # noqa: RUF001


def test_only_costs_have_a_side():
    assert cost_side("cost.train_samples_per_s") == -1
    assert cost_side("cost.memory_train_mib") == cost_side("cost.params_trained"[:11]) == 1
    assert cost_side("mechanism.levels") == cost_side("cost.batch") == 0


def results(seeds: int = 3):
    speeds = {"full": 100.0, "mano": 300.0, "swin": 200.0}
    prices = {
        name: {
            **{"train_samples_per_s": speed, "train_samples_per_s_q25": 0.99 * speed},
            **{"train_samples_per_s_q75": 1.01 * speed, "memory_train_mib": 1e4 / speed, "noisy": False},
        }
        for name, speed in speeds.items()
    }
    errors = {"full": [0.1, 0.11, 0.12], "mano": [0.2, 0.21, 0.22], "swin": [0.3, 0.32, 0.31]}
    return planted({"darcy": {name: own[:seeds] for name, own in errors.items()}}, prices)


def test_the_table_of_costs_tells_the_chance(tmp_path):
    text = write_report(*results(), tmp_path).read_text().partition("darcy: cost")[2]
    head, _, *rows = (line.split(" | ") for line in text.splitlines() if line.startswith("|"))
    assert head[-3:-1] == ["front, speed", "front, memory"]
    assert {row[0][2:]: row[-3:-1] for row in rows[:3]} == {
        **{"full": ["> 0.99", "> 0.99"], "mano": ["> 0.99", "> 0.99"]},
        "swin": ["< 0.01", "< 0.01"],
    }
    assert "Front: the chance" in text


def test_one_seed_tells_no_front(tmp_path):
    text = write_report(*results(1), tmp_path).read_text()
    assert "front, speed" not in text
    assert "Fronts are not told: that takes 3 seeds" in text


def drawn_front(store, manifest, **words):
    learn(manifest.better)
    rows = [row for row in records(collect(store, manifest)) if row["kind"] == "train"]
    return draw(rows, Drawing(name="a", kind="scatter", y="result.rel_l2", **words)).axes[0]


def test_a_scatter_marks_the_front_and_says_so():
    store, manifest = results()
    axes = drawn_front(store, manifest, x="cost.train_samples_per_s")
    (line,) = [line for line in axes.lines if line.get_gid() == "front"]
    assert np.asarray(line.get_xdata()).tolist() == [100.0, 300.0]
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([0.11, 0.21])
    assert line.get_drawstyle() == "steps-pre"
    assert sorted(text.get_text() for text in axes.texts) == ["> 0.99", "> 0.99"]
    memory = drawn_front(store, manifest, x="cost.memory_train_mib")
    assert [line.get_drawstyle() for line in memory.lines if line.get_gid() == "front"] == ["steps-post"]


def test_what_is_no_cost_has_no_front():
    store, manifest = results()
    axes = drawn_front(store, manifest, x="seed")
    assert not [line for line in axes.lines if line.get_gid() == "front"]


def test_variants_without_a_cost_are_left_out_of_the_front():
    store, manifest = results()
    learn(manifest.better)
    price = next(cell for cell in manifest.cells if cell.kind == "cost" and cell.mechanism == "full")
    store.rows[price.id] |= {"status": "oom", "cost": {}}
    (table,) = tables(collect(store, manifest))
    assert set(table.fronts["cost.train_samples_per_s"]) == {"mano", "swin"}
