"""Formulas as MathML, which browsers show without any script: docutils has the converter, Sphinx the door for it."""

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml


def converted(text: str, *, block: bool) -> str:
    """LaTeX as a MathML element. Raises ValueError for LaTeX that the converter does not know."""
    try:
        return latex2mathml.tex2mathml(text.strip(), as_block=block)
    except MathError as error:
        raise ValueError(f"no MathML can be made of {text!r}: {error}.") from error


def inline(writer: Any, node: nodes.Node) -> None:
    writer.body.append(f'<span class="math">{converted(node.astext(), block=False)}</span>')
    raise nodes.SkipNode


def displayed(writer: Any, node: nodes.Node) -> None:
    writer.body.append(f'<div class="math">{converted(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def leave(writer: Any, node: nodes.Node) -> None:
    """Never reached: both visits end with the node."""
    del writer, node
