"""Text of the repository as Markdown of this site: docstrings, parts of files, and links that lead to pages."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MADE = "<!-- Made by docs/maker; what is written here is lost. -->\n\n"
OPENERS = re.compile(r"^(Work|Departs from [^:]*|Sources|Curves|Floors?|Chance levels|Other features|Pooled queries)\b")
MEASURE = re.compile(r"^([a-z][a-z0-9_]*(?:, [a-z0-9_.]+| \([^)]*\)| and [a-z0-9_.]+)*): ")
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")


def prose(text: str) -> str:
    """A docstring's paragraphs as Markdown: what Markdown would read as marks is escaped, code stays code."""
    return "\n\n".join(paragraph(block) for block in re.split(r"\n\s*\n", text.strip()))


def paragraph(block: str) -> str:
    """Lines that open something new stand apart; numbers that a task returns become a list; indented lines are code."""
    found: list[str] = []
    for line in block.split("\n"):
        if line.startswith("    "):
            found.append(f"\n~~~\n{line.strip()}\n~~~\n")
        elif match := MEASURE.match(line):
            names = re.sub(r"\b([a-z][a-z0-9_]*)\b(?![^(]*\))", r"`\1`", match[1])
            found.append(f"- {names}: {escaped(line[match.end() :])}")
        elif OPENERS.match(line):
            found.append(f"\n{escaped(line)}")
        else:
            found.append(f"  {escaped(line)}" if found and found[-1].startswith(("- ", "  ")) else escaped(line))
    return re.sub(r"~~~\n\n+~~~\n", "", "\n".join(found)).strip()


def escaped(text: str) -> str:
    """One line of plain text; addresses become links."""
    parts = re.split(r"(`[^`]*`|https?://[^\s,;)]+)", text)
    return "".join(part if part.startswith("`") else link(part) or marks(part) for part in parts)


def link(part: str) -> str:
    if not part.startswith("http"):
        return ""
    address = part.rstrip(".")
    return f"<{address}>{part[len(address) :]}"


def marks(text: str) -> str:
    """Escapes what Markdown would take for more than text; *emphasis* stays."""
    return re.sub(r"([<>$_\[\]{}])", r"\\\1", text)


def cell(text: object) -> str:
    """Text for a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|") or "–"  # noqa: RUF001 - an en dash


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines) + "\n"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A table of two columns without a head; facts without words are left out."""
    lines = [f"* - **{name}**\n  - {told}" for name, told in rows if told]
    return "```{list-table}\n:widths: 28 72\n:class: facts\n\n" + "\n".join(lines) + "\n```\n\n"


def section(file: Path, heading: str) -> str:
    """What stands under a heading of the second level in a Markdown file. Raises ValueError where there is no such."""
    parts = headed(file.read_text())
    if heading not in parts:
        raise ValueError(f"{file.name} has no heading {heading!r}; it has {', '.join(filter(None, parts))}.")
    return parts[heading].strip("\n") + "\n"


def headed(text: str) -> dict[str, str]:
    """The parts of a Markdown text by their headings of the second level; what stands before the first under ""."""
    parts, name, fenced = {"": ""}, "", False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            name = line[3:].strip()
            parts[name] = ""
        else:
            parts[name] += line + "\n"
    return parts


def moved(text: str, base: Path, page: str, pages: Mapping[str, str]) -> str:
    """Markdown that stood in folder `base` as it must read on a page: links lead to pages, or to files.

    pages: the page that shows a file, by the file's path from the root.
    """
    home = PurePosixPath(page).parent

    def turned(match: re.Match[str]) -> str:
        label, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        named = os.path.relpath((base / path).resolve(), ROOT)
        if named in pages:
            where = os.path.relpath(pages[named], home) + ".md"
            return f"{label}({where}{'#' + anchor if anchor else ''})"
        return f"{label}({os.path.relpath(ROOT / named, DOCS / home)})"

    return LINK.sub(turned, text)


def lower(text: str, by: int = 1) -> str:
    """The same with all headings so many levels lower."""
    fenced, lines = False, []
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        lines.append("#" * by + line if line.startswith("#") and not fenced else line)
    return "\n".join(lines) + "\n"
