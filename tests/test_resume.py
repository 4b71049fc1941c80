"""A training that is killed, wherever it stands, ends with the numbers and weights of one that never was.

`python -m tests.test_resume FOLDER KNOBS` is a process of its own, in which every training is a child that can be
killed; it prints what became of each.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tasks
from attnbench.models import maker
from mechanisms import configure
from tasks import Checkpoint, Port, _checkpoint, _train, darcy
from tests import tiny

KNOBS: dict[str, Any] = tiny.TASK | {"train": 10, "epochs": 3, "batch": 4, "keep_weights": True}  # nine steps
ALL = {"average": 0.6, "accumulate": 2, "curve": "linear", "clip": 0.1}


class Noisy(nn.Module):
    """A model with dropout and with running means in its buffers."""

    def __init__(self, port: Port):
        super().__init__()
        self.net = maker("isotropic", tiny.MODEL, ("full", {"heads": 2}), 0)(port)
        self.norm, self.drop = nn.BatchNorm2d(port.outputs), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.drop(self.net(x)).movedim(-1, 1)).movedim(1, -1)


@dataclass(frozen=True)
class Kill:
    """The moment of a death: before the `call`-th call of a function. torn: with half of a file written."""

    where: str
    call: int
    torn: bool = False

    def plant(self) -> None:
        module, _, name = self.where.partition(".")
        place: Any = {"train": _train, "write": os, "score": darcy}[module]
        real, calls = getattr(place, name), [0]

        def instead(*given: Any) -> Any:
            calls[0] += 1
            if calls[0] == self.call:
                if self.torn:
                    os.ftruncate(given[0], os.fstat(given[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given)

        setattr(place, name, instead)


MOMENTS = {
    "before anything": [Kill("train.update", 1)],
    "within the first epoch": [Kill("train.update", 3)],
    "at the first step of the second": [Kill("train.update", 4)],
    "within the last epoch": [Kill("train.update", 9)],
    "three times": [Kill("train.update", 2), Kill("train.update", 3), Kill("train.update", 4)],
    "while an epoch is scored": [Kill("score.mean_errors", 2)],
    "while the test fields are read": [Kill("score.mean_errors", 5)],
    "while the first checkpoint is written": [Kill("write.fsync", 1, torn=True)],
    "while the fifth is written": [Kill("write.fsync", 9, torn=True)],
    "before it has its name for ever": [Kill("write.fsync", 10)],
    "twice while one is written": [Kill("write.fsync", 7), Kill("write.fsync", 3, torn=True)],
}


def trained(place: Path, knobs: dict[str, Any], every_s: float) -> dict[str, Any]:
    """What a training gives back, weights by their hash."""
    entry = tasks.find("darcy")
    task = entry.cls(configure(entry.config, knobs, of="darcy"), place.parent / "data")
    checkpoint = Checkpoint(folder=place / "checkpoint", of={"cell": "c", "code": "d"}, every_s=every_s)
    found = task.run(Noisy, seed=3, device="cpu", checkpoint=checkpoint)
    weights = {name: sha256(value.numpy().tobytes()).hexdigest() for name, value in found.weights.items()}
    left = sorted(path.name for path in checkpoint.folder.iterdir()) if checkpoint.folder.exists() else []
    return {"told": [found.result, found.raw, weights], "earlier_s": checkpoint.earlier_s, "left": left}


def apart(work: Callable[[], Any], answer: Path) -> int:
    """Runs something in a child of this process, and returns what ended it: 0, or the negative of a signal."""
    if (pid := os.fork()) == 0:
        try:
            answer.write_text(json.dumps(work()))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def story(place: Path, kills: list[Kill], knobs: dict[str, Any], every_s: float) -> dict[str, Any]:
    """Attempts that are killed one after the other, and one that is not."""
    place.mkdir()
    codes = []
    for kill in kills:
        codes.append(apart(lambda kill=kill: (kill.plant(), trained(place, knobs, every_s)), place / "killed"))
    codes.append(apart(lambda: trained(place, knobs, every_s), place / "ended"))
    return {"codes": codes, **json.loads((place / "ended").read_text())}


def main(folder: str, more: str, seconds: str) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    knobs, every_s = KNOBS | json.loads(more), float(seconds)
    _checkpoint.CALM = 0.0  # the end of every epoch is due
    entry = tasks.find("darcy")
    entry.cls(configure(entry.config, knobs, of="darcy"), Path(folder) / "data").prepare(lambda *_: None, 1)
    moments = {"never": [], **MOMENTS} if every_s == 0 else {"never": [], "late": [Kill("train.update", 8)]}
    print(json.dumps({name: story(Path(folder) / name, kills, knobs, every_s) for name, kills in moments.items()}))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any], float], dict[str, Any]]:
    """The stories that such a process tells."""
    known: dict[str, dict[str, Any]] = {}

    def tell(more: dict[str, Any], every_s: float) -> dict[str, Any]:
        words = [json.dumps(more), str(every_s)]
        if str(words) not in known:
            command = [sys.executable, "-m", "tests.test_resume", str(tmp_path_factory.mktemp("stories")), *words]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
            root = Path(__file__).parent.parent
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            known[str(words)] = json.loads(done.stdout)
        return known[str(words)]

    return tell


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("more", [{}, ALL], ids=["plain", "every knob"])
def test_a_killed_training_ends_as_one_that_never_was(told, moment, more):
    stories = told(more, 0.0)
    never, found = stories["never"], stories[moment]
    assert never["codes"] == [0]
    assert found["codes"] == [-signal.SIGKILL] * len(MOMENTS[moment]) + [0]
    assert found["told"] == never["told"]
    assert len(never["told"][1]["train_loss"]) == KNOBS["epochs"]
    assert len(never["told"][2]) > 10
    assert found["left"] == ["state.pt"]  # no half of one
    early = moment in ("before anything", "while the first checkpoint is written")
    assert (found["earlier_s"] > 0) != early


def test_checkpoints_at_the_ends_of_epochs_alone_do_as_well(told):
    stories = told({}, 1e9)
    assert stories["late"]["codes"] == [-signal.SIGKILL, 0]
    assert stories["late"]["earlier_s"] > 0
    assert stories["late"]["told"] == stories["never"]["told"] == told({}, 0.0)["never"]["told"]


if __name__ == "__main__":
    main(*sys.argv[1:])
