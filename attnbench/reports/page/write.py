"""Writes the page: one file with its data, its style and its scripts inside, which may load nothing else."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnbench.reports.page.content import content
from attnbench.reports.page.part import Part

HERE = Path(__file__).parent
NAME = "report.html"
SCRIPTS = (
    "core",
    "marks",
    "scale",
    "frame",
    "strips",
    "scatter",
    "lines",
    "copy",
    "table",
    "detail",
    "sections",
    "main",
)


def write(parts: Sequence[Part], file: Path) -> Path:
    """Writes the page of some sweeps and returns its path; the same rows give the same bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(content(parts)), encoding="utf-8", newline="\n")
    return file


def page(data: dict[str, Any]) -> str:
    """The page of some content, as text."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    scripts = [(HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    fields = {
        "policy": policy(style, scripts),
        "title": html.escape(data["title"]),
        "style": style,
        "data": embedded(data),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    head, *others = template.split("{{")
    filled = (fields[name] + rest for name, _, rest in (one.partition("}}") for one in others))
    return head + "".join(filled)


def policy(style: str, scripts: Sequence[str]) -> str:
    """What a browser lets the page do: run these scripts and this style; load, send and embed nothing."""
    allowed = " ".join(map(digest, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embedded(data: Any) -> str:
    """JSON that no text in it can end: what HTML or a script would read stands as \\u escapes."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
