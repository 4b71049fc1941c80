"""What every mechanism promises, as measurements: `attnbench check` prints all, a sweep makes the quick ones first.

A check takes a slot, that is a mechanism with knobs at one place, and says what it found. card.py lists the checks;
the other files are the checks by kind.
"""

from attnbench.contract.card import CHECKS, Check, Line, examine
from attnbench.contract.slots import Finding, Slot, Subject

__all__ = ["CHECKS", "Check", "Finding", "Line", "Slot", "Subject", "examine"]
