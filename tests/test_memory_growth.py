"""No mechanism makes a larger tensor than its order allows, forward and backward, at any moment."""

from dataclasses import replace
from math import isqrt, log2
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mechanisms
from tests.slots import SLOTS, Slot, label

EXPONENT = {"0": 1.0, "N": 1.0, "N log N": 1.0 + log2(16 / 14) / 2, "N^1.5": 1.5, "N^2": 2.0}


class Largest(TorchDispatchMode):
    """Watches every tensor that an operation returns; how many numbers the largest has in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                real = [side for side, step in zip(tensor.shape, tensor.stride(), strict=True) if step]
                self.numbers = max(self.numbers, torch.Size(real).numel())
        return found


def largest(slot: Slot, tokens: int) -> int:
    """Of a forward and backward pass over one example, on the meta device."""
    shape = (isqrt(tokens), isqrt(tokens)) if slot.setting == "grid" else (tokens,)
    with torch.device("meta"):
        module = mechanisms.build(slot.name, replace(slot.site, shape=shape), **slot.knobs)
        x = torch.empty(1, *shape, slot.site.channels, requires_grad=True)
        with Largest() as watch:
            module(x).sum().backward()
    return watch.numbers


@pytest.mark.parametrize("slot", SLOTS, ids=label)
def test_the_largest_tensor_grows_no_faster_than_the_order(slot):
    entry = mechanisms.find(slot.name)
    order = entry.order_at(slot.site, mechanisms.configure(entry.config, slot.knobs, of=slot.name))
    small, large = (largest(slot, 2**power) for power in (14, 16))
    assert log2(large / small) / 2 <= EXPONENT[order] + 0.05
