"""Strict settings of a mechanism, a model or a task, and the one sentence that refuses a wrong one."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

Config = TypeVar("Config", bound="Knobs")


class KnobError(ValueError):
    """A refused knob: one sentence, and the knob's name where the fault lies with a single one."""

    def __init__(self, message: str, knob: str | None = None):
        super().__init__(message)
        self.knob = knob


class Knobs(BaseModel):
    """What an experimenter may choose: frozen scalars, each with a default, a type and bounds.

    The text under a field is its description in `attnbench list`. `neutral` names, for knobs that were added later,
    the value that means "as before this knob existed": at that value a knob stays out of a cell's id.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
    neutral: ClassVar[Mapping[str, Any]] = {}

    def idle(self) -> set[str]:
        """The knobs that change nothing beside the others; they stay out of a cell's id."""
        return set()


def configure(config: type[Config], knobs: Mapping[str, Any], *, of: str) -> Config:
    """A config from plain values.

    Raises KnobError, a ValueError of one sentence, for an unknown knob, a wrong type, a value out of bounds, or knobs
    that contradict each other.
    """
    try:
        return config(**{str(knob): value for knob, value in knobs.items()})  # YAML has names that are numbers
    except ValidationError as error:
        errors = error.errors()
        unknowns = (one for one in errors if one["type"] == "extra_forbidden")  # one of them explains a missing knob
        first = next(unknowns, errors[0])
        knob = str(first["loc"][0]) if first["loc"] else None
        raise KnobError(sentence(config, first, of=of), knob) from None


def resolved(config: Knobs) -> dict[str, Any]:
    """Every knob as it enters a cell's id: without the idle ones and those at their neutral value."""
    silent = config.idle() | {name for name, value in config.neutral.items() if getattr(config, name) == value}
    return {name: value for name, value in config.model_dump().items() if name not in silent}


def sentence(config: type[Knobs], error: ErrorDetails, *, of: str) -> str:
    """Pydantic's first error as one line: what came, what was expected, the nearest valid name."""
    if not error["loc"]:
        return f"{of}: {error['msg'].removeprefix('Value error, ')}"
    knob, got = str(error["loc"][0]), error["input"]
    if error["type"] == "extra_forbidden":
        return unknown("knob", knob, config.model_fields, of=of)
    if error["type"] == "missing":
        return f"{of} needs {knob!r}, which is not there."
    if error["type"] == "literal_error":
        choices = error.get("ctx", {})["expected"]
        words = [word.strip(" '") for word in choices.replace(" or ", ",").split(",")]
        return f"{of}.{knob} is one of {choices}; got {got!r}.{nearest(got, words)}"
    expected = re.sub("^(Input should be|String should|Value error,) ", "", error["msg"])
    return f"{of}.{knob} should be {expected}; got {got!r} ({type(got).__name__})."


def known(kind: str, word: str, words: Iterable[str], *, of: str) -> None:
    """Raises ValueError when the word is not among the words, naming the nearest."""
    words = list(words)
    if word not in words:
        raise ValueError(unknown(kind, word, words, of=of))


def unknown(kind: str, word: Any, words: Iterable[str], *, of: str) -> str:
    words = list(words)
    has = f"It has {', '.join(words)}." if words else "It has none."
    return f"{of} has no {kind} {word!r}.{nearest(word, words)} {has}"


def nearest(word: Any, words: Iterable[str]) -> str:
    return "".join(f" Did you mean {match!r}?" for match in get_close_matches(str(word), list(words), n=1, cutoff=0.5))
