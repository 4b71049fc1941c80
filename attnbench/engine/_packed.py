"""Runs training cells side by side, then cost cells one by one and alone: on this machine and in a SLURM job alike."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from attnbench.cell import Spec
from attnbench.engine._places import Workers, arranged
from attnbench.engine.shard import Limits, Supervisor
from attnbench.engine.store import Store


def run_packed(
    supervisor: Supervisor,
    store: Store,
    cells: Mapping[str, Sequence[str]],
    *,
    workers: Workers,
    limits: Limits,
    expected: Mapping[str, float] | None = None,
) -> Counter[str]:
    """What became of these cells, in the words of `Supervisor.run`.

    cells: ids of `train` cells and, as `cost`, of all those that run alone.
    expected: seconds that cells are expected to take, by their ids.
    """
    trainings, costs = cells.get("train", ()), cells.get("cost", ())
    places = arranged(specs(store, trainings), workers, memory_mib=limits.memory_mib, expected=expected)
    counts = supervisor.run(trainings, places=places)
    return counts + supervisor.run(costs, places=arranged(specs(store, costs), 1, memory_mib=limits.memory_mib))


def kinds(store: Store, ids: Iterable[str]) -> dict[str, list[str]]:
    """Trainings, and as `cost` all that run alone.

    Those whose spec is damaged, which the supervisor finds out too, are with the trainings.
    """
    found: dict[str, list[str]] = {"train": [], "cost": []}
    for id in ids:
        kind = next(specs(store, [id]), {}).get("kind")
        found["train" if kind in ("train", None) else "cost"].append(id)
    return found


def specs(store: Store, ids: Iterable[str]) -> Iterator[Spec]:
    """What these cells ask, as far as it can be read."""
    for id in ids:
        with suppress(ValueError, OSError):
            yield store.spec(id)
