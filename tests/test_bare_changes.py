"""Two sets of results of bare mechanisms: planted changes are found, noise is left alone."""

from math import exp

import pytest
from scipy.stats import ttest_ind_from_stats

from attnbench.reports import bare, changes
from attnbench.reports.collect import collect
from attnbench.reports.compare import Comparison, Side, compare
from attnbench.reports.efficiency import Place
from attnbench.reports.rows import records
from attnbench.reports.stats import CONFIDENCE, holm
from tests.made_costs import Row, frame, made
from tests.test_atlas_report import made as made_atlas


def side(name: str, rows: list[Row]) -> Side:
    return Side(name=name, rows={row["id"]: row for row in records(frame(rows))})


def slower(rows: list[Row], variant: str, factor: float) -> list[Row]:
    return [row | ({"cost.step_ms": factor * row["cost.step_ms"]} if row["variant"] == variant else {}) for row in rows]


def verdicts(found: Comparison, cost: str = "step_ms") -> dict[str, set[str]]:
    told: dict[str, set[str]] = {}
    for one in found.prices:
        if one.cost == cost:
            told.setdefault(one.variant, set()).add(one.verdict)
    return told


@pytest.mark.parametrize(("factor", "verdict"), [(1.4, "worse"), (1 / 1.4, "better"), (1.04, "within noise")])
def test_a_planted_change_of_time_is_found_at_every_site_and_nowhere_else(factor, verdict):
    found = compare(side("new", slower(made(seed=1), "mano", factor)), side("old", made(seed=2)))
    told = verdicts(found)
    assert told.pop("mano") == {verdict}
    assert set().union(*told.values()) == {"within noise"}
    assert len([one for one in found.prices if one.cost == "step_ms"]) == 4 * 2 * 5
    one = next(one for one in found.prices if one.variant == "mano" and one.setting == "96x96, forward")
    assert one.ratio == pytest.approx(factor, rel=0.05)


def test_noise_alone_is_called_a_change_in_no_more_than_5_of_100(monkeypatch):
    monkeypatch.setattr(changes, "FACTOR", 1.0)  # so that the test of processes alone decides
    wrong, draws = 0, 150
    for draw in range(draws):
        new, old = (made(seed=seed, sides=(16, 64)) for seed in (2 * draw, 2 * draw + 1))
        ps = holm([one.p for one in bare.prices(new, {row["id"]: row for row in old})])
        wrong += any(p < 1 - CONFIDENCE for p in ps)
    assert wrong / draws <= 0.05 + 0.035


def test_the_test_over_processes_is_welchs():
    ends = [(0.7, 0.03, 4), (0.5, 0.08, 9)]
    places = [
        Place(tokens=64, shape="8x8", rows=({"status": "ok", "cost.step_ms": exp(level)},), spread=spread, df=n - 1)
        for level, spread, n in ends
    ]
    given = [word for level, spread, n in ends for word in (level, spread * n**0.5, n)]
    assert bare.welch(*places) == pytest.approx(ttest_ind_from_stats(*given, equal_var=False).pvalue)


@pytest.mark.parametrize("mark", ["cost.noisy", "cost.shared"])
def test_a_marked_time_is_not_judged(mark):
    rows = [row | ({mark: True} if row["variant"] == "mano" else {mark: False}) for row in slower(made(), "mano", 2)]
    told = verdicts(compare(side("new", rows), side("old", made(seed=2))))
    assert told["mano"] == {"cannot tell"}
    assert told["linear"] == {"within noise"}


def test_memory_changes_from_a_factor_on_and_traffic_at_all():
    rows = [
        row | {"cost.memory_mib": 1.2 * row["cost.memory_mib"], "cost.bytes": row["cost.bytes"] + 1} for row in made()
    ]
    found = compare(side("new", rows), side("old", made()))
    assert verdicts(found, "memory_mib")["full"] == {"worse"}
    assert set().union(*verdicts(found, "bytes").values()) == {"changed"}


def test_processes_of_other_ids_are_paired_round_by_round():
    old = [row | {"id": f"x{row['id']}", "device": "cuda"} for row in made(seed=2)]
    found = compare(side("new", slower(made(seed=1), "mano", 1.5)), side("old", old))
    assert len(found.matched) == found.common == 4 * 2 * 5 * 3
    assert verdicts(found)["mano"] == {"worse"}


def test_a_site_that_one_set_could_not_hold_has_no_verdict():
    rows = [row | ({"status": "oom"} if row["site.tokens"] == 128**2 else {}) for row in made()]
    old = [row | ({"status": "oom"} if row["label"].startswith("full, 128x") else {}) for row in made(seed=2)]
    found = compare(side("new", rows), side("old", old))
    assert len([one for one in found.prices if one.cost == "step_ms"]) == 4 * 2 * 4
    assert {(old, new) for _, old, new in found.ended} == {("ok", "oom")}
    assert len(found.ended) == 3 * 2 * 3


def test_a_planted_change_of_a_distance_is_found():
    sides = []
    for name, second in (("new", 0.5), ("old", 0.3)):
        store, manifest = made_atlas([0.2, second], inputs=("random", "smooth"))
        sides.append(Side(name=name, rows={row["id"]: row for row in records(collect(store, manifest))}))
    moved = [one for one in compare(*sides).changes if not one.same]
    assert {one.variant for one in moved} == {"pooled block 2"}
    assert {one.setting for one in moved} == {"random, 16x16", "smooth, 16x16"}
    assert {one.verdict for one in moved} == {"worse"}
    assert next(iter(moved)).change.mean == pytest.approx(0.2)
