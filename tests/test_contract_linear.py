"""Faults that only a mechanism of linear work can show, and weights that start at zero, which are no fault."""

import pytest

from attnbench.contract import CHECKS, Subject
from attnbench.contract.card import UNCOMPARED, Line, compared, drawn, ending
from tests.planted import planted

RUNNING = '''"""Mine: every token reads the running mean of the past, behind a gate.

Dauphin et al., "Language Modeling with Gated Convolutional Networks", 2017. https://arxiv.org/abs/1612.08083
Work N.
Departs from the paper: a mean instead of a convolution.
"""

import torch
from torch import nn

from mechanisms import Knobs, Site, Tokens, register


class Config(Knobs):
    pass


@register("mine", Config, fits=("causal",), order="N", reach="global")
class Mine(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        self.gate, self.out = (nn.Linear(site.channels, site.channels) for _ in range(2))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tokens) -> Tokens:
        place = torch.arange(x.shape[1], device=x.device)
        mean = x.cumsum(1) / (1 + place[:, None]).to(x.dtype)
        y = mean * self.gate(x).sigmoid()
        return self.out(y)


class Paired(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        n = gradient.shape[1]
        return gradient + 0 * gradient.new_ones(n, n).mean()
'''
LAST = "        return self.out(y)\n"
PAIRS = {
    "forward": "        y = y + 0 * (place[:, None] - place).to(y.dtype).mean()\n",
    "backward": "        y = Paired.apply(y)\n",
}


def words(entry, names: set[str]) -> dict[str, str]:
    subject = Subject(entry=entry, knobs={})
    return {c.name: drawn(c.name, c.look, c.over(subject)).word for c in CHECKS if c.name in names}


def test_an_output_projection_that_starts_at_zero_is_no_fault(tmp_path):
    with planted(tmp_path, RUNNING) as entry:
        found = words(entry, {check.name for check in CHECKS})
    assert "fail" not in found.values()
    assert {found[line] for line in ("batch", "causality", "reach", "gradients", "memory growth")} == {"pass"}


def test_a_leak_before_an_output_projection_that_starts_at_zero_is_red(tmp_path):
    with planted(tmp_path, RUNNING.replace(LAST, "        y = y + y.roll(-1, 1)\n" + LAST)) as entry:
        assert set(words(entry, {"causality", "reach"}).values()) == {"fail"}


@pytest.mark.parametrize("where", PAIRS)
def test_a_table_of_all_pairs_of_tokens_is_red_where_order_n_is_declared(where, tmp_path):
    with planted(tmp_path, RUNNING.replace(LAST, PAIRS[where] + LAST)) as entry:
        assert words(entry, {"order", "memory growth"}) == {"order": "pass", "memory growth": "fail"}


def test_a_card_without_a_slow_form_ends_with_the_words_that_nothing_was_compared():
    line = Line(name="slow form", word="not applicable", about="", number=None, seconds=0.0)
    held = Line(name="slow form", word="pass", about="", number=1e-16, seconds=0.0)
    assert ending([line], 3.0) == f"1 not applicable; {UNCOMPARED}; 3 s."
    assert ending([held], 3.0) == "1 pass; 3 s."
    assert (compared([line]), compared([held])) == (False, True)
