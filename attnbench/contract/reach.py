"""Gradients: what they say of who sees whom, that they reach every weight, and that they are derivatives."""

from dataclasses import replace

import torch
from torch import Tensor

from attnbench.contract.precision import DOUBLE, SINGLE, lowest
from attnbench.contract.slots import Finding, Slot, judged

COPIES = 64  # of the tokens in one backward pass
STEP, NEAR = 1e-6, 1e-5  # of a central difference in float64, and the relative error that its rounding explains
SINGLE_STEP, SINGLE_NEAR = 1e-3, 1e-2  # where a part is computed in float32
SEEDS = (7, 8, 9)
SILENT = "k.bias"  # it moves all of a query's scores alike, and softmax does not see that


def seen(slot: Slot, tokens: list[int]) -> Tensor:
    """Whether token j enters output i, for those i and every j: output i of copy i, so that one pass tells many."""
    module, n = slot.perturbed().double(), slot.site.tokens
    mark, rows = slot.tokens(batch=1, seed=1, dtype=torch.float64).reshape(n, -1), []
    for some in (tokens[first : first + COPIES] for first in range(0, len(tokens), COPIES)):
        x = slot.tokens(batch=1, dtype=torch.float64).expand(len(some), *slot.site.shape, -1).clone().requires_grad_()
        y = module(x).reshape(len(some), n, -1)
        picked = (y[torch.arange(len(some)), torch.tensor(some)] * mark[some]).sum()
        (gradient,) = torch.autograd.grad(picked, x)
        rows.append(gradient.reshape(len(some), n, -1).abs().sum(-1) > 0)
    return torch.cat(rows)


def reach(slot: Slot) -> Finding:
    """For every pair of tokens at its own knobs; for some forty tokens in odd blocks and where a choice is changed."""
    n = slot.site.tokens
    tokens = list(range(n)) if not (slot.added or slot.site.block) else sampled(n)
    found, places = seen(slot, tokens), torch.tensor(tokens)
    allowed = torch.arange(n) <= places[:, None] if slot.site.causal else torch.ones(len(tokens), n, dtype=torch.bool)
    if (found & ~allowed).any():
        i, j = (found & ~allowed).nonzero()[0].tolist()
        return Finding("fail", f"the gradient of token {tokens[i]} comes from token {j}, its future", float(j))
    itself = torch.arange(n) == places[:, None]
    word = "global" if found.equal(allowed) else "token" if not (found & ~itself).any() else "local"
    declared = slot.entry.reach_at(slot.site, slot.config)
    share, most = float(found.sum() / allowed.sum()), int(found.sum(-1).max())
    about = f"one layer reaches {word}, a token sees at most {most}"
    if declared is None:
        return Finding("fact", f"{about}; nothing is declared; share of allowed pairs", share)
    return judged(word == declared, f"{about}, declared {declared}; share of allowed pairs", share)


def quick_reach(slot: Slot) -> Finding:
    """The same, for at most forty tokens."""
    return reach(replace(slot, added={"tokens": "some"}))


def sampled(n: int) -> list[int]:
    """The first and last tokens, those around where chunks of 64 meet, and some between."""
    wanted = [*range(4), 31, 32, 62, 63, 64, 65, 66, 100, 127, 128, 129, n - 2, n - 1, *range(0, n, max(1, n // 20))]
    return sorted({token for token in wanted if 0 <= token < n})


def gradients(slot: Slot) -> Finding:
    """Finite, and none that no token and no number of the output asks for."""
    module, x = slot.perturbed(), slot.tokens().requires_grad_()
    y = module(x)
    if not y.requires_grad:
        return Finding("fail", "no gradient passes: the output does not depend on the input through torch's operations")
    (y * slot.tokens(seed=1)).sum().backward()
    reached = {"the input": x.grad, **{name: weight.grad for name, weight in module.named_parameters()}}
    for name, gradient in reached.items():
        if gradient is not None and not gradient.isfinite().all():
            return Finding("fail", f"the gradient of {name} is not finite")
        if name != SILENT and (gradient is None or not gradient.any()):
            return Finding("fail", f"no gradient reaches {name}")
    return judged(True, f"gradients reach the input and all {len(reached) - 1} parameters", float(len(reached) - 1))


def derivative(slot: Slot) -> Finding:
    """Along random directions of tokens and weights, against a central difference in float64.

    The best of a few places counts: where tokens are sorted or put into clusters, one of them may cross a boundary.
    """
    bits, about = lowest(slot), "gradient against a central difference in float64"
    if bits < SINGLE:
        return Finding("fact", f"it computes in {bits} bits within, too coarse for a central difference")
    if bits < DOUBLE:
        error = min(mismatch(slot, seed, SINGLE_STEP) for seed in SEEDS)
        about = f"{about}, of which it computes a part in float32: step {SINGLE_STEP:g}, relative error"
        return judged(error < SINGLE_NEAR, about, error)
    error = min(mismatch(slot, seed, STEP) for seed in SEEDS)
    return judged(error < NEAR, f"{about}, relative error", error)


def mismatch(slot: Slot, seed: int, size: float) -> float:
    """Relative error of the slope that the gradient tells, along one direction from one place."""
    module, x = slot.perturbed(seed).double(), slot.tokens(batch=1, seed=seed, dtype=torch.float64)
    leaves = [x, *(weight.data for weight in module.parameters())]
    generator = torch.Generator().manual_seed(seed)
    ways = [torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf.dtype) for leaf in leaves]
    mark = slot.tokens(batch=1, seed=1, dtype=torch.float64)

    def value(step: float) -> Tensor:
        for leaf, way in zip(leaves, ways, strict=True):
            leaf.add_(way, alpha=step)
        with torch.no_grad():
            return (module(x) * mark).sum()

    start, weights = x.clone().requires_grad_(), list(module.parameters())
    found = torch.autograd.grad((module(start) * mark).sum(), [start, *weights], allow_unused=True)
    told = sum(float((one * way).sum().real) for one, way in zip(found, ways, strict=True) if one is not None)
    up = value(size)
    down = value(-2 * size)
    slope = float(up - down) / (2 * size)
    return abs(told - slope) / max(abs(slope), 1e-3)
