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
GATED = "y = y * y.sigmoid() if self"
LAST = "        return self.out(y)\n"
BUILT = "        self.q, self.k"

LATE = (
    "        if site.{0} == 2:\n"
    "            self.register_forward_hook(lambda self, came, y: y + 1e-3 * y.roll(-1, 1))\n" + BUILT
)


def leak(where: str) -> str:
    """Every token sees a little of the next one, there."""
    return f"        y = y + 1e-3 * y.roll(-1, 1) {where}\n" + LAST


def hooked(made: str, instead: str) -> str:
    """Something made with the module, and something else as its output."""
    return f"        {made}\n        self.register_forward_hook(lambda self, came, y: {instead})\n" + BUILT


def odd(instead: str) -> str:
    """Something else at one awkward number of tokens."""
    return f"        y = {instead} if y.shape[1] == 97 else y\n" + LAST


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
    "a leak where chunks of 512 meet": (
        LAST,
        "        if y.shape[1] > 512:\n"
        "            y = torch.cat([y[:, :511], y[:, 511:512] + 1e-3 * y[:, 512:513], y[:, 512:]], 1)\n" + LAST,
        {"causality"},
    ),
    "a leak in a later block": (BUILT, LATE.format("block"), {"causality"}),
    "a leak in a later stage": (BUILT, LATE.format("stage"), {"causality"}),
    "a leak across the batch at an odd size": (LAST, odd("y + 1e-6 * y.mean(0)"), {"batch"}),
    "a leak across a larger batch": (LAST, "        y = y + y.mean(0) if len(y) > 4 else y\n" + LAST, {"batch"}),
    "a lost gradient at an odd size": (LAST, odd("y.detach()"), {"gradients"}),
    "state between calls at an odd size": (
        LAST,
        "        if y.shape[1] == 97:\n"
        "            y, self.last = y + getattr(self, 'last', 0.0), 1e-3 * y.detach().mean()\n" + LAST,
        {"no trace"},
    ),
    "a wrong number behind a switch": (GATED, GATED.replace("= y", "= 1.1 * y"), {"slow form"}),
    "a lost gradient behind a switch": (
        GATED,
        "y = y * y.detach().sigmoid() if self",
        {"slow form", "derivative"},
    ),
    "a lost gradient where float32 is computed": (
        "softmax(-1)",
        "softmax(-1, dtype=torch.float32).to(q.dtype)\n        v = v.detach() + v * 0.1 - v.detach() * 0.1",
        {"slow form", "derivative"},
    ),
    "a tensor that stays on the CPU": (", device=x.device", "", {"meta device"}),
    "a mask that is no buffer": (
        BUILT,
        "        self.sign = torch.ones(site.channels)\n"
        "        self.register_forward_hook(lambda self, came, y: y * self.sign.to(y.dtype))\n" + BUILT,
        {"meta device"},
    ),
    "overflow": ("softmax(-1)", "exp()\n        weights = weights / weights.sum(-1, keepdim=True)", {"large inputs"}),
}
FAULTS |= {
    "a leak behind a gate that starts at zero": (
        BUILT,
        hooked("self.gate = nn.Parameter(torch.zeros(site.channels))", "y + self.gate * y.roll(-1, 1)"),
        {"causality", "reach"},
    ),
    "a leak behind a gate that opens on one side": (
        BUILT,
        hooked("self.gate = nn.Parameter(torch.zeros(()))", "y + self.gate.relu() * y.roll(-1, 1)"),
        {"causality", "reach"},
    ),
    "a leak across the batch behind a gate that starts at zero": (
        BUILT,
        hooked("self.gate = nn.Parameter(torch.zeros(()))", "y + self.gate * y.nanmean(0)"),
        {"batch"},
    ),
    "a leak at sizes that a chunk does not divide": (LAST, leak("if y.shape[1] % 64 else y"), {"causality", "reach"}),
    "a leak at sizes that a chunk divides": (LAST, leak("if y.shape[1] % 64 == 0 else y"), {"causality"}),
    "a leak in an odd block": (BUILT, LATE.format("block").replace("== 2", "== 1"), {"causality", "reach"}),
    "a leak through the largest number": (
        LAST,
        "        y = y / y.abs().amax(1, keepdim=True)\n" + LAST,
        {"causality", "reach"},
    ),
    "a leak through statistics of the batch": (
        LAST,
        "        y = (y - y.mean((0, 1))) / (1 + y.std((0, 1)))\n" + LAST,
        {"batch", "causality"},
    ),
    "a window that runs on across the batch": (
        LAST,
        "        y = y + 1e-3 * y.flatten(0, 1).roll(1, 0).view_as(y)\n" + LAST,
        {"batch"},
    ),
    "a leak across the batch that steps over NaN": (LAST, "        y = y + 1e-6 * y.nanmean(0)\n" + LAST, {"batch"}),
    "a batch of even size": (LAST, "        y = y if len(y) % 2 else 1.001 * y\n" + LAST, {"batch"}),
    "an input changed where no gradient is asked for": (
        "place = torch.arange",
        "x.data.add_(0 if torch.is_grad_enabled() else 1e-3)\n        place = torch.arange",
        {"input untouched"},
    ),
    "other numbers where no gradient is asked for": (
        LAST,
        "        y = y if torch.is_grad_enabled() else 1.01 * y\n" + LAST,
        {"training"},
    ),
    "a build that seeds everyone": (BUILT, "        torch.manual_seed(0)\n" + BUILT, {"same twice"}),
    "chance of numpy": (
        LAST,
        "        y = y + 1e-3 * __import__('numpy').random.rand()\n" + LAST,
        {"same twice"},
    ),
    "state kept by the class": (
        BUILT,
        hooked(
            "self.start = getattr(Mine, 'mean', 0.0)", "(setattr(Mine, 'mean', y.mean()), y + self.start)[1].detach()"
        ),
        {"no trace"},
    ),
    "float32 under bfloat16": (BUILT, hooked("pass", "y * torch.ones(y.shape[-1])"), {"dtypes"}),
    "one layout of memory": (LAST, "        x.view(-1, x.shape[-1])\n" + LAST, {"layout"}),
    "types that do not meet under autocast": (LAST, "        y = y.index_add(1, place, 0 * x)\n" + LAST, {"autocast"}),
    "weights that are not saved": (
        BUILT,
        hooked("self.slope = torch.randn(site.channels)", "y * self.slope"),
        {"saved weights"},
    ),
    "a division by the length of a token": (
        "rearrange(p(x)",
        "rearrange(p(x / x.norm(dim=-1, keepdim=True))",
        {"plain inputs"},
    ),
    "a root whose slope at zero is infinite": (
        "rearrange(p(x)",
        "rearrange(p(x * x.square().sum(-1, keepdim=True).sqrt())",
        {"plain inputs"},
    ),
    "a gradient that overflows": (
        LAST,
        "        y = torch.where(y.abs() > 9, y, y + 1e-3 * y.square().exp().log())\n" + LAST,
        {"large inputs"},
    ),
    "a wrong number in a later stage": (BUILT, LATE.format("stage").replace("y.roll(-1, 1)", "y"), {"slow form"}),
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
