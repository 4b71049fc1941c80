"""A sweep file of four trainings as text, and what the tests of sweep files do with it."""

from pathlib import Path
from typing import Any

from attnbench import launch
from attnbench.engine.settings import SiteSettings
from attnbench.sweep import Plan, expand

TEXT = """\
question: Does it work?
runs: 4
tasks:
  - {name: darcy, side: 8, refine: 2, train: 8, valid: 4, test: 4, epochs: 1, batch: 4}
models:
  - {name: isotropic, channels: 8, depth: 1}
mechanisms:
  - name: full
  - name: mano
    window: 2
    levels: 2
seeds: [0, 1]
"""
FIGURE = TEXT + "figures:\n  - name: error\n    kind: variants\n    y: result.rel_l2\n"


def written(folder: Path, text: str = TEXT, name: str = "asked.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def plan(folder: Path, text: str = TEXT, **given: Any) -> Plan:
    options: dict[str, Any] = {"device": "cpu"} | given
    return expand(written(folder, text), **options)


def changed(old: str, new: str, text: str = TEXT) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


def ids(found: Plan) -> list[str]:
    return [cell.id for cell in found.cells]


def launch_options(launcher: str, **given: Any) -> launch.Options:
    """What `launch` is told when nothing special is asked of it."""
    plain: dict[str, Any] = {"workers": 1, "cell_s": None, "retry": (), "wait": True, "quiet": True}
    plain |= {"max_gpu_hours": None, "site": SiteSettings()}
    return launch.Options(launcher=launcher, **plain | given)
