"""Leaks: from the future, from neighbours in the batch, from the mode, from chance, from an earlier call."""

import torch
from torch import Tensor

from attnbench.contract.precision import within
from attnbench.contract.slots import Finding, Slot, judged

HUGE = 1e4
ALONE_NEAR = 1e-12
MANY = 16  # elements of a larger batch, at no more than so many tokens
MANY_TOKENS = 300


def batch(slot: Slot) -> Finding:
    """With NaN in one element the other comes out the same to the last bit; and alone as in company."""
    sizes = [2, 3] if slot.added or slot.site.tokens > MANY_TOKENS else [2, 3, MANY]
    for size in sizes:
        for place in {0, size - 1}:
            if moved := poisoned(slot, size, place):
                return Finding(
                    "fail", f"element {moved[0]} of a batch of {size} changes when only element {place} does"
                )
    errors = {size: alone(slot, size) for size in sizes[1:]}
    size, error = max(errors.items(), key=lambda item: item[1])
    near, more = (ALONE_NEAR, "") if error < ALONE_NEAR else within(slot, ALONE_NEAR)
    return judged(error < near, f"an element alone against its place in a batch of {size}{more}", error)


def poisoned(slot: Slot, size: int, place: int) -> list[int]:
    """Elements of a batch, besides the one at that place, that are not the same when that one is NaN."""
    module, x = slot.build(), slot.tokens(batch=size)
    other = x.clone()
    other[place] = torch.nan
    with torch.no_grad():
        one, two = module(x), module(other)
    return [i for i in range(size) if i != place and not one[i].equal(two[i])]


def alone(slot: Slot, size: int) -> float:
    """Error of an element by itself against its place in a batch, of the largest number."""
    module, x = slot.build().double(), slot.tokens(batch=size, dtype=torch.float64)
    with torch.no_grad():
        whole, one = module(x), module(x[1:2])
    return float((one - whole[1:2]).abs().max() / whole.abs().max().clamp_min(1e-300))


def causality(slot: Slot) -> Finding:
    """The future changed by 1e4 leaves the past equal, bit by bit, whatever token the change begins at."""
    if not slot.site.causal:
        return Finding("not applicable", "it is not declared causal")
    module, n = slot.build(), slot.site.tokens
    x, future = (slot.tokens(batch=2 if n <= MANY_TOKENS else 1, seed=seed) for seed in (0, 1))
    other = HUGE * future
    with torch.no_grad():
        plain = module(x)
    for first in places(n):
        changed = torch.cat([x[:, :first], other[:, first:]], 1)
        with torch.no_grad():
            past = module(changed)[:, :first]
        if not past.equal(plain[:, :first]):
            i = int((past != plain[:, :first]).any(-1).any(0).nonzero()[0])
            moved = float((past - plain[:, :first]).abs().max())
            return Finding("fail", f"token {i} changes when only tokens {first} and after do", moved)
    return judged(True, f"the past is equal to the last bit, future changed at {len(places(n))} places", 0.0)


def places(n: int) -> list[int]:
    """Around powers of two, where chunks begin and end, and some between; from 1 to n - 1."""
    edges = [2**power + step for power in range(1, 12) for step in (-1, 0, 1)]
    return sorted({place for place in [*edges, 48, 49, 96, 97, 100, n // 3, n - 2, n - 1] if 0 < place < n})


def training(slot: Slot) -> Finding:
    x = slot.tokens()
    with torch.random.fork_rng(devices=[]):
        same = slot.build().train()(x).equal(slot.build()(x))
    noise = [knob for knob in slot.entry.config.model_fields if "dropout" in knob]
    if not same and noise and any(getattr(slot.config, knob) for knob in noise):
        return Finding("fact", f"training differs from eval, as its knob {noise[0]} says")
    return judged(same, "training computes the same as eval" if same else "training differs from eval; no knob says so")


def chance(slot: Slot) -> Finding:
    """Two builds from one seed are one, and forward neither reads nor moves the global random state."""
    module, x = slot.build(), slot.tokens()
    if not slot.build()(x).equal(module(x)):
        return Finding("fail", "two builds from one seed compute different numbers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = module(x)
        torch.manual_seed(2)
        before = torch.get_rng_state()
        second = module(x)
        moved = not torch.get_rng_state().equal(before)
    if not first.equal(second):
        return Finding(
            "fail", "the same weights and tokens compute different numbers after another seed", far(first, second)
        )
    return judged(
        not moved, "forward draws numbers in eval mode" if moved else "same seed, same numbers; nothing is drawn"
    )


def state(slot: Slot) -> Finding:
    """What was computed before, on other tokens and other batches, leaves no trace."""
    module, x = slot.build(), slot.tokens()
    first, before = module(x), {key: value.clone() for key, value in module.state_dict().items()}
    module(slot.tokens(batch=3, seed=5))
    again = module(x)
    changed = [key for key, value in module.state_dict().items() if not value.equal(before[key])]
    if changed:
        return Finding("fail", f"forward changes {changed[0]}")
    same = first.equal(again)
    return judged(same, "no call leaves a trace" if same else "a call changes the next one", far(first, again))


def untouched(slot: Slot) -> Finding:
    x = slot.tokens()
    before = x.clone()
    slot.build()(x)
    same = x.equal(before)
    return judged(same, "the input is left as it was" if same else "the input is changed in place", far(x, before))


def layout(slot: Slot) -> Finding:
    """Channels first in memory, as a convolution leaves them; and every second element of a batch."""
    module, x = slot.build().double(), slot.tokens(batch=4, dtype=torch.float64)
    y = module(x)
    turned = module(x.movedim(-1, 1).contiguous().movedim(1, -1))
    error = max(far(turned, y), far(module(x[::2]), y[::2])) / float(y.abs().max().clamp_min(1e-300))
    near, more = (ALONE_NEAR, "") if error < ALONE_NEAR else within(slot, ALONE_NEAR)
    return judged(error < near, f"other layouts in memory compute the same{more}", error)


def far(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())
