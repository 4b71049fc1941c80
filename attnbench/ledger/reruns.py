"""How each claim is rerun here, read strictly: whatever is not exactly understood is refused with file and line."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from pydantic import Field

from attnbench import paths
from attnbench._yaml import SweepError, line, load, plain
from attnbench.ledger.published import Claim
from mechanisms import Knobs, configure
from mechanisms._knobs import nearest

RERUNS = Path(__file__).parent / "reruns.yaml"
SPEED = "mechanism_speed"  # a benchmark whose rows stand in results beside those of sweeps
SECTIONS = ("reruns", "not_run")
Filter = dict[str, bool | int | float | str | None]
Read = TypeVar("Read", bound=Knobs)


class Pair(Knobs):
    """Two groups of rows that are compared seed by seed, everything else equal."""

    better: Filter
    """columns and values of the rows that the claim puts first"""
    worse: Filter
    """columns and values of the rows that it puts behind"""
    measure: str = ""
    """column that is compared, where it is not the place's"""
    side: Literal["lower", "higher"] | None = None
    """which side of the measure is better, where the column does not say so itself"""


class Place(Knobs):
    """Where the evidence lies: rows of one sweep. Several pairs are one claim, which holds if it holds in all."""

    sweep: str
    """the sweep whose rows they are, or mechanism_speed"""
    measure: str
    """column that is compared, or whose value stands beside the published one"""
    name: str = ""
    """a few words that tell this place from the claim's others"""
    where: Filter = Field(default_factory=dict)
    """columns and values that all rows of this place have"""
    pairs: list[Pair] = Field(default_factory=list)
    """of orderings and ratios: what is compared with what"""
    scale: float = 1.0
    """factor from our unit to the published one"""


class Built(Knobs):
    """What is counted: a model around a mechanism for a port, a whole model, or a bare mechanism at a site."""

    model: dict[str, Any] | None = None
    """name and knobs of a model; none for a bare mechanism"""
    mechanism: dict[str, Any] | None = None
    """name and knobs of a mechanism"""
    port: dict[str, Any] | None = None
    """inputs, outputs, shape and the like of what the task asks of the model"""
    site: dict[str, Any] | None = None
    """channels and shape of the place of a bare mechanism"""
    without: str = ""
    """leave out weights whose name starts so, such as a head"""


class Rerun(Knobs):
    """How one claim is rerun."""

    kind: Literal["ordering", "ratio", "value", "count"]
    """one is better than another; by which factor; a number as it is; a count from the code itself"""
    differences: str
    """the known differences of setting, in one or two sentences; of a count, what was counted"""
    places: list[Place] = Field(default_factory=list)
    """where the evidence lies"""
    claimed: float | None = Field(default=None, gt=0)
    """of a ratio: `better` over `worse` as published"""
    direction: bool = True
    """of a ratio: whether the claim says which of the two is lower, or only how far apart they are"""
    same_setting: bool = False
    """whether data, size, formula and budget are those of the source, so that numbers can agree or differ"""
    what: Literal["params", "macs"] = "params"
    """of a count: weights, or multiply-adds of the matrix products of one forward pass"""
    of: Built | None = None
    """of a count: what is counted"""
    comparable: bool = True
    """of a count: whether the source counted the same things; else its number decides nothing"""
    less: Built | None = None
    """of a count: what is taken away"""
    over: Built | None = None
    """of a count: what it is a percentage of"""


class Unrun(Knobs):
    """Claims without a rerun, and why."""

    claims: list[str] = Field(min_length=1)
    """ids; a * stands for any letters"""
    why: str
    """what keeps us from it, in a sentence"""
    would: str | None = None
    """the shipped sweep that would run it"""


@dataclass(frozen=True)
class Plan:
    """Each claim's rerun, or why there is none; every claim is in exactly one of both. lines: of a rerun's places."""

    file: Path
    reruns: dict[str, Rerun]
    unrun: dict[str, Unrun]
    lines: dict[str, list[int | None]]

    def refuse(self, id: str, number: int, sentence: str) -> NoReturn:
        """Raises SweepError for a claim's place of this number, with its line."""
        raise SweepError(self.file, self.lines[id][number], f"{id}: {sentence}")


def reruns(claims: dict[str, Claim], file: Path = RERUNS) -> Plan:
    """The file of reruns for these claims.

    Raises SweepError, a ValueError that names file and line, for unknown words, claims and sweeps, for a claim that is
    named twice or nowhere, and for what a kind of rerun needs and does not have.
    """
    text = load(file)
    for key in text:
        if key not in SECTIONS:
            raise SweepError(file, line(text, key), f"there is no section {key!r}.{nearest(key, SECTIONS)}")
    section = text.get("reruns") or {}
    for id in section:
        if id not in claims:
            raise SweepError(file, line(section, id), f"there is no claim {id!r}.{nearest(id, claims)}")
    found = {str(id): rerun(file, str(id), node) for id, node in section.items()}
    unrun = reasons(file, text, claims, found)
    if absent := [id for id in claims if id not in found and id not in unrun]:
        told = (
            f"{len(absent)} claims are named nowhere, the first {absent[0]!r}; give a rerun, or say why there is none."
        )
        raise SweepError(file, None, told)
    return Plan(file, found, unrun, {id: places_of(section[id]) for id in found})


def reasons(file: Path, text: Any, claims: dict[str, Claim], found: dict[str, Rerun]) -> dict[str, Unrun]:
    """Why claims are not run. Raises SweepError, for a claim that is named twice, too."""
    unrun: dict[str, Unrun] = {}
    for node in text.get("not_run") or []:
        entry = made(file, node, Unrun, plain(node), of="not_run")
        refuse_sweep(file, node, "would", entry.would)
        for id in named(file, node, entry, claims):
            if id in unrun or id in found:
                raise SweepError(file, line(node, "claims"), f"the claim {id!r} is named twice; leave it in one place.")
            unrun[id] = entry
    return unrun


def places_of(node: Any) -> list[int | None]:
    return [line(part) for part in node.get("places") or []]


def named(file: Path, node: Any, entry: Unrun, claims: dict[str, Claim]) -> list[str]:
    """The ids that an entry's words stand for. Raises SweepError for a word that stands for none."""
    found: list[str] = []
    for number, word in enumerate(entry.claims):
        ids = [id for id in claims if fnmatchcase(id, word)]
        if not ids:
            raise SweepError(file, line(node["claims"], number), f"no claim is called {word!r}.{nearest(word, claims)}")
        found += ids
    return found


def rerun(file: Path, id: str, node: Any) -> Rerun:
    """One entry of the section reruns. Raises SweepError."""
    if not isinstance(node, dict):
        raise SweepError(file, None, f"{id} is a map of words such as kind and places; got {plain(node)!r}.")
    given = {key: plain(item) for key, item in node.items()}
    given |= {
        key: made(file, node[key], Built, given[key], of=f"{id}.{key}") for key in ("of", "less", "over") if key in node
    }
    if "places" in node:
        given["places"] = [place(file, id, part) for part in node["places"]]
    entry = made(file, node, Rerun, given, of=id)
    if told := misfit(id, entry):
        raise SweepError(file, line(node, "kind"), told)
    return entry


def place(file: Path, id: str, node: Any) -> Place:
    of = f"{id}.places"
    if not isinstance(node, dict):
        raise SweepError(file, None, f"{of} is a list of maps; got {plain(node)!r} in it.")
    given = plain(node)
    given["pairs"] = [made(file, part, Pair, plain(part), of=f"{of}.pairs") for part in node.get("pairs") or []]
    found = made(file, node, Place, given, of=of)
    refuse_sweep(file, node, "sweep", found.sweep)
    return found


def made(file: Path, node: Any, kind: type[Read], given: Any, *, of: str) -> Read:
    """A strict entry from plain values. Raises SweepError with the line of what is wrong."""
    if not isinstance(given, dict):
        raise SweepError(file, line(node), f"{of} is a map of words; got {given!r}.")
    try:
        return configure(kind, given, of=of)
    except ValueError as error:
        raise SweepError(file, line(node, getattr(error, "knob", None)), str(error)) from None


def refuse_sweep(file: Path, node: Any, key: str, name: str | None) -> None:
    names = [*paths.sweep_names(), SPEED]
    if name is not None and name not in names:
        told = f"there is no sweep {name!r}.{nearest(name, names)} There are {', '.join(names)}."
        raise SweepError(file, line(node, key), told)


def misfit(id: str, entry: Rerun) -> str:
    """What a kind of rerun lacks, or has too much, in one sentence; empty if it is whole."""
    kind, count = entry.kind, entry.kind == "count"
    paired = [bool(place.pairs) for place in entry.places]
    faults = {
        "is a count and needs `of`, what is counted, and no places.": count and (not entry.of or bool(paired)),
        "is no count; `of`, `less` and `over` belong to one.": not count and bool(entry.of or entry.less or entry.over),
        "needs places, where its evidence lies.": not count and not paired,
        "is a value; pairs belong to an ordering or a ratio.": kind == "value" and any(paired),
        f"is of kind {kind}; each of its places needs pairs.": kind in ("ordering", "ratio") and not all(paired),
        "has `claimed`, the factor of a ratio, other than 1, exactly if it is a ratio.": (kind == "ratio")
        != (entry.claimed is not None)
        or entry.claimed == 1,
    }
    return next((f"{id} {told}" for told, there in faults.items() if there), "")
