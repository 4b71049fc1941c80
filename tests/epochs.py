"""One epoch of a cell that is asked for by words, as `attnbench run` asks, in this process instead of three others."""

import shlex
from pathlib import Path
from typing import Any

import torch

from attnbench import run
from attnbench.check import check
from attnbench.sweep import expand_text
from attnbench.verbs import one_cell


def trained(task: str, subject: str, words: str, data: Path, model: str | None = None) -> dict[str, Any]:
    """The numbers of a cell after a pass or what its knobs say; its data are made in a folder."""
    text = one_cell(task, subject, model, 0, shlex.split(words))
    plan = expand_text(Path("a test"), text, device="cpu")
    check(plan)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        found = run.execute(plan.trainings[0].spec, data, run.train)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    assert found["error"] is None, found["error"]
    return found["result"]
