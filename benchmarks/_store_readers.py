"""What one would otherwise write to count the cells of a sweep by status, each in a process of its own.

    python benchmarks/_store_readers.py files|jsonl|sqlite FOLDER

files: one JSON file for each cell, read with `json.load`. jsonl: the same rows as lines of one file. sqlite: the same
rows in one database, with a column for the status. Neither of these two lets several machines write at once.
"""

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

JSONL, DATABASE = "rows.jsonl", "rows.sqlite"


def files(folder: Path) -> dict[str, int]:
    return Counter(json.loads(path.read_bytes())["status"] for path in rows(folder))


def jsonl(folder: Path) -> dict[str, int]:
    with (folder / JSONL).open() as lines:
        return Counter(json.loads(line)["status"] for line in lines)


def sqlite(folder: Path) -> dict[str, int]:
    with closing(sqlite3.connect(folder / DATABASE)) as base:
        return dict(base.execute("SELECT status, count(*) FROM rows GROUP BY status"))


def rows(folder: Path) -> Iterator[Path]:
    return folder.glob("results/cells/*/*/result.json")


def write(folder: Path) -> None:
    """Makes the two files that others would keep."""
    with (folder / JSONL).open("wb") as lines, closing(sqlite3.connect(folder / DATABASE)) as base:
        base.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, status TEXT, row TEXT)")
        for path in rows(folder):
            text = path.read_bytes()
            lines.write(text)
            base.execute("INSERT INTO rows VALUES (?, ?, ?)", (path.parent.name, json.loads(text)["status"], text))
        base.commit()


READERS = {"files": files, "jsonl": jsonl, "sqlite": sqlite}

if __name__ == "__main__":
    print(json.dumps(READERS[sys.argv[1]](Path(sys.argv[2]))))
