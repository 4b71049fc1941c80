"""A correct mechanism of one's own in one file, with its slow form, and what can be wrong with one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mechanisms
from mechanisms import Mechanism

HONEST = '''"""Mine: every token reads a softmax over the last few tokens, itself included.

Beltagy et al., "Longformer", 2020. https://arxiv.org/abs/2004.05150
Work N^2, for the window is a mask here.
Departs from the paper: no global tokens, no dilation.
"""

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import nn

from attnbench.oracles import Case, at
from mechanisms import Knobs, Site, Tokens, register


class Config(Knobs):
    heads: PositiveInt = 2
    """number of heads; divides the channels"""
    window: PositiveInt = 8
    """how many tokens one token sees, itself included"""
    gated: bool = False
    """whether a learned gate opens and closes the output"""


@register("mine", Config, fits=("causal",), order="N^2", reach="local")
class Mine(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        if site.channels % config.heads:
            raise ValueError(f"mine.heads must divide the {site.channels} channels; got {config.heads}.")
        self.heads, self.window, self.gated = config.heads, config.window, config.gated
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b n (h d) -> b h n d", h=self.heads) for p in (self.q, self.k, self.v))
        place = torch.arange(x.shape[1], device=x.device)
        back = place[:, None] - place
        seen = (back >= 0) & (back < self.window)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf).softmax(-1)
        y = rearrange(weights @ v, "b h n d -> b n (h d)")
        y = y * y.sigmoid() if self.gated else y
        return self.out(y)


CASES = [Case(at(10, causal=True), {"window": window}) for window in (1, 3)]


def oracle(site, config):
    def slow(weights, sample):
        q, k, v = (sample @ weights[f"{name}.weight"].T + weights[f"{name}.bias"] for name in "qkv")
        rows, size = [], site.channels // config.heads
        for i in range(len(sample)):
            past, heads = slice(max(0, i + 1 - config.window), i + 1), []
            for h in range(config.heads):
                mine = slice(h * size, (h + 1) * size)
                chances = torch.softmax(k[past, mine] @ q[i, mine] / size**0.5, 0)
                heads.append(chances @ v[past, mine])
            rows.append(torch.cat(heads))
        y = torch.stack(rows)
        y = y * y.sigmoid() if config.gated else y
        return y @ weights["out.weight"].T + weights["out.bias"]

    return slow
'''
LAST = "        return self.out(y)\n"
BUILT = "        self.q, self.k"

# what is changed, into what, and the lines of the card that must be red
FAULTS: dict[str, tuple[str, str, set[str]]] = {
    "a leak of one token": ("back >= 0", "back >= -1", {"causality", "reach", "slow form"}),
    "a leak where chunks of 64 meet": (
        LAST,
        "        if y.shape[1] > 64:\n"
        "            y = torch.cat([y[:, :63], y[:, 63:64] + 1e-3 * y[:, 64:65], y[:, 64:]], 1)\n" + LAST,
        {"causality", "reach"},
    ),
    "a leak behind a switch": (
        "y = y * y.sigmoid() if self.gated else y\n        return",
        "y = y * y.sigmoid() + 1e-3 * y.roll(-1, 1) if self.gated else y\n        return",
        {"causality", "reach"},
    ),
    "a leak across the batch": (LAST, "        y = y + 1e-6 * y.mean(0)\n" + LAST, {"batch", "slow form"}),
    "a wrong scale": ("** 0.5).masked", "** 1.0).masked", {"slow form"}),
    "a window one too wide": ("back < self.window", "back <= self.window", {"slow form"}),
    "a window of one where local is declared": ("back < self.window", "back < 1", {"reach", "slow form"}),
    "a wrong order": ('order="N^2"', 'order="N"', {"order", "memory growth"}),
    "an order declared too high": ('order="N^2"', 'order="N^2", order_of=lambda site, config: "0"', {"order"}),
    "a type that is lost": ("return self.out(y)\n", "return self.out(y).float()\n", {"dtypes"}),
    "NaN at odd sizes": (LAST, "        y = y * (torch.nan if y.shape[1] % 2 else 1)\n" + LAST, {"sizes"}),
    "an error at odd sizes": (LAST, "        y = y.unflatten(1, (-1, 2)).flatten(1, 2)\n" + LAST, {"sizes"}),
    "dropout in eval": (LAST, "        y = nn.functional.dropout(y, 0.1)\n" + LAST, {"same twice"}),
    "dropout that no knob declares": (
        LAST,
        "        y = nn.functional.dropout(y, 0.1, self.training)\n" + LAST,
        {"training"},
    ),
    "chance in forward": (LAST, "        y = y + 1e-3 * torch.randn(y.shape[-1])\n" + LAST, {"same twice"}),
    "chance drawn and not used": (LAST, "        torch.rand(1)\n" + LAST, {"same twice"}),
    "an input changed in place": (
        "place = torch.arange",
        "x.data.add_(1e-3)\n        place = torch.arange",
        {"input untouched"},
    ),
    "a parameter that is not used": (BUILT, "        self.spare = nn.Linear(2, 2)\n" + BUILT, {"gradients"}),
    "a detached value": ("weights @ v", "weights @ v.detach()", {"gradients", "derivative", "slow form"}),
    "state between calls": (
        LAST,
        "        y, self.last = y + getattr(self, 'last', 0.0), 1e-3 * y.detach().mean()\n" + LAST,
        {"no trace"},
    ),
    "a buffer that forward moves": (
        LAST,
        "        self.q.weight.data.mul_(0.999)\n" + LAST,
        {"no trace"},
    ),
    "another shape": (LAST, "        return self.out(y)[:, :-1]\n", {"shape"}),
    "weights bound to the shape": (
        BUILT,
        "        self.places = nn.Parameter(torch.zeros(site.shape[0], 1))\n" + BUILT,
        {"gradients", "bound to shape"},
    ),
    "a look at numbers": (
        LAST,
        "        if y.sum() > 1e30:\n            y = -y\n" + LAST,
        {"meta device"},
    ),
    "overflow": ("softmax(-1)", "exp()\n        weights = weights / weights.sum(-1, keepdim=True)", {"large inputs"}),
}


@contextmanager
def planted(folder: Path, text: str, name: str = "mine") -> Iterator[Mechanism]:
    """The mechanism of a file with that text, among the others for a while."""
    (folder / f"{name}.py").write_text(text)
    registry = mechanisms.mechanisms
    try:
        registry.invite(folder / f"{name}.py")
        yield registry.find(name)
    finally:
        for shelf in (registry.guests, registry.entries):
            shelf.pop(name, None)
        sys.modules.pop(f"mechanisms.{name}", None)
