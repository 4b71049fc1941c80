"""Windows that begin at every token, offset by offset: the same as one window after the other, on every layout."""

import pytest
import torch
from torch import Tensor

from mechanisms import _window_offsets as offsets
from mechanisms import _windows as windows
from tests.dense_windows import (
    BY_OFFSET,
    EVERYWHERE,
    agree,
    attend_offsets,
    attend_overlapping,
    corners,
    limit,
    one_by_one,
    outcome,
)
from tests.exact import drawn
from tests.test_window_kernels import work


@pytest.mark.parametrize("at_once", [2**18, 1, 50, 90])
@BY_OFFSET
def test_windows_that_begin_everywhere_are_those_cut_one_by_one(monkeypatch, at_once, window, shape):
    limit(monkeypatch, at_once)
    qkv = drawn(3, *shape, 3, 2, 3)
    expected = outcome(lambda qkv: one_by_one(qkv, window, (1, 1)), qkv)
    agree(outcome(lambda qkv: attend_offsets(qkv, window), qkv), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@BY_OFFSET
def test_in_half_precision_one_rounding_is_added(dtype, window, shape):
    qkv = drawn(2, *shape, 3, 2, 5).to(dtype)
    found = outcome(lambda qkv: attend_offsets(qkv, window), qkv, rounded=dtype)
    exact = outcome(lambda qkv: one_by_one(qkv, window, (1, 1)), qkv.double(), rounded=dtype)
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == dtype
        bound = torch.finfo(dtype).eps / 2 * other.abs() * 1.01 + 1e-5
        assert bool(((one.double() - other).abs() <= bound).all())


@pytest.mark.parametrize("window", [[2, 2], [3, 2]])
def test_the_operators_keep_the_rules_of_torch(window):
    qkv = drawn(2, 5, 6, 3, 2, 5).requires_grad_()
    torch.library.opcheck(offsets.attend_offsets, (qkv, window, 0.8))
    y, softmax = offsets.attend_offsets(qkv, window, 0.8)
    arguments = (torch.ones_like(y), qkv.detach(), softmax.detach(), window, 0.8)
    torch.library.opcheck(offsets.attend_offsets_backward, arguments)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_counted_work_is_that_of_all_pairs_in_all_windows(device):
    for window, shape in EVERYWHERE:
        count = 2 * len(list(corners(shape, window, (1, 1))))  # windows of two samples
        forward = 4 * count * 3 * (window[0] * window[1]) ** 2 * 2
        qkv = drawn(2, *shape, 3, 3, 2).to(device)
        assert work(lambda qkv, w=window: attend_offsets(qkv, w), qkv) == (forward, 2 * forward)


def test_strided_inputs_and_gradients_compute_the_same():
    def strided(tensor: Tensor) -> Tensor:
        return torch.stack([tensor, tensor], -1)[..., 0]

    qkv = drawn(2, 5, 6, 3, 2, 4)
    gradients = []
    for lay_out in (strided, Tensor.clone):
        leaf = lay_out(qkv).requires_grad_()
        (grad,) = torch.autograd.grad(attend_offsets(leaf, (2, 2)), leaf, lay_out(drawn(2, 5, 6, 2, 4, seed=3)))
        gradients.append(grad)
    torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-13)
    agree([attend_offsets(strided(qkv), (2, 2))], [attend_offsets(qkv, (2, 2))])
    one = torch.ones(1, dtype=torch.float64).expand(2, 5, 6, 2, 4)
    leaf = qkv.clone().requires_grad_()
    agree(
        list(torch.autograd.grad(attend_offsets(leaf, (2, 2)), leaf, one)),
        list(torch.autograd.grad(one_by_one(leaf, (2, 2), (1, 1)).sum(), leaf)),
    )


def test_inputs_stay_as_they_are_and_no_samples_give_nothing():
    qkv = drawn(2, 4, 5, 3, 2, 3)
    y, softmax = offsets.attend_offsets(qkv, [2, 2], 0.8)
    inputs = [qkv, torch.ones_like(y), softmax]
    before = [each.clone() for each in inputs]
    offsets.attend_offsets_backward(inputs[1], qkv, softmax, [2, 2], 0.8)
    assert all(torch.equal(one, other) for one, other in zip(inputs, before, strict=True))
    assert attend_offsets(drawn(0, 4, 6, 3, 2, 5), (2, 3)).shape == (0, 4, 6, 2, 5)


@BY_OFFSET
def test_a_token_far_off_changes_nothing_bit_by_bit(window, shape):
    qkv = drawn(2, *shape, 3, 2, 3)
    other = 1e4 * qkv
    other[0, : window[0], : window[1]] = qkv[0, : window[0], : window[1]]
    for one, changed in zip(*(outcome(lambda qkv: attend_offsets(qkv, window), x) for x in (qkv, other)), strict=True):
        assert torch.equal(one[0, 0, 0], changed[0, 0, 0])


def test_scores_in_the_thousands_stay_finite():
    qkv = 40 * drawn(1, 4, 5, 3, 2, 4)
    exact = outcome(lambda qkv: one_by_one(qkv, (2, 2), (1, 1)), qkv)
    found = outcome(lambda qkv: attend_offsets(qkv, (2, 2)), qkv.float())
    assert all(bool(each.isfinite().all()) for each in found)
    torch.testing.assert_close(found[0].double(), exact[0], rtol=1e-2, atol=1e-2)


def test_a_second_derivative_is_refused_not_wrong():
    x = drawn(1, 3, 4, 3, 2, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(attend_offsets(x, (2, 2)).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.square().sum().backward()


@pytest.mark.parametrize(
    ("window", "stride", "taken"), [((2, 2), (1, 1), True), ((2, 2), (1, 2), False), ((4, 4), (1, 1), False)]
)
def test_small_windows_that_begin_everywhere_go_by_offset_and_no_others(monkeypatch, window, stride, taken):
    calls = []
    monkeypatch.setattr(windows, "attend_offsets", lambda *given: calls.append(given) or offsets.attend_offsets(*given))
    windows.overlapping(drawn(1, 6, 6, 12), heads=2, window=window, stride=stride)
    assert bool(calls) == taken


def test_both_operators_agree_where_either_serves():
    qkv = drawn(2, 6, 7, 3, 2, 4)
    agree(
        outcome(lambda qkv: attend_offsets(qkv, (3, 3)), qkv),
        outcome(lambda qkv: attend_overlapping(qkv, (3, 3), (1, 1)), qkv),
    )
