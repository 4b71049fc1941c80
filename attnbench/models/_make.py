"""Builds models so that runs of one seed are paired: two mechanisms leave all weights around them alike."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import mechanisms
from attnbench.models._registry import models
from mechanisms import Site, configure
from mechanisms._stages import picked, staged
from tasks import Make, Port

Mechanism = tuple[str, Mapping[str, Any]]  # name and knobs; one that differs between stages is a map, see _stages.py


def maker(model: str, knobs: Mapping[str, Any], mechanism: Mechanism | None, seed: int) -> Make:
    """A function from a task's port to a fresh model with weights drawn from the seed.

    Raises ValueError for unknown names and knobs, and when a whole model is given a mechanism or a backbone none.
    """
    entry = models.find(model)
    config = configure(entry.config, knobs, of=model)
    if entry.socket != (mechanism is not None):
        need = "needs a mechanism" if entry.socket else "is a whole model and takes no mechanism"
        raise ValueError(f"{model} {need}; got {mechanism[0] if mechanism else 'none'}.")

    def make(port: Port) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived(seed, 0))
            if mechanism is None:
                return entry.module(port, config)
            return entry.module(port, config, Builder(*mechanism, seed))

    return make


def counted(mechanism: Mechanism) -> Mechanism:
    """What to count a mechanism's work on: the reference of another implementation, whose kernels no counter sees."""
    name, knobs = mechanism
    return mechanisms.find(name).reference or name, knobs


class Builder:
    """What a backbone is handed as `build(site)`: each call has a seed of its own.

    Without it a mechanism would draw from the stream of the weights around it, and another mechanism would change all.
    """

    def __init__(self, name: str, knobs: Mapping[str, Any], seed: int):
        self.name, self.knobs, self.seed, self.calls = name, knobs, seed, 0

    def __call__(self, site: Site) -> nn.Module:
        self.calls += 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived(self.seed, self.calls))
            if not staged(self.knobs):
                return mechanisms.build(self.name, site, **self.knobs)
            try:
                return mechanisms.build(self.name, site, **picked(self.name, self.knobs, site.stage))
            except ValueError as error:
                raise ValueError(f"stage {site.stage}: {error}") from error


def derived(seed: int, call: int) -> int:
    """An independent seed for the call-th part of a model."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{call}".encode()).digest()[:7])
