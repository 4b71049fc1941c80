"""Freezes the code of a submission, so that jobs which start tomorrow run what was there when they were asked for."""

import importlib.util
import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from uuid import uuid4

PACKAGES = ("attnbench", "mechanisms", "tasks")
PLUGINS = "ATTNBENCH_PLUGINS"  # variable with the files of mechanisms from elsewhere
MARKER = "frozen.json"  # written last, so a copy without it was interrupted; holds the commit, which a copy cannot ask


def freeze(folder: Path) -> None:
    """Copies the packages as they are imported here to `folder`; it appears whole, its marker last.

    Plugins are copied too; there they are files of `mechanisms` like any other.
    """
    part = folder.with_name(f".{folder.name}.{uuid4().hex}")
    for package in PACKAGES:
        shutil.copytree(home(package), part / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for file in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
        shutil.copyfile(file, part / "mechanisms" / Path(file).name)
    part.rename(folder)
    (folder / MARKER).write_text(json.dumps(commit(home("attnbench").parent)))


@cache
def size() -> int:
    """Bytes that a frozen copy takes, about."""
    files = (file for package in PACKAGES for file in home(package).rglob("*") if "__pycache__" not in file.parts)
    return sum(file.stat().st_size for file in files if file.is_file())


def home(package: str) -> Path:
    """The folder a package is imported from, found without importing it."""
    found = importlib.util.find_spec(package)
    assert found is not None, package
    assert found.submodule_search_locations, package
    return Path(next(iter(found.submodule_search_locations)))


def commit(root: Path) -> dict[str, str | bool]:
    """Commit of the checkout at `root` and whether it has changes; of a frozen copy, what was true when it was made."""
    if (root / MARKER).exists():
        return json.loads((root / MARKER).read_text())
    changes = git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": git(root, "rev-parse", "HEAD") or "none", "dirty": bool(changes)}


def git(root: Path, *words: str) -> str:
    """What git prints; nothing where there is no checkout or no git."""
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
