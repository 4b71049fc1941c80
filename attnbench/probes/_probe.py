"""What a probe declares: its section of a sweep file, the points that it describes, and the work of one cell."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt

from attnbench.cell import Spec
from attnbench.flops import Work
from mechanisms import Knobs, Site

Tell = Callable[[Mapping[str, Any]], None]  # takes blocks of an outcome as soon as they are known


def as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def different(values: list[Any]) -> list[Any]:
    if len({repr(value) for value in values}) < len(values):
        raise ValueError("a value, or a list of different values")
    return values


several = (BeforeValidator(as_list), AfterValidator(different))  # an axis: a value, or a list of different ones
Sizes = Annotated[list[PositiveInt], *several]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One cell of every mechanism of a sweep.

    site: where the mechanism stands. words: what else enters the cell's spec, such as its dtype.
    about: the same for people, after the mechanism's name.
    """

    site: Site
    words: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


class Section(Knobs):
    """A section of a sweep file that asks something of every mechanism of the file, bare; a list is an axis."""

    runs: PositiveInt | None = None
    """number of distinct cells that the section describes; another number is refused"""
    sides: Sizes = Field(default_factory=list)
    """sides of square grids of tokens"""
    lengths: Sizes = Field(default_factory=list)
    """numbers of tokens of sequences"""
    causal: bool = False
    """whether a token of a sequence sees only those before it"""
    channels: Sizes = Field(default_factory=lambda: [64])
    """width of a token"""

    def sites(self) -> list[Site]:
        """Every site that is asked for, grids first. Raises ValueError where there is none."""
        shapes = [((side, side), False) for side in self.sides]
        shapes += [((length,), self.causal) for length in self.lengths]
        if not shapes:
            raise ValueError("it needs sides of grids or lengths of sequences, such as `sides: [16, 32, 64]`.")
        return [
            Site(channels=channels, shape=shape, causal=causal)
            for channels, (shape, causal) in product(self.channels, shapes)
        ]

    def points(self) -> Iterator[Point]:
        """The cells of one mechanism. Raises ValueError where the section describes none."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A kind of cells of bare mechanisms.

    config: its section of a sweep file. protocol: raised when the same spec would give other numbers.
    work: from a spec and a function that takes blocks early, to the outcome's blocks: cost, result, raw ...
    estimate_s: expected seconds of a cell, its start left out, from its spec and the work of a forward pass of one
        example.
    shown: what `attnbench run` prints: heads of columns, by the name of a number among a row's costs and results.
    """

    config: type[Section]
    protocol: int
    work: Callable[[Spec, Tell], Mapping[str, Any]]
    estimate_s: Callable[[Spec, Work], float]
    shown: Mapping[str, str]


def words(site: Site) -> str:
    """A site's shape as rows and people have it: 32x32, or 1024."""
    return "x".join(map(str, site.shape))
