"""Every mechanism equals its slow reference: outputs and all gradients, in float64 and within rounding in float32."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import mechanisms
from attnbench.models._timm import timm
from mechanisms import Site
from tests.oracles import dense, fma, linear, mano, swin
from tests.oracles.dense import Weights

Oracle = Callable[[Weights, Tensor], Tensor]  # weights by name, one sample [*grid, C] -> [*grid, C]
CHANNELS, HEADS = 6, 2


class Case(NamedTuple):
    """A mechanism with its knobs at a site, and the reference that must agree with it."""

    name: str
    knobs: dict[str, Any]
    site: Site
    oracle: Oracle

    @property
    def label(self) -> str:
        shape = "x".join(map(str, self.site.shape)) + ("c" if self.site.causal else "") + "b" * (self.site.block % 2)
        return "-".join(
            [self.name, shape, *(f"{knob}{value}" for knob, value in self.knobs.items() if knob != "heads")]
        )


def at(*shape: int, causal: bool = False, block: int = 0) -> Site:
    return Site(channels=CHANNELS, shape=shape, causal=causal, block=block)


def case_full(site: Site) -> Case:
    return Case("full", {}, site, lambda w, x: dense.full(x, w, heads=HEADS, causal=site.causal))


def case_linear(site: Site, feature: str) -> Case:
    def oracle(weights: Weights, sample: Tensor) -> Tensor:
        if site.causal and site.tokens > 64:  # more than a chunk: pairs would take long, and the two forms are compared
            return linear.recurrent(sample, weights, heads=HEADS, feature=feature)
        return linear.quadratic(sample, weights, heads=HEADS, feature=feature, causal=site.causal)

    return Case("linear", {"feature": feature}, site, oracle)


def case_swin(site: Site, *, window: int, shift: int, position: str = "relative", pad: bool = False) -> Case:
    """shift is the number of tokens expected of this block on both axes."""

    def oracle(weights: Weights, sample: Tensor) -> Tensor:
        table = weights["bias"] if position == "relative" else None
        return swin.swin(sample, weights, heads=HEADS, window=window, shift=shift, table=table)

    return Case("swin", {"window": window, "position": position, "pad": pad}, site, oracle)


def case_fma(site: Site, *, cell: int, rank: int, basis: str = "grouped", size_weight: bool = True) -> Case:
    summarise = fma.average(rank)

    def oracle(weights: Weights, sample: Tensor) -> Tensor:
        learned = fma.grouped(weights, lambda kind, level: f"{kind}_filters.{level - 1}", rank)
        basis_now = learned if basis == "grouped" else summarise
        return fma.fma(sample, weights, heads=HEADS, cell=cell, summarise=basis_now, size_weight=size_weight)

    return Case("fma", {"cell": cell, "rank": rank, "basis": basis, "size_weight": size_weight}, site, oracle)


def case_mano(site: Site, *, window: int, levels: int, **knobs: Any) -> Case:
    rate, stride = knobs.get("rate", 2), knobs.get("stride", window)
    combine = mano.COMBINE[knobs.get("combine", "sum")]

    def oracle(weights: Weights, sample: Tensor) -> Tensor:
        learned_down = levels > 1 and knobs.get("downsample", "conv") == "conv"
        learned_up = levels > 1 and knobs.get("upsample", "transposed") == "transposed"
        return combine(
            sample,
            attend=lambda grid: mano.windows(grid, weights, heads=HEADS, window=window, stride=stride),
            down=mano.convolve(weights["down.weight"]) if learned_down else mano.mean_of_blocks(rate),
            up=mano.spread(weights["up.weight"]) if learned_up else mano.copies(rate),
            levels=levels,
        )

    return Case("mano", {"window": window, "levels": levels, **knobs}, site, oracle)


CASES = [
    Case("identity", {}, at(4, 4), lambda _, x: x),
    case_full(at(7)),
    case_full(at(7, causal=True)),
    case_full(at(3, 4)),
    *(case_linear(site, feature) for site in (at(9), at(9, causal=True), at(3, 3)) for feature in linear.FEATURES),
    case_linear(at(131, causal=True), "elu"),
    case_swin(at(4, 6), window=2, shift=0),
    case_swin(at(6, 9, block=1), window=3, shift=1),
    case_swin(at(8, 8, block=1), window=4, shift=2),
    case_swin(at(8, 8, block=1), window=4, shift=2, position="none"),
    case_swin(at(4, 4, block=1), window=4, shift=0),
    case_swin(at(7, 5), window=3, shift=0, pad=True),
    case_swin(at(7, 5, block=1), window=3, shift=1, pad=True),
    case_swin(at(7, 6, block=1), window=4, shift=2, pad=True),
    case_swin(at(3, 3, block=1), window=4, shift=0, pad=True),
    case_fma(at(4, 4), cell=4, rank=4),
    case_fma(at(8, 8), cell=4, rank=4),
    case_fma(at(8, 8), cell=2, rank=3),
    case_fma(at(8, 8), cell=1, rank=1),
    case_fma(at(8, 8), cell=2, rank=2, size_weight=False),
    case_fma(at(8, 8), cell=2, rank=4, basis="average"),
    case_fma(at(8, 8), cell=2, rank=1, basis="average", size_weight=False),
    case_fma(at(16, 16), cell=2, rank=2),
    case_fma(at(16, 16), cell=2, rank=4, basis="average"),
    case_fma(at(12, 12), cell=3, rank=2),
    case_mano(at(4, 6), window=2, levels=1),
    case_mano(at(4, 4), window=2, levels=1, stride=1),
    case_mano(at(7, 5), window=3, levels=1, stride=2),
    case_mano(at(8, 12), window=2, levels=2),
    case_mano(at(8, 8), window=2, levels=3),
    case_mano(at(8, 8), window=2, levels=3, combine="published"),
    case_mano(at(16, 16), window=2, levels=4, combine="published"),
    case_mano(at(8, 8), window=2, levels=3, stride=1),
    case_mano(at(9, 9), window=3, levels=2, rate=3),
    case_mano(at(8, 8), window=2, levels=2, downsample="average"),
    case_mano(at(8, 8), window=2, levels=2, upsample="nearest"),
    case_mano(at(8, 8), window=2, levels=3, downsample="average", upsample="nearest", combine="published"),
]
each_case = pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])


def built(case: Case) -> nn.Module:
    """In float64, with weights large enough that no softmax is flat and no bias or table is zero."""
    knobs = case.knobs if case.name == "identity" else {"heads": HEADS, **case.knobs}
    module = mechanisms.build(case.name, case.site, **knobs).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        size = max(fan_in, 4) ** -0.5
        parameter.data = 1.5 * size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def drawn(case: Case, batch: int = 1) -> Tensor:
    shape = (batch, *case.site.shape, CHANNELS)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def gradients(output: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a fixed random functional of the output, so that no entry of the output weighs like another."""
    towards = torch.randn(output.shape, generator=torch.Generator().manual_seed(3), dtype=output.dtype)
    return torch.autograd.grad(output, leaves, towards)


@each_case
def test_output_and_every_gradient_equal_the_reference(case):
    module, x = built(case), drawn(case).requires_grad_()
    weights = dict(module.named_parameters())
    leaves = [x, *weights.values()]
    expected = torch.stack([case.oracle(weights, sample) for sample in x])
    output = module(x)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-11)
    wanted = gradients(expected, leaves)
    # A key's bias has gradient zero under softmax; only beside the largest entry is its rounding noise small.
    noise = 1e-10 * max(float(gradient.abs().max()) for gradient in wanted)
    for name, got, want in zip(["x", *weights], gradients(output, leaves), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=noise, msg=lambda text, name=name: f"{name}: {text}")


@each_case
def test_float32_stays_within_rounding(case):
    """Tolerance from conditioning: how far the reference's output moves when x and all weights move by one rounding.

    About ten operations follow each other, each at most a sum of 100 or so terms, whose roundings add up like the
    square root of their number: hence 10 x sqrt(100) times the larger of two such moves.
    """
    module, x = built(case), drawn(case)
    x = x.float().double()
    for parameter in module.parameters():
        parameter.data = parameter.data.float().double()
    weights = dict(module.named_parameters())
    exact = torch.stack([case.oracle(weights, sample) for sample in x]).detach()
    moved = 0.0
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        nearby = {name: jittered(tensor.detach(), generator) for name, tensor in weights.items()}
        output = torch.stack([case.oracle(nearby, sample) for sample in jittered(x, generator)])
        moved = max(moved, float((output - exact).abs().max()))
    error = float((module.float()(x.float()).detach().double() - exact).abs().max())
    assert error <= 100 * moved


def jittered(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Every number moved by at most one float32 rounding."""
    step = torch.finfo(torch.float32).eps * (2 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) - 1)
    return tensor * (1 + step)


def test_the_references_of_linear_attention_agree():
    """Pair by pair and token by token are the same sum."""
    module, x = built(CASES[1]), drawn(CASES[1])[0]
    weights = dict(module.named_parameters())
    for feature in linear.FEATURES:
        one = linear.quadratic(x, weights, heads=HEADS, feature=feature, causal=True)
        other = linear.recurrent(x, weights, heads=HEADS, feature=feature)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size_weight", [True, False])
def test_the_fma_reference_with_a_basis_that_loses_nothing_is_softmax_attention(size_weight):
    """So its near and far lists cover every pair once, on two far levels here."""
    module, x = built(case_full(at(8, 8))), drawn(case_full(at(8, 8)))[0]
    weights = dict(module.named_parameters())
    exact = fma.fma(x, weights, heads=HEADS, cell=1, summarise=fma.every_token, size_weight=size_weight)
    torch.testing.assert_close(exact, dense.full(x, weights, heads=HEADS), rtol=1e-12, atol=1e-13)


def timm_block() -> Any:
    """Swin's block as timm has it, imported late, for that takes seconds."""
    timm()
    from timm.models.swin_transformer import SwinTransformerBlock

    return SwinTransformerBlock


@pytest.mark.parametrize("shift", [0, 2])
def test_the_swin_reference_agrees_with_timm(shift):
    block = timm_block()(CHANNELS, (8, 8), num_heads=HEADS, window_size=4, shift_size=shift).double()
    table = torch.randn((7**2, HEADS), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    block.attn.relative_position_bias_table.data = table
    fused_weight, fused_bias = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
    weights = {f"{name}.weight": fused_weight[i] for i, name in enumerate("qkv")}
    weights |= {f"{name}.bias": fused_bias[i] for i, name in enumerate("qkv")}
    weights |= {"out.weight": block.attn.proj.weight, "out.bias": block.attn.proj.bias}
    x = drawn(case_swin(at(8, 8), window=4, shift=shift))
    reference = swin.swin(x[0], weights, heads=HEADS, window=4, shift=shift, table=table)
    torch.testing.assert_close(block._attn(x)[0], reference, rtol=1e-9, atol=1e-11)
