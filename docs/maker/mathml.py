"""Formulas as MathML, which browsers show without any script: docutils has the converter, Sphinx the door for it."""

import re
from html import unescape
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml

MATHML = "http://www.w3.org/1998/Math/MathML"
ACCENTS = ("ˉ", "¯", "^", "ˆ", "~", "˜")  # noqa: RUF001 - bars, hats and tildes
HTML_ONLY = re.compile(r"&(?!lt;|gt;|amp;)\w+;")  # entities that XML does not know
ElementTree.register_namespace("", MATHML)


def converted(text: str, *, block: bool) -> str:
    """LaTeX as a MathML element. Raises ValueError for LaTeX that the converter does not know."""
    try:
        made = latex2mathml.tex2mathml(text.strip(), as_block=block)
    except MathError as error:
        raise ValueError(f"no MathML can be made of {text!r}: {error}.") from error
    root = ElementTree.fromstring(HTML_ONLY.sub(lambda match: unescape(match[0]), made))
    for element in root.iter(f"{{{MATHML}}}munderover"):
        if element[2].text in ACCENTS:
            beside(element)
    return ElementTree.tostring(root, encoding="unicode")


def beside(element: Element) -> None:
    """Sets the index of a letter with a bar, a hat or a tilde beside it; the converter has it underneath."""
    letter, index, mark = element
    accented = Element(f"{{{MATHML}}}mover", {"accent": "true"})
    accented.extend([letter, mark])
    element[:] = [accented, index]
    element.tag = f"{{{MATHML}}}msub"


def inline(writer: Any, node: nodes.Node) -> None:
    writer.body.append(f'<span class="math">{converted(node.astext(), block=False)}</span>')
    raise nodes.SkipNode


def displayed(writer: Any, node: nodes.Node) -> None:
    writer.body.append(f'<div class="math">{converted(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def leave(writer: Any, node: nodes.Node) -> None:
    """Never reached: both visits end with the node."""
    del writer, node
