"""Weights to start from, looked for before anything runs: a file, a cell that kept them, one that is still to run."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from attnbench import launch
from attnbench._starts import held_back, refuse_starts
from attnbench.check import check
from attnbench.cli import main
from attnbench.engine import codes, slurm
from attnbench.engine.store import Store
from attnbench.sweep import Plan
from tests import tiny
from tests.asked import changed, launch_options, plan, written

ABSENT = "0123456789abcdef0123"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def starting(folder: Path, start: Any) -> Plan:
    return plan(folder, changed("epochs: 1", f"epochs: 1, start: {start}"))


def asked(store: Store, **knobs: Any) -> str:
    return store.ask(tiny.spec(task={"name": "darcy", "version": 1, "knobs": tiny.TASK | knobs}))


def ended(store: Store, id: str, status: str = "ok", **data: str) -> str:
    attempt = store.begin(id, where={})
    store.commit(id, {"status": status, "result": {}, "data": data}, attempt.uuid)
    attempt.end("ok")
    return id


def kept(store: Store, id: str) -> Path:
    file = store.spec_path(id).with_name("weights.safetensors")
    file.write_bytes(b"weights")
    return file


def told(folder: Path, store: Store, start: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared by whoever asks
        refuse_starts(starting(folder, start), store)
    sentence = str(caught.value)
    assert re.fullmatch(r".*asked\.yaml, line 4: darcy\.start: [^\n]+\.", sentence), sentence
    assert ".." not in sentence
    return sentence


def test_a_file_that_is_not_there_is_refused(tmp_path, store):
    assert f"there is no file {tmp_path}/none.safetensors." in told(tmp_path, store, tmp_path / "none.safetensors")


def test_a_cell_that_nobody_asked_for_is_refused(tmp_path, store):
    assert f"there is no cell {ABSENT} under {store.root}, no such file" in told(tmp_path, store, ABSENT)


def test_a_cell_that_kept_nothing_is_refused_whether_it_has_run_or_not(tmp_path, store):
    id = asked(store)
    assert f"cell {id} keeps no weights.safetensors in {store.spec_path(id).parent};" in told(tmp_path, store, id)
    ended(store, id)
    assert f"cell {id} ended with ok and keeps no weights.safetensors" in told(tmp_path, store, id)


def test_a_cell_that_ended_without_its_weights_is_refused(tmp_path, store):
    id = ended(store, asked(store, keep_weights=True), "diverged")
    assert f"cell {id} ended with diverged and left no weights.safetensors in" in told(tmp_path, store, id)
    lost = ended(store, asked(store, keep_weights=True, rate=0.1), weights="weights.safetensors")
    assert "is no longer in" in told(tmp_path, store, lost)


def test_a_cell_that_is_set_aside_is_refused_with_its_reason(tmp_path, store):
    id = asked(store, keep_weights=True)
    for _ in range(2):
        error = {"type": "E", "message": "why.", "frame": "f", "traceback": "", "signature": "s"}
        store.begin(id, where={}).end("error", error=error)
    assert "is set aside" in told(tmp_path, store, id)
    assert told(tmp_path, store, id).endswith(": why.")


def test_files_and_kept_weights_and_cells_that_will_keep_them_are_sound(tmp_path, store):
    (file := tmp_path / "w.safetensors").write_bytes(b"weights")
    refuse_starts(starting(tmp_path, file), store)
    refuse_starts(starting(tmp_path, asked(store, keep_weights=True)), store)
    kept(store, id := ended(store, asked(store, keep_weights=True), weights="weights.safetensors"))
    refuse_starts(starting(tmp_path, id), store)
    refuse_starts(plan(tmp_path), store)


def test_a_run_of_one_cell_waits_for_nothing(tmp_path, store):
    id = asked(store, keep_weights=True)
    with pytest.raises(ValueError, match=rf"start: cell {id} has not ended yet, so there is no weights.safetensors"):
        refuse_starts(starting(tmp_path, id), store, now=True)
    kept(store, ended(store, id, weights="weights.safetensors"))
    refuse_starts(starting(tmp_path, id), store, now=True)


def test_a_training_that_has_its_row_needs_its_start_no_more(tmp_path, store):
    (file := tmp_path / "w.safetensors").write_bytes(b"weights")
    found = starting(tmp_path, file)
    for cell in found.trainings:
        ended(store, store.ask(cell.spec))
    file.unlink()
    refuse_starts(found, store)
    assert held_back(found.cells, store) == {}


# a sweep whose second half starts from a cell of its first

HALVES = """
question: What does a start bring?
runs: 2
tasks:
  - {name: darcy, side: 8, refine: 2, train: 8, valid: 4, test: 4, epochs: 1, batch: 4, keep_weights: true}
  - {name: darcy, side: 8, refine: 2, train: 8, valid: 4, test: 4, epochs: 1, batch: 4, start: START}
models:
  - {name: isotropic, channels: 8, depth: 1}
mechanisms:
  - name: full
seeds: 0
"""


@pytest.fixture
def halves(tmp_path) -> str:
    first = next(cell.id for cell in plan(tmp_path, HALVES.replace("START", ABSENT)).trainings)
    return HALVES.replace("START", first)


def test_a_cell_of_the_sweep_itself_is_a_sound_start_unless_it_keeps_nothing(tmp_path, store, halves):
    refuse_starts(plan(tmp_path, halves), store)
    text = halves.replace("keep_weights: true", "rate: 1e-3")
    careless = next(cell.id for cell in plan(tmp_path, text).trainings)
    found = plan(tmp_path, re.sub("start: [0-9a-f]+", f"start: {careless}", text))
    assert f"cell {careless} keeps no" in told_of(found, store)


def told_of(found: Plan, store: Store) -> str:
    with pytest.raises(ValueError, match="start") as caught:
        refuse_starts(found, store)
    return str(caught.value)


def launched(
    tmp_path: Path, store: Store, text: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[str]]:
    said: list[str] = []
    monkeypatch.setattr(launch.local, "run_local", run)
    monkeypatch.setattr(launch, "prepare", lambda *_: None)
    monkeypatch.setattr(launch, "refuse_unproven", lambda *_, **__: None)
    options = launch_options("local", workers=2)
    return launch.launch(check(plan(tmp_path, text)), store, tmp_path, options, said.append), said


def test_what_starts_from_a_cell_runs_after_it(tmp_path, store, halves, monkeypatch):
    batches: list[list[str]] = []

    def run(_: Any, cells: Any, **__: Any) -> int:
        batches.append([cell.label for cell in cells if store.done(cell.id) is None])
        for cell in cells:
            if store.done(cell.id) is None:
                kept(store, ended(store, cell.id, weights="weights.safetensors"))
        return codes.DONE

    code, said = launched(tmp_path, store, halves, run, monkeypatch)
    assert code == codes.DONE
    assert [len(batch) for batch in batches] == [2, 1]  # a training and the one cost cell that both share
    assert said == ["1 trainings go on from the weights that were kept for them."]


def test_what_starts_from_a_cell_that_has_not_ended_is_held_back(tmp_path, store, halves, monkeypatch):
    batches: list[int] = []

    def run(_: Any, cells: Any, **__: Any) -> int:
        batches.append(len(cells))
        return codes.DONE

    code, said = launched(tmp_path, store, halves, run, monkeypatch)
    assert (code, batches) == (codes.INCOMPLETE, [2])
    assert re.fullmatch(r"1 trainings wait for weights of [0-9a-f]{20}; `attnbench sweep` again .*", said[-1])


# the command line


@pytest.fixture
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(slurm, "available", lambda: (False, "There is no sbatch here."))


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


SMALLEST = ("darcy", "identity", "--device", "cpu", "--side=8", "--train=4", "--valid=2", "--test=2", "--batch=4")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "asked.yaml"),
        ("sweep", "asked.yaml"),
        ("sweep", "asked.yaml", "--dry-run"),
        ("run", *SMALLEST, f"--start='{ABSENT}'"),
    ],
    ids=["check", "sweep", "dry run", "run"],
)
def test_every_verb_that_plans_refuses_before_anything_is_written(words):
    file = written(Path(), changed("epochs: 1", f"epochs: 1, start: '{ABSENT}'"))
    result = call(*words)
    assert result.exit_code == 1
    assert f"darcy.start: there is no cell {ABSENT} under" in result.stderr
    assert [path.name for path in Path().iterdir()] == [file.name]
