"""The CPU's operators for many small windows: against attention written out, in every size, stretch, mask and dtype."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mechanisms import _window_kernel as kernel
from mechanisms import _window_overlap as overlap
from mechanisms import _windows as windows
from tests.exact import drawn, same

WINDOWS = 12
PERIODS = [None, 1, 2, 3, WINDOWS]  # None is no mask
OVERLAPS = [  # window, stride and grid; windows leave tokens of the last grid out
    ((2, 2), (1, 1), (5, 7)),
    ((2, 2), (2, 2), (4, 6)),
    ((3, 3), (2, 2), (7, 5)),
    ((3, 2), (1, 2), (5, 6)),
    ((4, 4), (3, 3), (7, 10)),
    ((4, 4), (2, 2), (6, 8)),
    ((1, 3), (1, 2), (3, 7)),
    ((3, 3), (2, 1), (6, 5)),
]
OVERLAP = pytest.mark.parametrize(("window", "stride", "shape"), OVERLAPS, ids=str)
COVERING = pytest.mark.parametrize(("window", "stride", "shape"), OVERLAPS[:-1], ids=str)
Sides = tuple[int, ...]


@pytest.fixture
def stretch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many numbers of queries go at once."""

    def limit(numbers: int) -> None:
        monkeypatch.setattr(kernel, "AT_ONCE", numbers)
        monkeypatch.setattr(overlap, "AT_ONCE", numbers)

    return limit


def dense(qkv: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *, scale: float = 0.8) -> Tensor:
    """Attention of windows [W, M, 3, heads, d] with all scores at once."""
    q, k, v = qkv.unbind(2)
    scores = scale * torch.einsum("wmhd,wnhd->wmnh", q, k)
    if bias is not None:
        scores = scores + torch.einsum("hmn->mnh", bias)
    if mask is not None:
        scores = scores + torch.stack([mask[i % len(mask)] for i in range(len(qkv))]).unsqueeze(-1)
    mass = (scores - scores.amax(2, keepdim=True)).exp()
    return torch.einsum("wmnh,wnhd->wmhd", mass / mass.sum(2, keepdim=True), v)


def attend(qkv: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *, scale: float = 0.8) -> Tensor:
    return kernel.attend_windows(qkv, bias, mask, scale)[0]


def corners(sides: Sides, window: Sides, stride: Sides) -> Iterator[Sides]:
    axes = zip(sides, window, stride, strict=True)
    return product(*(range(0, side - size + 1, step) for side, size, step in axes))


def one_by_one(qkv: Tensor, window: Sides, stride: Sides, scale: float = 0.8) -> Tensor:
    """The sum over overlapping windows of [B, H, W, 3, heads, d], one window after the other."""
    y = qkv.new_zeros(*qkv.shape[:3], *qkv.shape[4:])
    for top, left in corners(tuple(qkv.shape[1:3]), window, stride):
        here = (slice(None), slice(top, top + window[0]), slice(left, left + window[1]))
        y[here] += dense(qkv[here].flatten(1, 2), scale=scale).unflatten(1, window)
    return y


def attend_overlapping(qkv: Tensor, window: Sides, stride: Sides, scale: float = 0.8) -> Tensor:
    return overlap.attend_overlapping(qkv, list(window), list(stride), scale)[0]


def walls(period: int | None, tokens: int) -> Tensor | None:
    """Masks [P, M, M] of which a third is -inf, but never from a token to itself."""
    if period is None:
        return None
    mask = drawn(period, tokens, tokens, seed=5)
    return mask.masked_fill((mask > 0.4) & ~torch.eye(tokens, dtype=torch.bool), -torch.inf)


def outcome(function: Callable[..., Tensor], *leaves: Tensor | None, rounded: Any = torch.float64) -> list[Tensor]:
    """What a function of the leaves gives, and the gradients of a sum of it, with weights rounded so, to each."""
    held = [None if leaf is None else leaf.detach().requires_grad_() for leaf in leaves]
    y = function(*held)
    weights = drawn(*y.shape, seed=9).to(rounded).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [leaf for leaf in held if leaf is not None])]


def agree(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def within(found: list[Tensor], exact: list[Tensor], dtype: torch.dtype, roundings: float = 1) -> None:
    """Asserts a dtype, and that it cost no more than so many roundings of the result, beside float32's own."""
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == dtype
        bound = roundings * torch.finfo(dtype).eps / 2 * other.abs() * 1.01 + 4e-6
        assert bool(((one.double() - other).abs() <= bound).all())


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
def test_stretches_that_divide_neither_windows_nor_periods_change_no_bit(stretch, tokens, at_once):
    qkv, bias = drawn(2 * WINDOWS, tokens, 3, 2, 5), drawn(2, tokens, tokens, seed=1)
    for period, table in product([*PERIODS, 8], (None, bias)):
        mask = walls(period, tokens)
        stretch(2**18)
        whole = outcome(lambda qkv, bias, mask=mask: attend(qkv, bias, mask), qkv, table)
        stretch(at_once * qkv[0].numel() // 3)
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
def test_a_stretch_holds_whole_periods_of_masks_or_a_part_of_one(stretch, at_once, period, sizes):
    qkv, mask = drawn(WINDOWS, 2, 3, 1, 4), walls(period, 2)
    stretch(at_once * 2 * 4)
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


@pytest.mark.parametrize("window", [[2, 2], [3, 2]])
def test_overlapping_operators_keep_the_rules_of_torch(window):
    qkv = drawn(2, 5, 6, 3, 2, 5).requires_grad_()
    torch.library.opcheck(overlap.attend_overlapping, (qkv, window, [1, 2], 0.8))
    y, softmax = overlap.attend_overlapping(qkv, window, [1, 2], 0.8)
    arguments = (torch.ones_like(y), qkv.detach(), softmax.detach(), window, [1, 2], 0.8)
    torch.library.opcheck(overlap.attend_overlapping_backward, arguments)


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


@pytest.mark.parametrize("at_once", [2**18, 1, 50])
@OVERLAP
def test_overlapping_windows_are_those_cut_one_by_one(stretch, at_once, window, stride, shape):
    stretch(at_once)
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
