"""A sweep that has ended is looked at once: nothing is built, asked, started or tabulated again, unless it must be."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnbench import _tables, check, launch, reading
from attnbench.cell import identities, identity
from attnbench.engine import codes
from attnbench.engine.store import Store
from attnbench.host import shared
from attnbench.manifest import Manifest, estimates
from attnbench.sweep import Plan
from tests.asked import changed, launch_options, plan

OPTIONS = launch_options("local")
ROW = {"status": "ok", "result": {"rel_l2": 0.5, "valid_rel_l2": 0.5}, "wall_s": 7.25}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def end(store: Store, found: Plan, *places: int) -> None:
    """Rows for the cells at these places of a plan, or for all."""
    for cell in [found.cells[place] for place in places] or found.cells:
        attempt = store.begin(store.ask(cell.spec), where={})
        store.commit(cell.id, ROW, attempt.uuid)
        attempt.end("ok")


def checked(store: Store, found: Plan) -> check.Checked:
    """As `sweep` checks it."""
    return check.check(found, ended=launch.expected(store, found, launch.look(store, found)))


def start(store: Store, asked: check.Checked, monkeypatch, options: launch.Options = OPTIONS) -> tuple[int, list[str]]:
    """The exit code, and the cells that are handed to the launcher."""
    given: list[str] = []

    def run_local(_: Store, cells: list, **__: object) -> int:
        given.extend(cell.id for cell in cells if store.done(cell.id) is store.failed(cell.id) is None)
        return codes.DONE

    monkeypatch.setattr(launch.local, "run_local", run_local)
    for name in ("prepare", "refuse_unproven"):
        monkeypatch.setattr(launch, name, lambda *_, **__: None)
    return launch.launch(asked, store, store.root, options, lambda _: None), given


def count_builds(monkeypatch) -> list[str]:
    """Fills with the label of every variant that is built from here on."""
    built, worked = [], check.worked
    monkeypatch.setattr(check, "worked", lambda plan, cell: (built.append(cell.id), worked(plan, cell))[1])
    return built


def test_nothing_of_a_sweep_that_has_ended_is_built_or_started(store, tmp_path, monkeypatch):
    found = plan(tmp_path)
    end(store, found)
    built = count_builds(monkeypatch)
    asked = checked(store, found)
    assert built == []
    monkeypatch.setattr(store, "ask", None)
    assert start(store, asked, monkeypatch) == (codes.DONE, [])
    assert [cell.estimate_s for cell in asked.manifest.cells] == [7.2] * 6  # what they took, as nothing was expected


def test_a_variant_of_which_a_cell_is_missing_is_built_and_that_cell_alone_is_started(store, tmp_path, monkeypatch):
    found = plan(tmp_path)
    end(store, found, 0, 2, 3, 4, 5)
    built = count_builds(monkeypatch)
    asked = checked(store, found)
    assert built == [found.cells[1].cost_id]
    own, same, other, *_ = (cell.estimate_s for cell in asked.manifest.cells)
    assert own == same != other == 7.2  # by its work, like the missing one; what it took, as nothing of it was built
    assert start(store, asked, monkeypatch) == (codes.DONE, [found.cells[1].id])


def test_a_cell_whose_measurement_alone_is_missing_is_built_too(store, tmp_path, monkeypatch):
    found = plan(tmp_path)
    end(store, found, 0, 1, 2, 3, 5)
    built = count_builds(monkeypatch)
    assert start(store, checked(store, found), monkeypatch)[1] == built == [found.cells[4].id]


def test_a_damaged_row_goes_to_the_quarantine_and_its_cell_alone_is_started(store, tmp_path, monkeypatch):
    found = plan(tmp_path)
    end(store, found)
    hurt = found.cells[2].id
    path = store.spec_path(hurt).with_name("result.json")
    path.write_bytes(path.read_bytes()[:-5])
    assert start(store, checked(store, found), monkeypatch)[1] == [hurt]
    assert [moved.name.partition(".")[0] for moved in (store.root / "quarantine").iterdir()] == [hurt]
    end(store, found, 2)
    assert start(store, checked(store, found), monkeypatch)[1] == []


def test_what_was_seen_of_other_cells_is_not_believed(store, tmp_path, monkeypatch):
    found = plan(tmp_path)
    seen = launch.look(store, plan(tmp_path, changed("[0, 1]", "[0]").replace("runs: 4", "runs: 2")))
    end(store, found)
    asked = check.check(found)
    monkeypatch.setattr(launch, "run", lambda *_: pytest.fail("started"))
    assert launch.started(asked, store, tmp_path, OPTIONS, lambda _: None, seen) == codes.DONE


@pytest.mark.parametrize("words", [["oom"], ["failed"], ["ok", "failed"]])
def test_retrying_opens_the_cells_that_ended_so_and_no_others(words, store, tmp_path, monkeypatch):
    found = plan(tmp_path)
    end(store, found, 0, 1, 2, 3)
    for _ in range(2):
        store.begin(store.ask(found.cells[4].spec), where={}).end("error", signature="s", error={"message": "m"})
    attempt = store.begin(store.ask(found.cells[5].spec), where={})
    store.commit(found.cells[5].id, {"status": "oom"}, attempt.uuid)
    places = {"ok": [0, 1, 2, 3], "failed": [4], "oom": [5]}
    wanted = [found.cells[place].id for word in words for place in places[word]]
    assert start(store, checked(store, found), monkeypatch) == (codes.SET_ASIDE, [])
    assert start(store, checked(store, found), monkeypatch, replace(OPTIONS, retry=words))[1] == wanted
    assert [store.generation(cell.id) for cell in found.cells] == [int(cell.id in wanted) for cell in found.cells]


def test_retrying_what_is_stale_opens_rows_of_other_code_alone_and_keeps_them(store, tmp_path, monkeypatch):
    found = plan(tmp_path)
    for cell, fingerprint in zip(found.cells[:3], (shared(), "0" * 12, shared()), strict=True):
        attempt = store.begin(store.ask(cell.spec), where={})
        store.commit(cell.id, {"status": "ok", "code": {"fingerprint": fingerprint}}, attempt.uuid)
    other = found.cells[1].id
    row = store.spec_path(other).with_name("result.json").read_bytes()
    wanted = [other, *(cell.id for cell in found.cells[3:])]
    assert start(store, checked(store, found), monkeypatch, replace(OPTIONS, retry=["stale"]))[1] == wanted
    assert [store.generation(cell.id) for cell in found.cells[:4]] == [0, 1, 0, 0]
    assert store.spec_path(other).with_name("result.json").read_bytes() == row


def test_what_killed_processes_left_beside_rows_goes_although_nothing_is_started(store, tmp_path, monkeypatch):
    found = plan(tmp_path)
    asked = checked(store, found)
    end(store, found)
    folder = store.spec_path(found.cells[0].id).parent
    uuid = store.attempts(found.cells[0].id)[0].uuid
    (folder / f"{uuid}.1.tmp").write_text("a draft that was linked")
    (folder / "checkpoint").mkdir()
    assert start(store, asked, monkeypatch) == (codes.DONE, [])
    assert sorted(path.name for path in folder.iterdir()) == ["attempts", "result.json", "spec.json"]


def test_the_manifest_of_a_sweep_that_has_ended_keeps_what_was_expected_and_its_time(store, tmp_path, monkeypatch):
    found = plan(tmp_path)
    start(store, check.check(found), monkeypatch)
    file = store.root / found.name / "cells.json"
    before, told = file.read_bytes(), file.stat().st_mtime_ns
    assert estimates(file).keys() == {cell.id for cell in found.cells}
    end(store, found)
    start(store, checked(store, found), monkeypatch)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (before, told)
    file.write_text("{")
    start(store, checked(store, found), monkeypatch)
    assert Manifest.read(file).cells


def test_a_manifest_has_a_line_for_each_cell_and_is_json(tmp_path):
    manifest = check.check(plan(tmp_path)).manifest
    text = manifest.text()
    assert json.loads(text)["cells"] == [vars(cell) for cell in manifest.cells]
    assert [sum(cell.id in line for line in text.splitlines()) for cell in manifest.cells[4:]] == [3, 3]
    empty = replace(manifest, cells=())
    empty.write(file := tmp_path / "cells.json")
    assert Manifest.read(file) == empty


names = st.text('sed\0"\\ä:,{}0', max_size=12)
values = st.recursive(
    st.integers() | names | st.booleans() | st.none(), lambda v: st.dictionaries(names, v, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names | st.just("seed"), values, max_size=5), st.lists(st.integers(0, 2**70), max_size=4))
def test_names_of_cells_that_differ_by_the_seed_are_those_of_each(spec, seeds):
    assert identities(spec, seeds) == [identity(spec | {"seed": seed}) for seed in seeds]


@pytest.fixture
def ended(store, tmp_path, monkeypatch):
    """A sweep that has ended, its manifest, what makes its tables if need be, and how often they were made."""
    found = plan(tmp_path)
    end(store, found)
    asked = checked(store, found)
    start(store, asked, monkeypatch)
    made: list[str] = []

    def report(names: list[str], root: Path, **_: object) -> None:
        [name] = names
        made.append(name)
        (root / name / "rows.csv").write_text(f"{len(made)}")

    monkeypatch.setattr(reading, "report", report)

    def go(mixed: bool = False) -> int:
        before = len(made)
        _tables.refresh(store, asked.manifest, said.append, quiet=True, mixed=mixed)
        return len(made) - before

    said: list[str] = []
    return found, go, said


def test_tables_are_made_once_for_the_same_rows(ended):
    _, go, said = ended
    assert [go(), go(), go()] == [1, 0, 0]
    assert "are there" in said[-1]
    assert [go(mixed=True), go(mixed=True), go()] == [1, 0, 1]


def test_tables_are_made_again_for_other_rows_cells_or_code_and_where_a_table_was_touched(ended, store, monkeypatch):
    found, go, _ = ended
    folder, id = store.root / found.name, found.cells[0].id
    assert go() == 1
    path = store.spec_path(id).with_name("result.json")
    path.write_bytes(path.read_bytes())
    assert [go(), go()] == [1, 0]
    store.retry(id)
    end(store, found, 0)
    assert [go(), go()] == [1, 0]
    (folder / "rows.csv").unlink()
    assert [go(), go()] == [1, 0]
    (folder / "rows.csv").write_text("my own")
    assert [go(), go()] == [1, 0]
    listed = Manifest.read(folder / "cells.json")
    replace(listed, question="Another?").write(folder / "cells.json")
    assert [go(), go()] == [1, 0]
    (store.root / "cache" / f"{found.name}.tables.json").write_text("[")
    assert [go(), go()] == [1, 0]
    monkeypatch.setattr(_tables.reports, "__path__", [])
    assert [go(), go()] == [1, 0]


def test_tables_of_very_many_cells_are_left_to_their_verb(ended, monkeypatch):
    _, go, said = ended
    monkeypatch.setattr(_tables, "LARGE", 5)
    assert go() == 0
    assert "`attnbench report asked` makes them" in said[-1]
    monkeypatch.setattr(_tables, "LARGE", 6)
    assert go() == 1
