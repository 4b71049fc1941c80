"""Choosing a knob by trials: equal for all variants, by validation alone, from rows alone; what waits, the report."""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from attnbench import _choose, launch, reading
from attnbench.cell import identity
from attnbench.check import check
from attnbench.engine import codes
from attnbench.engine.states import Summary
from attnbench.engine.store import Evidence
from attnbench.labels import variants
from attnbench.manifest import Manifest
from attnbench.reports.collect import collect
from attnbench.reports.report import screen, write_report
from attnbench.reports.summary import tables
from attnbench.sweep import Plan, expand_text
from tests.asked import TEXT, changed, launch_options, plan, written
from tests.made_rows import FakeStore, add

CHOOSE = "choose: {knob: task.rate, values: [1e-3, 3e-3, 1e-2], by: valid_rel_l2, seeds: [100, 101]}\n"
ASKED = changed("runs: 4", "runs: 16") + CHOOSE  # two variants, six trials and two trainings each
RATES = (1e-3, 3e-3, 1e-2)


def rate(cell: Any) -> float:
    return cell.spec["task"]["knobs"]["rate"]


def again(found: Plan, rows: dict[str, Any]) -> Plan:
    assert found.again is not None
    return found.again(rows.get)


def scored(found: Plan, score: Any, **more: Any) -> dict[str, Any]:
    """Rows for all trials; score: from mechanism, rate and seed to a validation error."""
    return {
        cell.id: {"status": "ok", "result": {"valid_rel_l2": score(cell.mechanism.name, rate(cell), cell.spec["seed"])}}
        | more
        for cell in found.trainings
        if cell.trial and cell.mechanism
    }


def test_every_variant_has_the_same_trials_and_its_trainings_wait_for_them(tmp_path):
    found = plan(tmp_path, ASKED)
    asked = sorted((c.mechanism.name, rate(c), c.spec["seed"]) for c in found.trainings if c.mechanism and c.trial)
    assert asked == sorted(itertools.product(("full", "mano"), RATES, (100, 101)))
    assert len(found.trainings) == len(asked)
    assert sorted((c.mechanism.name, c.spec["seed"]) for c in found.waiting if c.mechanism) == sorted(
        itertools.product(("full", "mano"), (0, 1))
    )
    assert len({cell.id for cell in (*found.cells, *found.waiting)}) == 12 + 4 + 2  # two of cost


def test_a_trial_and_a_chosen_training_are_the_cells_that_a_plain_file_has(tmp_path):
    found = plan(tmp_path, ASKED)
    grid = changed("epochs: 1", "epochs: 1, rate: [1e-3, 3e-3, 1e-2]").replace("[0, 1]", "[100, 101]")
    plain = plan(tmp_path, grid.replace("runs: 4", "runs: 12"))
    assert {cell.id for cell in found.trainings} == {cell.id for cell in plain.trainings}
    later = again(found, scored(found, lambda _, rate, __: abs(rate - 3e-3)))
    fixed = plan(tmp_path, changed("epochs: 1", "epochs: 1, rate: 3e-3"))
    assert {cell.id for cell in later.trainings if not cell.trial} == {cell.id for cell in fixed.trainings}
    assert {cell.id for cell in later.cells if cell.spec["kind"] == "cost"} == {
        cell.id for cell in fixed.cells if cell.spec["kind"] == "cost"
    }
    assert (later.waiting, len(later.trainings)) == ((), 16)


def test_each_variant_has_what_is_best_for_itself_in_the_mean_over_seeds(tmp_path):
    found = plan(tmp_path, ASKED)
    scores = {
        "full": {1e-3: (0.1, 0.9), 3e-3: (0.2, 0.5), 1e-2: (0.45, 0.45)},  # no one seed, nor its least or most, says so
        "mano": {1e-3: (0.9, 0.9), 3e-3: (0.5, 0.1), 1e-2: (0.1, 0.4)},
    }
    later = again(found, scored(found, lambda name, rate, seed: scores[name][rate][seed - 100]))
    final = {(c.mechanism.name, rate(c)) for c in later.trainings if c.mechanism and not c.trial}
    assert final == {("full", 3e-3), ("mano", 1e-2)}


def test_variants_whose_trials_have_ended_go_on_while_others_wait(tmp_path):
    found = plan(tmp_path, ASKED)
    rows = scored(found, lambda _, rate, __: rate)
    lacking = next(c.id for c in found.trainings if c.mechanism and c.mechanism.name == "mano" and rate(c) == 1e-2)
    del rows[lacking]
    later = again(found, rows)
    assert {c.mechanism.name for c in later.waiting if c.mechanism} == {"mano"}
    assert {c.mechanism.name for c in later.trainings if c.mechanism and not c.trial} == {"full"}


def row(status: str, **result: Any) -> dict[str, Any]:
    return {"status": status, "result": result}


@pytest.mark.parametrize(
    ("rows", "side", "place"),
    [
        ([row("ok", s=0.2), row("ok", s=0.1)], "lower", 1),
        ([row("ok", s=0.2), row("ok", s=0.1)], "higher", 0),
        ([row("ok", s=0.1), row("ok", s=0.1)], "lower", 0),
        ([row("diverged"), row("ok", s=9.0)], "lower", 1),
        ([row("oom", s=0.0), row("ok", s=9.0)], "lower", 1),
        ([row("ok", s=float("nan")), row("ok", s=9.0)], "lower", 1),
        ([row("ok"), row("ok", s=9.0)], "lower", 1),
        ([row("diverged"), row("timeout")], "higher", 0),
        ([row("ok", s=0.2, test=0.0), row("ok", s=0.1, test=9.0)], "lower", 1),
        ([row("ok", s=0.2), None], "lower", None),
    ],
)
def test_the_best_trial_is_told_from_rows_alone(rows, side, place):
    known = {str(number): row for number, row in enumerate(rows)}
    assert _choose.best([[id] for id in known], known.get, "s", side) == place


def test_a_chosen_knob_is_in_no_variants_name_and_trials_say_what_they_try(tmp_path):
    found = check(plan(tmp_path, ASKED))
    assert set(variants(found.plan).values()) == {"full", "mano"}
    labels = {cell.label for cell in found.manifest.cells if cell.trial}
    assert "full, trial of rate 0.003, seed 101" in labels
    assert len(labels) == 12
    assert set(found.manifest.waiting) == {f"{name}, seed {seed}" for name in ("full", "mano") for seed in (0, 1)}


REFUSED = {
    "an unknown knob": ("task.rate", "task.rat", ["darcy has no knob 'rat'", "'rate'?"]),
    "a knob of a mechanism": ("task.rate", "mechanism.levels", ["choose.knob should", "'mechanism.levels'"]),
    "a knob that changes what is asked": ("task.rate", "task.side", ["side changes what darcy asks"]),
    "a knob that the task names": ("task.rate", "task.epochs", ["task.epochs is chosen by trials; leave it out"]),
    "a test score": ("valid_rel_l2", "rel_l2", ["no validation score 'rel_l2'", "'valid_rel_l2'?"]),
    "an unknown score": ("valid_rel_l2", "valid_loss", ["no validation score 'valid_loss'", "It has valid_rel_l2"]),
    "a map without the task": ("valid_rel_l2", "{images: valid_loss}", ["no validation score ''"]),
    "a seed of the sweep": ("[100, 101]", "[1, 100]", ["choose.seeds: 1 is a seed of the sweep itself"]),
    "no seed": ("[100, 101]", "[]", ["choose.seeds should be", "at least one"]),
    "one value": ("[1e-3, 3e-3, 1e-2]", "[1e-3]", ["choose.values should be", "at least two"]),
    "a value twice": ("[1e-3, 3e-3, 1e-2]", "[1e-3, 1e-3]", ["different values"]),
    "a value out of bounds": ("[1e-3, 3e-3, 1e-2]", "[1e-3, 3]", ["darcy.rate should be less than or equal to 1"]),
    "an unknown word": ("by:", "score:", ["choose has no knob 'score'"]),
    "a section that is no map": (CHOOSE[8:-1], "task.rate", ["choose is a map of knobs"]),
}


@pytest.mark.parametrize(("old", "new", "words"), REFUSED.values(), ids=REFUSED)
def test_an_unfair_or_unknown_choice_is_refused(old, new, words, tmp_path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared below
        plan(tmp_path, changed(old, new, ASKED))
    told = str(caught.value)
    assert re.match(r".*asked\.yaml, line (4|13): [^\n]+[.?]$", told), told
    for word in words:
        assert word in told, told


def test_runs_count_trials_too_and_overrides_reach_a_choice(tmp_path):
    with pytest.raises(ValueError, match="it describes 16 distinct cells"):
        plan(tmp_path, ASKED.replace("runs: 16", "runs: 4"))
    found = plan(tmp_path, ASKED, settings=["choose.values=[1e-3, 2e-3]", "choose.seeds=7"])
    assert {(rate(c), c.spec["seed"]) for c in found.trainings} == {(1e-3, 7), (2e-3, 7)}


class Made(FakeStore):
    """A store in memory that can also be asked, as launching needs it."""

    def __init__(self, root: Path):
        super().__init__()
        self.root = root

    def ask(self, spec: dict[str, Any]) -> None:
        del spec

    def done(self, id: str) -> dict[str, Any] | None:
        return self.result(id)

    def scan(self, ids: Iterable[str], *, cache: str = "") -> dict[str, Evidence]:
        del cache
        rows = {id: self.result(id) or {"status": None, "wall_s": None} for id in ids}
        return {
            id: Evidence(id=id, status=row["status"], wall_s=row["wall_s"], failed=self.failed(id))
            for id, row in rows.items()
        }


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Launching whose cells end at once; errors are least at 1e-2 or 3e-3, and test scores contradict them."""
    store, said, batches = Made(tmp_path / "results"), [], []
    lost: set[str] = set()

    def run_local(_: Any, cells: Any, **__: Any) -> int:
        batches.append([cell for cell in cells if store.done(cell.id) is store.failed(cell.id) is None])
        for cell in batches[-1]:
            spec = store.specs[cell.id]
            knobs = spec["task"]["knobs"]
            if cell.id in lost:
                store.set_aside[cell.id] = {"type": "E", "message": "m"}
                continue
            best = {"full": 1e-2, "mano": 3e-3}[spec["mechanism"]["name"]]
            error = abs(knobs.get("rate", 0) - best) + 0.001 * (spec["seed"] or 0)
            result = {"valid_rel_l2": 0.1 + error, "rel_l2": 0.5 - error}
            add(store, spec, {"result": result, "cost": {}} if cell.kind == "train" else {"result": {}, "cost": {}})
        return codes.SET_ASIDE if store.set_aside else codes.DONE

    monkeypatch.setattr(store, "ask", lambda spec: store.specs.update({identity(spec): spec}))
    monkeypatch.setattr(launch.local, "run_local", run_local)
    monkeypatch.setattr(launch, "prepare", lambda *_: None)
    monkeypatch.setattr(launch, "refuse_unproven", lambda *_, **__: None)
    options = launch_options("local")

    def go() -> int:
        asked = check(plan(tmp_path, ASKED))
        return launch.launch(asked, store, tmp_path, options, said.append)  # type: ignore[arg-type]

    return go, store, batches, said, lost


def listed(store: Made) -> Manifest:
    return Manifest.read(store.root / "asked" / "cells.json")


def test_trials_run_first_then_the_trainings_that_they_chose_and_then_nothing(runs):
    go, store, batches, said, _ = runs
    assert go() == codes.DONE
    assert [len([cell for cell in batch if cell.kind == "train"]) for batch in batches] == [12, 4]
    assert {store.specs[cell.id]["task"]["knobs"]["rate"] for cell in batches[1]} == {3e-3, 1e-2}
    assert listed(store).waiting == ()
    assert said == ["Trials have ended: 4 trainings go on with what was best in them."]
    assert go() == codes.DONE
    assert len(batches) == 2
    assert "All 18 cells have ended already" in said[-1]


def test_a_resumed_sweep_makes_the_same_choice(runs):
    go, store, batches, _, _ = runs
    go()
    final = {cell.id for cell in batches[1]}
    for id in final:
        del store.rows[id]
    assert go() == codes.DONE
    assert {cell.id for cell in batches[2]} == final


def test_trainings_whose_trials_failed_wait_and_status_says_so(runs, tmp_path):
    go, store, batches, said, lost = runs
    lost.add(next(c.id for c in plan(tmp_path, ASKED).trainings if c.mechanism and c.mechanism.name == "mano"))
    assert go() == codes.SET_ASIDE
    assert len([cell for cell in batches[1] if cell.kind == "train"]) == 2
    assert said[-1].startswith("2 trainings wait for their trials: some of them failed")
    manifest = listed(store)
    assert manifest.waiting == ("mano, seed 0", "mano, seed 1")
    told = Summary(sweep="asked", total=17, counts={"ok": 17}, causes={}, left_s=1.0, code=codes.DONE)
    shown = reading.with_waiting(told, manifest)
    assert (shown.total, shown.counts, shown.code) == (19, {"ok": 17, "waiting": 2}, codes.INCOMPLETE)
    assert "2 x waiting: for the trials that choose task.rate" in reading.spoken(shown)


def test_the_report_keeps_trials_out_of_its_tables_and_tells_what_they_gave(runs, tmp_path):
    go, store, _, _, _ = runs
    go()
    manifest = listed(store)
    frame = collect(store, manifest)
    (table,) = tables(frame)
    assert [(line.variant, line.asked, sorted(line.values)) for line in table.lines] == [
        ("full", 2, [0, 1]),
        ("mano", 2, [0, 1]),
    ]
    assert table.setting == "darcy"
    text = write_report(store, manifest, tmp_path / "report").read_text()
    part = text.partition("## darcy: trials of rate\n")[2]
    line = next(line for line in part.splitlines() if line.startswith("| full |"))
    scores = [0.1 + abs(rate - 1e-2) + 0.001 * 100.5 for rate in RATES]
    best = [
        sum(map(min, itertools.combinations(scores, k))) / len(list(itertools.combinations(scores, k)))
        for k in (1, 2, 3)
    ]
    assert line.split(" | ")[1:] == [
        "6 / 6",
        "0.01",
        *(f"{v:#.4g}" for v in scores),
        *(f"{v:#.4g}" for v in best[:2]),
        f"{best[2]:#.4g} |",
    ]
    assert not re.search(r"\brate\b", text.partition("## darcy: error\n")[2].partition("##")[0])
    assert screen(frame).row_count == 2


def test_a_plain_sweep_waits_for_nothing(tmp_path):
    found = check(plan(tmp_path, TEXT))
    assert (found.manifest.waiting, found.manifest.choose, found.manifest.equal) == ((), None, "")
    text = {"question": "?", "runs": 1, "seeds": [0], "tasks": [{"name": "darcy"}], "baselines": [{"name": "fno"}]}
    assert expand_text(written(tmp_path), text, device="cpu").waiting == ()
