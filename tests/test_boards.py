"""Event files for TensorBoard: every epoch once, whoever is killed when, read back by TensorBoard's own reader."""

import fcntl
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from attnbench import boards, cli
from attnbench.engine.store import Store
from attnbench.manifest import Cell, Manifest
from tests.made_rows import spec

LOSSES, SCORES = [1.0, 0.5, 0.25], [2.0, 0.75, 0.8]


def asked(store: Store, seeds: int = 1) -> Manifest:
    """A sweep of full attention with so many seeds, of which nothing has run."""
    cells = []
    for seed in range(seeds):
        id = store.ask(spec("train", "full", {"heads": 4}, seed))
        who: dict[str, Any] = {"variant": "full", "mechanism": "full", "model": "isotropic", "seed": seed}
        cells.append(Cell(id=id, kind="train", label=f"full, seed {seed}", **who, estimate_s=1.0))
    return Manifest(sweep="made", question="?", device="cpu", cells=tuple(cells))


def trained(store: Store, id: str, losses: Sequence[float | None], scores: Sequence[float | None]) -> None:
    """What a training that has ended leaves, None where a number was not finite."""
    attempt = store.begin(id, where={})
    raw = {"train_loss": losses, "valid_rel_l2": scores, "spectrum": [1.0, 2.0]}
    store.commit(id, {"status": "ok", "result": {"rel_l2": 0.1}, "raw": raw}, attempt.uuid)
    attempt.end("ok")


def training(store: Store, id: str, losses: list[float], scores: list[float]) -> Path:
    """What a training leaves that still runs."""
    from tasks import Checkpoint

    state = Checkpoint(folder=store.spec_path(id).parent / "checkpoint", of={"cell": id})
    weights = {"model": {"weight": torch.ones(3)}, "epoch": len(losses), "step": 0}
    state.save({"losses": losses, "scores": scores, **weights})
    return state.file


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a cell: steps and values by tag."""
    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def steps(folder: Path, tag: str) -> list[int]:
    """The steps of a tag in all files, also what a later one has voided."""
    files = [str(file) for file in sorted(folder.glob("events*"))]
    events = [event for file in files for event in EventFileLoader(file).Load()]
    return [event.step for event in events for value in event.summary.value if value.tag == tag]


def numbered(values: list[float]) -> list[tuple[int, Any]]:
    return [(i, pytest.approx(value)) for i, value in enumerate(values, 1)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def board(store: Store) -> boards.Board:
    """As a process that has just begun sees it."""
    return boards.Board(store, store.root / "made" / boards.FOLDER)


def test_each_training_that_ended_has_its_curves_in_a_folder_of_its_own(store: Store):
    manifest = asked(store, seeds=2)
    for i, cell in enumerate(manifest.cells):
        trained(store, cell.id, LOSSES, [score + i for score in SCORES])
    folder = boards.write(store, manifest)
    assert folder == store.root / "made" / "tensorboard"
    for i, cell in enumerate(manifest.cells):
        found = shown(folder / f"full-seed-{i}-{cell.id[:6]}")
        assert found == {"train_loss": numbered(LOSSES), "valid_score": numbered([score + i for score in SCORES])}


def test_a_running_training_is_followed_and_no_epoch_comes_twice(store: Store):
    manifest, alive = asked(store), board(store)
    cell = manifest.cells[0]
    folder = alive.folder / boards.place(cell)
    assert alive.update(manifest) == 0
    training(store, cell.id, LOSSES[:1], SCORES[:1])
    assert alive.update(manifest) == 2
    training(store, cell.id, LOSSES[:2], SCORES[:2])
    assert alive.update(manifest) == 2
    assert alive.update(manifest) == 0
    trained(store, cell.id, LOSSES, SCORES)
    assert alive.update(manifest) == 2
    assert alive.ended == {cell.id}
    assert shown(folder) == {"train_loss": numbered(LOSSES), "valid_score": numbered(SCORES)}
    assert steps(folder, "train_loss") == steps(folder, "valid_score") == [1, 2, 3]


def test_a_writer_that_was_killed_goes_on_behind_what_it_had_written(store: Store):
    manifest = asked(store)
    cell = manifest.cells[0]
    training(store, cell.id, LOSSES[:2], SCORES[:2])
    board(store).update(manifest)
    trained(store, cell.id, LOSSES, SCORES)
    assert board(store).update(manifest) == 2
    folder = board(store).folder / boards.place(cell)
    assert steps(folder, "train_loss") == [1, 2, 3]
    assert len(list(folder.glob("events*"))) == 2
    assert board(store).update(manifest) == 0


def test_two_writers_by_turns_write_each_epoch_once(store: Store):
    manifest, alive = asked(store), board(store)
    cell = manifest.cells[0]
    for i, writer in enumerate((alive, board(store), alive, alive), 1):
        training(store, cell.id, [1 / j for j in range(1, i + 1)], [2 / j for j in range(1, i + 1)])
        assert writer.update(manifest) == 2
    folder = alive.folder / boards.place(cell)
    assert steps(folder, "train_loss") == steps(folder, "valid_score") == [1, 2, 3, 4]
    assert len(list(folder.glob("events*"))) == 3


def test_a_training_that_began_anew_with_other_numbers_voids_the_old_ones(store: Store):
    manifest = asked(store)
    cell = manifest.cells[0]
    training(store, cell.id, [1.0, 9.0, 8.0], [2.0, 9.0, 8.0])
    board(store).update(manifest)
    training(store, cell.id, LOSSES[:2], SCORES[:2])
    board(store).update(manifest)
    found = shown(board(store).folder / boards.place(cell))
    assert found == {"train_loss": numbered(LOSSES[:2]), "valid_score": numbered(SCORES[:2])}


def test_a_training_that_was_thrown_back_is_shown_as_far_as_it_is(store: Store):
    manifest, alive = asked(store), board(store)
    cell = manifest.cells[0]
    training(store, cell.id, [1.0, 0.5], [2.0, 9.0])
    alive.update(manifest)
    training(store, cell.id, [3.0], [4.0])
    alive.update(manifest)
    trained(store, cell.id, [3.0, 0.5], [4.0, 0.5])
    alive.update(manifest)
    found = shown(alive.folder / boards.place(cell))
    assert found == {"train_loss": numbered([3.0, 0.5]), "valid_score": numbered([4.0, 0.5])}


def test_an_epoch_without_a_number_is_shown_as_none_and_once(store: Store):
    manifest = asked(store)
    trained(store, manifest.cells[0].id, [1.0, None], [1.0, None])
    folder = boards.write(store, manifest) / boards.place(manifest.cells[0])
    boards.write(store, manifest)
    assert steps(folder, "train_loss") == [1, 2]


def test_values_are_alike_as_far_as_event_files_can_tell():
    nan = float("nan")
    assert boards.alike([0.1, nan, 2.0], [0.1 + 1e-12, nan, 2.0, 3.0]) == 3
    assert boards.alike([nan, 1.0], [1.0, 1.0]) == boards.alike([1.0], [nan]) == boards.alike([], [1.0]) == 0
    assert boards.alike([1.0, 2.0], [1.0, 2.000001]) == 1


def test_only_one_process_writes_at_a_time(store: Store):
    manifest, alive = asked(store), board(store)
    trained(store, manifest.cells[0].id, LOSSES, SCORES)
    alive.folder.mkdir(parents=True)
    with (alive.folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert alive.update(manifest) == 0
    assert alive.update(manifest) == 6


def test_a_checkpoint_that_is_damaged_or_half_there_is_no_curve(store: Store):
    manifest = asked(store)
    file = training(store, manifest.cells[0].id, LOSSES, SCORES)
    whole = file.read_bytes()
    for hurt in (whole[:-7], whole.replace(b"losses", b"bosses"), b"", b"\n\n"):
        file.write_bytes(hurt)
        assert board(store).update(manifest) == 0
    file.write_bytes(whole)
    assert board(store).update(manifest) == 6


def test_a_process_beside_the_sweep_writes_and_leaves_the_store_as_it_is(store: Store):
    manifest = asked(store)
    manifest.write(store.root / "made" / "cells.json")
    trained(store, manifest.cells[0].id, LOSSES, SCORES)
    before = hashes(store.root / "cells")
    with boards.watching(store.root, "made", asked=True):
        pass
    folder = store.root / "made" / "tensorboard" / boards.place(manifest.cells[0])
    assert shown(folder)["train_loss"] == numbered(LOSSES)
    assert hashes(store.root / "cells") == before


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_without_the_package_it_is_named_before_anything_runs(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(boards.importlib.util, "find_spec", lambda _: None)
    words = ["sweep", "quickstart", "--tensorboard", "--results", str(store.root / "new")]
    found = CliRunner().invoke(cli.main, words)
    assert found.exit_code == 1
    assert "pip install 'attnbench[tensorboard]'" in found.output
    assert not (store.root / "new").exists()


def test_the_report_says_how_to_look_at_the_curves(store: Store, capsys: pytest.CaptureFixture):
    from attnbench import reading

    manifest = replace(asked(store), sweep="made")
    manifest.write(store.root / "made" / "cells.json")
    trained(store, manifest.cells[0].id, LOSSES, SCORES)
    reading.events("made", store.root, quiet=False)
    assert capsys.readouterr().out == f"Training curves: tensorboard --logdir {store.root / 'made' / 'tensorboard'}\n"
