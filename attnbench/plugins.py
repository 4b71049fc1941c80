"""Mechanisms from elsewhere: files named by --plugin, and modules that installed packages announce as entry points.

A plugin is one file, named after what it registers; what it imports, it imports by full names. From the command line on
all plugins stand in the environment, so that the processes of cells find them; a job on SLURM has copies instead, among
the frozen mechanisms, and looks nowhere else.
"""

import importlib.util
import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from attnbench.engine._freeze import MARKER, PLUGINS

GROUP = "attnbench.mechanisms"  # of entry points: name = module
ROOT = Path(__file__).parent.parent


def files() -> list[Path]:
    """Every plugin's file, absolute: those named to us or to a process above, then those of installed packages."""
    if (ROOT / MARKER).exists():
        return []
    named = [Path(word) for word in os.environ.get(PLUGINS, "").split(os.pathsep) if word]
    announced = [place(entry.value) for entry in metadata.entry_points(group=GROUP)]
    return list(dict.fromkeys(file.absolute() for file in [*named, *announced]))


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
    return Path(found.origin if found and found.origin else f"{module.replace('.', '/')}.py")


def absent(module: str, error: BaseException) -> bool:
    """Whether an error only says that there is no such module, or no package around it."""
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")


def name_them(words: Iterable[str | Path]) -> None:
    """Adds files to the environment, for this process and all that it starts. Raises ValueError for one not there."""
    wanted = [Path(word).expanduser().absolute() for word in words]
    for file in wanted:
        if not file.is_file():
            raise ValueError(f"there is no plugin {file}.")
        if os.pathsep in str(file):
            raise ValueError(f"the path of plugin {file} holds {os.pathsep!r}; choose one without it.")
    before = [word for word in os.environ.get(PLUGINS, "").split(os.pathsep) if word]
    if wanted:
        os.environ[PLUGINS] = os.pathsep.join(dict.fromkeys([*before, *map(str, wanted)]))


def join() -> None:
    """Takes every plugin among the mechanisms, and names them all in the environment. Raises ValueError as `invite`."""
    import mechanisms

    found = files()
    for file in found:
        mechanisms.mechanisms.invite(file)
    name_them(found)
