"""How far a mechanism is from full attention with the same weights, before any training: a number, never a verdict."""

import torch
from torch import Tensor, nn

from attnbench.contract.slots import Finding, Slot, apart
from mechanisms import build

SHARED = ("q", "k", "v", "out")


def distance(slot: Slot) -> Finding:
    """Relative error of the output on random tokens and on smooth ones."""
    module = slot.build().double()
    heads = getattr(slot.config, "heads", 1)
    mine = dict(module.named_parameters())
    names = [f"{part}.{kind}" for part in SHARED for kind in ("weight", "bias")]
    if slot.site.channels % heads or not all(name in mine for name in names):
        return Finding("not applicable", "it has not the projections q, k, v and out of full attention")
    full = build("full", slot.site, heads=heads).double().eval()
    if any(mine[name].shape != dict(full.named_parameters())[name].shape for name in names):
        return Finding("not applicable", "its projections have other shapes than those of full attention")
    full.load_state_dict({name: mine[name].detach() for name in names})
    random, smooth = (error(module, full, x) for x in (slot.tokens(dtype=torch.float64), waves(slot)))
    about = f"relative error against full attention with its weights: random tokens {random:.2g}, smooth {smooth:.2g}"
    return Finding("fact", about, random)


def error(module: nn.Module, full: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return apart(module(x), full(x))


def waves(slot: Slot) -> Tensor:
    """Tokens [2, *grid, C] whose every channel is a slow random wave over the grid."""
    generator = torch.Generator().manual_seed(4)
    axes = torch.meshgrid(*(torch.linspace(0, 1, side, dtype=torch.float64) for side in slot.site.shape), indexing="ij")
    phase = 6.3 * torch.rand((2, slot.site.channels), generator=generator, dtype=torch.float64)
    speed = 6.3 * torch.rand((len(axes), 2, slot.site.channels), generator=generator, dtype=torch.float64)
    angle = phase.view(2, *[1] * len(axes), -1)
    for axis, rate in zip(axes, speed, strict=True):
        angle = angle + axis[None, ..., None] * rate.view(2, *[1] * len(axes), -1)
    return 1.4 * angle.sin()
