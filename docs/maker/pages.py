"""What every page of the site reads: pages that people wrote, with what is made in place of markers, and pages made.

A marker is a line of its own such as `<!-- made: sections -->`, or `<!-- made: readme The verbs -->` for what stands
under that heading of the README, so that nothing stands twice.
"""

import re
from collections.abc import Callable

from maker import columns, commands, entries, gallery, sections, thresholds
from maker.markdown import DOCS, MADE, ROOT, moved, section

MARKER = re.compile(r"^<!-- made: (\w+)(?: (.+?))? -->$", re.MULTILINE)
SHOWN = {  # files of the repository, and the page that shows each
    "results/claims.md": "claims",
    "results/faults/faults.md": "faults",
    "results/LOG.md": "log",
    "CHANGELOG.md": "changelog",
    "results/README.md": "gallery/index",
}
NO_PAGES = ("README",)  # of the texts in docs/


def shown() -> dict[str, str]:
    """The page that shows a file, by the file's path."""
    return SHOWN | {f"results/{name}/summary.md": f"gallery/{name}" for name in gallery.names()}


def readme(argument: str, page: str) -> str:
    """What stands under a heading of the README, above the first one for `top`, its links turned to this site.

    `Tasks | table` is the table under that heading alone, its names linked. `Tasks | rest` is what follows it,
    `Tasks | rest up to **Models**` that before these words, and `Tasks | from **Models**` what begins with them.
    """
    heading, _, part = argument.partition(" | ")
    text = moved(section(ROOT / "README.md", "" if heading == "top" else heading), ROOT, page, shown())
    return piece(text, part, argument) if part else text


def piece(text: str, part: str, argument: str) -> str:
    """A part of a part. Raises ValueError where there is none."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    if part == "table" and table:
        return re.sub(r"^\| `(\w+)` \|", r"| [`\1`](\1.md) |", table[0], flags=re.MULTILINE)
    word, _, mark = part.partition(" ")
    if word == "rest" and table:
        return text[table.end() :].partition(mark.removeprefix("up to ") or "\0")[0]
    if word == "from" and mark in text:
        return text[text.index(mark) :]
    raise ValueError(f"docs: the README has no such part as {argument!r}.")


def file(argument: str, page: str) -> str:
    """A whole file without its title."""
    path = ROOT / argument
    return moved(path.read_text().partition("\n")[2], path.parent, page, shown())


MAKERS: dict[str, Callable[[str, str], str]] = {
    "readme": readme,
    "file": file,
    "rows": lambda kind, _: entries.rows(kind),
    "contents": lambda kind, _: entries.contents(kind),
    "training": lambda *_: entries.training(),
    "labelled": lambda *_: entries.labelled(),
    "frame": lambda *_: sections.fields(sections.Frame),
    "lists": lambda *_: sections.lists(),
    "maps": lambda *_: sections.maps(),
    "commands": lambda *_: commands.reference(),
    "codes": lambda *_: commands.codes(),
    "columns": lambda *_: columns.reference(),
    "timing": lambda *_: thresholds.timing(),
    "statistics": lambda *_: thresholds.statistics(),
    "shipped": lambda *_: gallery.shipped(),
    "cards": lambda *_: gallery.cards(),
    "sets": lambda *_: gallery.contents(),
}


def filled(text: str, page: str) -> str:
    """A page with what is made in place of its markers. Raises ValueError for a marker that nobody makes."""

    def made(match: re.Match[str]) -> str:
        word, argument = match.groups()
        if word not in MAKERS:
            raise ValueError(f"docs/{page}.md: nothing is made for {word!r}; there are {', '.join(MAKERS)}.")
        return MAKERS[word](argument or "", page)

    return MARKER.sub(made, text)


def whole() -> dict[str, str]:
    """The pages that are made from end to end, by name."""
    made = {f"{kind}/{name}": one(kind, name) for kind in entries.MAKERS for name in entries.names(kind)}
    return made | {f"gallery/{name}": gallery.page(name, shown()) for name in gallery.names()}


def one(kind: str, name: str) -> str:
    return entries.MAKERS[kind](name, gallery.having)


def marked() -> set[str]:
    """The pages with markers, which change without their file."""
    return {name for name, text in written().items() if MARKER.search(text)}


def written() -> dict[str, str]:
    """The pages that people wrote, as they wrote them."""
    files = {file.relative_to(DOCS).with_suffix("").as_posix(): file for file in sorted(DOCS.rglob("*.md"))}
    texts = {name: file.read_text() for name, file in files.items() if not name.startswith("_build/")}
    return {name: text for name, text in texts.items() if name not in NO_PAGES and not text.startswith(MADE)}


def all_pages() -> dict[str, str]:
    """Every page as Sphinx reads it."""
    return {name: filled(text, name) for name, text in written().items()} | whole()


def write() -> None:
    """Writes the made pages where they differ, and removes those that are made no more."""
    made = whole()
    for name, text in made.items():
        file = DOCS / f"{name}.md"
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)
    for folder in {name.partition("/")[0] for name in made}:
        for file in (DOCS / folder).glob("*.md"):
            if f"{folder}/{file.stem}" not in made and file.read_text().startswith(MADE):
                file.unlink()
