"""Two sets of results: planted changes are found, noise is left alone, and what cannot be compared is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from attnbench.cli import main
from attnbench.engine.store import Store
from attnbench.reports.collect import collect
from attnbench.reports.columns import learn
from attnbench.reports.compare import Side, changes, compare
from attnbench.reports.rows import records, write_csv
from attnbench.reports.versus import page
from tests.made_scores import planted

MECHANISMS = ("full", "mano", "swin", "linear", "fma", "pool")
SEEDS = 5


def cost(step: float, **more) -> dict:
    found = {}
    for phase in ("train", "infer"):
        found |= {f"{phase}_step_ms": step, f"{phase}_step_ms_q25": 0.98 * step, f"{phase}_step_ms_q75": 1.02 * step}
        found |= {f"memory_{phase}_mib": 100.0}
    return {**found, "params": 1000, "noisy": False, "shared": False, "threads": 2, **more}


def made(shift: dict[str, float] | None = None, steps: dict[str, float] | None = None, seed: int = 0, **more):
    """A set of results: errors around 0.2, training steps of 10 ms, with changes that are planted."""
    chance = np.random.default_rng(seed)
    scores = {name: 0.2 + (shift or {}).get(name, 0) + 0.01 * chance.normal(size=SEEDS) for name in MECHANISMS}
    prices = {name: cost((steps or {}).get(name, 10.0), **more) for name in MECHANISMS}
    return planted({"darcy": {name: list(own) for name, own in scores.items()}}, prices)


def side(name: str, store, manifest, raw=None) -> Side:
    learn(manifest.better)
    rows = {row["id"]: row for row in records(collect(store, manifest))}
    return Side(name=name, rows=rows, raw=raw or {})


def raw(of: Side, chance: np.random.Generator, slow: str = "", factor: float = 1.0) -> Side:
    """The same with raw training steps of 10 ms and 5 % of spread, those of one mechanism slower."""
    times = {
        id: {"train_step_ms": list(10 * (factor if row["mechanism"] == slow else 1) * chance.lognormal(0, 0.05, 60))}
        for id, row in of.rows.items()
        if row["kind"] == "cost"
    }
    return replace(of, raw=times)


def test_the_same_results_have_not_changed():
    one, other = side("a", *made()), side("b", *made())
    found = compare(one, other)
    assert all(change.same and change.verdict == "within noise" for change in found.changes)
    assert {price.verdict for price in found.prices} == {"within noise"}
    assert (found.ended, found.only_after, found.only_before, found.origins) == ((), (), (), ())


def test_noise_alone_is_called_a_change_in_no_more_than_5_of_100():
    rows = [dict(row) for row in side("a", *made()).rows.values()]
    older = [dict(row) for row in rows]
    wrong, draws = 0, 300
    for draw in range(draws):
        chance = np.random.default_rng(draw)
        for row in (*rows, *older):
            if row["kind"] == "train":
                row["result.rel_l2"] = 0.2 + 0.01 * chance.normal()
        wrong += any(one.verdict != "within noise" for one in changes(rows, older))
    assert wrong / draws <= 0.05 + 0.025


def test_a_planted_change_is_found_and_has_its_direction():
    found = compare(side("new", *made({"mano": 0.1, "fma": -0.1}, seed=1)), side("old", *made(seed=2)))
    verdicts = {one.variant: one.verdict for one in found.changes}
    assert verdicts.pop("mano") == "worse"
    assert verdicts.pop("fma") == "better"
    assert set(verdicts.values()) == {"within noise"}
    change = next(one for one in found.changes if one.variant == "mano")
    assert change.change.mean == pytest.approx(0.1, abs=0.02)
    assert change.after - change.before == pytest.approx(change.change.mean)


def test_a_higher_accuracy_is_better():
    new, old = [0.90, 0.91, 0.93], [0.60, 0.62, 0.61]
    sides = [side(name, *planted({"images": {"full": own}})) for name, own in (("new", new), ("old", old))]
    (change,) = compare(*sides).changes
    assert change.verdict == "better"
    assert change.change.high <= 1


def test_one_seed_cannot_tell():
    sides = [side(name, *planted({"darcy": {"full": [own]}})) for name, own in (("new", 0.1), ("old", 0.9))]
    found = compare(*sides)
    (change,) = found.changes
    assert change.verdict == "cannot tell"
    assert "Nothing can be judged." in page(found)
    assert "Nothing changed" not in page(found)


@pytest.mark.parametrize(("factor", "verdict"), [(1.3, "worse"), (1 / 1.3, "better"), (1.05, "within noise")])
def test_times_are_tested_on_raw_steps_and_change_from_a_factor_on(factor, verdict):
    chance = np.random.default_rng(0)
    new, old = side("new", *made(steps={"mano": 10 * factor})), side("old", *made())
    found = compare(raw(new, chance, "mano", factor), raw(old, chance))
    own = {one.variant: one for one in found.prices if one.cost == "train_step_ms"}
    assert own.pop("mano").verdict == verdict
    assert {one.verdict for one in own.values()} == {"within noise"}
    assert {one.by for one in own.values()} == {"raw steps"}


def test_a_median_that_a_test_of_its_steps_does_not_bear_out_has_not_changed():
    """Medians a fifth apart of steps that scatter tenfold."""
    new, old = side("new", *made(steps={"mano": 12.0})), side("old", *made())
    chance = np.random.default_rng(5)
    ids = [id for id, row in new.rows.items() if row["kind"] == "cost"]
    noisy = [{id: {"train_step_ms": list(chance.lognormal(2.3, 2.3, 40))} for id in ids} for _ in range(2)]
    found = compare(replace(new, raw=noisy[0]), replace(old, raw=noisy[1]))
    assert {one.verdict for one in found.prices if one.cost == "train_step_ms"} == {"within noise"}


def test_without_raw_steps_quartiles_decide_and_marked_times_are_not_judged():
    old = side("old", *made())
    quiet = {
        one.variant: one for one in compare(side("n", *made(steps={"mano": 13.0})), old).prices if "train_s" in one.cost
    }
    assert (quiet["mano"].verdict, quiet["mano"].by) == ("worse", "quartiles")
    assert quiet["full"].verdict == "within noise"
    wide = cost(13.0) | {"train_step_ms_q25": 9.0, "train_step_ms_q75": 16.0}
    scores = {"darcy": {"full": [0.1, 0.2]}}
    for price, by, verdict in (
        (wide, "quartiles", "within noise"),
        (cost(13.0, noisy=True), "noisy", "cannot tell"),
        (cost(13.0, noisy=True, shared=True), "noisy and shared", "cannot tell"),
    ):
        sides = [side(name, *planted(scores, {"full": own})) for name, own in (("new", price), ("old", cost(10.0)))]
        one = next(one for one in compare(*sides).prices if one.cost == "train_step_ms")
        assert (one.by, one.verdict) == (by, verdict)


def test_counts_have_no_noise_and_memory_a_factor():
    scores = {"darcy": {"full": [0.1, 0.2]}}
    new = cost(10.0) | {"params": 1001, "memory_train_mib": 105.0, "memory_infer_mib": 120.0}
    sides = [side(name, *planted(scores, {"full": own})) for name, own in (("new", new), ("old", cost(10.0)))]
    verdicts = {one.cost: one.verdict for one in compare(*sides).prices}
    assert verdicts["params"] == "changed"
    assert verdicts["memory_train_mib"] == "within noise"
    assert verdicts["memory_infer_mib"] == "worse"


def results(root: Path, name: str, store, manifest) -> Path:
    learn(manifest.better)
    (root / name).mkdir(parents=True)
    write_csv(collect(store, replace(manifest, sweep=name)), root / name / "rows.csv")
    return root / name


def invoke(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["report", *words], catch_exceptions=False)
    return done.exit_code, done.output


def test_the_verb_writes_a_page_and_prints_it(tmp_path):
    store, manifest = made({"mano": 0.1}, seed=1)
    for row in store.rows.values():
        row["host"] |= {"torch": "2.1", "device": "another"}
    first = manifest.cells[1].id
    store.rows[first] |= {"status": "oom", "result": {}}
    lacking = replace(manifest, cells=tuple(cell for cell in manifest.cells if cell.label != "pool, 4"))
    new = results(tmp_path / "new", "x", store, lacking)
    old = results(tmp_path / "old", "x", *made(seed=2))
    code, text = invoke(str(new), "--against", str(old))
    assert code == 0
    for told in (
        "1 measures worse: mano, relative L2 error, test.",
        "1 ended in another way, ok → oom: full, 0.",
        f"1 only in {old}, not compared with {new}: pool, 4.",
        "Other versions of torch: 2.0 before, 2.1 now.",
        "Other processors: made up before, another now.",
        "Costs were not measured on the same machine in the same way",
        "| darcy | mano | relative L2 error, test | 0.2",
    ):
        assert told in text
    (page,) = new.glob("against-*.md")
    assert page.read_text() in text
    assert invoke(str(new), "--against", str(old), "--quiet") == (0, "")


def test_sweeps_are_found_by_name_and_their_raw_steps_in_the_store(tmp_path):
    for root, slow in ((tmp_path / "a", 1.5), (tmp_path / "b", 1.0)):
        store, manifest = made(steps={"mano": 10 * slow})
        kept, chance = Store(root), np.random.default_rng(0)
        for cell in manifest.cells:
            row = store.rows[cell.id]
            factor = slow if cell.mechanism == "mano" else 1
            times = {"train_step_ms": list(10 * factor * chance.lognormal(0, 0.05, 40))} if cell.kind == "cost" else {}
            assert kept.ask(store.specs[cell.id]) == cell.id
            kept.commit(cell.id, row | {"raw": times, "finished": 1.0}, kept.begin(cell.id, where={}).uuid)
        manifest.write(root / "made" / "cells.json")
    code, text = invoke("made", "--against", str(tmp_path / "b" / "made"), "--results", str(tmp_path / "a"))
    assert code == 0
    assert "| darcy | mano | training step [ms] | 10.0 | 15.0 | **1.500** | raw steps | < 0.001 | worse |" in text
    assert "| darcy | full | inference step [ms] | 10.0 | 10.0 | 1.000 | quartiles |" in text


@pytest.mark.parametrize(
    ("against", "why"),
    [("nowhere", "no folder with a rows.csv"), ("{self}", "are the same folder"), ("{other}", "no cell in common")],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(tmp_path, against, why):
    own = results(tmp_path / "a", "x", *made())
    other = results(tmp_path / "b", "y", *planted({"images": {"full": [0.5, 0.6]}}))
    code, text = invoke(str(own), "--against", against.format(self=own, other=other), "--results", str(tmp_path / "a"))
    assert code == 1
    assert why in text
    assert len(text.strip().splitlines()) == 1


def test_a_cell_that_one_set_has_not_made_yet_is_named_and_not_compared(tmp_path):
    store, manifest = made()
    del store.rows[manifest.cells[1].id]
    new, old = results(tmp_path / "a", "x", *made()), results(tmp_path / "b", "x", store, manifest)
    _, text = invoke(str(new), "--against", str(old))
    assert f"1 only in {new}, not compared with {old}: full, 0." in text
    assert "ended in another way" not in text


def test_nothing_beyond_noise_is_said_in_so_many_words(tmp_path):
    new, old = (results(tmp_path / name, "x", *made(seed=seed)) for seed, name in enumerate("ab"))
    _, text = invoke(str(new), "--against", str(old))
    assert "Nothing changed beyond noise." in text
    assert "same machine" not in text
    assert "**" not in text
