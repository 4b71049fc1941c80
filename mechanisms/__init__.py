"""Attention mechanisms, one file each, all from tokens [B, *shape, C] to tokens of the same shape.

A file that starts with an underscore is shared plumbing. Every other file is a mechanism, and its file name is its
name everywhere: in a sweep, in a result row, in a figure.
"""

from mechanisms._knobs import KnobError, Knobs, configure, known, nearest, resolved
from mechanisms._registry import Build, Mechanism, Order, Reach, Registry, build, mechanisms, register, usable
from mechanisms._site import Setting, Site, Tokens

find, names = mechanisms.find, mechanisms.names

__all__ = [
    "Build",
    "KnobError",
    "Knobs",
    "Mechanism",
    "Order",
    "Reach",
    "Registry",
    "Setting",
    "Site",
    "Tokens",
    "build",
    "configure",
    "find",
    "known",
    "names",
    "nearest",
    "register",
    "resolved",
    "usable",
]
