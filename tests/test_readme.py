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
    for folder in ("attnbench", "mechanisms", "tasks", "sweeps")
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


def test_the_example_of_a_mechanism_works(tmp_path):
    """The file that the README shows is written out, found by its name, and keeps the shape of what it is given."""
    source = TEXT.split("## Add a mechanism")[1].split("```python")[1].split("```")[0]
    namespace: dict = {"__name__": "mechanisms.mean"}
    (tmp_path / "mean.py").write_text(source)
    try:
        exec(compile(source, "mean.py", "exec"), namespace)
        import torch

        module = mechanisms.build("mean", mechanisms.Site(channels=8, shape=(4, 6)), gain=2.0)
        x = torch.randn(2, 4, 6, 8)
        expected = module.get_submodule("out")(2 * x.mean((1, 2), keepdim=True)).expand_as(x)
        torch.testing.assert_close(module(x), expected)
    finally:
        from mechanisms._registry import mechanisms as registry

        registry.entries.pop("mean", None)
