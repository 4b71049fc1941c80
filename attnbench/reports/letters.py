"""Names as they were typed, in Markdown and in LaTeX: no letter of them is taken for markup, and none is lost.

Sheets mark what is bold by two stars and words of a command by backticks. A name may hold such marks too: `guarded`
puts stand-ins in their place before sheets are made, and whoever writes a sheet turns them back.
"""

import re
import unicodedata
from collections.abc import Iterable

import pandas as pd

MARKS = "*`~$"  # what Markdown takes for markup wherever it stands
STAND_INS = {ord(mark): 0xE000 + ord(mark) for mark in MARKS}  # of Unicode's private use, which no font has
TYPED = {other: mark for mark, other in STAND_INS.items()}
ESCAPED = {other: f"\\{chr(mark)}" for mark, other in STAND_INS.items()}
MARKUP = re.compile(
    rf"\\(?=[!-/:-@\[-`{{-~{''.join(map(chr, TYPED))}]|\n|$)"  # before a mark or at the end of a line
    r"|(?<![^\W_])_|_(?![^\W_])"  # not within a word
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])[(\[:]|(?<=!)\["  # elements, letters by number, links, pictures
)
BLOCK = re.compile(r"^\s*(\d{0,9})([.)](?=\s|$)|[#>=+|-])", re.MULTILINE)  # what opens a list, a heading or a quotation

GREEK = "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi o pi rho varsigma sigma tau"
GREEK += " upsilon varphi chi psi omega"
UPPER = {"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma"}
UPPER |= {"Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega"}  # noqa: RUF001
SIGNS = {
    **{"×": "times", "÷": "div", "±": "pm", "∓": "mp", "⋅": "cdot", "∙": "bullet", "•": "bullet", "∘": "circ"},  # noqa: RUF001
    **{"≤": "le", "≥": "ge", "≠": "ne", "≈": "approx", "≡": "equiv", "≃": "simeq", "∼": "sim", "∝": "propto"},  # noqa: RUF001
    **{"≪": "ll", "≫": "gg", "«": "ll", "»": "gg", "∞": "infty", "∂": "partial", "∇": "nabla", "√": "surd"},
    **{"→": "to", "←": "leftarrow", "↔": "leftrightarrow", "↑": "uparrow", "↓": "downarrow", "↦": "mapsto"},
    **{"⇒": "Rightarrow", "⇐": "Leftarrow", "⇔": "Leftrightarrow", "∀": "forall", "∃": "exists", "∅": "emptyset"},
    **{"∈": "in", "∉": "notin", "⊂": "subset", "⊆": "subseteq", "∪": "cup", "∩": "cap", "∧": "wedge", "∨": "vee"},  # noqa: RUF001
    **{"¬": "neg", "⊕": "oplus", "⊗": "otimes", "⊙": "odot", "∑": "sum", "∏": "prod", "∫": "int", "ℓ": "ell"},  # noqa: RUF001
    **{"⟨": "langle", "⟩": "rangle", "⌈": "lceil", "⌉": "rceil", "⌊": "lfloor", "⌋": "rfloor", "∥": "parallel"},
    **{"ϵ": "epsilon", "ϑ": "vartheta", "ϕ": "phi", "ϖ": "varpi", "ϱ": "varrho", "µ": "mu", "⋯": "cdots"},  # noqa: RUF001
}
MATH = {"°": r"^{\circ}", "′": r"{}^{\prime}", "″": r"{}^{\prime\prime}", "−": "-", "‖": r"\|"}  # noqa: RUF001
MATH |= {chr(0x3B1 + i): "o" if name == "o" else f"\\{name}" for i, name in enumerate(GREEK.split())}
MATH |= {mark: f"\\{name}" for mark, name in (UPPER | SIGNS).items()}
MATH |= {mark: rf"\mathrm{{{like}}}" for mark, like in zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ", "ABEZHIKMNOPTX", strict=True)}  # noqa: RUF001
MATH |= {mark: f"^{{{like}}}" for mark, like in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True)}
MATH |= {mark: f"_{{{like}}}" for mark, like in zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-", strict=True)}
MATH |= {"½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"}
TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\`{}"}
TEX |= {mark: rf"\ensuremath{{{set_}}}" for mark, set_ in MATH.items()}
TEX |= {mark: f"\\{mark}" for mark in "&%$#_{}"} | {"<": "$<$", ">": "$>$", "|": r"\textbar{}", "→": r"$\to$"}
TEX |= {"–": "--", "—": "---", "‐": "-", "‑": "-", "‒": "--", "‘": "`", "’": "'", "“": "``", "”": "''"}  # noqa: RUF001
TEX |= {"„": "{,}{,}", "‚": "{,}", "…": "…", "†": r"\dag{}", "‡": r"\ddag{}", "\xa0": "~", "\u202f": r"\,"}  # noqa: RUF001
TEX |= {"ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "œ": r"\oe{}", "Œ": r"\OE{}", "\u2009": r"\,"}  # noqa: RUF001
ACCENTS = dict(zip(map(chr, (0x300, 0x301, 0x302, 0x303, 0x304, 0x307, 0x308)), "`'^~=.\"", strict=True))
ACCENTS |= dict(zip(map(chr, (0x306, 0x30A, 0x30B, 0x30C, 0x323, 0x327, 0x331)), "urHvdcb", strict=True))
BELOW = "\u0323\u0327\u0331"
SET = {chr(code) for code in range(0xA1, 0x100)} - set("\xadÐÞðþ")  # those that LaTeX's first font encoding has


def guarded(text: str) -> str:
    """Text in which nothing is markup."""
    return text.translate(STAND_INS)


def typed(text: str) -> str:
    """Text with its own letters again."""
    return text.translate(TYPED)


def guarded_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with stand-ins in all words; the very same table where no word needs any."""
    found = {}
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        if not pd.api.types.is_numeric_dtype(column) and any(map(odd, column.unique())):
            found[name] = column.map(lambda one: guarded(one) if isinstance(one, str) else one).astype(column.dtype)
    return frame.assign(**found) if found else frame


def guarded_within(sentences: Iterable[str], frame: pd.DataFrame) -> list[str]:
    """Sentences that others made of a table's variants, with stand-ins in those names alone."""
    names = sorted(filter(odd, frame["variant"].unique()), key=len, reverse=True)
    made = list(sentences)
    for name in names:
        made = [sentence.replace(name, guarded(name)) for sentence in made]
    return made


def odd(word: object) -> bool:
    return isinstance(word, str) and guarded(word) != word


def in_markdown(text: str) -> str:
    """Text as Markdown shows it letter by letter, but for the bold words and the commands that sheets marked."""
    parts = text.split("`")
    return "`".join(part if i % 2 else MARKUP.sub(r"\\\g<0>", part) for i, part in enumerate(parts)).translate(ESCAPED)


def in_line(text: str) -> str:
    """The same for a heading or a field: on one line, and without a bar or a last # that would end it."""
    one = re.sub(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*", " ", in_markdown(text)).replace("|", "\\|")
    return re.sub(r"(#+)$", r"\\\1", one)


def in_paragraphs(text: str) -> str:
    """The same for paragraphs of a person's own words: no line of them opens a list, a heading or a quotation."""
    return BLOCK.sub(r"\1\\\2", in_markdown(text))


def tex(text: str) -> str:
    """Text as LaTeX sets it: marks escaped, stars made bold, minus signs in front of digits made long."""
    parts = text.split("**")
    escaped = [plain_tex(typed(part.replace("`", ""))) for part in parts]
    joined = "".join(rf"\textbf{{{part}}}" if i % 2 else part for i, part in enumerate(escaped))
    joined = re.sub(r"^(?=[\[*])", "{}", joined)  # what a line break before it would take for its own
    return re.sub(r"(?<![\w-])(?<!-\{\})-(?=\d)", "$-$", joined)


def plain_tex(text: str) -> str:
    """Every letter by itself: neighbours that a font would draw as one, such as two hyphens, are held apart."""
    pieces = re.split(r"(?<=([-',]))(?=\1)", re.sub(r"\s*[\t\n\r\v\f]\s*", " ", unicodedata.normalize("NFC", text)))
    return "{}".join("".join(map(letter, piece)) for piece in pieces[::2])


def letter(mark: str) -> str:
    """A letter in LaTeX without packages; one that its fonts lack by its number in Unicode, such as [U+4E2D]."""
    if mark in TEX:
        return TEX[mark]
    if mark in SET or " " <= mark <= "~":
        return mark
    base, *accents = unicodedata.normalize("NFD", mark)
    above = [one for one in accents if one not in BELOW]
    if accents and base.isascii() and len(above) < 2 and ACCENTS.keys() >= set(accents):
        set_ = {"i": r"\i", "j": r"\j"}.get(base, base) if above else base
        for one in sorted(accents, key=BELOW.find):  # an accent above a letter is set first: it has to see that letter
            set_ = rf"\{ACCENTS[one]}{{{set_}}}"
        return set_
    return f"[U+{ord(mark):04X}]"
