"""A split of a task with right and wrong answers, as a model and its loss see it: the tests look at it whole."""

from torch import Tensor

from tasks._labelled import Labelled


def read(task: Labelled, split: str) -> tuple[Tensor, Tensor]:
    """Inputs and targets of all examples; training turns them so batch by batch."""
    inputs, target = task.stored(split, "cpu")
    return task.seen(inputs), target.long()
