"""Chooses a knob of the task for every variant alike: equal trials for all, judged by validation scores alone.

The choice is a function of the trials' rows, so that whoever looks at the same rows chooses the same; of equal scores
the value that the file names first is taken. Dodge et al. ("Show Your Work", 2019, https://arxiv.org/abs/1909.03004)
say why the number of trials belongs to a result: the report tells what fewer of them would have given.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

from attnbench._entries import Chosen, Part
from attnbench._sections import Choose, Frame
from attnbench._yaml import SweepError, line
from mechanisms import KnobError, configure, nearest

Row = Mapping[str, Any]
Rows = Callable[[str], Row | None]  # from a cell's id to its committed row, if it has one


def refuse(file: Path, text: Mapping[str, Any], frame: Frame, parts: Sequence[Part], tasks: Sequence[Any]) -> None:
    """Raises SweepError for a choice that the tasks do not have, or that would not be fair to all variants alike."""
    assert frame.choose is not None
    choose, node = frame.choose, text["choose"]

    def refusal(word: str, sentence: str) -> SweepError:
        return SweepError(file, line(node, word) or line(text, "choose"), f"choose.{word}: {sentence}")

    if common := sorted(set(choose.seeds) & set(frame.seeds)):
        raise refusal("seeds", f"{common[0]} is a seed of the sweep itself; trials need seeds of their own.")
    for part, task in zip(parts, tasks, strict=True):
        if choose.name not in task.config.model_fields:
            near = nearest(choose.name, task.config.model_fields)
            raise refusal("knob", f"{part.name} has no knob {choose.name!r}.{near}")
        if choose.name in task.config.cost_knobs | getattr(task.config, "step_knobs", frozenset()):
            raise refusal("knob", f"{choose.name} changes what {part.name} asks of a model or what a step costs.")
        if choose.name in part.knobs:
            place = line(part.node, choose.name)
            raise SweepError(file, place, f"{choose.knob} is chosen by trials; leave it out here.")
        scores = [name for name in task.better if name.startswith("valid_")]
        if (by := choose.score(part.name)) not in scores:
            has = f"It has {', '.join(scores)}."
            raise refusal("by", f"{part.name} has no validation score {by!r}.{nearest(by, scores)} {has}")


def options(file: Path, text: Mapping[str, Any], choose: Choose, task: Chosen) -> list[Chosen]:
    """The task once for every value. Raises SweepError for a value that it refuses."""
    made = []
    for value in choose.values:
        try:
            config = configure(task.entry.config, {**task.config.model_dump(), choose.name: value}, of=task.name)
        except KnobError as error:
            raise SweepError(file, line(text["choose"], "values") or line(text, "choose"), str(error)) from None
        made.append(replace(task, config=config))
    return made


def best(trials: Sequence[Sequence[str]], rows: Rows, by: str, side: str) -> int | None:
    """Which value is best: the place of the one with the least mean error over its trials, or the most.

    trials: for each value, the ids of its trials. None until all of them have rows. A trial that ran out of memory or
    time, diverged, or has no finite score is worse than any number; where all are, the first value is taken.
    """
    found = [[rows(id) for id in ids] for ids in trials]
    if any(row is None for own in found for row in own):
        return None
    losses = [mean_loss((row for row in own if row is not None), by, side) for own in found]
    return losses.index(min(losses))


def mean_loss(rows: Iterable[Row], by: str, side: str) -> float:
    losses = [loss(row["status"], row["result"].get(by), side) for row in rows]
    return sum(losses) / len(losses)


def loss(status: str, score: Any, side: str) -> float:
    """A score as something of which less is better."""
    if status != "ok" or not isinstance(score, int | float) or not isfinite(score):
        return inf
    return -float(score) if side == "higher" else float(score)
