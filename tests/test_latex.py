"""Tables are set by LaTeX itself, with names and numbers that LaTeX would take for something else."""

import re
from pathlib import Path

from attnbench.reports import report
from attnbench.reports.collect import collect
from attnbench.reports.columns import learn
from attnbench.reports.sheets import Sheet, latex, tex
from tests import pdflatex
from tests.made_scores import planted

ODD = {  # a name, and its own letters as a reader of the PDF finds them
    "a_b%c&d#e": "a_b%c&d#e",
    "br{ace}s $x": "br{ace}s $x",
    "hat^tilde~back\\slash": "hat^tilde~back\\slash",
    "pipe|less<more>": "pipe|less<more>",
    "[bracket": "[bracket",
    "*star": "*star",
    "-5 first": "−5 first",  # noqa: RUF001  a minus sign
    "long" * 40: "long" * 40,
    "übung café": "übung café",
}
SIZES = (1e-9, 0.2, 0.3, 1e12, -3.5, 1e3, 12345.678, 1.0, 0.0)
DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}\usepackage[margin=1cm]{geometry}\usepackage{booktabs}\usepackage{graphicx}
\begin{document}
%s
\end{document}
"""


def scores() -> dict[str, list[float | None]]:
    """A score for each odd name and three seeds; one variant diverged, one has a hole."""
    found: dict[str, list[float | None]] = {
        name: [size, size * 1.01, size * 0.98] for name, size in zip(ODD, SIZES, strict=True)
    }
    return found | {"gone": [None] * 3, "full": [0.1, None, 0.11]}


def written() -> str:
    """The tables alone: a figure has no room for the longest name."""
    store, manifest = planted({"darcy": scores()})
    learn(manifest.better)
    return report.latex("50%_of#it", report.sheets_of(collect(store, manifest)))


@pdflatex.needed
def test_pdflatex_sets_every_table_and_a_reader_finds_the_names(tmp_path: Path):
    told, log = pdflatex.text_of(tmp_path, DOCUMENT % written())
    assert "multiply defined" not in log
    letters = re.sub(r"\s", "", told)
    assert [name for name in ODD.values() if re.sub(r"\s", "", name) not in letters] == []


def test_every_line_of_a_table_has_as_many_columns_as_its_head():
    for part in written().split(r"\toprule")[1:]:
        lines = [line for line in part.partition(r"\bottomrule")[0].splitlines() if line.endswith(r" \\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
        assert len(lines) > len(ODD)
        for line in lines:
            bare = re.sub(r"\\[{}]", "", line)
            assert bare.count("{") == bare.count("}")


def test_no_field_can_be_taken_for_a_part_of_the_line_break_before_it():
    assert tex("[0.1, 0.2]") == "{}[0.1, 0.2]"
    assert tex("*x") == "{}*x"
    assert tex("**1 [0, 2]**") == r"\textbf{1 [0, 2]}"


def test_a_label_has_no_letter_that_ends_or_breaks_it():
    assert r"\label{tab:50--of_it-1}" in latex(Sheet(title="t", caption="c", head=["a"], rows=[]), "tab:50%#of_it-1")
