"""Looks at the built pages as a browser without a network would: every link and picture must be there."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}


class Page(HTMLParser):
    """Anchors and targets of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if not value:
                continue
            if name in ("id", "name"):
                self.anchors.add(value)
            if (tag, name) in LOADED:
                self.loads.add(value)
            elif tag == "a" and name == "href":
                self.links.add(value)


def faults(folder: Path) -> list[str]:
    """A sentence for every link that leads nowhere, and for everything that a page would load from elsewhere."""
    pages = {file: Page(file.read_text()) for file in sorted(folder.rglob("*.html")) if "_static" not in file.parts}
    found = []
    for file, page in pages.items():
        name = file.relative_to(folder)
        for target in sorted(page.links | page.loads):
            if far(target):
                if target in page.loads:
                    found.append(f"{name} loads {target}, which is not on this site.")
            elif why := broken(file, target, pages):
                found.append(f"{name}: {target} {why}.")
    return found


def far(target: str) -> bool:
    return target.startswith(("http:", "https:", "//", "mailto:"))


def broken(file: Path, target: str, pages: dict[Path, Page]) -> str:
    """Why a target on this site is none; empty if it is one."""
    if target.startswith("data:"):
        return ""
    path, _, anchor = target.partition("#")
    there = (file.parent / unquote(path.partition("?")[0])).resolve() if path else file
    if not there.exists():
        return "is not there"
    if anchor and there in pages and unquote(anchor) not in pages[there].anchors:
        return "has no such anchor"
    return ""


def finished(app, error: Exception | None) -> None:
    """Called by Sphinx at the end; each fault is a warning."""
    from sphinx.util import logging

    if error is None and app.builder.format == "html":
        for fault in faults(Path(app.outdir).resolve()):
            logging.getLogger(__name__).warning(fault)
