"""The table of a sweep's rows: its column order, its types, and its way to a CSV file, to Parquet and back.

A value has the type that its text tells, so that a table made from the store and the same table read back are equal.
"""

import csv
import gc
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions
from pyarrow.csv import read_csv as read_fields

Row = Mapping[str, Any]

LEADING = (
    *("id", "sweep", "kind", "status", "task", "model", "mechanism", "variant", "label", "seed"),
    *("device", "dtype", "threads", "idle"),
)
GROUPS = ("task.", "model.", "mechanism.", "site.", "equal.", "result.", "cost.", "host.", "data.", "code.")
TRAILING = ("cost_id", "started", "finished", "wall_s", "error")
NUMBERS = ("seed", "threads", "started", "finished", "wall_s")
WORDS = ("code.", "data.")  # a hash of digits alone is still a word
INTEGER = re.compile(r"[+-]?\d{1,18}")
FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf")
MADE: ContextVar[dict[int, tuple[pd.DataFrame, list[dict[str, Any]]]] | None] = ContextVar("MADE", default=None)


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """One typed row per mapping, sorted by id; a column that nobody fills is kept if its name is a leading one."""
    rows = sorted(rows, key=lambda row: str(row["id"]))
    blank = dict.fromkeys(ordered({*LEADING, *TRAILING, *(column for row in rows for column in row)}))
    columns = zip(*({**blank, **row}.values() for row in rows), strict=True) if rows else repeat(())
    return pd.DataFrame({name: made_column(name, list(own)) for name, own in zip(blank, columns, strict=False)})


def whole(frame: pd.DataFrame) -> bool:
    """Whether a table that was read is as `table` makes it: each row once and in order, and no column missing."""
    names = [str(name) for name in frame.columns]
    ids = frame["id"]
    return bool(ids.is_monotonic_increasing and ids.is_unique) and names == ordered({*LEADING, *TRAILING, *names})


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as mappings of plain Python values, None where there is none; within `once` nobody's own."""
    made = MADE.get()
    if made is None:
        return unpacked(frame)
    if id(frame) not in made:
        made[id(frame)] = frame, unpacked(frame)  # held, so that no other table comes by the same id
    return list(made[id(frame)][1])


def filtered(frame: pd.DataFrame, kept: Sequence[bool]) -> pd.DataFrame:
    """Some rows of a table as a table of their own, whose records within `once` are those of the whole one."""
    own, made = pd.DataFrame(frame[list(kept)]), MADE.get()
    if made is not None:
        made[id(own)] = own, [row for row, keep in zip(records(frame), kept, strict=True) if keep]
    return own


@contextmanager
def once() -> Iterator[None]:
    """Within it the `records` of a table are made once, however often they are asked for.

    Neither a table nor a row may be changed there.
    """
    token = MADE.set({} if MADE.get() is None else MADE.get())
    try:
        yield
    finally:
        MADE.reset(token)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Within it Python seldom looks for cycles of dead objects, for each time it goes through all rows.

    Once for a hundred thousand new objects instead of for seven hundred: figures do leave cycles.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def unpacked(frame: pd.DataFrame) -> list[dict[str, Any]]:
    names = [str(name) for name in frame.columns]
    columns = [values(frame.iloc[:, i]) for i in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def values(column: pd.Series) -> list[Any]:
    """A column as plain Python values, None where there is none."""
    if column.dtype == object:
        return [plain(value) for value in column]
    whole = column.array.to_numpy(dtype=object, na_value=None)
    return [None if value != value else value for value in whole.tolist()]


def plain(value: Any) -> Any:
    """A Python scalar instead of numpy's or pandas', None for a missing one."""
    if value is None or value is pd.NA or value != value:
        return None
    return value.item() if hasattr(value, "item") else value


def counted(words: Iterable[str | None]) -> list[tuple[str, int]]:
    """Different words with their numbers, the most frequent first."""
    return sorted(Counter(word for word in words if word).items(), key=lambda item: (-item[1], item[0]))


def ordered(columns: Iterable[str]) -> list[str]:
    """Who, what was asked, what came out, what it cost, where, with what code, when; by name within a group."""

    def place(column: str) -> tuple[int, int, str]:
        if column in LEADING:
            return 0, LEADING.index(column), column
        if column in TRAILING:
            return 2, TRAILING.index(column), column
        return 1, next((i for i, group in enumerate(GROUPS) if column.startswith(group)), len(GROUPS)), column

    return sorted(columns, key=place)


def text(value: Any) -> str | None:
    """A plain value as it stands in a CSV field, with every digit of a float; None where there is none."""
    if value is None or value != value:
        return None
    if isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return value.replace("\r\n", "\n").replace("\r", "\n").strip() or None
    return json.dumps(value, sort_keys=True)


def texts(own: list[Any]) -> list[str | None]:
    """`text` of all of these values; where they are of one kind it looks once at those that repeat, which most do."""
    kinds = set(map(type, own)) - {type(None)}
    if len(kinds) > 1 or not kinds <= {str, int, bool}:  # 1, 1.0 and True are equal
        return list(map(text, own))
    known = {value: text(value) for value in dict.fromkeys(own)}
    return [known[value] for value in own]


def fields(column: pd.Series) -> list[Any]:
    """A column as a CSV writer turns it into what `text` says."""
    numbers = pd.api.types.is_numeric_dtype(column)  # and truth values; the writer has every digit of a float
    return values(column) if numbers else texts(values(column))


def wordy(name: str) -> bool:
    """Whether a column holds words, whatever they look like."""
    return name.startswith(WORDS) or (name in (*LEADING, *TRAILING) and name not in NUMBERS)


def made_column(name: str, own: list[Any]) -> pd.Series:
    """A column of plain values with the type that it has when it is read back."""
    if not wordy(name) and set(map(type, own)) <= {float, type(None)}:
        return pd.Series(own, dtype="float64")
    fields = texts(own)
    different = list(dict.fromkeys(field for field in fields if field is not None))
    places: dict[str | None, int] = {None: -1, **{field: place for place, field in enumerate(different)}}
    return column(name, different, np.array([places[field] for field in fields], dtype=np.int64))


def column(name: str, different: Sequence[str], at: np.ndarray) -> pd.Series:
    """A column as truth values, integers, floats or words, whichever fits all its fields.

    different: its fields, each once. at: which of them every row has, [rows]; -1 where it has none.
    """
    if not wordy(name):
        if not different:
            return pd.Series(np.full(len(at), np.nan))
        if all(field in ("True", "False") for field in different):
            truths = np.array([*(field == "True" for field in different), False])
            return pd.Series(pd.arrays.BooleanArray(truths[at], at < 0))
        if all(map(INTEGER.fullmatch, different)):
            return pd.Series(pd.arrays.IntegerArray(np.array([*map(int, different), 0])[at], at < 0))
        if all(map(FLOAT.fullmatch, different)):
            return pd.Series(np.array([*map(float, different), np.nan])[at])
    return pd.Series(np.array([*different, None], dtype=object)[at], dtype="str")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Floats with all their digits, missing values as empty fields, lines that end alike on every system."""
    columns = [fields(frame.iloc[:, i]) for i in range(frame.shape[1])]
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(frame.columns)
        lines.writerows(zip(*columns, strict=True))


def read_csv(path: Path) -> pd.DataFrame:
    """The table that `write_csv` wrote. Raises ValueError for a file without the leading columns, or no such table."""
    with path.open(newline="", encoding="utf-8-sig") as file:  # as some programs write it
        names = next(csv.reader(file), [])
    if absent := [name for name in LEADING if name not in names]:
        raise ValueError(f"{path} is not a table of rows: it lacks the column {absent[0]!r}.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{path} is not a table of rows: it has two columns {twice[0]!r}.")
    nothing = {"null_values": [""], "strings_can_be_null": True, "quoted_strings_can_be_null": True}
    try:
        read = read_fields(
            path,
            read_options=ReadOptions(block_size=path.stat().st_size + 1),  # between two it may lose the end of a line
            parse_options=ParseOptions(newlines_in_values=True),
            convert_options=ConvertOptions(column_types=dict.fromkeys(names, pa.string()), **nothing),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a table of rows: {error}") from error
    made = {}
    for name, fields in zip(names, read.combine_chunks().columns, strict=True):
        found = fields.combine_chunks().dictionary_encode()
        made[name] = column(name, found.dictionary.to_pylist(), found.indices.fill_null(-1).to_numpy())
    return pd.DataFrame(made)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """The same table with its types."""
    frame.to_parquet(path, index=False, compression="zstd")
