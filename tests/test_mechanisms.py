"""The contract every mechanism keeps, in every setting it fits. A new mechanism is tested by existing."""

from dataclasses import replace
from functools import cache
from math import log2
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mechanisms
from mechanisms import Site

SITES = {  # more causal tokens than two chunks of a chunked sum hold; a grid that powers of two and cells divide
    "sequence": Site(channels=16, shape=(24,)),
    "causal": Site(channels=16, shape=(150,), causal=True),
    "grid": Site(channels=16, shape=(16, 16)),
}
OTHER_SHAPES = {"sequence": (40,), "causal": (90,), "grid": (32, 32)}
# Beside every choice and switch, which are tried by themselves: numbers and combinations that take other paths.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "swin": [{"window": 8, "position": "none"}, {"window": 5, "pad": True}],
    "fma": [{"cell": 2, "rank": 2}, {"basis": "average", "size_weight": False}, {"cell": 8}],
    "mano": [
        {"levels": 1, "stride": 1},
        {"levels": 3, "window": 4, "stride": 2, "combine": "published"},
        {"downsample": "average", "upsample": "nearest", "rate": 4, "levels": 2},
    ],
}


class Slot(NamedTuple):
    """A mechanism with knobs in one setting; block 1 turns on what alternates from block to block."""

    name: str
    setting: str
    knobs: dict[str, Any]
    block: int = 0

    @property
    def site(self) -> Site:
        return replace(SITES[self.setting], block=self.block)

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return mechanisms.build(self.name, self.site, **self.knobs).eval()

    def tokens(self, batch: int = 2, seed: int = 0) -> Tensor:
        shape = (batch, *self.site.shape, self.site.channels)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def label(slot: Slot) -> str:
    block = [f"block={slot.block}"] if slot.block else []
    return "-".join([slot.name, slot.setting, *block, *(f"{knob}={value}" for knob, value in slot.knobs.items())])


def choices(annotation: Any) -> list[Any]:
    """All values of a choice or a switch, also of one that may be left out; nothing for other knobs."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if annotation is bool:
        return [False, True]
    return [choice for part in get_args(annotation) for choice in choices(part)]


def builds(slot: Slot) -> bool:
    """Whether a slot is not refused. On the meta device, where even large ones are built at once."""
    try:
        with torch.device("meta"):
            slot.build()
    except ValueError:
        return False
    return True


def slots(name: str, setting: str) -> list[Slot]:
    """The defaults in both kinds of block, then one knob changed at a time, then what VARIANTS adds."""
    fields = mechanisms.find(name).config.model_fields.items()
    others = [(knob, value) for knob, field in fields for value in choices(field.annotation) if value != field.default]
    single = [Slot(name, setting, {knob: value}, block=1) for knob, value in others]
    more = [Slot(name, setting, knobs, block) for block, knobs in enumerate(VARIANTS.get(name, []), 1)]
    return [Slot(name, setting, {}), Slot(name, setting, {}, block=1), *filter(builds, single), *more]


FITTING = [(name, setting) for name in mechanisms.usable("cpu") for setting in sorted(mechanisms.find(name).fits)]
SLOTS = [slot for name, setting in FITTING for slot in slots(name, setting)]
each_slot = pytest.mark.parametrize("slot", SLOTS, ids=label)
each_causal = pytest.mark.parametrize("slot", [slot for slot in SLOTS if slot.setting == "causal"], ids=label)
each_name = pytest.mark.parametrize("name", mechanisms.usable("cpu"))


@each_slot
def test_keeps_the_shape_and_the_type(slot):
    x = slot.tokens()
    y = slot.build()(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.isfinite().all()


@each_slot
def test_gradient_reaches_the_input_and_every_parameter(slot):
    """Only the bias of keys may get none: it moves all of a query's scores alike, and softmax does not see that."""
    mechanism, x = slot.build(), slot.tokens().requires_grad_()
    (mechanism(x) * slot.tokens(seed=1)).sum().backward()
    reached = {"input": x.grad, **{name: parameter.grad for name, parameter in mechanism.named_parameters()}}
    assert all(grad is not None and grad.isfinite().all() for grad in reached.values())
    assert not [name for name, grad in reached.items() if grad is not None and not grad.any() and name != "k.bias"]


@each_slot
def test_the_input_is_left_as_it_was(slot):
    x = slot.tokens()
    before = x.clone()
    slot.build()(x)
    assert x.equal(before)


@each_slot
def test_nothing_passes_between_batch_elements(slot):
    """Not even NaN: with it in one element, the other comes out as before, to the last bit."""
    mechanism, x = slot.build(), slot.tokens()
    poisoned = torch.stack([x[0], torch.full_like(x[1], torch.nan)])
    assert mechanism(poisoned)[0].equal(mechanism(x)[0])


@each_slot
def test_a_batch_of_one_equals_its_place_in_a_larger_batch(slot):
    mechanism, x = slot.build().double(), slot.tokens(batch=3).double()
    torch.testing.assert_close(mechanism(x[1:2]), mechanism(x)[1:2], rtol=1e-12, atol=1e-12)


@each_causal
@pytest.mark.parametrize("first_changed", [1, 63, 64, 65, 100, 149])
def test_causal_output_ignores_the_future_to_the_last_bit(slot, first_changed):
    """Large changes too: what is added and subtracted again would leave its rounding behind."""
    mechanism, x = slot.build(), slot.tokens()
    changed = x.clone()
    changed[:, first_changed:] = 1e4 * slot.tokens(seed=1)[:, first_changed:]
    assert mechanism(changed)[:, :first_changed].equal(mechanism(x)[:, :first_changed])


@each_causal
def test_causal_gradients_come_from_the_past_alone(slot):
    """How much of the past a mechanism sees is its own affair; the token itself is the least."""
    mechanism, x = slot.build(), slot.tokens(batch=1).requires_grad_()
    for i in (0, 70, 149):
        (gradient,) = torch.autograd.grad(mechanism(x)[0, i].square().sum(), x)
        reached = gradient[0].abs().sum(-1) > 0
        assert not reached[i + 1 :].any()
        assert reached[i]


@each_slot
def test_twice_the_same_is_the_same(slot):
    x = slot.tokens()
    assert slot.build()(x).equal(slot.build()(x))
    mechanism = slot.build()
    assert mechanism(x).equal(mechanism(x))


@each_slot
def test_training_mode_computes_the_same(slot):
    x = slot.tokens()
    assert slot.build().train()(x).equal(slot.build()(x))


@each_slot
def test_the_layout_in_memory_does_not_matter(slot):
    """Channels first in memory, as a convolution before the mechanism would leave them; and every second of a batch."""
    mechanism, x = slot.build().double(), slot.tokens(batch=4).double()
    turned = x.movedim(-1, 1).contiguous().movedim(1, -1)
    assert not turned.is_contiguous()
    torch.testing.assert_close(mechanism(turned), mechanism(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mechanism(x[::2]), mechanism(x)[::2], rtol=1e-12, atol=1e-12)


@each_slot
def test_weights_survive_saving_and_loading(slot, tmp_path):
    first, second, x = slot.build(seed=1), slot.build(seed=2), slot.tokens()
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    if list(first.parameters()):
        assert not second(x).equal(first(x))
    second.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert second(x).equal(first(x))


@each_slot
def test_bfloat16_autocast_stays_finite_and_near(slot):
    """bfloat16 keeps 8 bits; a few roundings in a row on numbers of order one err by a few times 2^-8."""
    mechanism, x = slot.build(), slot.tokens().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = mechanism(x)
    y.float().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    exact = mechanism(x.detach()).detach()
    assert float((y.detach().float() - exact).norm() / exact.norm()) < 8 * 2**-8


@each_slot
def test_large_inputs_stay_finite(slot):
    """Scores in the thousands: a softmax that does not shift by its maximum overflows."""
    assert slot.build()(100 * slot.tokens()).isfinite().all()


@pytest.mark.parametrize(("name", "setting"), FITTING)
def test_weights_depend_on_the_shape_exactly_where_declared(name, setting):
    def shapes(shape: tuple[int, ...]) -> dict[str, torch.Size]:
        module = mechanisms.build(name, replace(SITES[setting], shape=shape))
        return {key: tensor.shape for key, tensor in module.state_dict().items()}

    assert (shapes(SITES[setting].shape) != shapes(OTHER_SHAPES[setting])) == mechanisms.find(name).bound_to_shape


@each_name
def test_work_grows_as_declared(name):
    """Fitted on matrix products only, where there are any: FlopCounterMode sees neither FFTs nor cumulative sums.

    A factor log N between 2^16 and 2^18 tokens moves the exponent by 0.085: told from N^1.5, and only just from N.
    """
    entry = mechanisms.find(name)
    setting = "grid" if entry.fits == {"grid"} else sorted(entry.fits)[0]
    sides = (256, 512) if setting == "grid" else (16384, 65536)
    sites = [replace(SITES[setting], shape=(side, side) if setting == "grid" else (side,)) for side in sides]
    small, large = (flops(name, site) for site in sites)
    if entry.order == "0" or not small:
        assert small == large == 0
    else:
        declared = {"N": 1.0, "N log N": 1.0 + log2(18 / 16) / 2, "N^1.5": 1.5, "N^2": 2.0}[entry.order]
        assert log2(large / small) / 2 == pytest.approx(declared, abs=0.08)


@cache
def flops(name: str, site: Site) -> int:
    """On the meta device: no memory, and fused attention is counted, which on the CPU it is not."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        mechanisms.build(name, site)(torch.empty(1, *site.shape, site.channels))
    return counter.get_total_flops()


@each_name
def test_builds_on_the_meta_device(name):
    """`check` builds every cell there: a constructor must look at no number of a tensor."""
    with torch.device("meta"):
        module = mechanisms.build(name, SITES[min(mechanisms.find(name).fits)])
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
            assert other.build()(slot.tokens()).equal(slot.build()(slot.tokens()))
