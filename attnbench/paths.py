"""Where things lie: results, data, and the sweep files that ship with the package."""

import os
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryFile

SHIPPED = Path(__file__).parent.parent / "sweeps"


def results(given: Path | None) -> Path:
    """The root of results: as given, else ATTNBENCH_RESULTS, else `results` here."""
    return (given or Path(os.environ.get("ATTNBENCH_RESULTS") or "results")).absolute()


def data(given: Path | None) -> Path:
    """The data folder: as given, else ATTNBENCH_DATA, else attnbench in the user's cache directory."""
    named = os.environ.get("ATTNBENCH_DATA")
    return given.absolute() if given else Path(named).absolute() if named else cache()


def cache() -> Path:
    from platformdirs import user_cache_path  # here, for most commands need no such folder

    return user_cache_path("attnbench")


def writable(folder: Path) -> Path:
    """The folder, made if it is not there. Raises ValueError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"nothing can be written under {folder}: {error.strerror or error}.") from None


def sweep_file(word: str) -> Path:
    """The sweep file of that path; else the one that ships under that path or name.

    Raises ValueError, naming the nearest, when there is neither.
    """
    here = Path(word)
    if here.is_file():
        return here
    shipped = SHIPPED / f"{here.stem}.yaml"
    if shipped.is_file() and here.suffix in ("", ".yaml") and str(here.parent) in (".", "sweeps"):
        return shipped
    if beside := sorted(file.name for file in here.parent.glob("*.yaml")):
        near = "".join(f" Did you mean {match!r}?" for match in get_close_matches(here.name, beside, n=1))
        if near:
            raise ValueError(f"there is no sweep file {word!r}.{near}")
    names = sweep_names()
    near = "".join(f" Did you mean {match!r}?" for match in get_close_matches(here.stem, names, n=1))
    raise ValueError(f"there is no sweep file {word!r}.{near} With attnbench ship {', '.join(names)}.")


def sweep_names() -> list[str]:
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))
