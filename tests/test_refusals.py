"""Refusals: a mechanism that cannot be built says so in one clear sentence that names the nearest thing to write."""

import re
from collections.abc import Iterator
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

import mechanisms
from mechanisms import Site

SITES = {
    "sequence": Site(channels=16, shape=(24,)),
    "causal": Site(channels=16, shape=(24,), causal=True),
    "grid": Site(channels=16, shape=(16, 16)),
}
TUNABLE = [name for name in mechanisms.usable("cpu") if mechanisms.find(name).config.model_fields]


def refusal(name: str, site: Site, **knobs: Any) -> str:
    """The message with which a build is refused: one line, one sentence with a full stop, naming the mechanism."""
    with pytest.raises(ValueError, match=r"^\S[^\n]*[.?]$") as caught:
        mechanisms.build(name, site, **knobs)
    message = str(caught.value)
    assert re.match(rf"{name}\b", message) or name not in mechanisms.names()
    assert "validation error" not in message
    return message


def fitting_site(name: str) -> Site:
    return SITES[min(mechanisms.find(name).fits)]


@pytest.mark.parametrize("name", TUNABLE)
def test_an_unknown_knob_is_answered_with_the_nearest(name):
    for knob in mechanisms.find(name).config.model_fields:
        message = refusal(name, fitting_site(name), **{knob + "x": 1})
        assert f"{knob + 'x'!r}" in message
        assert f"Did you mean {knob!r}?" in message


@pytest.mark.parametrize("name", TUNABLE)
def test_a_wrong_choice_is_answered_with_the_nearest(name):
    for knob, field in mechanisms.find(name).config.model_fields.items():
        words = [word for kind, _ in kinds(field) if get_origin(kind) is Literal for word in get_args(kind)]
        for choice in [word for word in words if isinstance(word, str) and word + "x" not in words]:
            message = refusal(name, fitting_site(name), **{knob: choice + "x"})
            assert f"Did you mean {choice!r}?" in message
            assert f"{name}.{knob}" in message


def kinds(field: FieldInfo) -> Iterator[tuple[Any, list[Any]]]:
    """The types that a knob may have, with their bounds: of `PositiveInt | None` (int, [Gt(0)]) and (NoneType, [])."""
    open_kinds = [(field.annotation, field.metadata)]
    while open_kinds:
        kind, bounds = open_kinds.pop()
        if get_origin(kind) is Annotated:
            open_kinds.append((get_args(kind)[0], [*bounds, *get_args(kind)[1:]]))
        elif get_args(kind) and get_origin(kind) is not Literal:
            open_kinds += [(part, bounds) for part in get_args(kind)]
        else:
            yield kind, bounds


def wrong(field: FieldInfo) -> list[Any]:
    """Values that a knob cannot have, chosen by its type: a float knob takes integers, a choice only its own words."""
    found = list(kinds(field))
    types = {kind for kind, _ in found}
    values: list[Any] = [[4], {"a": 1}]
    values += ["4"] if str not in types else []
    values += [4.5] if float not in types else [float("inf"), float("nan")]
    values += [True] if bool not in types else []
    values += [None] if NoneType not in types else []
    values += [-3] if not types & {int, float} else beyond([bound for _, bounds in found for bound in bounds])
    return [value for value in values if all(value not in get_args(kind) for kind in types)]


def beyond(bounds: list[Any]) -> list[Any]:
    """A number outside each bound."""
    outside = {"gt": 0, "ge": -1, "lt": 0, "le": 1}
    return [getattr(bound, word) + step for bound in bounds for word, step in outside.items() if hasattr(bound, word)]


@pytest.mark.parametrize("name", TUNABLE)
def test_a_value_of_the_wrong_kind_is_refused(name):
    for knob, field in mechanisms.find(name).config.model_fields.items():
        for value in wrong(field):
            assert f"{name}.{knob}" in refusal(name, fitting_site(name), **{knob: value})


@pytest.mark.parametrize("name", [name for name in TUNABLE if "heads" in mechanisms.find(name).config.model_fields])
def test_heads_that_do_not_divide_the_channels_are_refused(name):
    message = refusal(name, fitting_site(name), heads=3)
    assert "16" in message
    assert "3" in message


@pytest.mark.parametrize("name", mechanisms.usable("cpu"))
def test_a_setting_it_does_not_serve_is_refused(name):
    for setting in SITES.keys() - mechanisms.find(name).fits:
        assert setting in refusal(name, SITES[setting])


def test_an_unknown_mechanism_is_answered_with_the_nearest():
    assert "Did you mean 'mano'?" in refusal("manoo", SITES["grid"])


@pytest.mark.parametrize("fault", [{"shape": (4, 4), "causal": True}, {"shape": (2, 2, 2)}, {"shape": ()}])
def test_a_site_is_a_sequence_or_a_grid(fault):
    with pytest.raises(ValueError, match="sequence"):
        Site(channels=4, **fault)


def test_a_knob_cannot_be_changed_after():
    config = mechanisms.configure(mechanisms.find("full").config, {}, of="full")
    with pytest.raises(ValueError, match="frozen"):
        config.heads = 2  # pyright: ignore[reportAttributeAccessIssue]
