"""Rows of a run as they are read: which are calm, and how one module's time stands to another's."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

BUSY = 0.1  # share of the machine's cores that others took, above which a timing is disturbed
PASSES = {False: "forward", True: "forward and backward"}


def read(file: Path) -> pd.DataFrame:
    rows = pd.read_csv(file)
    return rows.assign(ratios=[{} if pd.isna(text) else json.loads(str(text)) for text in rows.ratios])


def calm(row: Any) -> bool:
    return row.status == "ok" and not row.foreign_cpu > BUSY


def ratio(row: Any, base: str) -> tuple[float, float, float] | None:
    """Median and quartiles over rounds of a row's time over that of another module of its case."""
    found = row.ratios.get(base)
    return None if found is None else (found[0], found[1], found[2])


def picked(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Rows whose columns hold these values."""
    for column, value in values.items():
        rows = rows.loc[rows[column] == value]
    return rows
