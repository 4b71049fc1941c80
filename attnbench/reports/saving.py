"""Writes figures as PNG, PDF and SVG: laid out once, saved three times, and on all cores where there is much to draw.

PNG is for pages and slides. PDF is for papers: its text is text, in the fonts that journals ask for and that it brings
along. In SVG text is drawn as paths, for an SVG brings no fonts: with other ones its labels would run into each other.
The same figure gives the same bytes, without dates, and with ids in SVG that no chance decides.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends import backend_agg, backend_pdf, backend_svg  # noqa: F401 -- once, not in every process
from matplotlib.figure import Figure

from attnbench.reports.canvas import STYLE
from attnbench.reports.meanwhile import bound, cores

FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "pdf": {"metadata": {"CreationDate": None, "Producer": None}},
    "svg": {"metadata": {"Date": None, "Creator": None}},
}
MUCH = 2000  # rows in all figures, from which further processes are worth their start
WAITING: dict[Path, Callable[[], Figure]] = {}  # what is to be drawn, as forked processes find it


def save(figure: Figure, path: Path) -> None:
    """Writes a figure in every format; path: without an ending."""
    with mpl.rc_context(STYLE):
        figure.set_dpi(FORMATS["png"]["dpi"])
        if figure.axes and (layout := figure.get_layout_engine()):
            layout.execute(figure)
        figure.set_layout_engine(None)  # what it found holds for all formats; with one each would be drawn twice
        for ending, given in FORMATS.items():
            figure.savefig(path.with_name(f"{path.name}.{ending}"), **given)


@contextmanager
def save_all(figures: Mapping[Path, Callable[[], Figure]], rows: int) -> Iterator[None]:
    """Draws and writes every figure under its path: all are there at the end of its block, whose work goes on beside.

    rows: how many all of them draw. Raises what drawing one raised, at the end of the block.
    """
    if cores() < 2 or rows < MUCH:
        for path, draw in figures.items():
            save(draw(), path)
        yield
        return
    WAITING.update(figures)
    try:
        with ProcessPoolExecutor(
            min(cores(), len(figures)), mp_context=get_context("fork"), initializer=bound, initargs=(os.getpid(),)
        ) as others:
            saved = others.map(save_waiting, figures)
            yield
            list(saved)
    finally:
        WAITING.clear()


def save_waiting(path: Path) -> None:
    """Draws one in a process that was forked with all that it needs."""
    save(WAITING[path](), path)
