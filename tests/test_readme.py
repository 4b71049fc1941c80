"""The README is true: its tree names every file, its table every mechanism, its commands and links lead somewhere."""

import re
from pathlib import Path

import pytest

import mechanisms
from attnbench.cli import main
from attnbench.paths import sweep_names

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
TREE = TEXT.split("## The house")[1].split("```")[1]
FILES = [
    file.relative_to(ROOT)
    for folder in ("attnbench", "mechanisms", "tasks", "sweeps", "benchmarks", "docs")
    for file in sorted((ROOT / folder).rglob("*"))
    if file.suffix in (".py", ".yaml") and file.name != "__init__.py"
]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_tree_names_every_file(file):
    assert re.search(rf"(?<![\w.]){re.escape(file.name)}(?!\w)", TREE), f"README's tree lacks {file}"


def test_the_tree_names_no_file_that_is_not_there():
    named = set(re.findall(r"(?<![\w.])\w+\.(?:py|yaml)", TREE))
    assert named <= {file.name for file in FILES}


@pytest.mark.parametrize("name", mechanisms.names())
def test_the_table_of_mechanisms_says_what_the_registry_says(name):
    found = mechanisms.find(name)
    row = f"| `{name}` | {', '.join(sorted(found.fits))} | {found.order} |"
    assert row in TEXT


def test_the_table_names_no_mechanism_that_is_not_there():
    table = TEXT.split("## Mechanisms")[1].split("##")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == mechanisms.names()


def test_every_verb_and_shipped_sweep_of_the_commands_is_there():
    commands = [line.split() for line in re.findall(r"attnbench (\w+ ?\S*)", TEXT) if line]
    verbs = {words[0] for words in commands} & {
        "check",
        "sweep",
        "status",
        "report",
        "ledger",
        "run",
        "list",
        "data",
        "doctor",
        "logs",
    }
    assert verbs == set(main.commands)
    named = {Path(word).stem for word in re.findall(r"sweeps/(\w+\.yaml)", TEXT)} - {"x"}
    assert named <= set(sweep_names())


def test_every_local_link_and_picture_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
