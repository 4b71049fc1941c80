"""How far a mechanism is from full attention with the same weights on the same tokens: the approximation atlas.

`atlas:` in a sweep file, or `attnbench run atlas MECHANISM --sides 8,16,32`. Errors of outputs, attention rows,
singular values and gradients, relative to full attention, in float64 unless another type is asked for;
attnbench/atlas/numbers.py says what each is. Weights that full attention does not have are as initialised.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from attnbench import paths
from attnbench.atlas import trained
from attnbench.atlas.compare import ROWS_UP_TO, Place, compare
from attnbench.atlas.inputs import Kind
from attnbench.cell import Spec
from attnbench.flops import Work
from attnbench.probes._expand import site_of
from attnbench.probes._probe import Point, Probe, Section, Sizes, Tell, several, words
from mechanisms import Site

FLOPS_PER_S = 6e9  # in float64 on one core, a rough guess
AT_ONCE = 8  # columns of rows that one pass reads, about the width of a head


class Atlas(Section):
    """The distance of every mechanism of the file from full attention; a list is an axis."""

    channels: Sizes = Field(default_factory=lambda: [32])
    """width of a token"""
    inputs: Annotated[list[Kind], *several] = Field(default_factory=lambda: ["random", "smooth", "trained"])
    """white noise; smooth random fields; tokens and weights of a model with full attention trained on Darcy flow"""
    correlation: Annotated[list[Annotated[float, Field(gt=0, le=1)]], *several] = Field(default_factory=lambda: [0.2])
    """of smooth inputs, the length over which tokens are alike, as a share of the side"""
    sharpness: Annotated[list[Annotated[float, Field(gt=0)]], *several] = Field(default_factory=lambda: [1.0])
    """factor of the scores of random and smooth inputs, whose fresh weights make nearly flat rows"""
    examples: PositiveInt = 2
    """samples over which errors of outputs and gradients are averaged"""
    seeds: Annotated[list[NonNegativeInt], *several] = Field(default_factory=lambda: [0, 1, 2])
    """of weights and tokens; intervals are over them"""
    dtype: Literal["float64", "float32"] = "float64"
    """of all numbers; some kernels have no float64"""

    def points(self) -> Iterator[Point]:
        """Raises ValueError for trained inputs at a site that has none."""
        for site, kind in product(self.sites(), self.inputs):
            if kind == "trained":
                trained.side_of(site)
            for asked, seed in product(self.ways(kind), self.seeds):
                yield Point(site=site, words=self.words(kind, asked, seed), about=self.about(site, kind, asked, seed))

    def ways(self, kind: Kind) -> Iterator[dict[str, float]]:
        """What else tokens and weights of this kind are made by."""
        correlation = self.correlation if kind == "smooth" else [None]
        sharpness = [None] if kind == "trained" else self.sharpness
        for length, factor in product(correlation, sharpness):
            asked = {"correlation": length, "sharpness": factor}
            yield {word: value for word, value in asked.items() if value is not None}

    def words(self, kind: Kind, asked: Mapping[str, float], seed: int) -> dict[str, Any]:
        return {"input": kind, "seed": seed, "dtype": self.dtype, "threads": 1, "examples": self.examples, **asked}

    def about(self, site: Site, kind: Kind, asked: Mapping[str, float], seed: int) -> str:
        several = {"correlation": len(self.correlation) > 1, "sharpness": len(self.sharpness) > 1}
        told = [words(site), *([f"{site.channels} channels"] if len(self.channels) > 1 else [])]
        told += [*(["causal"] if site.causal else []), kind]
        told += [f"{word} {value:g}" for word, value in asked.items() if several[word]]
        return ", ".join([*told, f"seed {seed}"])


def work(spec: Spec, tell: Tell) -> Mapping[str, Any]:
    """The blocks of one cell's outcome: what `compare` found."""
    del tell
    asked = {word: spec[word] for word in ("sharpness",) if word in spec}
    asked |= {"length": spec["correlation"]} if "correlation" in spec else {}
    place = Place(
        site=site_of(spec),
        input=spec["input"],
        seed=spec["seed"],
        examples=spec["examples"],
        dtype=spec["dtype"],
        **asked,
    )
    mechanism = spec["mechanism"]
    point = compare(mechanism["name"], mechanism["knobs"], place, paths.data(None), spec["device"])
    return {"result": point.result, "cost": point.cost, "data": point.data}


def estimate_s(spec: Spec, work: Work) -> float:
    """Expected seconds of a cell: passes that read rows, and their singular values."""
    tokens = site_of(spec).tokens
    once = work.matmul_flops if isfinite(work.matmul_flops) else 0.0
    rows = tokens / AT_ONCE * once + 100.0 * tokens**3 if tokens <= ROWS_UP_TO else 0.0
    return 1.0 + (rows + 8 * spec["examples"] * once) / FLOPS_PER_S


PROBE = Probe(
    config=Atlas,
    protocol=1,
    work=work,
    estimate_s=estimate_s,
    shown={
        "output_error": "outputs",
        "output_error_scaled": "scaled",
        "row_error": "rows",
        "row_tv": "variation",
        "spectrum_error": "spectrum",
        "gradient_error": "gradients",
        "matmul_flops": "FLOP",
    },
)
