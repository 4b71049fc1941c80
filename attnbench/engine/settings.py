"""What one site's SLURM wants to be told: the user's `attnbench.toml`, strictly read, with the command line on top.

    [slurm]
    partition = "gpu"
    setup = ["module load cuda"]
    [slurm.options]
    reservation = "week"

Sweep files never hold these words, so that they run anywhere.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import platformdirs

OURS = {"array", "comment", "error", "hold", "job-name", "mem", "open-mode", "output", "signal", "time"}


@dataclass(frozen=True, kw_only=True)
class SiteSettings:
    """How jobs are asked for at one site. Everything may stay at its default on a cluster with a default partition."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    python: str | None = None  # shell words that start Python on a node, for containers; default: this interpreter
    setup: tuple[str, ...] = ()  # shell lines before the job's Python starts: `module load cuda`
    options: dict[str, str | bool] = field(default_factory=dict)  # further sbatch options: {"reservation": "week"}
    shared_timing: bool = False  # cost cells share a node with other jobs, and their rows say so
    poll_s: float = 10.0  # seconds between two questions to the scheduler


def users_file() -> Path:
    """Where the user's settings are looked for; the file need not exist."""
    return platformdirs.user_config_path("attnbench") / "attnbench.toml"


def read(file: Path | None = None, words: Sequence[str] = ()) -> SiteSettings:
    """Settings of `file` (default: the user's), then `words` such as `partition=gpu` or `options.reservation=week`.

    Raises ValueError, one sentence, for an unknown key (naming the nearest), a wrong type or broken TOML.
    """
    path = file or users_file()
    found = _slurm_table(path) if file or path.is_file() else {}
    return override(_settings(found, of=str(path)), words)


def override(site: SiteSettings, words: Iterable[str]) -> SiteSettings:
    """Settings with `name=value` words laid over them; `setup` is split at semicolons, `options.X` adds one option."""
    table = {name: value for name, value in asdict(site).items() if value is not None}
    table |= {"options": dict(site.options), "setup": list(site.setup)}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"A SLURM setting is written name=value; got '{word}'.")
        if name.startswith("options."):
            table["options"][name.removeprefix("options.")] = value
        else:
            table[name] = _typed(name, value)
    return _settings(table, of="the command line")


def _typed(name: str, value: str) -> object:
    """The word of a command line as TOML would have had it."""
    if name == "setup":
        return [line.strip() for line in value.split(";")]
    if name == "shared_timing":
        return {"true": True, "false": False}.get(value, value)
    if name == "poll_s":
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _slurm_table(path: Path) -> Mapping[str, object]:
    try:
        whole = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    _known(whole, ("slurm",), of=str(path))
    table = whole.get("slurm", {})
    if not isinstance(table, dict):
        raise ValueError(f"{path}: slurm is a table, written [slurm]; got {table!r}.")
    return table


def _settings(table: Mapping[str, object], *, of: str) -> SiteSettings:
    _known(table, tuple(f.name for f in fields(SiteSettings)), of=of)
    checked = {name: _checked(name, value, of) for name, value in table.items()}
    return SiteSettings(**checked)  # type: ignore[arg-type]  # every value has just been checked


def _checked(name: str, value: object, of: str) -> object:
    if name == "setup":
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            return tuple(value)
        raise ValueError(f"{of}: setup is a list of shell lines; got {value!r}.")
    if name == "options":
        return _options(value, of)
    if name == "shared_timing":
        good, wanted = isinstance(value, bool), "true or false"
    elif name == "poll_s":
        good, wanted = isinstance(value, int | float) and not isinstance(value, bool) and value > 0, "a number above 0"
    else:
        good, wanted = isinstance(value, str) and bool(value.strip()), "a text that is not empty"
    if not good:
        raise ValueError(f"{of}: {name} is {wanted}; got {value!r}.")
    return value


def _options(value: object, of: str) -> dict[str, str | bool]:
    if not isinstance(value, dict):
        raise ValueError(f"{of}: options is a table of sbatch options; got {value!r}.")
    options: dict[str, str | bool] = {}
    for name, said in value.items():
        option = str(name).lstrip("-").replace("_", "-")
        if option in OURS:
            raise ValueError(f"{of}: the sbatch option '{option}' belongs to attnbench and cannot be set.")
        if said is False or not isinstance(said, str | int | float):
            raise ValueError(f"{of}: the sbatch option '{option}' is a text, a number or true; got {said!r}.")
        options[option] = True if said is True or said == "" else str(said)
    return options


def _known(names: Iterable[str], known: Sequence[str], *, of: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"{of} has the unknown setting '{name}'.{hint} There are {', '.join(known)}.")
