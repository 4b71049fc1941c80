"""Names as figures have room and letters for them; tables have them in full."""

import textwrap
from collections.abc import Iterable, Mapping
from functools import cache

from matplotlib.font_manager import findfont, get_font

FONT = "DejaVu Sans"  # matplotlib brings it along
LETTERS = 64  # of a name: longer ones would leave no room for what is drawn
BESIDE = (48, 40)  # of a name in a legend, which stands beside one panel, or beside several
ABOVE = 24  # of the title of one panel of several
BELOW, TICK = 48, 20  # of all names below a panel, where one of them is longer than a tick has room for
TITLE = 96  # letters of a title that stands on one line
SHORT = "Names with … are shortened; the tables have them in full."


def shortened(names: Iterable[str], most: int = LETTERS) -> dict[str, str]:
    """Each name as it is drawn: of a long one both ends, as much of each as tells all of them apart.

    Where no choice of ends does, a number tells.
    """
    drawn = {name: visible(name) for name in names}
    long = {name: shown for name, shown in drawn.items() if len(shown) > most}
    for first in (most // 2, most * 3 // 4, most // 4):
        made = drawn | {name: f"{shown[:first]}…{shown[first + 1 - most :]}" for name, shown in long.items()}
        if len(set(made.values())) == len(made):
            return made
    return drawn | {name: f"{shown[: most // 2]}… ({i})" for i, (name, shown) in enumerate(long.items(), 1)}


def cut(names: Mapping[str, str]) -> bool:
    """Whether some of these names are drawn shorter than they are."""
    return any(len(visible(name)) > len(drawn) for name, drawn in names.items())


def visible(text: str) -> str:
    """Text in letters that the font has; another one by its number in Unicode, such as [U+4E2D], as in LaTeX."""
    return "".join(one if one == "\n" or ord(one) in known() else f"[U+{ord(one):04X}]" for one in text)


@cache
def known() -> frozenset[int]:
    """What the font of figures has."""
    return frozenset(get_font(findfont(FONT)).get_charmap())


def lines_of(title: str | None) -> str:
    """A title on as many lines as it needs."""
    shown = visible(title or "")
    return shown if len(shown) <= TITLE else textwrap.fill(shown, TITLE * 3 // 4)
