"""The CPU's operators for many small windows: against attention written out, in every size, stretch, mask and dtype."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mechanisms import _window_kernel as kernel
from tests.dense_windows import (
    OVERLAPS,
    PERIODS,
    WINDOWS,
    agree,
    attend,
    attend_overlapping,
    corners,
    dense,
    limit,
    one_by_one,
    outcome,
    walls,
    within,
)
from tests.exact import drawn, same


@pytest.mark.parametrize("tokens", [*range(1, 10), 16])
def test_every_number_of_tokens_and_heads_is_attention_written_out(tokens):
    for heads, period, biased in product(range(1, 6), PERIODS, (False, True)):
        qkv, mask = drawn(WINDOWS, tokens, 3, heads, 3), walls(period, tokens)
        bias = drawn(heads, tokens, tokens, seed=1) if biased else None
        agree(
            outcome(lambda qkv, bias, mask=mask: attend(qkv, bias, mask), qkv, bias),
            outcome(lambda qkv, bias, mask=mask: dense(qkv, bias, mask), qkv, bias),
        )


@pytest.mark.parametrize("at_once", [1, 2, 5, 7, 11])
@pytest.mark.parametrize("tokens", [3, 6])
def test_stretches_that_divide_neither_windows_nor_periods_change_no_bit(monkeypatch, tokens, at_once):
    qkv, bias = drawn(2 * WINDOWS, tokens, 3, 2, 5), drawn(2, tokens, tokens, seed=1)
    for period, table in product([*PERIODS, 8], (None, bias)):
        mask = walls(period, tokens)
        limit(monkeypatch, 2**18)
        whole = outcome(lambda qkv, bias, mask=mask: attend(qkv, bias, mask), qkv, table)
        limit(monkeypatch, at_once * qkv[0].numel() // 3)
        cut = outcome(lambda qkv, bias, mask=mask: attend(qkv, bias, mask), qkv, table)
        agree(cut, outcome(lambda qkv, bias, mask=mask: dense(qkv, bias, mask), qkv, table))
        assert all(torch.equal(one, other) for one, other in zip(cut[:2], whole[:2], strict=True))


@pytest.mark.parametrize(
    ("at_once", "period", "sizes"),
    [
        (5, None, [5, 5, 2]),
        (5, 2, [4, 4, 4]),
        (5, 6, [5, 1, 5, 1]),
        (7, 3, [6, 6]),
        (1, 3, [1] * 12),
        (5, 12, [5, 5, 2]),
    ],
)
def test_a_stretch_holds_whole_periods_of_masks_or_a_part_of_one(monkeypatch, at_once, period, sizes):
    qkv, mask = drawn(WINDOWS, 2, 3, 1, 4), walls(period, 2)
    limit(monkeypatch, at_once * 2 * 4)
    parts = list(kernel.stretches(qkv, mask))
    assert [len(qkv[part]) for part, _ in parts] == sizes
    assert torch.equal(torch.cat([qkv[part] for part, _ in parts]), qkv)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tokens", [4, 9])
@pytest.mark.parametrize("biased", [False, True])
def test_half_precision_costs_no_more_than_rounding_the_result(dtype, tokens, biased):
    qkv = drawn(WINDOWS, tokens, 3, 2, 8).to(dtype)
    bias = drawn(2, tokens, tokens, seed=1).to(dtype) if biased else None
    exact = [None if leaf is None else leaf.double() for leaf in (qkv, bias)]
    within(outcome(attend, qkv, bias, rounded=dtype), outcome(dense, *exact, rounded=dtype), dtype)
    y, softmax = kernel.attend_windows(qkv, bias, None, 0.8)
    dqkv, _ = kernel.attend_windows_backward(torch.ones_like(y), qkv, softmax, 0.8, biased)
    assert (softmax.dtype, dqkv.dtype) == (torch.float32, dtype)


def strided(tensor: Tensor) -> Tensor:
    """The same numbers with holes between them and the axes in another order in memory."""
    back = list(range(tensor.ndim))[::-1]
    holed = torch.stack([tensor.permute(back), torch.full_like(tensor.permute(back), torch.nan)], -1)
    return holed[..., 0].permute(back)


@pytest.mark.parametrize("tokens", [3, 6])
def test_the_order_in_memory_does_not_matter(tokens):
    qkv, bias, mask = drawn(WINDOWS, tokens, 3, 2, 5), drawn(2, tokens, tokens, seed=1), walls(3, tokens)
    grid = drawn(2, 5, 7, 3, 2, 3)
    assert mask is not None
    for table, periodic in product((None, bias), (None, mask)):
        leaves = [None if leaf is None else strided(leaf) for leaf in (qkv, table, periodic)]
        dy = [
            strided(drawn(WINDOWS, tokens, 2, 5, seed=9)),
            torch.ones(1, dtype=torch.float64).expand(12, tokens, 2, 5),
        ]
        for gradient in dy:
            x, other = strided(qkv).requires_grad_(), qkv.clone().requires_grad_()
            attend(x, *leaves[1:]).backward(gradient)
            attend(other, table, periodic).backward(gradient.contiguous())
            assert x.grad is not None
            assert other.grad is not None
            same(x.grad, other.grad)
        same(attend(strided(qkv), *leaves[1:]), dense(qkv, table, periodic))
    tiles = (tokens // 3 + 1, 3), (1, 2)
    expected = outcome(lambda qkv: one_by_one(qkv, *tiles), grid)
    agree(outcome(lambda qkv: attend_overlapping(strided(qkv), *tiles), grid), expected)


@pytest.mark.parametrize("tokens", [3, 6])
def test_no_windows_give_nothing_and_no_gradient(tokens):
    for bias, mask in product((None, drawn(2, tokens, tokens)), (None, walls(3, tokens))):
        y, *gradients = outcome(lambda qkv, bias, mask=mask: attend(qkv, bias, mask), drawn(0, tokens, 3, 2, 5), bias)
        assert y.shape == (0, tokens, 2, 5)
        assert gradients[0].shape == (0, tokens, 3, 2, 5)
        assert all(torch.equal(each, torch.zeros_like(each)) for each in gradients[1:])
    assert attend_overlapping(drawn(0, 4, 6, 3, 2, 5), (2, 3), (1, 3)).shape == (0, 4, 6, 2, 5)


@pytest.mark.parametrize("tokens", [3, 6])
@pytest.mark.parametrize("biased", [False, True])
def test_operators_keep_the_rules_of_torch(tokens, biased):
    qkv = drawn(6, tokens, 3, 2, 5).requires_grad_()
    bias, mask = (drawn(2, tokens, tokens, seed=1).requires_grad_(), walls(3, tokens)) if biased else (None, None)
    torch.library.opcheck(kernel.attend_windows, (qkv, bias, mask, 0.8))
    y, softmax = kernel.attend_windows(qkv, bias, mask, 0.8)
    arguments = (torch.ones_like(y), qkv.detach(), softmax.detach(), 0.8, biased)
    torch.library.opcheck(kernel.attend_windows_backward, arguments)
    assert softmax.ndim == (5 if tokens <= kernel.FEW and not biased else 4)


def work(function: Callable[..., Tensor], qkv: Tensor) -> tuple[int, int]:
    """Counted work of a function, and of its gradient."""
    x = qkv.detach().requires_grad_()
    with FlopCounterMode(display=False) as forward:
        y = function(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_counted_work_is_two_products_forward_and_four_backward(device):
    for tokens, heads, width in ((3, 2, 5), (9, 3, 2)):
        qkv = drawn(7, tokens, 3, heads, width).to(device)
        forward = 4 * 7 * heads * tokens**2 * width
        assert work(attend, qkv) == (forward, 2 * forward)
    for window, stride, shape in OVERLAPS:
        each = 2 * len(list(corners(shape, window, stride)))  # windows of two samples
        forward = 4 * each * 3 * (window[0] * window[1]) ** 2 * 2
        qkv = drawn(2, *shape, 3, 3, 2).to(device)
        assert work(lambda qkv, w=window, s=stride: attend_overlapping(qkv, w, s), qkv) == (forward, 2 * forward)


@pytest.mark.parametrize("tokens", [3, 6])
def test_inputs_stay_as_they_are(tokens):
    qkv, bias, mask = drawn(WINDOWS, tokens, 3, 2, 5), drawn(2, tokens, tokens, seed=1), walls(3, tokens)
    assert mask is not None
    for biased in (False, True):
        y, softmax = kernel.attend_windows(qkv, bias if biased else None, mask if biased else None, 0.8)
        inputs = [qkv, bias, mask, torch.ones_like(y), softmax]
        before = [each.clone() for each in inputs]
        assert torch.equal(attend(qkv, *((bias, mask) if biased else ())), y)
        kernel.attend_windows_backward(inputs[3], qkv, softmax, 0.8, biased)
        assert all(torch.equal(one, other) for one, other in zip(inputs, before, strict=True))


@pytest.mark.parametrize("tokens", [3, 6])
def test_a_window_is_blind_to_the_others_bit_by_bit(tokens):
    qkv, bias, mask = drawn(WINDOWS, tokens, 3, 2, 5), drawn(2, tokens, tokens, seed=1), walls(3, tokens)
    other = qkv * 1e4
    other[7] = qkv[7]
    for table, periodic in product((None, bias), (None, mask)):
        function = lambda qkv, table=table, periodic=periodic: attend(qkv, table, periodic)  # noqa: E731
        for one, changed in zip(outcome(function, qkv), outcome(function, other), strict=True):
            assert torch.equal(one[7], changed[7])


@pytest.mark.parametrize("tokens", [3, 6])
def test_scores_in_the_thousands_stay_finite_and_exact(tokens):
    qkv, bias = 40 * drawn(WINDOWS, tokens, 3, 2, 5), drawn(2, tokens, tokens, seed=1)
    for leaves in ([qkv], [qkv, bias]):
        torch.testing.assert_close(outcome(attend, *leaves), outcome(dense, *leaves), rtol=1e-8, atol=1e-8)
        single = outcome(attend, *(leaf.float() for leaf in leaves))
        assert all(bool(each.isfinite().all()) for each in single)
        torch.testing.assert_close(single[0].double(), dense(*leaves), rtol=1e-2, atol=1e-2)


def test_a_second_derivative_is_refused_not_wrong():
    for function, qkv in (
        (attend, drawn(5, 3, 3, 2, 5)),
        (attend, drawn(5, 6, 3, 2, 5)),
        (lambda qkv: attend_overlapping(qkv, (2, 2), (1, 1)), drawn(1, 3, 4, 3, 2, 5)),
    ):
        x = qkv.requires_grad_()
        (gradient,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="no autograd formula"):
            gradient.square().sum().backward()
