"""Names with any letters, as LaTeX, a reader of Markdown and a figure show them."""

import itertools
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.text import Text

from attnbench.reports import figures, letters, names, report
from attnbench.reports.collect import collect
from tests import pdflatex
from tests.made_rows import ablation
from tests.made_scores import planted

LATEX = {  # a name, and how a reader of the PDF finds it
    "α-β, λ≤2": "α-β, λ≤2",  # noqa: RUF001
    "ΔΩ Αε": "∆Ω Aε",
    "a × b → c": "a × b → c",  # noqa: RUF001
    "−5 ± 3 · 2 … – ÷": "−5 ± 3 · 2 . . . – ÷",  # noqa: RUF001
    "N² x₃ 90°": "N2 x3 90◦",
    "řeka łódź Ő ệ": "řeka",  # accents are found beside their letters
    "ά ế": "[U+03AC] [U+1EBF]",
    "中文 \U0001f600": "[U+4E2D][U+6587] [U+1F600]",
    "ð ę «»": "[U+00F0] [U+0119]",
    "`tick` **two** *one*": "`tick` **two** *one*",
    "a--b,, ''": "a--b,, ’’",  # noqa: RUF001
    "** alone": "** alone",
    "tab\there\nand there": "tab here and there",
    "~ ^ \\ $x$ %": "\\ $x$ %",
}
MARKDOWN = (
    *(
        "a|b",
        "||",
        "*one*",
        "**two**",
        "_under_",
        "__init__",
        "snake_case_name",
        "`tick`",
        "``",
        "<b>bold</b>",
        "<!-- -->",
    ),
    *(
        "&amp;",
        "a & b",
        "[text](url)",
        "![alt](url)",
        "\\*",
        "\\|",
        "end\\",
        "~~gone~~",
        "$x$",
        "# head",
        "end #",
        "a < b",
    ),
    *("https://example.org/*x*", "<https://example.org>", "\u03b2", "**", "* *", "a\\`b", "1. one", "- dash", "x`|`y"),
)
DOCUMENT = r"\documentclass{article}\usepackage{booktabs}\usepackage{graphicx}\begin{document}%s\end{document}"


def made(folder: Path, given: list[str], **words: str) -> Path:
    """A report of variants with these names; their scores are all alike but for the last, which lost a seed."""
    scores = {name: [0.1 + i / 50, 0.101 + i / 50, 0.1 + i / 49] for i, name in enumerate(given)}
    store, manifest = planted({"darcy": {**scores, given[-1]: [0.2, None, 0.3]}})
    return report.write_report(store, replace(manifest, **words), folder).parent


@pdflatex.needed
def test_a_report_is_set_by_plain_latex_and_its_reader_finds_every_name(tmp_path: Path):
    made(tmp_path, list(LATEX))
    text, _ = pdflatex.text_of(tmp_path, DOCUMENT % (tmp_path / "summary.tex").read_text(encoding="utf-8"))
    told = re.sub(r"\s", "", unicodedata.normalize("NFC", text))
    assert [name for name in LATEX.values() if re.sub(r"\s", "", name) not in told] == []


@pdflatex.needed
def test_every_letter_of_the_table_and_of_many_scripts_is_set_or_named(tmp_path: Path):
    whole = [*map(chr, range(1, 0x250)), *map(chr, range(0x370, 0x400)), *map(chr, range(0x1E00, 0x2300)), *letters.TEX]
    pdflatex.text_of(tmp_path, DOCUMENT % "\n\n".join(f"x{letters.tex(one)}x" for one in whole))


def test_a_letter_that_latex_has_not_is_named_and_ordinary_ones_stand_as_they_are():
    assert letters.tex("\u03b1") == r"\ensuremath{\alpha}"
    assert letters.tex("\u4e2d") == "{}[U+4E2D]"
    assert letters.tex("mano, window=4 · darcy é …") == "mano, window=4 · darcy é …"
    assert letters.tex("e\u0301") == "é"
    assert letters.tex(letters.guarded("**x** `y`")) == r"{}**x** \`{}y\`{}"
    assert letters.tex("**x** `y`") == r"\textbf{x} y"


def read(text: str) -> list[tuple[str, str]]:
    """What a reader of Markdown sees: of each heading, paragraph, item and field its kind and its letters.

    An element, a link or words that lean or are struck out are letters that nobody sees.
    """
    markdown_it = pytest.importorskip("markdown_it")
    found, kind = [], ""
    for token in markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        kind = token.tag if token.nesting == 1 else kind
        if token.type == "inline":
            shown = [one.content or " " for one in token.children if one.type in ("text", "softbreak", "text_special")]
            found.append((kind, "".join(shown)))
    return found


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_reader_of_markdown_sees_every_name_as_it_was_typed(tmp_path: Path):
    question = "1. *Does* `it` <b>help</b>\n# or not_ _so?\n| a | b |\n|---|---|\n- x"
    made(tmp_path, list(MARKDOWN), question=question, sweep="*_s_* <b> #")
    seen = read((tmp_path / "summary.md").read_text(encoding="utf-8"))
    assert seen[0] == ("h1", "*_s_* <b> #")
    assert seen[1] == ("p", question.replace("\n", " "))
    fields = [text for kind, text in seen if kind == "td"]
    assert [name for name in MARKDOWN if fields.count(name) < 2] == []  # in the tables of errors and of costs
    assert len(fields) == len(MARKDOWN) * [kind for kind, _ in seen].count("th")


def test_what_sheets_themselves_mark_is_bold_still(tmp_path: Path):
    store, manifest = planted({"darcy": {"full": [0.1, 0.11, 0.12], "**far**": [0.3, 0.31, 0.32]}})
    text = report.write_report(store, manifest, tmp_path).read_text(encoding="utf-8")
    assert "**+0.2" in text
    assert r"\textbf{+0.2" in (tmp_path / "summary.tex").read_text(encoding="utf-8")
    assert "| \\*\\*far\\*\\* |" in text


LONG = "mechanism_with_a_very_long_name_" * 5


@pytest.mark.parametrize("kind", ["variants", "scatter"])
def test_a_name_of_a_hundred_and_sixty_letters_leaves_room_for_what_is_drawn(kind: str):
    given = [LONG + "a", LONG + "b", "x" + LONG + "b", "full", "\u4e2d"]
    scores = {name: [0.1 + i / 50, 0.11 + i / 50] for i, name in enumerate(given)}
    prices = {name: {"status": "ok", "train_samples_per_s": 100.0 * (i + 1)} for i, name in enumerate(given)}
    frame = collect(*planted({"darcy": scores}, prices))
    asked = {"name": "f", "kind": kind, "y": "result.rel_l2"}
    asked |= {"x": "cost.train_samples_per_s"} if kind == "scatter" else {}
    (drawing,) = figures.checked([asked], frame)
    figure = figures.drawn(figures.parts(frame, drawing)[0].rows, drawing, {})
    figure.draw_without_rendering()
    assert figure.axes[0].get_position().width > 0.3
    told = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    shown = {text for text in told if "…" in text and len(text) <= names.LETTERS}
    assert len(shown) == 3
    assert "full" in told
    assert "[U+4E2D]" in told
    assert any(names.SHORT in text for text in told)


def test_long_values_of_knobs_leave_room_and_are_told_apart_in_legends_panels_and_below():
    frame = collect(*ablation(3))
    for name in ("mechanism.downsample", "mechanism.upsample"):
        frame[name] = [None if value != value else LONG + str(value) for value in frame[name]]
    x, y = {"x": "mechanism.downsample"}, {"y": "result.rel_l2"}
    lines = {"name": "f", "kind": "lines", **x, **y, "color": "mechanism.upsample", "panel": "mechanism.window"}
    panel = {"name": "f", "kind": "scatter", **y, "x": "cost.train_samples_per_s", "panel": "mechanism.upsample"}
    for asked in (lines | {"mechanism": "mano"}, panel | {"color": "mechanism.downsample"}):
        (drawing,) = figures.checked([asked], frame)
        figure = figures.drawn(figures.parts(frame, drawing)[0].rows, drawing, {})
        figure.draw_without_rendering()
        assert min(axes.get_position().width for axes in figure.axes) > 0.15
        for ending in ("nearest", "transposed"):
            assert any(text.get_text().endswith(ending) for text in figure.findobj(Text) if isinstance(text, Text))
        for axes in figure.axes:
            boxes = [text.get_window_extent() for text in axes.get_xticklabels() if LONG[:4] in text.get_text()]
            assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_shortened_names_are_told_apart_whatever_they_share():
    given = [f"{'a' * 100}{i}{'b' * 100}" for i in range(12)] + ["short"]
    made = names.shortened(given)
    assert len(set(made.values())) == len(given)
    assert made["short"] == "short"
    assert max(map(len, made.values())) <= names.LETTERS
    ends = names.shortened([f"{'a' * 30}{i}{'b' * 100}" for i in range(3)])
    assert all(f"a{i}b" in one for i, one in enumerate(ends.values()))


def test_settings_that_differ_in_letters_that_no_file_has_get_figures_of_their_own():
    frame = collect(*planted({"darcy": {"full": [0.1, 0.2, 0.3]}}))
    odd = frame.assign(**{"task.kind": ["α", "β", "long" * 80]})  # noqa: RUF001
    (drawing,) = figures.checked([{"name": "f", "kind": "variants", "y": "result.rel_l2"}], odd)
    found = [part.name for part in figures.parts(odd, drawing)]
    assert len(set(found)) == 3
    assert max(map(len, found)) < 200
