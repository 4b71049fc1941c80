"""Declares tasks, as mechanisms/_registry.py declares mechanisms; says what a task must be able to do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from torch import Tensor, nn

from mechanisms import Knobs, Registry
from tasks._checkpoint import Checkpoint
from tasks._port import Port

Make = Callable[[Port], nn.Module]
Better = Mapping[str, Literal["higher", "lower"]]


class TaskKnobs(Knobs):
    """The knobs of a task, and what follows from them. Every task declares all four words.

    cost_knobs: the knobs that change what a training step costs, beside the model; trainings that agree in them share
    one cost measurement, so their ports and batches must agree as well.
    """

    cost_knobs: ClassVar[frozenset[str]]

    @property
    def port(self) -> Port:
        """What the task asks of a model at these knobs."""
        raise NotImplementedError

    @property
    def examples(self) -> int:
        """How many examples a run passes forward and back, repeats counted; its time is estimated from them."""
        raise NotImplementedError

    @property
    def examples_per_step(self) -> int:
        """How many examples one training step takes."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training gives back.

    result: its numbers by name, each explained in the docstring of the task's file.
    raw: its curves by name, one value an epoch unless the docstring of the task's file says over what.
    weights: of the model that was made, where they are to be kept.
    """

    result: dict[str, float]
    raw: dict[str, list[float]]
    weights: dict[str, Tensor] = field(default_factory=dict)


class Runnable(Protocol):
    """A task with its knobs set: made by `Class(config, data)`, which touches nothing in the data folder."""

    def prepare(self, progress: Callable[[int, int], None], workers: int) -> str:
        """Makes or finds the data, atomically; returns their content hash. Calls progress(done, total)."""
        ...

    def batch(self, seed: int, device: str) -> tuple[Tensor, Tensor]:
        """One made-up training batch (inputs, target) of the true shapes, for measuring cost; needs no data."""
        ...

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What training minimises, a scalar."""
        ...

    def run(self, make: Make, *, seed: int, device: str, checkpoint: Checkpoint | None = None) -> Trained:
        """Trains a model, chooses its epoch on validation data, reads the test data once.

        checkpoint: where the training keeps its state, and takes up that of one that was killed.
        """
        ...


Class = TypeVar("Class", bound=Callable[..., Runnable])


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the bench knows of a task before running it.

    config: its knobs.
    cls: the class, called as cls(config, data folder).
    better: for each number it returns that ranks models, which direction is better.
    version: raised when its behaviour changes, so that old rows keep their own ids.
    """

    name: str
    config: type[TaskKnobs]
    cls: Callable[[Any, Path], Runnable]
    better: Better
    version: int


tasks = Registry[Task]("tasks")


def register(name: str, config: type[TaskKnobs], *, better: Better, version: int = 1) -> Callable[[Class], Class]:
    """Declares the class below it as a task."""

    refuse_undeclared(name, config)

    def declare(cls: Class) -> Class:
        entry = Task(name=name, config=config, cls=cls, better=better, version=version)
        tasks.add(name, entry, cls.__module__)
        return cls

    return declare


def refuse_undeclared(name: str, config: type[TaskKnobs]) -> None:
    """Raises ValueError for a config that leaves out what every task declares."""
    for word in ("port", "examples", "examples_per_step"):
        if getattr(config, word) is getattr(TaskKnobs, word):
            raise ValueError(f"task {name}: its Config declares no property {word!r}; see tasks.TaskKnobs.")
    if not hasattr(config, "cost_knobs"):
        raise ValueError(f"task {name}: its Config declares no cost_knobs; see tasks.TaskKnobs.")
    if unknown := sorted(config.cost_knobs - set(config.model_fields)):
        raise ValueError(f"task {name}: cost_knobs names {', '.join(unknown)}, which its Config does not have.")
