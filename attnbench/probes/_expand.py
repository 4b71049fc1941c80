"""The cells that a sweep file's probes describe: every mechanism of the file, bare, at every point of a section."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import nan
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import mechanisms
from attnbench import probes
from attnbench._cells import Planned
from attnbench._entries import Chosen, Part, Stages, chosen
from attnbench._yaml import SweepError, line
from attnbench.cell import SCHEMA, Spec, canonical, identity
from attnbench.flops import Work, count
from attnbench.models import counted
from attnbench.probes._probe import Point, Section, words
from mechanisms import Site

BARE = Stages("a bare mechanism", 1)
NOBODY_KNOWS = cast(Any, nan)
UNKNOWN = Work(
    params=NOBODY_KNOWS,
    params_trained=NOBODY_KNOWS,
    params_pretrained=NOBODY_KNOWS,
    matmul_flops=NOBODY_KNOWS,
    fft_flops=NOBODY_KNOWS,
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a sweep file asks of bare mechanisms: its sections by name, and where they stand."""

    file: Path
    text: Mapping[str, Any]
    sections: Mapping[str, Section]
    device: str

    def cells(self, written: Sequence[Part], *, leave_out: bool, counted: bool) -> list[Planned]:
        """Distinct cells, mixed by a fixed shuffle within each round: what a machine does in between meets all alike.

        leave_out: leaves out mechanisms where they do not fit, which are refused otherwise.
        counted: compares the number of cells with the one that a section announces.
        Raises SweepError.
        """
        found: list[Planned] = []
        for name, section in self.sections.items():
            if not written:
                raise SweepError(self.file, line(self.text, name), f"{name} measures mechanisms, and there are none.")
            own = {cell.id: cell for cell in self.section(name, section, written, leave_out=leave_out)}
            if counted and section.runs not in (None, len(own)):
                told = f"{name}.runs announces {section.runs} cells, and it describes {len(own)} distinct cells"
                raise SweepError(self.file, line(self.text[name], "runs"), f"{told}; correct one.")
            found += sorted(own.values(), key=turn)
        return found

    def section(self, name: str, section: Section, written: Sequence[Part], *, leave_out: bool) -> Iterator[Planned]:
        """The cells of a section, mechanism by mechanism."""
        try:
            points = list(section.points())
        except ValueError as error:
            raise SweepError(self.file, line(self.text, name), f"{name}: {error}") from None
        for mechanism in chosen(self.file, written, mechanisms.find, BARE):
            fitting = [point for point in points if point.site.setting in mechanism.entry.fits]
            if why := mechanism.entry.absence(self.device):
                raise SweepError(self.file, mechanism.line, why)
            if len(fitting) < len(points) and not (leave_out and fitting):
                wrong = next(point for point in points if point not in fitting).site
                serves = ", ".join(sorted(mechanism.entry.fits))
                told = f"{mechanism.name} does not fit {name} at {words(wrong)}, a {wrong.setting}: it serves {serves}."
                raise SweepError(self.file, mechanism.line, told)
            yield from (self.cell(name, mechanism, point) for point in fitting)

    def cell(self, name: str, mechanism: Chosen, point: Point) -> Planned:
        spec = {
            "schema": SCHEMA,
            "protocol": probes.find(name).protocol,
            "kind": name,
            "mechanism": mechanism.spec,
            "site": {"channels": point.site.channels, "shape": list(point.site.shape), "causal": point.site.causal},
            "device": self.device,
            "dtype": "float32",
            "threads": 0,
            "gpus": 1 if self.device == "cuda" else 0,
            **point.words,
        }
        parts = {"task": None, "model": None, "mechanism": mechanism}
        return Planned(id=identity(spec), spec=spec, **parts, site=point.site, about=point.about)

    def left_out(self, written: Sequence[Part]) -> list[tuple[str, str]]:
        """Mechanism and section of what does not fit everywhere."""
        return [
            (part.name, name)
            for name, section in self.sections.items()
            for part in written
            if any(site.setting not in mechanisms.find(part.name).fits for site in section.sites())
        ]


def turn(cell: Planned) -> tuple[int, str]:
    """Rounds one after the other, within each an order that has nothing to do with sizes and mechanisms."""
    return cell.spec.get("round", 0), hashlib.sha256(canonical(cell.spec).encode()).hexdigest()


def site_of(spec: Spec) -> Site:
    """Where the mechanism of a probe's cell stands."""
    site = spec["site"]
    return Site(channels=site["channels"], shape=tuple(site["shape"]), causal=site["causal"])


def built(spec: Spec) -> Callable[[], nn.Module]:
    """A function that builds the mechanism of a probe's cell. Raises ValueError for what it refuses."""
    mechanism = spec["mechanism"]
    return lambda: mechanisms.build(mechanism["name"], site_of(spec), **mechanism["knobs"])


@dataclass(frozen=True)
class Door:
    """A site in the place of a task's port, for what counts the work of models."""

    site: Site

    def blank(self, batch: int) -> Tensor:
        return torch.empty(batch, *self.site.shape, self.site.channels)


def worked(spec: Spec) -> Work:
    """The work of a forward pass of one example, counted on the meta device; nan where that cannot be counted.

    Raises ValueError where the mechanism cannot stand at the site, or has weights and no work that is seen.
    """
    return _worked(canonical({"mechanism": spec["mechanism"], "site": spec["site"]}))


@cache
def _worked(asked: str) -> Work:
    spec = json.loads(asked)
    name, knobs = counted((spec["mechanism"]["name"], spec["mechanism"]["knobs"]))
    make = built({**spec, "mechanism": {"name": name, "knobs": knobs}})
    try:
        return count(lambda _: make(), cast(Any, Door(site_of(spec))))
    except ValueError:
        raise
    except Exception:  # whatever a mechanism does that the meta device cannot, it may run well elsewhere
        return UNKNOWN


def estimate_s(cell: Planned, work: Work) -> float:
    """Expected seconds of a cell, its start left out."""
    return probes.find(cell.spec["kind"]).estimate_s(cell.spec, work)
