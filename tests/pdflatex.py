"""LaTeX itself and a reader of what it makes; tests of them are skipped without, or fail where LaTeX is required."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REQUIRE = "ATTNBENCH_REQUIRE_LATEX"
PACKAGES = "Debian: apt-get install --no-install-recommends texlive-latex-recommended cm-super-minimal poppler-utils"
MISSING = [name for name in ("pdflatex", "pdftotext") if shutil.which(name) is None]
needed = pytest.mark.skipif(
    bool(MISSING) and not os.environ.get(REQUIRE), reason=f"Tests of LaTeX need {', '.join(MISSING)} ({PACKAGES})."
)


def text_of(folder: Path, document: str) -> tuple[str, str]:
    """Sets a document, which must succeed without a missing letter; the text of its PDF, and LaTeX's log."""
    (folder / "all.tex").write_text(document, encoding="utf-8")
    asked = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(asked, cwd=folder, capture_output=True, check=False, timeout=120)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Missing character" not in log
    told = subprocess.run(["pdftotext", "-layout", "all.pdf", "-"], cwd=folder, capture_output=True, check=True)
    return told.stdout.decode(), log
