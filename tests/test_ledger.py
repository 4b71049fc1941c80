"""Verdicts on published claims, on rows whose truth is planted: at the stated rates, by pairs, and by nothing else."""

from math import exp, isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnbench.ledger import evidence
from attnbench.ledger.evidence import Table
from attnbench.ledger.judge import Ledger, judged
from attnbench.ledger.published import Claim
from attnbench.ledger.reruns import Filter, Pair, Place, Plan, Rerun
from attnbench.reports.rows import read_csv, records, table, write_csv
from attnbench.reports.stats import t_interval

Rows = list[dict[str, Any]]
LOSS = "result.rel_l2"
SWEEP = "ablation_levels"
OTHERS = ("task.rate", "dtype", "data.hash", "code.fingerprint", "mechanism.levels", "model.patch")
DOWN = Pair(better={"mechanism.downsample": "conv"}, worse={"mechanism.downsample": "average"})
MANO: Filter = {"mechanism": "mano"}


def claim(id: str = "x", value: str = "a > b", metric: str = "ordering") -> Claim:
    empty = dict.fromkeys(Claim.__dataclass_fields__, "")
    return Claim(**{**empty, "id": id, "value": value, "metric": metric, "source_quality": "read"})


def place(*pairs: Pair, where: Any = None, measure: str = LOSS, **more: Any) -> Place:
    return Place(sweep=SWEEP, measure=measure, where=where or {}, pairs=list(pairs), **more)


def ordering(*places: Place) -> Rerun:
    return Rerun(kind="ordering", differences="none", places=list(places))


def ratio(claimed: float, *, same: bool = False) -> Rerun:
    return Rerun(kind="ratio", differences="none", places=[place(DOWN)], claimed=claimed, same_setting=same)


def held(entries: dict[str, Rerun], rows: Rows | None, claims: dict[str, Claim] | None = None) -> Ledger:
    plan = Plan(Path("reruns.yaml"), entries, {}, {id: [7] * len(entry.places) for id, entry in entries.items()})
    names = sorted({name for row in rows or [] for name in row})
    tables = {SWEEP: Table(SWEEP, rows, names) if rows is not None else None}
    return judged(claims or {id: claim(id) for id in entries}, plan, tables, {})


def verdict(entry: Rerun, rows: list[dict[str, Any]] | None) -> str:
    return held({"x": entry}, rows).lines[0].verdict


def row(seed: int | None, value: float | None, **more: Any) -> dict[str, Any]:
    """A training of mano, ok, alike to any other but for what is said."""
    knobs = {"mechanism.downsample": "conv", "mechanism.levels": 2, "task.side": 16, "task.rate": 0.005}
    made = {
        **{"kind": "train", "status": "ok", "task": "darcy", "model": "isotropic", "mechanism": "mano", "idle": None},
        **{"settled": None, "dtype": "float32", "device": "cpu", "code.commit": "1234567890", "code.dirty": False},
        **knobs,
        **{name.replace("__", "."): given for name, given in more.items()},
        **{"seed": seed, LOSS: value},
    }
    asked = (*knobs, "mechanism", "model")
    made["variant"] = " ".join(str(made.get(name)) for name in asked)
    return {"id": f"{made['kind']} {made['variant']} {seed}", **made}


def two(first: Any, second: Any, **more: Any) -> list[dict[str, Any]]:
    """Conv and average, a value for each seed."""
    conv = [row(seed, value, mechanism__downsample="conv", **more) for seed, value in enumerate(first)]
    return conv + [row(seed, value, mechanism__downsample="average", **more) for seed, value in enumerate(second)]


def planted(chance: np.random.Generator, gain: float, seeds: int = 5, noise: float = 0.01, **more: Any) -> Any:
    """Errors of two variants, the first lower by `gain`; seeds they share move both far, and each a little."""
    common = 0.2 + chance.normal(0, 0.05, seeds)
    return two(common - gain + chance.normal(0, noise, seeds), common + chance.normal(0, noise, seeds), **more)


@pytest.mark.parametrize(("gain", "expected"), [(0.06, "agrees"), (-0.06, "differs")])
def test_a_planted_ordering_is_told_on_its_side(gain: float, expected: str):
    chance = np.random.default_rng(1)
    found = [verdict(ordering(place(DOWN)), planted(chance, gain)) for _ in range(100)]
    assert found.count(expected) >= 95
    assert found.count({"agrees": "differs", "differs": "agrees"}[expected]) == 0


def test_planted_ties_are_told_wrongly_at_most_one_ledger_in_twenty():
    chance, draws, wrong = np.random.default_rng(2), 400, 0
    pairs = {f"c{side}": ordering(place(DOWN, where={"task.side": side})) for side in range(8)}
    for _ in range(draws):
        rows = [own for side in range(8) for own in planted(chance, 0.0, task__side=side)]
        wrong += any(line.verdict != "cannot tell" for line in held(pairs, rows).lines)
    assert wrong / draws <= 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5
    assert wrong / draws >= 0.02  # Holm spends what it is given, so a rule that never decides would show


def test_a_tie_beside_many_differences_is_seldom_told():
    chance, wrong = np.random.default_rng(3), 0
    pairs = {f"c{side}": ordering(place(DOWN, where={"task.side": side})) for side in range(5)}
    for _ in range(200):
        rows = [own for side in range(5) for own in planted(chance, 0.0 if side == 0 else 0.1, task__side=side)]
        lines = held(pairs, rows).lines
        wrong += lines[0].verdict != "cannot tell"
    assert wrong / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_pairs_are_of_one_seed():
    chance = np.random.default_rng(4)
    rows = planted(chance, 0.03, seeds=6, noise=0.001)
    shuffled = [own | {"seed": (own["seed"] + 1) % 6} if own["mechanism.downsample"] == "conv" else own for own in rows]
    assert verdict(ordering(place(DOWN)), rows) == "agrees"
    assert verdict(ordering(place(DOWN)), shuffled) == "cannot tell"


def test_pairs_are_alike_in_every_other_knob():
    near = two([0.1, 0.1, 0.1], [0.2, 0.2, 0.2], mechanism__levels=2)
    far = two([0.5, 0.5, 0.5], [0.9, 0.9, 0.9], mechanism__levels=3)
    sample = evidence.compared(place(DOWN), DOWN, near + far, logs=False)
    assert sample.pairs == 6
    assert sample.by_seed == pytest.approx({0: -0.25, 1: -0.25, 2: -0.25})


@pytest.mark.parametrize("name", OTHERS)
def test_rows_that_differ_otherwise_are_no_pair(name: str):
    rows = two([0.1, 0.2], [0.3, 0.5])
    rows = [own | {name: 1 if own["mechanism.downsample"] == "conv" else 2} for own in rows]
    assert evidence.compared(place(DOWN), DOWN, rows, logs=False).asked == 0


def test_a_rate_that_trials_chose_parts_no_pair():
    rows = two([0.1, 0.2], [0.3, 0.5])
    rows = [own | {"task.rate": own[LOSS], "settled": "task.rate"} for own in rows]
    assert evidence.compared(place(DOWN), DOWN, rows, logs=False).pairs == 2


def test_an_idle_knob_parts_no_pair():
    one = [row(seed, 0.5, mechanism__levels=1, idle="downsample") for seed in (0, 1)]
    rows = one + two([0.1, 0.1], [0.3, 0.3], mechanism__levels=2)
    steps = Pair(better={"mechanism.levels": 2}, worse={"mechanism.levels": 1})
    assert evidence.compared(place(steps), steps, rows, logs=False).by_seed == pytest.approx({0: -0.3, 1: -0.3})


def test_a_combination_that_lacks_a_seed_is_left_out():
    rows = two([0.1, 0.1, 0.1], [0.2, 0.2, 0.2]) + two([0.1, 0.1], [9.0, 9.0], mechanism__levels=4)
    sample = evidence.compared(place(DOWN), DOWN, rows, logs=False)
    assert sample.by_seed == pytest.approx({0: -0.1, 1: -0.1, 2: -0.1})
    assert (sample.pairs, sample.asked) == (3, 5)


def test_a_cell_that_diverged_leaves_a_selection():
    rows = two([0.1, 0.11, 0.1, 0.1], [0.5, 0.52, 0.5, 0.5])
    assert verdict(ordering(place(DOWN)), rows) == "agrees"
    broken = [own | {"status": "diverged", LOSS: None} if own["seed"] == 3 else own for own in rows]
    assert verdict(ordering(place(DOWN)), broken) == "cannot tell"


def test_a_missing_cell_is_only_a_pair_less():
    rows = two([0.1, 0.11, 0.1, 0.1], [0.5, 0.52, 0.5, 0.5])
    rows = [own | {"status": "missing", LOSS: None} if own["seed"] == 3 else own for own in rows]
    found = held({"x": ordering(place(DOWN))}, rows).lines[0]
    assert found.verdict == "agrees"
    assert found.sites[0].findings[0].ours.n == 3


def test_copies_of_a_cost_are_no_seeds():
    rows = [own | {"cost.ms": 1.0 + own[LOSS]} for own in two([0.1] * 5, [0.5] * 5)]
    paid = {"conv": 1.0, "average": 9.0}
    once = [row(None, None, kind="cost", cost__ms=ms, mechanism__downsample=word) for word, ms in paid.items()]
    priced = ordering(place(DOWN.model_copy(update={"side": "lower"}), measure="cost.ms"))
    found = held({"x": priced}, rows + once).lines[0]
    assert found.verdict == "cannot tell"
    assert found.sites[0].findings[0].ours.n == 1
    assert found.sites[0].findings[0].ours.mean == -8.0


def test_a_measure_of_which_more_is_better_is_turned():
    rows = [own | {"result.accuracy": 1 - own[LOSS]} for own in two([0.1, 0.11, 0.1], [0.5, 0.52, 0.5])]
    assert verdict(ordering(place(DOWN, measure="result.accuracy")), rows) == "agrees"


def test_a_measure_without_a_better_side_is_refused():
    rows = [own | {"cost.params": 1.0} for own in two([0.1], [0.5])]
    with pytest.raises(ValueError, match=r"reruns.yaml, line 7: x: which side of cost.params is better is not known"):
        held({"x": ordering(place(DOWN, measure="cost.params"))}, rows)


def test_several_variants_of_another_mechanism_are_refused():
    rows = [*two([0.1], [0.2]), row(0, 0.3, mechanism="full", mechanism__downsample=None)]
    crowd = Pair(better=MANO, worse={"mechanism": "full"})
    with pytest.raises(ValueError, match=r"leave .* on one side; name a column"):
        held({"x": ordering(place(crowd))}, rows)
    told = Pair(better=MANO | {"mechanism.downsample": "conv"}, worse={"mechanism": "full"})
    assert held({"x": ordering(place(told))}, rows).lines[0].sites[0].findings[0].sample.pairs == 1


def test_true_is_no_one():
    assert not evidence.fits({"a": True}, {"a": 1})
    assert evidence.fits({"a": None}, {"a": None})


def test_a_column_that_the_rows_lack_is_refused_with_its_line():
    wrong = Pair(better={"mechanism.down": "conv"}, worse={"mechanism.downsample": "average"})
    with pytest.raises(
        ValueError, match=r"line 7: x: .* no column 'mechanism.down'. Did you mean 'mechanism.downsample'"
    ):
        held({"x": ordering(place(wrong))}, two([0.1], [0.2]))


def test_a_claim_without_rows_is_not_run():
    assert verdict(ordering(place(DOWN)), None) == "not run"
    assert verdict(ordering(place(DOWN)), two([0.1, 0.2], [])) == "not run"


def test_rows_of_another_sweep_are_refused(tmp_path: Path):
    rows = [own | {"sweep": "ablation_window", "label": "", "threads": 1} for own in two([0.1], [0.2])]
    (tmp_path / SWEEP).mkdir()
    write_csv(table(rows), tmp_path / SWEEP / "rows.csv")
    assert len(records(read_csv(tmp_path / SWEEP / "rows.csv"))) == 2
    with pytest.raises(ValueError, match="holds rows of the sweep 'ablation_window', not of 'ablation_levels'"):
        evidence.table(tmp_path, SWEEP)
    assert evidence.table(tmp_path, "ablation_window") is None


def test_one_test_counts_once_however_many_claims_rest_on_it():
    rows = planted(np.random.default_rng(5), 0.03)
    same = ordering(place(DOWN))
    one, many = held({"x": same}, rows), held({f"x{i}": same for i in range(6)}, rows)
    assert one.family == many.family == 1
    assert one.lines[0].sites[0].findings[0].p_holm == many.lines[5].sites[0].findings[0].p_holm


def test_places_that_rest_on_the_same_cells_say_so():
    rows = two([0.1, 0.1], [0.2, 0.2]) + two([0.1, 0.1], [0.2, 0.2], task__side=32)
    both = ordering(place(DOWN), place(DOWN, where={"task.side": 32}))
    assert [site.shares for site in held({"x": both}, rows).lines[0].sites] == [4, 4]


@pytest.mark.parametrize(
    ("true", "claimed", "same", "expected"),
    [
        (0.5, 0.5, False, "agrees"),
        (0.5, 0.9, False, "cannot tell"),  # the direction holds, the size may be the setting's
        (0.5, 0.9, True, "differs"),
        (2.0, 0.5, False, "differs"),
        (2.0, 0.5, True, "differs"),
        (2.0, 2.0, False, "agrees"),
    ],
)
def test_a_ratio_is_told_by_direction_and_size(true: float, claimed: float, same: bool, expected: str):
    chance, found = np.random.default_rng(6), []
    for _ in range(60):
        base = np.exp(chance.normal(-2, 0.3, 5))
        rows = two(base * true * np.exp(chance.normal(0, 0.05, 5)), base)
        found.append(verdict(ratio(claimed, same=same), rows))
    assert found.count(expected) >= 0.85 * 60


def test_a_ratio_is_the_geometric_mean():
    entry = held({"x": ratio(0.5)}, two([0.1, 0.4], [0.2, 0.2])).lines[0].sites[0].findings[0]
    assert entry.ours.mean == pytest.approx((0.5 * 2.0) ** 0.5)
    low, high = (exp(bound) for bound in (t_interval(np.log([0.5, 2.0])).low, t_interval(np.log([0.5, 2.0])).high))
    assert (entry.ours.low, entry.ours.high) == pytest.approx((low, high))


def test_a_ratio_of_size_alone_has_no_direction():
    entry = ratio(0.99).model_copy(update={"direction": False})
    found = held({"x": entry}, two([0.2, 0.21, 0.2], [0.1, 0.1, 0.1]))
    assert found.lines[0].verdict == "cannot tell"
    assert found.family == 0


def test_a_value_is_the_mean_over_seeds_in_the_published_unit():
    entry = Rerun(kind="value", differences="none", places=[place(where={"mechanism.downsample": "conv"}, scale=100.0)])
    claims = {"x": claim(value="15", metric="error")}
    found = held({"x": entry}, two([0.1, 0.2], [0.5, 0.5]), claims).lines[0].sites[0].findings[0]
    assert found.ours.mean == pytest.approx(15.0)
    both = entry.model_copy(update={"places": [place()]})
    with pytest.raises(ValueError, match="2 variants are left"):
        held({"x": both}, two([0.1], [0.5]), claims)


def test_one_seed_decides_nothing():
    found = held({"x": ordering(place(DOWN))}, two([0.1], [0.9])).lines[0]
    assert found.verdict == "cannot tell"
    assert isnan(found.sites[0].findings[0].p_holm)


def test_rows_say_with_which_code_they_were_made():
    rows = [own | {"code.dirty": own["seed"] == 1} for own in two([0.1, 0.2], [0.3, 0.4])]
    assert held({"x": ordering(place(DOWN))}, rows).lines[0].sites[0].commits == ["1234567", "1234567-dirty"]
