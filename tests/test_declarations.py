"""What a mechanism's file declares is true: its reach, its order, whether weights depend on the shape, its knobs."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import isqrt, log2

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import mechanisms
from attnbench.flops import formulas
from tests.slots import SLOTS, Slot, choices, each_name, each_slot, label, usual


@each_slot
def test_one_layer_sees_what_is_declared(slot):
    """By gradient, for every pair of tokens: token i of copy i, so that one backward pass tells all."""
    mechanism = slot.build().double()
    tokens, channels = slot.site.tokens, slot.site.channels
    x = slot.tokens(batch=1).double().expand(tokens, *slot.site.shape, channels).clone().requires_grad_()
    y = (mechanism(x) * slot.tokens(batch=1, seed=1)).reshape(tokens, tokens, channels)
    (gradient,) = torch.autograd.grad(y.diagonal().sum(), x)
    seen = gradient.reshape(tokens, tokens, channels).abs().sum(-1) > 0
    allowed = torch.ones_like(seen).tril() if slot.site.causal else torch.ones_like(seen)
    itself = torch.eye(tokens, dtype=torch.bool)
    entry = mechanisms.find(slot.name)
    declared = entry.reach_at(slot.site, mechanisms.configure(entry.config, slot.knobs, of=slot.name))
    found = "global" if seen.equal(allowed) else "token" if not (seen & ~itself).any() else "local"
    assert not (seen & ~allowed).any()
    assert declared in (found, None)


@pytest.mark.parametrize("slot", SLOTS, ids=label)
def test_weights_depend_on_the_shape_exactly_where_declared(slot):
    def shapes(shape: tuple[int, ...]) -> dict[str, torch.Size]:
        with torch.device("meta"):
            module = mechanisms.build(slot.name, replace(slot.site, shape=shape), **slot.knobs)
        return {key: tensor.shape for key, tensor in module.state_dict().items()}

    entry = mechanisms.find(slot.name)
    config = mechanisms.configure(entry.config, slot.knobs, of=slot.name)
    few, many = ((64, 64), (128, 128)) if slot.setting == "grid" else ((256,), (512,))
    assert (shapes(few) != shapes(many)) == entry.bound_at(slot.site, config)


GROWTH = {"N": lambda n: n, "N log N": lambda n: n * log2(n), "N^1.5": lambda n: n**1.5, "N^2": lambda n: n**2}


@pytest.mark.parametrize("slot", SLOTS, ids=label)
def test_work_grows_as_declared(slot):
    """Matrix products and Fourier transforms, where there are any: no counter sees pointwise work and running sums.

    Local exponents between 2^12, 2^14, 2^16 and 2^18 tokens: the last one tells log N from a constant, 0.085.
    """
    entry = mechanisms.find(slot.name)
    order = entry.order_at(slot.site, mechanisms.configure(entry.config, slot.knobs, of=slot.name))
    sizes = [2**power for power in (12, 14, 16, 18)]
    work = [flops(slot, size) for size in sizes]
    if order == "0" or not work[0]:
        assert not any(work)
        return
    found, declared = (local_exponents(counts) for counts in (work, [GROWTH[order](size) for size in sizes]))
    assert found[1:] == pytest.approx(declared[1:], abs=0.15)
    assert found[-1] == pytest.approx(declared[-1], abs=0.08)


def local_exponents(counts: Sequence[float]) -> list[float]:
    """Exponents between neighbours, sizes being four times as large each."""
    return [log2(large / small) / 2 for small, large in pairwise(counts)]


def flops(slot: Slot, tokens: int) -> int:
    """On the meta device: no memory, and fused attention is counted, which on the CPU it is not."""
    shape = (isqrt(tokens), isqrt(tokens)) if slot.setting == "grid" else (tokens,)
    site = replace(slot.site, shape=shape)
    with torch.device("meta"), FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
        mechanisms.build(slot.name, site, **slot.knobs)(torch.empty(1, *shape, site.channels))
    return counter.get_total_flops()


@each_name
def test_builds_on_the_meta_device(name):
    """`check` builds every cell there: a constructor must look at no number of a tensor."""
    with torch.device("meta"):
        module = mechanisms.build(name, usual(name, min(mechanisms.find(name).fits)))
    assert all(tensor.is_meta for tensor in module.state_dict().values())


@each_name
def test_every_knob_has_a_default_and_is_a_plain_value(name):
    config = mechanisms.configure(mechanisms.find(name).config, {}, of=name)
    assert all(type(value) in (int, float, bool, str) for value in config.model_dump().values())
    assert config.idle() <= set(type(config).model_fields)


@pytest.mark.parametrize("slot", [slot for slot in SLOTS if slot.knobs], ids=label)
def test_an_idle_knob_changes_nothing(slot):
    """At other values of a knob called idle, weights and output are the same."""
    config = mechanisms.find(slot.name).config
    for knob in mechanisms.configure(config, slot.knobs, of=slot.name).idle():
        for value in choices(config.model_fields[knob].annotation) or [2, 4]:
            other = slot._replace(knobs={**slot.knobs, knob: value})
            if knob not in mechanisms.configure(config, other.knobs, of=slot.name).idle():
                continue  # at this value it is not idle
            assert other.build()(slot.tokens()).equal(slot.build()(slot.tokens()))
