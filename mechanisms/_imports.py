"""Imports a file of the catalogue that lies elsewhere, and says on one line why an import failed.

An author reads that sentence and no traceback, so it names the file's own line.
"""

import importlib.util
import sys
from contextlib import redirect_stdout
from pathlib import Path
from traceback import extract_tb


def imported(module: str, file: Path) -> None:
    """Runs a file from elsewhere as a module of the package, as if it lay there; one that fails leaves no module.

    What it prints goes to standard error: programs read the other.
    """
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[module] = importlib.util.module_from_spec(spec)
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(sys.modules[module])
    except BaseException:
        del sys.modules[module]
        raise


def path(module: str) -> str:
    """A module's file, as people name it: from the root of the house."""
    return f"{module.replace('.', '/')}.py"


def reason(error: BaseException, file: str) -> str:
    """Why an import failed, on one line without a full stop: what was raised and, if known, on which line of the file.

    Missing packages and wrong syntax say enough without the name of their exception.
    """
    message = str(error).strip().partition("\n")[0].rstrip(".")
    if isinstance(error, SyntaxError):
        return message.replace(f"({Path(file).name}, line", "(line")
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r})"
    kind = "" if isinstance(error, ImportError) else type(error).__name__
    where = line(error, file).removeprefix(", ")
    return (": ".join(filter(None, (kind, message))) or "ImportError") + (f" ({where})" if where else "")


def line(error: BaseException, file: str) -> str:
    """The last line of the file that an error came through, as `, line 3`; nothing where it came through none."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if Path(frame.filename).match(file)]
    return f", line {lines[-1]}" if lines else ""
