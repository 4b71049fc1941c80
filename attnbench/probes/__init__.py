"""Probes: what is asked of a mechanism alone, at a site, without a task and without a model around it.

A probe is a section of a sweep file, a kind of cells, and a word of `attnbench run`. One file, one probe: it has a
PROBE, and a line here.
"""

import importlib

from attnbench.probes._probe import Point, Probe, Section, Tell, several

COMMANDS = {  # section of a sweep file, which is the kind of its cells too: the word after `attnbench run`
    "efficiency": "cost",
    "atlas": "atlas",
}

__all__ = ["COMMANDS", "Point", "Probe", "Section", "Tell", "find", "several"]


def find(name: str) -> Probe:
    """The probe of a section; its file is imported the first time."""
    return importlib.import_module(f"attnbench.probes.{name}").PROBE
