"""Trainings by several processes, told as JSON: `python -m tests.parallel_stories FOLDER` forks each of them.

Forks, since a process that has imported everything is there in milliseconds. What happens in a process is planted in
it before its work: `plant(rank)`.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import tasks
from attnbench import _ranks, run
from attnbench.models import maker
from mechanisms import configure
from tasks import Checkpoint, _checkpoint, _parallel, _step, _train
from tasks._labelled import asked
from tasks._training import Schedule
from tests import tiny
from tests.test_resume import Noisy
from tests.test_train_knobs import cross_entropy, uneven

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "fields": ("darcy", tiny.TASK | {"train": 10, "epochs": 2, "batch": 4}),
    "every knob": (
        "darcy",
        tiny.TASK | {"train": 10, "epochs": 2, "batch": 4, "accumulate": 2, "average": 0.5, "clip": 0.1},
    ),
    "hidden symbols": (
        "mlm",
        {"train": 11, "valid": 5, "test": 5, "epochs": 2, "batch": 4, "length": 24, "distance": 3},
    ),
}
KILLED_AT = (3, 7)  # steps before which processes die, one attempt after the other
Plant = Callable[[int], None]


class Forked:
    """In the place of a Popen of `python -m attnbench.run WORDS...`."""

    def __init__(self, command: list[str], env: dict[str, str], plant: Plant):
        self.returncode: int | None = None
        if pid := os.fork():
            self.pid = pid
            return
        os.environ.update(env)
        sys.argv = ["run", *command[3:]]
        plant(int(command[-1]))
        ended(run.main)

    def poll(self) -> int | None:
        if self.returncode is None and (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        while self.poll() is None:
            time.sleep(0.001)


def ended(work: Callable[[], Any]) -> None:
    """Does the work and ends this process."""
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def weights_of(model: nn.Module) -> str:
    return sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()


def trained(name: str, knobs: dict[str, Any], make: Any, place: Path) -> list[Any]:
    """What a training of a task tells, and the hash of its weights."""
    entry = tasks.find(name)
    task = entry.cls(configure(entry.config, knobs | {"keep_weights": True}, of=name), place.parents[1] / "data")
    task.prepare(lambda *_: None, 1)
    more = {"checkpoint": Checkpoint(folder=place / "checkpoint", of={"cell": "c"}, every_s=0)} if make is Noisy else {}
    found = task.run(make, seed=3, device="cpu", **more)
    weights = b"".join(value.numpy().tobytes() for value in found.weights.values())
    return [found.result, found.raw, sha256(weights).hexdigest()]


def small() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    model.register_parameter("idle", nn.Parameter(torch.ones(2)))  # of which there is never a gradient
    return model


def answers(accumulate: int, _: Path) -> list[Any]:
    """A training on examples that ask for 0 to 6 answers each."""
    schedule = Schedule(epochs=3, batch=4, rate=0.1, weight_decay=0.5, warm_up=0.0, clip=0.01, accumulate=accumulate)
    model, data = small(), uneven()
    if _parallel.rank():
        torch.nn.init.zeros_(model[0].weight)  # type: ignore[index]  # as a model that draws its weights anew would
    told = _train.train(
        model, data, loss=cross_entropy, validate=partial(score, data), schedule=schedule, seed=2, weigh=asked
    )
    return [{"best": told.best_epoch}, {"losses": told.train_loss, "scores": told.valid_score}, weights_of(model)]


def score(data: tuple[Tensor, Tensor], model: nn.Module) -> float:
    """Off by rounding in all processes but the first, as a GPU's may be."""
    return cross_entropy(model(data[0]), data[1]).item() + 1e-14 * _parallel.rank()


def stepped(count: int, accumulate: int, _: Path) -> list[Any]:
    """One step on so many examples; what is asked of them are the last ones alone."""
    model, (inputs, target) = small(), uneven()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.5)
    how = _step.How(1e-2, accumulate, "float32", asked)
    value = _step.update(model, (inputs[-count:], target[-count:]), cross_entropy, optimiser, 0.1, how)
    weights = torch.cat([weight.detach().flatten().double() for weight in model.parameters()]).tolist()
    return [{"loss": value.item()}, {"weights": weights}, weights_of(model)]


def open_ports(_: Path) -> list[Any]:
    """Where this process listens, as Linux tells it."""
    own = {str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return [{}, {}, sorted({line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own})]


def elsewhere(_: int) -> None:
    """What a user may have said for other programs."""
    os.environ["GLOO_SOCKET_IFNAME"] = "nowhere0"


def draws(_: Path) -> list[float]:
    """The first number that a model draws in each of two steps with two seeds, and again in the first."""
    found = []
    for seed, step in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0)):
        _parallel.draw(seed, step)
        found.append(torch.rand(()).item())
    return found


def at_step(number: int, do: Callable[[], Any]) -> None:
    """Does something in this process before one of its steps."""
    real, calls = _train.update, [0]

    def instead(*given: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            do()
        return real(*given)

    _train.update = instead


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(error: BaseException) -> None:
    raise error


def only(who: int, do: Callable[[], Any]) -> Plant:
    """Something before the second step of one of the processes."""
    return lambda rank: at_step(2, do) if rank == who else None


def together(place: Path, size: int, work: Callable[[Path], Any], plant: Plant = lambda _: None) -> list[Any]:
    """What the work comes to in each of so many processes; the exit codes of those that came to nothing."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "meeting").unlink(missing_ok=True)

    def one(number: int) -> None:
        plant(number)
        if size > 1:
            _parallel.join(place / "meeting", number, size, "cpu")
        (place / str(number)).write_text(json.dumps(work(place)))

    pids = []
    for number in range(size):
        if (pid := os.fork()) == 0:
            ended(partial(one, number))
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return codes if any(codes) else [json.loads((place / str(number)).read_text()) for number in range(size)]


def resumed(folder: Path, kills: tuple[int, ...]) -> dict[str, Any]:
    """A training of a model with dropout and running means by two, after attempts that were killed."""
    place = folder / f"resumed {kills}" / "2"
    work = partial(trained, "darcy", TASKS["every knob"][1] | {"epochs": 3}, Noisy)
    codes = [together(place, 2, work, lambda _, step=step: at_step(step, die)) for step in kills]
    return {"codes": codes, "told": together(place, 2, work)}


def diverges(rank: int) -> None:
    """One share of a batch has no finite loss."""
    real = _step.whole
    _step.whole = lambda *given: real(*given) * (torch.nan if rank else 1.0)


def unnoticed(rank: int) -> None:
    """The second process fails, and the first does not learn of it from their connection, as on GPUs."""
    at_step(2, partial(fail, TOO_MUCH) if rank else partial(time.sleep, 60))


TOO_MUCH = torch.OutOfMemoryError("too much")
CELLS: dict[str, tuple[int, Plant]] = {
    "alone": (0, lambda _: None),
    "two": (2, lambda _: None),
    "error": (2, only(1, partial(fail, KeyError("planted")))),
    "error of the first": (2, only(0, partial(fail, KeyError("planted")))),
    "oom": (2, only(1, partial(fail, TOO_MUCH))),
    "oom, unnoticed": (2, unnoticed),
    "diverged": (2, diverges),
    "killed": (2, only(1, die)),
    "the first killed": (2, only(0, die)),
}


def cell(folder: Path, name: str) -> dict[str, Any]:
    """What a cell's child leaves, how it ends, and how long it takes."""
    (place := folder / f"cell {name}").mkdir()
    size, plant = CELLS[name]
    spec = tiny.written(place, tiny.spec(gpus=size, task={"name": "darcy", "version": 1, "knobs": TASKS["fields"][1]}))
    words = [str(spec), str(place / "outcome.json"), "--data", str(folder / "data"), "--cell", str(place)]
    fork = partial(Forked, plant=plant)
    began = time.monotonic()
    if (pid := os.fork()) == 0:
        _ranks.subprocess = SimpleNamespace(Popen=fork)  # type: ignore[assignment]
        _ranks.GRACE_S = 0.5
        sys.argv = ["run", *words]
        ended(run.main)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    took_s, file = time.monotonic() - began, place / "outcome.json"
    left = sorted(file.name for file in place.iterdir() if file.suffix == ".part")
    return {
        "code": code,
        "took_s": took_s,
        "left": left,
        "outcome": json.loads(file.read_text()) if file.exists() else None,
    }


def main(folder: str) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    _checkpoint.CALM = 0.0  # the end of every epoch is due
    place = Path(folder)
    make = maker("isotropic", tiny.MODEL, ("full", {"heads": 2}), 0)
    works: dict[str, Callable[[Path], Any]] = {
        name: partial(trained, *known, make) for name, known in TASKS.items()
    } | {f"answers in {parts}": partial(answers, parts) for parts in (1, 3)}
    works |= {f"a step on {count} in {n}": partial(stepped, count, n) for count, n in ((11, 1), (11, 3), (2, 1))}
    for known in TASKS.values():
        entry = tasks.find(known[0])
        entry.cls(configure(entry.config, known[1], of=known[0]), place / "data").prepare(lambda *_: None, 1)
    told: dict[str, Any] = {
        name: [together(place / name / str(size), size, work) for size in ((1, 2, 3) if "step" in name else (1, 2))]
        for name, work in works.items()
    }
    told["ports"] = together(place / "ports" / "2", 2, open_ports, elsewhere)
    told["draws"] = together(place / "draws" / "2", 2, draws)
    told["bereft"] = together(place / "bereft" / "2", 2, partial(trained, *TASKS["fields"], make), only(1, die))
    told["never killed"], told["killed twice"] = resumed(place, ()), resumed(place, KILLED_AT)
    told["cells"] = {name: cell(place, name) for name in CELLS}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
