"""Looks things up by name. A name is a file name, so a lookup imports one file and no other."""

import importlib.util
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, get_args

from torch import nn

from mechanisms._imports import imported, line, path, reason
from mechanisms._knobs import KnobError, Knobs, configure, known, nearest
from mechanisms._site import Setting, Site

Entry = TypeVar("Entry")
Module = TypeVar("Module", bound=type[nn.Module])
Order = Literal["0", "N", "N log N", "N^1.5", "N^2"]
Reach = Literal["token", "local", "global"]
Build = Callable[[Site], nn.Module]


class Registry(Generic[Entry]):
    """The entries of one package, and guests from elsewhere.

    Files that start with an underscore, and folders, are not entries. broken: why a guest cannot be taken, by its name.
    """

    def __init__(self, package: str):
        self.package = package
        self.entries: dict[str, Entry] = {}
        self.guests: dict[str, Path] = {}
        self.broken: dict[str, str] = {}

    def names(self) -> list[str]:
        """Every entry's name, in order, without importing any of them."""
        return sorted({*self.own(), *self.guests, *self.broken})

    def own(self) -> list[str]:
        """Names of the package's own files."""
        files = pkgutil.iter_modules(importlib.import_module(self.package).__path__)
        return sorted(file.name for file in files if not file.ispkg and not file.name.startswith("_"))

    def invite(self, file: Path) -> str:
        """Takes a file from elsewhere among the entries, under its name, which is returned; it is imported later.

        Raises EntryError for a file that is not there, whose name is no name, or is that of another entry.
        """
        name = file.stem
        if file.suffix != ".py" or not name.isidentifier() or name.startswith("_"):
            raise EntryError(
                f"{file} is no plugin: that is a Python file such as my_attention.py, named after its entry."
            )
        if not file.is_file():
            raise EntryError(f"there is no file {file}.")
        there = self.guests.get(name)
        if name in self.own() or there not in (None, file):
            other = f"{there}" if there else path(f"{self.package}.{name}")
            raise EntryError(f"{file} has the name of {other}; rename one of them, and what it registers.")
        self.guests[name] = file
        return name

    def find(self, name: str) -> Entry:
        """One entry; its file is imported the first time.

        Raises ValueError of one sentence for an unknown name, and for a file that cannot be imported, registers
        nothing or registers another name than its own.
        """
        if why := self.broken.get(name):
            raise EntryError(why)
        if name not in self.entries:
            known(self.package.rpartition(".")[2].removesuffix("s"), name, self.names(), of="attnbench")
            self.load(name)
        return self.entries[name]

    def load(self, name: str) -> None:
        """Imports an entry's file. Raises EntryError as `find` says; a file that fails leaves no entry behind."""
        module, guest = f"{self.package}.{name}", self.guests.get(name)
        file = str(guest or path(module))
        try:
            importlib.import_module(module) if guest is None else imported(module, guest)
        except (Exception, SystemExit) as error:
            self.entries.pop(name, None)
            if not isinstance(error, EntryError):
                raise EntryError(f"{file} cannot be imported: {reason(error, file)}.") from error
            if str(error).startswith(file):
                raise
            raise EntryError(f"{file}{line(error, file)}: {error}") from error
        if name not in self.entries:
            raise EntryError(f"{file} registers nothing; a class under @register({name!r}, ...) is its entry.")

    def add(self, name: str, entry: Entry, module: str) -> None:
        """Declares an entry. Raises EntryError unless its name is its file's."""
        stem = module.rpartition(".")[2]
        file = self.guests.get(stem, path(module))
        if stem in self.entries and stem != name:
            raise EntryError(f"{file} registers both {stem!r} and {name!r}; one file holds one mechanism.")
        if stem not in (name, "__main__"):
            raise EntryError(f"{file} registers {name!r}; name the file after it.")
        self.entries[name] = entry


class EntryError(ValueError):
    """A file of the catalogue that is no entry, in one sentence."""


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """What the bench knows of a mechanism before building it.

    fits: the settings it can serve.
    order: how its work grows with the number of tokens N, all else fixed, at the defaults of its knobs.
    order_of: from a site and a config to its order, where they change it.
    reach: what one layer lets a token see: itself, some others, or all (a causal one all before it); a word, or a
        function of site and config where it depends on them; None where nothing is declared.
    bound_to_shape: whether its weights depend on the shape of the site; a function of site and config where that
        depends on them.
    version: raised when its behaviour changes, so that old rows keep their own ids.
    needs: an optional package that it cannot do without.
    devices: the device classes it runs on.
    reference: of another implementation of a mechanism, that mechanism's name; both compute the same.
    """

    name: str
    module: type[nn.Module]
    config: type[Knobs]
    fits: frozenset[Setting]
    order: Order
    order_of: Callable[[Site, Any], Order] | None = None
    reach: Reach | Callable[[Site, Any], Reach] | None = None
    bound_to_shape: bool | Callable[[Site, Any], bool] = False
    version: int = 1
    needs: str | None = None
    devices: tuple[str, ...] = ("cpu", "cuda")
    reference: str | None = None

    def order_at(self, site: Site, config: Knobs) -> Order:
        """How its work grows with the number of tokens at sites like this one with these knobs."""
        return self.order_of(site, config) if self.order_of else self.order

    def bound_at(self, site: Site, config: Knobs) -> bool:
        """Whether its weights at this site with these knobs depend on the site's shape."""
        return self.bound_to_shape(site, config) if callable(self.bound_to_shape) else self.bound_to_shape

    def reach_at(self, site: Site, config: Knobs) -> Reach | None:
        """What one layer lets a token see at this site with these knobs."""
        return self.reach(site, config) if callable(self.reach) else self.reach

    def absence(self, device: str) -> str | None:
        """Why it cannot run on a device class here, in one sentence; None when it can."""
        if device not in self.devices:
            return f"{self.name} runs on {' and '.join(self.devices)} only; got {device}."
        if self.needs and importlib.util.find_spec(self.needs) is None:
            brings = f": pip install 'attnbench[{self.needs}]' brings it"  # where the extra is ours
            return f"{self.name} needs the package {self.needs}{'' if self.name in mechanisms.guests else brings}."
        return None


mechanisms = Registry[Mechanism]("mechanisms")


class More(TypedDict, total=False):
    """What only some mechanisms declare."""

    order_of: Callable[[Site, Any], Order]
    reach: Reach | Callable[[Site, Any], Reach]
    bound_to_shape: bool | Callable[[Site, Any], bool]
    version: int
    needs: str
    devices: tuple[str, ...]
    reference: str


def register(
    name: str,
    config: type[Knobs],
    *,
    fits: Iterable[Setting],
    order: Order,
    **more: Unpack[More],
) -> Callable[[Module], Module]:
    """Declares the class below it as a mechanism: a module made by `Class(site, config)`. Words as in Mechanism."""

    refuse_wrong_words(name, config, fits=fits, order=order, **more)

    def declare(module: Module) -> Module:
        if not (isinstance(module, type) and issubclass(module, nn.Module)):
            raise EntryError(
                f"mechanism {name}: what is declared should be a class of torch.nn.Module; got {module!r}."
            )
        before = mechanisms.entries.get(name)
        if before and before.module.__module__ == module.__module__ and before.module.__name__ != module.__name__:
            raise EntryError(f"mechanism {name} is declared twice in one file; one file holds one mechanism.")
        entry = Mechanism(name=name, module=module, config=config, fits=frozenset(fits), order=order, **more)
        mechanisms.add(name, entry, module.__module__)
        return module

    return declare


def refuse_wrong_words(name: str, config: Any, **words: Any) -> None:
    """Raises EntryError, in one sentence, for a declaration that says what no mechanism can be."""
    if not (isinstance(config, type) and issubclass(config, Knobs)):
        raise EntryError(f"mechanism {name}: its Config should be a class of mechanisms.Knobs; got {config!r}.")
    if needed := [knob for knob, field in config.model_fields.items() if field.is_required()]:
        raise EntryError(f"mechanism {name}: every knob needs a default; {', '.join(needed)} has none.")
    refuse_wrong_defaults(name, config)
    for word, several, choices in (
        ("fits", True, get_args(Setting)),
        ("order", False, get_args(Order)),
        ("reach", False, get_args(Reach)),
        ("devices", True, ("cpu", "cuda")),
    ):
        given = words.get(word)
        if given is None or callable(given):
            continue
        wrong = not given or isinstance(given, str) if several else False
        found = [given] if wrong or not several else list(given)
        if wrong or any(item not in choices for item in found):
            kind = "a tuple of some of" if several else "one of"
            raise EntryError(f"mechanism {name}: {word} is {kind} {', '.join(map(repr, choices))}; got {given!r}.")
    if (other := words.get("reference")) is not None and (other == name or other not in mechanisms.names()):
        names = [known for known in mechanisms.names() if known != name]
        near = nearest(str(other), names)
        raise EntryError(f"mechanism {name}: reference is the name of another mechanism; got {other!r}.{near}")
    if not isinstance(words.get("version", 1), int):
        raise EntryError(f"mechanism {name}: version is a whole number; got {words['version']!r}.")


def refuse_wrong_defaults(name: str, config: type[Knobs]) -> None:
    """Raises EntryError for defaults that nobody could write, or that the knobs' own types and rules refuse."""
    try:
        defaults = dict(config())
        configure(config, defaults, of=name)
    except ValueError as error:
        why = str(error).rstrip(".") if isinstance(error, KnobError) else "they contradict each other"
        raise EntryError(f"mechanism {name}: its defaults are refused by its own Config: {why}.") from error
    for knob, value in defaults.items():
        if not isinstance(value, bool | int | float | str | None):
            raise EntryError(f"mechanism {name}: a knob is a number, a word or a switch; {knob} = {value!r} is none.")


def usable(device: str) -> list[str]:
    """Names of the mechanisms that can run on a device class here, in order."""
    return [name for name in mechanisms.names() if mechanisms.find(name).absence(device) is None]


def build(name: str, site: Site, **knobs: Any) -> nn.Module:
    """A fresh mechanism for a site; a knob left out keeps its default.

    Raises ValueError for an unknown name or knob, a package it lacks, a setting it does not serve, or a shape it
    refuses.
    """
    mechanism = mechanisms.find(name)
    if why := mechanism.absence(mechanism.devices[0]):
        raise ValueError(why)
    if site.setting not in mechanism.fits:
        raise ValueError(f"{name} serves {', '.join(sorted(mechanism.fits))}; this site is a {site.setting}.")
    return mechanism.module(site, configure(mechanism.config, knobs, of=name))
