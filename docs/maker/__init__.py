"""What the documentation makes of the code: its Sphinx extension, and pages as text that need no Sphinx.

`maker.pages` says what every page reads; everything else here is a part of it, or checks what was built.
"""

from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx: pages are made before any is read, markers filled as one is read, links checked at the end."""
    from maker import mathml, pages, verify

    app.add_html_math_renderer("mathml", (mathml.inline, mathml.leave), (mathml.displayed, mathml.leave))
    app.connect("config-inited", lambda _app, _config: pages.write())
    app.connect("env-get-outdated", lambda _app, _env, added, _changed, _removed: pages.marked() - added)
    app.connect("source-read", fill)
    app.connect("build-finished", verify.finished)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fill(app: Any, docname: str, source: list[str]) -> None:
    """Puts what is made where a page says so."""
    from maker import pages

    del app
    source[0] = pages.filled(source[0], docname)
