"""Whether a mechanism computes below the type that it is given: then its rounding is that of the lower type."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnbench.contract.slots import Slot

DOUBLE, SINGLE = 64, 32  # bits
LOWER_NEAR = 1e-4  # relative error that roundings in float32 explain


class Lowering(TorchDispatchMode):
    """Notes the fewest bits of a floating number that an operation makes of float64."""

    def __init__(self):
        super().__init__()
        self.bits = DOUBLE

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        came = [bits(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if DOUBLE in came:
            self.bits = min([self.bits, *(bits(one) for one in tree_leaves(result) if isinstance(one, Tensor))])
        return result


def bits(tensor: Tensor) -> int:
    """Of a real number in it; more than any has for what is none, as an index is."""
    kind = tensor.dtype
    return torch.finfo(kind).bits if kind.is_floating_point or kind.is_complex else 2 * DOUBLE


def lowest(slot: Slot) -> int:
    """Bits of the lowest floating type in which it computes what came in float64."""
    module, x, lowering = slot.perturbed().double(), slot.tokens(batch=1, dtype=torch.float64), Lowering()
    with torch.no_grad(), lowering:
        module(x)
    return lowering.bits


def within(slot: Slot, near: float) -> tuple[float, str]:
    """The bound that an error in float64 has to keep, and what to say of it: wider where it computes in float32."""
    if lowest(slot) == DOUBLE:
        return near, ""
    return max(near, LOWER_NEAR), f", {LOWER_NEAR:g} allowed, for it computes below float64"
