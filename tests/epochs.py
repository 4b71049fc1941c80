"""One epoch of a cell that is asked for by words, as `attnbench run` asks, in this process instead of three others."""

import shlex
from pathlib import Path
from typing import Any

from attnbench import run
from attnbench.check import check
from attnbench.sweep import expand_text
from attnbench.verbs import one_cell
from tests.torch_settings import put_back


def trained(task: str, subject: str, words: str, data: Path, model: str | None = None) -> dict[str, Any]:
    """The numbers of a cell after a pass or what its knobs say; its data are made in a folder."""
    text = one_cell(task, subject, model, 0, shlex.split(words))
    plan = expand_text(Path("a test"), text, device="cpu")
    check(plan)
    with put_back():
        found = run.execute(plan.trainings[0].spec, data, run.train)
    assert found["error"] is None, found["error"]
    return found["result"]
