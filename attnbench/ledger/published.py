"""What was published: every claim of published.csv with its id, exactly as it stands there."""

import csv
import re
from dataclasses import dataclass, fields
from pathlib import Path

from attnbench._yaml import SweepError
from mechanisms._knobs import nearest

PUBLISHED = Path(__file__).parent / "published.csv"
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
QUALITIES = ("read", "second-hand", "computed")  # read at the source; from a digest of it; worked out from it
BETTER = ("lower", "higher", "")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One published claim; all fields are text as printed, empty where the source does not say.

    value: the number, or the ordering in words where metric is `ordering`.
    source_quality: `read` at the source, `second-hand` from a digest, or `computed` from what it states.
    """

    id: str
    paper: str
    arxiv: str
    table: str
    task: str
    dataset: str
    setting: str
    model: str
    metric: str
    unit: str
    value: str
    better: str
    source_quality: str
    note: str

    @property
    def stated(self) -> str:
        """The claim in one phrase."""
        if self.metric == "ordering":
            return self.value
        about = ", ".join(filter(None, (self.dataset, self.setting)))
        unit = "" if self.unit in self.metric else self.unit
        return f"{self.model}: {self.metric} {self.value} {unit}".strip() + (f" ({about})" if about else "")

    @property
    def where(self) -> str:
        """Paper, and the table or section of it."""
        return ", ".join(filter(None, (self.paper, self.table)))


COLUMNS = tuple(field.name for field in fields(Claim))


def published(file: Path = PUBLISHED) -> dict[str, Claim]:
    """All claims by id, in the order of the file.

    Raises ValueError, with file and line, for other columns, an id twice or ill-formed, and words out of place.
    """
    with file.open(newline="", encoding="utf-8") as text:
        lines = csv.reader(text)
        head = next(lines, [])
        if tuple(head) != COLUMNS:
            raise SweepError(file, 1, f"the columns are {', '.join(COLUMNS)}; got {', '.join(head)}.")
        found: dict[str, Claim] = {}
        for row in lines:
            claim = checked(file, lines.line_num, row)
            if claim.id in found:
                raise SweepError(file, lines.line_num, f"the id {claim.id!r} is there twice.")
            found[claim.id] = claim
    return found


def checked(file: Path, line: int, row: list[str]) -> Claim:
    """One line as a claim. Raises SweepError."""
    if len(row) != len(COLUMNS):
        raise SweepError(file, line, f"a claim has {len(COLUMNS)} fields; got {len(row)}.")
    claim = Claim(**dict(zip(COLUMNS, row, strict=True)))
    if not ID.fullmatch(claim.id):
        raise SweepError(file, line, f"an id is lower-case words and digits joined by hyphens; got {claim.id!r}.")
    for name, words in (("source_quality", QUALITIES), ("better", BETTER)):
        if (word := getattr(claim, name)) not in words:
            told = f"{name} is one of {', '.join(filter(None, words))}; got {word!r}.{nearest(word, words)}"
            raise SweepError(file, line, told)
    if claim.metric != "ordering" and not number_like(claim.value):
        raise SweepError(
            file, line, f"{claim.id} has the metric {claim.metric!r}, so its value is a number; got {claim.value!r}."
        )
    return claim


def number_like(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None
