"""The slow, obvious form of every mechanism, one file each under the mechanism's name: loops and explicit weights.

They share no code with the mechanisms and work on one sample at a time, in float64. Mechanisms are held to them: by
the tests, by `attnbench check`, and by `attnbench sweep` before it starts. Each file has

    CASES                   where it is held to, odd and awkward sizes among them
    oracle(site, config)    the function from weights by name and one sample [*grid, C] to the output [*grid, C]
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from mechanisms import Site

Weights = Mapping[str, Tensor]  # parameters and buffers by name
Oracle = Callable[[Weights, Tensor], Tensor]


class Case(NamedTuple):
    """A place and knobs at which a mechanism is compared with its slow form."""

    site: Site
    knobs: dict[str, Any]

    @property
    def label(self) -> str:
        shape = "x".join(map(str, self.site.shape)) + ("c" if self.site.causal else "") + "b" * (self.site.block % 2)
        return "-".join([shape, *(f"{knob}={value}" for knob, value in self.knobs.items() if knob != "heads")])


def at(*shape: int, causal: bool = False, block: int = 0, channels: int = 6) -> Site:
    """A small site for a case."""
    return Site(channels=channels, shape=shape, causal=causal, block=block)


def find(name: str) -> ModuleType | None:
    """The module that holds a mechanism's slow form; None where there is none."""
    module = f"{__name__}.{name}"
    return importlib.import_module(module) if importlib.util.find_spec(module) else None
