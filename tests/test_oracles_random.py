"""Every mechanism equals its slow form also at sizes and knobs that nobody thought of, drawn by hypothesis."""

from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as draw

import mechanisms
from attnbench.oracles import Case
from mechanisms import Site
from tests.test_oracles import OWN, Held, gradients, weights_of

QUIET: Any = list(HealthCheck)  # drawing anew is wanted
NUMBERS = {"heads": [1, 2, 3]}  # of other knobs that are numbers: small ones, so that many go together
SMALL = [1, 2, 3, 4]


def values(name: str, knob: str, annotation: Any) -> list[Any]:
    """What a knob may be drawn to: every choice, or small numbers; nothing to keep its default."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if annotation is bool:
        return [False, True]
    if get_args(annotation):
        return [value for part in get_args(annotation) for value in values(name, knob, part)]
    return NUMBERS.get(knob, SMALL) if annotation is int else []


@draw.composite
def places(step: Any, name: str) -> Held:
    """A mechanism at a random site of up to 36 tokens, some of its knobs changed; refused ones are drawn anew."""
    entry = mechanisms.find(name)
    setting = step(draw.sampled_from(sorted(entry.fits)))
    sizes = draw.integers(1, 6) if setting == "grid" else draw.integers(1, 36)
    likely = draw.sampled_from([2, 4, 6]) if setting == "grid" else draw.sampled_from([4, 8, 16, 32])
    height = step(sizes | likely)
    shape = (height, step(sizes | likely | draw.just(height))) if setting == "grid" else (height,)
    site = Site(channels=6, shape=shape, causal=setting == "causal", block=step(draw.integers(0, 1)))
    fields = {knob: values(name, knob, field.annotation) for knob, field in entry.config.model_fields.items()}
    knobs = {
        knob: step(draw.sampled_from(options))
        for knob, options in fields.items()
        if options and (knob == "heads" or step(draw.booleans()))
    }
    return Held(name, Case(site, knobs))


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(data=draw.data())
def test_a_random_place_equals_the_slow_form(name: str, data: Any):
    one = data.draw(places(name), label="place")
    x = one.drawn(batch=2).requires_grad_()
    try:
        module = one.built()
        output = module(x)
    except ValueError:  # sizes and knobs that do not go together, or a kernel that is not here
        reject()
    expected = torch.stack([one.oracle(weights_of(module), sample) for sample in x])
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-10)
    if x.shape[1:-1].numel() > 1 and name != "identity":
        got, want = gradients(output, [x])[0], gradients(expected, [x])[0]
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10 * float(want.abs().max() + 1))
