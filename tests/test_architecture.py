"""The arrows between packages, the names of files, what a mechanism's file says, and what starts without torch."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mechanisms
import tasks

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"mechanisms": {"tasks", "attnbench"}, "tasks": {"attnbench"}}
ENGINE = ("store", "shard", "local", "slurm", "states", "progress", "settings")
LIGHT = ("cli", "manifest", "cell", "catalogue", "reading", "paths", *(f"engine.{name}" for name in ENGINE))
HEAVY = ("torch", "numpy", "pandas", "pydantic")
FILES = {package: sorted((ROOT / package).rglob("*.py")) for package in ("mechanisms", "tasks", "attnbench")}
CATALOGUE = [file for file in FILES["mechanisms"] if not file.name.startswith("_")]
each_mechanism = pytest.mark.parametrize("file", CATALOGUE, ids=lambda file: file.stem)


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports anywhere, inside functions too."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    froms = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in plain + froms}


def docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package):
    guilty = {file.name: found for file in FILES[package] if (found := imported(file) & FORBIDDEN[package])}
    assert FILES[package]
    assert not guilty


@pytest.mark.parametrize("package", FORBIDDEN)
def test_an_arrow_is_not_walked_around_by_a_name_in_a_string(package):
    others = "|".join(sorted(FORBIDDEN[package]))
    pattern = re.compile(rf"import_module\(\s*f?[\"']({others})\b")
    assert not [file.name for file in FILES[package] if pattern.search(file.read_text())]


@pytest.mark.parametrize("registry", [mechanisms, tasks], ids=lambda registry: registry.__name__)
def test_a_name_is_its_file_name(registry):
    folder = ROOT / registry.__name__
    assert registry.names() == sorted(file.stem for file in folder.glob("*.py") if not file.name.startswith("_"))
    assert all(registry.find(name).name == name for name in registry.names())


def test_a_mechanism_lives_in_the_file_of_its_name():
    assert all(mechanisms.find(name).module.__module__ == f"mechanisms.{name}" for name in mechanisms.names())


@each_mechanism
def test_a_mechanism_opens_with_a_sentence(file):
    first = docstring(file).split("\n\n")[0]
    title, colon, rest = first.partition(": ")
    assert title
    assert title[0].isupper()
    assert colon, "the summary reads `Name: what it does.`"
    assert rest.endswith(".")
    assert len(rest.split()) >= 5


@each_mechanism
def test_a_mechanism_cites_its_source(file):
    assert re.search(r"https://\S+\.\S+", docstring(file))


@each_mechanism
def test_a_mechanism_says_where_it_departs_from_its_paper(file):
    assert re.search(r"^Departs from the paper: \S+", docstring(file), re.MULTILINE)


@each_mechanism
def test_a_knob_is_described(file):
    fields = mechanisms.find(file.stem).config.model_fields
    assert not [name for name, field in fields.items() if not field.description]


@each_mechanism
def test_a_mechanism_declares_its_reach(file):
    assert mechanisms.find(file.stem).reach is not None


@pytest.mark.parametrize("package", FILES)
def test_every_file_opens_with_a_docstring(package):
    assert not [str(file.relative_to(ROOT)) for file in FILES[package] if not docstring(file)]


@pytest.mark.parametrize("package", [*FILES, "tests", "benchmarks"])
def test_no_file_is_longer_than_three_hundred_lines(package):
    lengths = {str(file): len(file.read_text().splitlines()) for file in (ROOT / package).rglob("*.py")}
    assert not {name: lines for name, lines in lengths.items() if lines > 300}


def child(code: str) -> list[str]:
    """The words that Python code prints in a process of its own, because this one has imported everything already."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_answers_at_once_imports_no_heavy_package():
    """The first module to bring one in is named; those after it are not told apart."""
    code = f"""
import importlib, sys
for module in {LIGHT!r}:
    importlib.import_module(f"attnbench.{{module}}")
    guilty = [f"{{module}}:{{name}}" for name in {HEAVY!r} if name in sys.modules]
    if guilty:
        print(*guilty)
        break
"""
    assert child(code) == []


def test_finding_one_mechanism_imports_no_other():
    code = (
        "import sys, mechanisms; mechanisms.find('full'); "
        "print(*(name for name in mechanisms.names() if f'mechanisms.{name}' in sys.modules))"
    )
    assert child(code) == ["full"]


@pytest.mark.parametrize("package", FILES)
def test_a_package_is_imported_from_this_tree(package):
    assert Path(str(importlib.import_module(package).__file__)).parent == ROOT / package


ROOMS = {"engine": {"engine", "cell", "manifest"}, "reports": {"reports", "manifest"}}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_of_the_house_around_it(room):
    """The engine knows cells by their ids and specs alone; reports read rows, whoever made them."""
    found = {
        (file.name, words[1])
        for file in FILES["attnbench"]
        if file.parent.name == room
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (words := (node.module or "").split("."))[0] == "attnbench"
        and words[1:]
    }
    assert not {(name, other) for name, other in found if other not in ROOMS[room]}
