"""Symmetries, told as facts: whether moving the tokens moves the output and does nothing else."""

import torch

from attnbench.contract.slots import Finding, Slot, apart

HOLDS = 1e-10  # relative error in float64


def permutation(slot: Slot) -> Finding:
    if slot.site.causal:
        return Finding("not applicable", "a causal mechanism knows the order of its tokens")
    module, x = slot.perturbed().double(), slot.tokens(dtype=torch.float64)
    order = torch.randperm(slot.site.tokens, generator=torch.Generator().manual_seed(3))

    def moved(some: torch.Tensor) -> torch.Tensor:
        return some.flatten(1, -2)[:, order].view_as(some)

    return told(apart(module(moved(x)), moved(module(x))), "permuted tokens give permuted outputs")


def shift(slot: Slot) -> Finding:
    """Round the edges, by one token along the last axis of the grid."""
    if slot.site.causal:
        return Finding("not applicable", "a causal mechanism has a first token")
    module, x = slot.perturbed().double(), slot.tokens(dtype=torch.float64)
    return told(
        apart(module(x.roll(1, -2)), module(x).roll(1, -2)),
        "tokens shifted by one, round the edge, give shifted outputs",
    )


def told(error: float, claim: str) -> Finding:
    return Finding("fact", f"{'holds' if error < HOLDS else 'does not hold'}: {claim}", error)
