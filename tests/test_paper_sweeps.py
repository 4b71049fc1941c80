"""The sweeps of paper size, at their own networks and on next to no data: each trains, leaves a checkpoint, finishes.

They wait for a GPU; what can be shown without one is that nothing but time is missing.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from attnbench import run
from attnbench.models._timm import timm
from attnbench.sweep import Planned, expand
from tests.test_image_sets import publish

SWEEPS = Path(__file__).parents[1] / "sweeps"
FEW = ["task.train=2", "task.valid=1", "task.test=1", "task.batch=1", "task.epochs=1", "seeds=[0]", "device=cpu"]

pytestmark = pytest.mark.usefixtures("one_thread")


def trainings(sweep: str, settings: Sequence[str]) -> dict[str, Planned]:
    plan = expand(SWEEPS / f"{sweep}.yaml", device="cpu", settings=[*FEW, *settings])
    return {cell.id: cell for cell in plan.trainings}


def finishes(cell: Planned, data: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains it with a checkpoint after every step; taken up again, it ends with the same numbers."""
    monkeypatch.setenv(run.EVERY, "0")
    place = store / "cells" / cell.id[:2] / cell.id
    run.prepare(cell.spec, data)
    first = run.train(cell.spec, data, place)
    left = (place / run.CHECKPOINT / "state.pt").read_bytes()
    again = run.train(cell.spec, data, place)
    assert (place / run.CHECKPOINT / "state.pt").read_bytes() == left  # nothing was left to train
    assert again["result"] == first["result"]
    assert all(torch.isfinite(torch.tensor(value)) for value in first["result"].values())


@pytest.mark.parametrize(
    ("sweep", "wanted"),
    [
        ("darcy_table_paper", {"full", "swin", "mano", "fno"}),
        ("ablation_downsample_paper", {"identity", "full", "swin", "linear", "fma", "mano", "fno"}),
    ],
)
def test_a_paper_sweep_of_darcy_fields_finishes_on_two_of_them(sweep, wanted, tmp_path, monkeypatch):
    cells = trainings(sweep, ["task.refine=1"])
    kinds = {(cell.mechanism or cell.model).name: cell for cell in cells.values()}  # the last of each: most levels
    assert set(kinds) == wanted
    for cell in kinds.values():
        finishes(cell, tmp_path / "data", tmp_path, monkeypatch)


def test_the_linear_probe_finishes_on_weights_from_a_file_and_trains_new_ones_alone(tmp_path, monkeypatch):
    publish(monkeypatch, tmp_path / "data", "tiny_imagenet")
    known = timm().create_model("swinv2_tiny_window8_256", num_classes=1000).state_dict()
    torch.save(known, tmp_path / "weights.pth")
    settings = [f"model.pretrained={tmp_path / 'weights.pth'}", "task.precision=float32"]
    cells = trainings("images_linear_probe", settings)
    kinds = {(cell.spec["mechanism"]["name"], cell.model.values["adapter_stages"]): cell for cell in cells.values()}
    assert set(kinds) == {("swin", 0), ("swin", 2), ("mano", 0), ("mano", 2)}
    for cell in kinds.values():
        finishes(cell, tmp_path / "data", tmp_path, monkeypatch)
