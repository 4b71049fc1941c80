"""What a report says of bare mechanisms: what they cost over sizes, and how far they are from full attention."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from attnbench.reports import atlas, efficiency, efficiency_sheets, foretells, sheets
from attnbench.reports.rows import records
from attnbench.reports.summary import Table


@dataclass(frozen=True)
class Probed:
    """Tables, notes and figures of cells without a task; all empty where there are none.

    groups: all mechanisms and whole models of the report, so that each has the colour of the other figures.
    """

    costs: efficiency.Costs | None
    spots: list[atlas.Spot]
    pairings: list[foretells.Pairing]
    warnings: list[str]
    groups: list[str]

    @property
    def pages(self) -> Iterable[sheets.Sheet]:
        found = [*atlas.sheets_of(self.spots), *([foretells.sheet(self.pairings)] if self.pairings else [])]
        return [*found, *(efficiency_sheets.efficiency_sheets(self.costs) if self.costs else [])]

    @property
    def notes(self) -> list[str]:
        known = efficiency_sheets.notes(self.costs) if self.costs else []
        return [*known, *self.warnings, *(one.sentence for one in self.pairings)]

    def draw(self, folder: Path) -> list[str]:
        """Draws what there is into `folder`; returns names of files without ending."""
        from attnbench.reports import atlas_figures, efficiency_figures  # here, for they bring matplotlib

        names = efficiency_figures.write(self.costs, folder) if self.costs else []
        return names + atlas_figures.write(self.spots, self.pairings, folder, self.groups)


def probed(frame: pd.DataFrame, known: list[Table]) -> Probed:
    """known: tables of the trainings in the same report, for what a distance foretells."""
    rows = records(frame)
    spots = atlas.spots(rows)
    return Probed(
        costs=efficiency.costs(rows),
        spots=spots,
        pairings=foretells.pairings(known, spots, rows),
        warnings=list(atlas.warnings(rows)),
        groups=[name for row in rows if (name := row["mechanism"] or row["model"])],
    )
