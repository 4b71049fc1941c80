"""One new file is under contract: what the README shows passes the contract tests, and a file that breaks it fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACT = ("tests/test_mechanisms.py", "tests/test_declarations.py", "tests/test_refusals.py")
EXAMPLE = (ROOT / "README.md").read_text().split("## Add a mechanism")[1].split("```python\n")[1].split("```")[0]
PAST = '''"""Mean of the last four tokens; behind two of its knobs it looks ahead or across the batch."""

from typing import Literal

import torch
from torch import nn
from torch.nn.functional import pad

from mechanisms import Knobs, Site, Tokens, register


class Config(Knobs):
    scale: float = 1.0
    late: bool = False
    ends: Literal["apart", "joined"] = "apart"


@register("past", Config, fits=("causal",), order="N")
class Past(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        self.scale, self.late, self.ends = config.scale, config.late, config.ends

    def forward(self, x: Tokens) -> Tokens:
        last = torch.stack([pad(x, (0, 0, i, 0))[:, : x.shape[1]] for i in range(4)])
        y = self.scale * last.sum(0) / 4
        if self.late LATE:
            y = y + 0.1 * x.roll(-1, 1)
        if self.ends == "joined" JOINED:
            y = y + x.mean(0)
        return y
'''
HONEST = PAST.replace(" LATE", " and False").replace(" JOINED", " and False")
LEAKY = PAST.replace(" LATE", "").replace(" JOINED", "").replace('"past"', '"leaky"')
NEW = {"mean": EXAMPLE, "past": HONEST, "leaky": LEAKY}
Outcomes = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """How each contract test went for each new mechanism, in a copy of the house and its contract."""
    house = tmp_path_factory.mktemp("house")
    for package in ("mechanisms", "tasks", "attnbench"):
        shutil.copytree(ROOT / package, house / package, ignore=shutil.ignore_patterns("__pycache__"))
    (house / "tests").mkdir()
    for file in ("pyproject.toml", "tests/__init__.py", "tests/slots.py", *CONTRACT):
        shutil.copy(ROOT / file, house / file)
    for name, source in NEW.items():
        (house / "mechanisms" / f"{name}.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-v", "--tb=no", "-p", "no:cacheprovider", "-k", " or ".join(NEW)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run([*command, *CONTRACT], cwd=house, env=environment, capture_output=True, text=True).stdout
    found = re.findall(r"^\S+::(\w+)\[(\S+)\] ([A-Z]+)", told, re.MULTILINE)
    assert found, told
    return {(test, where): outcome for test, where, outcome in found}


@pytest.mark.parametrize(("name", "least"), [("mean", 50), ("past", 50)])
def test_a_new_file_passes_the_whole_contract(name: str, least: int, outcomes: Outcomes):
    """Found by existing: nothing else is written. `least`: about as many tests as there are for it."""
    own = {key: outcome for key, outcome in outcomes.items() if name in key[1].split("-")}
    assert not [key for key, outcome in own.items() if outcome != "PASSED"]
    assert len(own) >= least


def test_a_leak_behind_a_knob_breaks_the_contract(outcomes: Outcomes):
    failed = {key for key, outcome in outcomes.items() if "leaky" in key[1].split("-") and outcome == "FAILED"}
    late, joined = "leaky-causal-block=1-late=True", "leaky-causal-block=1-ends=joined"
    assert ("test_causal_gradients_come_from_the_past_alone", late) in failed
    assert ("test_nothing_passes_between_batch_elements", joined) in failed
    assert all(where.endswith((late, joined)) for _, where in failed)
