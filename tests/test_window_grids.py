"""Windows on a grid, side by side and overlapping, by the CPU's operators and by the plain forms: all alike."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from mechanisms import _window_overlap as overlap
from mechanisms import _windows as windows
from tests.dense_windows import (
    COVERING,
    OVERLAP,
    PERIODS,
    WINDOWS,
    agree,
    attend_overlapping,
    corners,
    dense,
    limit,
    one_by_one,
    outcome,
    walls,
)
from tests.exact import drawn, same


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@OVERLAP
def test_in_half_precision_overlapping_windows_cost_one_rounding_each(dtype, window, stride, shape):
    qkv = drawn(2, *shape, 3, 2, 5).to(dtype)
    found = outcome(lambda qkv: attend_overlapping(qkv, window, stride), qkv, rounded=dtype)
    exact = outcome(lambda qkv: one_by_one(qkv, window, stride), qkv.double(), rounded=dtype)
    largest = [torch.full_like(each, float(each.abs().max())) for each in exact]
    times = -(-window[0] // stride[0]) * -(-window[1] // stride[1])
    for one, other, bound in zip(found, exact, largest, strict=True):
        assert one.dtype == dtype
        assert bool(((one.double() - other).abs() <= times * torch.finfo(dtype).eps * bound).all())


@pytest.mark.parametrize("window", [[2, 2], [3, 2]])
def test_overlapping_operators_keep_the_rules_of_torch(window):
    qkv = drawn(2, 5, 6, 3, 2, 5).requires_grad_()
    torch.library.opcheck(overlap.attend_overlapping, (qkv, window, [1, 2], 0.8))
    y, softmax = overlap.attend_overlapping(qkv, window, [1, 2], 0.8)
    arguments = (torch.ones_like(y), qkv.detach(), softmax.detach(), window, [1, 2], 0.8)
    torch.library.opcheck(overlap.attend_overlapping_backward, arguments)


@pytest.mark.parametrize("at_once", [2**18, 1, 50])
@OVERLAP
def test_overlapping_windows_are_those_cut_one_by_one(monkeypatch, at_once, window, stride, shape):
    limit(monkeypatch, at_once)
    qkv = drawn(2, *shape, 3, 2, 3)
    expected = outcome(lambda qkv: one_by_one(qkv, window, stride), qkv)
    agree(outcome(lambda qkv: attend_overlapping(qkv, window, stride), qkv), expected)


@OVERLAP
def test_a_token_is_held_by_as_many_windows_as_counted_one_by_one(window, stride, shape):
    held = torch.zeros(shape, dtype=torch.float64)
    for top, left in corners(shape, window, stride):
        held[top : top + window[0], left : left + window[1]] += 1
    assert torch.equal(windows.times(drawn(1, *shape, 1), window, stride), held)


@COVERING
def test_overlapping_windows_are_averaged_alike_by_the_operator_and_by_folding(monkeypatch, window, stride, shape):
    def function(qkv: Tensor) -> Tensor:
        return windows.overlapping(qkv, heads=2, window=window, stride=stride)

    qkv = drawn(2, *shape, 12)
    found = outcome(function, qkv)
    monkeypatch.setattr(windows, "at_once", lambda *_: False)
    agree(found, outcome(function, qkv))
    held = windows.times(qkv, window, stride).unsqueeze(-1)
    scale = 2**-0.5
    cut = outcome(lambda qkv: one_by_one(qkv.unflatten(-1, (3, 2, 2)), window, stride, scale).flatten(3) / held, qkv)
    agree(found, cut)


@pytest.mark.parametrize(("window", "stride", "tokens"), [(3, 2, 7), (2, 1, 5), (4, 3, 10), (5, 1, 6)])
def test_overlapping_windows_of_a_sequence_are_cut_one_by_one(window, stride, tokens):
    def slowly(qkv: Tensor) -> Tensor:
        y, held = qkv.new_zeros(2, tokens, 4), torch.zeros(tokens, 1)
        for (start,) in corners((tokens,), (window,), (stride,)):
            here = slice(start, start + window)
            y[:, here] += dense(qkv[:, here].unflatten(-1, (3, 2, 2)), scale=2**-0.5).flatten(2)
            held[here] += 1
        return y / held

    qkv = drawn(2, tokens, 12)
    expected = outcome(slowly, qkv)
    agree(outcome(lambda qkv: windows.overlapping(qkv, heads=2, window=(window,), stride=(stride,)), qkv), expected)


@pytest.mark.parametrize(("window", "shape"), [((3,), (9,)), ((2, 3), (4, 9)), ((1, 1), (2, 3)), ((4, 2), (4, 6))])
def test_windows_side_by_side_are_cut_one_by_one(window, shape):
    def slowly(qkv: Tensor) -> Tensor:
        y = qkv.new_zeros(2, *shape, 4)
        for corner in corners(shape, window, window):
            here = (slice(None), *(slice(c, c + size) for c, size in zip(corner, window, strict=True)))
            cut = qkv[here].flatten(1, -2).unflatten(-1, (3, 2, 2))
            y[here] = dense(cut, scale=2**-0.5).flatten(2).unflatten(1, window)
        return y

    qkv = drawn(2, *shape, 12)
    agree(outcome(lambda qkv: windows.tiled(qkv, heads=2, window=window), qkv), outcome(slowly, qkv))


@pytest.mark.parametrize("tokens", [3, 9])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_attention_in_cut_windows_is_alike_in_the_operator_and_fused(tokens, scale):
    qkv, factor = drawn(WINDOWS, tokens, 12), 2**-0.5 if scale is None else scale
    for period, biased in product(PERIODS, (False, True)):
        bias, mask = (drawn(2, tokens, tokens, seed=1) if biased else None), walls(period, tokens)
        found = outcome(
            lambda qkv, bias, mask=mask: windows.attend_cut(qkv, heads=2, bias=bias, mask=mask, scale=scale), qkv, bias
        )

        def plainly(qkv: Tensor, bias: Tensor | None, mask: Tensor | None = mask) -> Tensor:
            return windows.fused(qkv.unflatten(-1, (3, 2, 2)), bias=bias, mask=mask, scale=factor).flatten(2)

        plain = outcome(plainly, qkv, bias)
        agree(found, plain)
    written = outcome(lambda qkv: dense(qkv.unflatten(-1, (3, 2, 2)), scale=2**-0.5).flatten(2), qkv)
    agree(outcome(lambda qkv: windows.attend_cut(qkv, heads=2), qkv), written)


def test_windows_of_more_tokens_go_to_fused_attention(monkeypatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("asked the operator")

    monkeypatch.setattr(windows, "attend_windows", refuse)
    qkv = drawn(2, windows.MOST + 1, 12)
    same(windows.attend_cut(qkv, heads=2), dense(qkv.unflatten(-1, (3, 2, 2)), scale=2**-0.5).flatten(2))
    with pytest.raises(AssertionError, match="asked"):
        windows.attend_cut(qkv[:, 1:], heads=2)
