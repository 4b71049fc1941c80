"""Sweep files as text: YAML 1.2 read strictly, and the line on which everything stands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError


class SweepError(ValueError):
    """A refused sweep file: file, line and one sentence."""

    def __init__(self, file: Path | str, line: int | None, sentence: str):
        super().__init__(f"{file}{f', line {line}' if line else ''}: {sentence}")


def load(file: Path) -> CommentedMap:
    """The file as nested maps and lists that remember their lines.

    Raises SweepError for a missing file, broken YAML, a key written twice, or anything but one map.
    """
    if not file.is_file():
        raise SweepError(file, None, "there is no such file.")
    try:
        text = parser().load(file.read_text())
    except DuplicateKeyError as error:
        key = str(error.problem).split('"')[1]
        raise SweepError(file, line_of(error), f"the key {key!r} is written twice; keep one.") from None
    except MarkedYAMLError as error:
        raise SweepError(file, line_of(error), f"this is no YAML: {error.problem or error.context}.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise SweepError(file, None, f"this is no YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(text, CommentedMap):
        raise SweepError(file, None, f"a sweep file is a map with sections; got {type(plain(text)).__name__}.")
    return text


def value(text: str) -> Any:
    """What stands behind `--set name=`, read like the right side of a line in a sweep file. Raises ValueError."""
    try:
        return parser().load(text)
    except YAMLError as error:
        raise ValueError(f"{text!r} is no value: {getattr(error, 'problem', None) or error}.") from None


def parser() -> YAML:
    return YAML(typ="rt", pure=True)


def plain(node: Any) -> Any:
    """The same value in Python's own types: the loader's remember how they were written."""
    if isinstance(node, dict):
        return {plain(key): plain(item) for key, item in node.items()}
    if isinstance(node, list):
        return [plain(item) for item in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def line(node: Any, key: str | int | None = None) -> int | None:
    """The line of a map or list, or of one of its entries, from 1; None for what came from the command line."""
    if not isinstance(node, CommentedMap | CommentedSeq):
        return None
    try:
        if key is not None and key in (node if isinstance(node, CommentedMap) else range(len(node))):
            place: Sequence[int] = node.lc.key(key) if isinstance(node, CommentedMap) else node.lc.item(key)
            return place[0] + 1
        return node.lc.line + 1
    except (KeyError, TypeError, AttributeError):
        return None  # added by an override, which has no line


def line_of(error: MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else None
