"""Tokens in another order: one pass forward, and one backward, which a gather's own gradient would not be."""

from typing import Any

import torch
from torch import Tensor


class Reorder(torch.autograd.Function):
    """Tokens [B, N, C] and a permutation [N] to tokens in its order; `inverse` is the permutation that undoes it."""

    @staticmethod
    def forward(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        del inverse
        return x.index_select(1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return reorder(dy[0], inverse, order), None, None


def reorder(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    found: Tensor = Reorder.apply(x, order, inverse)  # type: ignore[assignment]  # torch gives apply no type
    return found
