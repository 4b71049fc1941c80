"""Mechanisms from elsewhere: files named by --plugin, and modules that installed packages announce as entry points.

A plugin is one file, named after what it registers; what it imports, it imports by full names. From the command line on
all plugins stand in the environment, so that the processes of cells find them; a job on SLURM has copies instead, among
the frozen mechanisms, and looks nowhere else.
"""

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any

from attnbench.engine._freeze import MARKER, PLUGINS

GROUP = "attnbench.mechanisms"  # of entry points: name = module
ROOT = Path(__file__).parent.parent


def files() -> list[Path]:
    """Every plugin's file, absolute: those named to us or to a process above, then those of installed packages.

    Of a package that cannot be imported, where its file should be.
    """
    return list(dict.fromkeys([*named(), *(file for file, _ in announced().values())]))


def named() -> list[Path]:
    """Files named by --plugin, here or to a process above."""
    words = [] if (ROOT / MARKER).exists() else os.environ.get(PLUGINS, "").split(os.pathsep)
    return [Path(word).absolute() for word in words if word]


def announced() -> dict[str, tuple[Path, str]]:
    """Of each module that an installed package announces, its file, and why there is none; that is empty for most."""
    found: dict[str, tuple[Path, str]] = {}
    for point in [] if (ROOT / MARKER).exists() else metadata.entry_points(group=GROUP):
        try:
            file = place(point.module).absolute()
            why = "" if file.is_file() else f"an installed package announces {point.module}, which is not there."
            found[point.module] = file, why
        except ValueError as error:
            found[point.module] = guess(point.module).absolute(), str(error)
    return found


def place(module: str) -> Path:
    """The file of a module; a name that says where it should be when there is none, for whoever opens it.

    Raises ValueError, in one sentence, where the package around it cannot be imported.
    """
    try:
        found = importlib.util.find_spec(module)
    except (Exception, SystemExit) as error:  # whatever importing the package around it may raise
        if not absent(module, error):
            text = str(error).strip().partition("\n")[0].rstrip(".")
            why = ": ".join(filter(None, (type(error).__name__, text)))
            raise ValueError(f"the package of {module} cannot be imported: {why}.") from error
        found = None
    return Path(found.origin) if found and found.origin else guess(module)


def guess(module: str) -> Path:
    return Path(f"{module.replace('.', '/')}.py")


def absent(module: str, error: BaseException) -> bool:
    """Whether an error only says that there is no such module, or no package around it."""
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")


def name_them(words: Iterable[str | Path]) -> None:
    """Adds files to the environment, for this process and all that it starts. Raises ValueError for one not there."""
    wanted = [Path(word).expanduser().absolute() for word in words]
    for file in wanted:
        if file.is_dir():
            raise ValueError(f"there is no plugin {file}: that is a folder; name a file in it.")
        if not file.is_file():
            raise ValueError(f"there is no plugin {file}.{nearest(file)}")
        if os.pathsep in str(file):
            raise ValueError(f"the path of plugin {file} holds {os.pathsep!r}; choose one without it.")
    before = [word for word in os.environ.get(PLUGINS, "").split(os.pathsep) if word]
    if wanted:
        os.environ[PLUGINS] = os.pathsep.join(dict.fromkeys([*before, *map(str, wanted)]))


def nearest(file: Path) -> str:
    """The Python file beside one that is not there whose name is most like it, as a question."""
    there = [other.name for other in file.parent.glob("*.py")]
    return "".join(f" Did you mean {match!r}?" for match in get_close_matches(file.name, there, n=1))


def join() -> None:
    """Takes every plugin among the mechanisms, and names them all in the environment.

    Raises ValueError as `invite` for a file that somebody named. One that an installed package announces and that
    cannot be taken is listed with the reason instead: nobody asked for it, so it must not stop what was asked.
    """
    import mechanisms

    registry, taken = mechanisms.mechanisms, named()
    for file in taken:
        registry.invite(file)
    registry.broken.clear()
    for module, (file, why) in announced().items():
        name = module.rpartition(".")[2]
        try:
            if why:
                raise ValueError(why)
            registry.invite(file)
            taken.append(file)
        except ValueError as error:
            registry.broken[name if name not in registry.names() else module] = str(error)
    name_them(taken)


def refuse_broken(entries: Iterable[Mapping[str, Any]], asked: Sequence[Path]) -> None:
    """Raises ValueError, with the reason, when a file that this command names is listed as one that cannot be used."""
    names = {file.stem for file in asked}
    for entry in entries:
        if entry["name"] in names and "missing" in entry:
            raise ValueError(entry["missing"])
