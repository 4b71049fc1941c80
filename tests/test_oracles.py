"""Every mechanism equals its slow form: outputs and all gradients in float64, and within rounding below that.

The slow forms and the places where they are compared lie in attnbench/oracles; a new file there is tested by existing.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import mechanisms
from attnbench import oracles
from attnbench.oracles import Case, Oracle, Weights

OWN = [name for name in mechanisms.names() if mechanisms.find(name).reference is None]


class Held(NamedTuple):
    """A mechanism at one of the places where it is compared."""

    name: str
    case: Case

    @property
    def oracle(self) -> Oracle:
        module = oracles.find(self.name)
        assert module is not None
        config = mechanisms.configure(mechanisms.find(self.name).config, self.case.knobs, of=self.name)
        return module.oracle(self.case.site, config)

    def built(self) -> nn.Module:
        """In float64, with weights large enough that no softmax is flat and no bias or table is zero."""
        torch.manual_seed(0)  # for what is drawn once and stays, such as random features
        module = mechanisms.build(self.name, self.case.site, **self.case.knobs).double().eval()
        generator = torch.Generator().manual_seed(1)
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            size = max(fan_in, 4) ** -0.5
            parameter.data = 1.5 * size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        return module

    def drawn(self, batch: int = 1) -> Tensor:
        shape = (batch, *self.case.site.shape, self.case.site.channels)
        return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def held(name: str) -> list[Held]:
    module = oracles.find(name)
    return [] if module is None else [Held(name, case) for case in module.CASES]


HELD = [one for name in OWN for one in held(name)]
each_case = pytest.mark.parametrize("one", HELD, ids=lambda one: f"{one.name}-{one.case.label}")


def weights_of(module: nn.Module) -> Weights:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def gradients(output: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Of a fixed random functional of the output, so that no entry of the output weighs like another."""
    towards = torch.randn(output.shape, generator=torch.Generator().manual_seed(3), dtype=output.dtype)
    found = torch.autograd.grad(output, leaves, towards, allow_unused=True)
    return [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]


@pytest.mark.parametrize("name", OWN)
def test_every_mechanism_is_held_to_a_slow_form_in_every_setting_it_fits(name):
    assert {one.case.site.setting for one in held(name)} == mechanisms.find(name).fits


@each_case
def test_output_and_every_gradient_equal_the_slow_form(one):
    module, x = one.built(), one.drawn().requires_grad_()
    oracle, weights = one.oracle, weights_of(module)
    named = dict(module.named_parameters())
    leaves = [x, *named.values()]
    expected = torch.stack([oracle(weights, sample) for sample in x])
    output = module(x)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-11)
    wanted = gradients(expected, leaves)
    # A key's bias has gradient zero under softmax; only beside the largest entry is its rounding noise small.
    noise = 1e-10 * max(float(gradient.abs().max()) for gradient in wanted)
    for name, got, want in zip(["x", *named], gradients(output, leaves), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=noise, msg=lambda text, name=name: f"{name}: {text}")


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_lower_precision_stays_within_rounding(one, dtype):
    """Tolerance from conditioning: how far the slow form's output moves when x and all weights move by one rounding.

    About ten operations follow each other, each at most a sum of 100 or so terms, whose roundings add up like the
    square root of their number: hence 10 x sqrt(100) times the larger of two such moves.
    """
    module, x = one.built(), one.drawn()
    x = x.to(dtype).double()
    module = module.to(dtype).double()
    oracle, weights = one.oracle, weights_of(module)
    exact = torch.stack([oracle(weights, sample) for sample in x]).detach()
    moved = 0.0
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        named = dict(module.named_parameters())
        nearby = {**weights, **{name: jittered(tensor.detach(), generator, dtype) for name, tensor in named.items()}}
        output = torch.stack([oracle(nearby, sample) for sample in jittered(x, generator, dtype)])
        moved = max(moved, float((output - exact).abs().max()))
    error = float((module.to(dtype)(x.to(dtype)).detach().double() - exact).abs().max())
    assert error <= 100 * moved


def jittered(tensor: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Every number moved by at most one rounding of the type."""
    if not tensor.is_floating_point():
        return tensor
    step = torch.finfo(dtype).eps * (2 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) - 1)
    return tensor * (1 + step)
