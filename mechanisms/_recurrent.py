"""Sums over the past in parallel: tokens cut into chunks, and the state that stands before each chunk.

Every state is made of earlier chunks alone and never as an inclusive sum minus the chunk itself: the rounding of that
difference would depend on the future.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Apply = Callable[[Tensor, Tensor], Tensor]  # a decay to a state, or a decay to an earlier decay


def chunked(tokens: Tensor, size: int) -> Tensor:
    """Tokens [b, h, n, ...] as [b, h, chunks, size, ...]; the last chunk is filled up with zeros."""
    behind = [0, 0] * (tokens.ndim - 3)
    return F.pad(tokens, (*behind, 0, -tokens.shape[2] % size)).unflatten(2, (-1, size))


def running_sums(chunks: Tensor) -> Tensor:
    """Sums [b, h, chunks, ...] over the chunks before each one."""
    sums = chunks.cumsum(2)
    return torch.cat([torch.zeros_like(sums[:, :, :1]), sums[:, :, :-1]], 2)


def states(decay: Tensor, added: Tensor, apply: Apply) -> Tensor:
    """The state before each chunk [b, h, chunks, d, e]; a chunk turns a state S into apply(its decay, S) + added.

    Neighbours are joined to pairs, the states before pairs are found by the same rule, and a pair's second chunk
    follows from its first: work in proportion to the chunks, in twice log2 of their number steps.
    """
    chunks = added.shape[2]
    if chunks == 1:
        return torch.zeros_like(added)
    pairs = chunks // 2 * 2
    first, second = decay[:, :, :pairs:2], decay[:, :, 1::2]
    first_added, second_added = added[:, :, :pairs:2], added[:, :, 1::2]
    joined, joined_added = apply(second, first), apply(second, first_added) + second_added
    if chunks > pairs:  # the last one has no partner, and nothing after it asks for its state
        joined = torch.cat([joined, decay[:, :, pairs:]], 2)
        joined_added = torch.cat([joined_added, added[:, :, pairs:]], 2)
    before = states(joined, joined_added, apply)
    inside = apply(first, before[:, :, : pairs // 2]) + first_added
    both = torch.stack([before[:, :, : pairs // 2], inside], 3).flatten(2, 3)
    return torch.cat([both, before[:, :, pairs // 2 :]], 2)
