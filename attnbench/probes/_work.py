"""The work and the least traffic of a step, from shapes alone: what a roofline is read with.

Work is counted on the meta device, forward and backward where a step has both, of the whole batch. Traffic is
compulsory: every token, weight and gradient that a step needs or leaves, moved once, and nothing in between; what a
mechanism moves beyond that is its own affair, and shows as a small share of the limit.
"""

from math import nan
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from attnbench.cell import Spec
from attnbench.flops import formulas
from attnbench.models import counted
from attnbench.probes._expand import built, site_of

CAUSAL = 5  # place of is_causal among the arguments of fused attention
FUSED = torch.nn.functional.scaled_dot_product_attention


class Hidden(TorchFunctionMode):
    """Notes what fused attention leaves out where only earlier tokens are seen: half of its two products."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is FUSED and (given.get("is_causal") or (len(args) > CAUSAL and args[CAUSAL])):
            q, k, v = args[:3]
            self.flops += q[..., 0].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return func(*args, **given)


def work(spec: Spec) -> tuple[float, str]:
    """Operations of matrix products and FFTs in one step of a cell, a multiply-add as two; fused causal attention
    counts half, for its kernels leave out what the mask hides.

    Where it cannot be counted, nan and the reason. Raises ValueError for weights without counted work.
    """
    name, knobs = counted((spec["mechanism"]["name"], spec["mechanism"]["knobs"]))
    site, both = site_of(spec), spec["pass"] == "both"
    try:
        with torch.device("meta"):
            module = built({**spec, "mechanism": {"name": name, "knobs": knobs}})().train(both)
            tokens = torch.empty(spec["batch"], *site.shape, site.channels, requires_grad=both)
            with Hidden() as hidden, FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
                passed(module, tokens, both=both)
    except ValueError:
        raise
    except Exception as error:  # whatever a mechanism does that the meta device cannot, it may run well elsewhere
        return nan, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    flops = counter.get_total_flops() - (3 if both else 1) * hidden.flops
    if not flops and any(True for _ in module.parameters()):
        raise ValueError(f"{spec['mechanism']['name']} has weights and no work that the counter sees.")
    return float(flops), ""


def passed(module: nn.Module, tokens: Tensor, *, both: bool) -> None:
    """One pass, with gradients of tokens and weights where it goes back too."""
    if not both:
        with torch.no_grad():
            module(tokens)
        return
    y = module(tokens)
    y.backward(torch.empty_like(y))


def traffic(module: nn.Module, tokens: Tensor, *, both: bool) -> int:
    """Bytes that one step must move: tokens and weights read, tokens written; with a backward pass tokens, weights and
    the gradient of the output read again, and gradients of tokens and weights written.

    Nothing for a module that hands its tokens on as they are.
    """
    with torch.no_grad():
        y = module(tokens)
    if y.data_ptr() == tokens.data_ptr():
        return 0
    weights = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    read, written = size(tokens), size(y)
    forward = weights + read + written
    return forward + (2 * weights + 2 * read + written if both else 0)


def size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
