"""The contract every mechanism keeps, in every setting it fits. A new mechanism is tested by existing."""

import pytest
import torch

from tests.slots import each_causal, each_slot


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
    for i in (0, 70, slot.site.tokens - 1):
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
