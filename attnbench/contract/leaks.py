"""Leaks: from the future, from neighbours in the batch, from the mode, from chance, from an earlier call."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from attnbench.contract.precision import within
from attnbench.contract.slots import Finding, Slot, judged

HUGE = 1e4
ALONE_NEAR = 1e-12
GRADELESS_NEAR = 1e-4  # of the largest number: another kernel may add in another order, in float32
MANY = 16  # elements of a larger batch, at no more than so many tokens
MANY_TOKENS = 300
TOGETHER = 8  # places at which the future is changed in one pass, an element of a batch for each


def batch(slot: Slot) -> Finding:
    """With NaN in one element the others come out the same to the last bit; and alone as in company."""
    few = slot.added or slot.site.tokens > MANY_TOKENS or slot.site.block > 1 or slot.site.stage > 1
    sizes, module = [2, 3] if few else [2, 3, MANY], slot.perturbed()
    for size in sizes[1:]:
        for place, moved in poisoned(module, slot.tokens(batch=size)).items():
            if moved:
                return Finding(
                    "fail", f"element {moved[0]} of a batch of {size} changes when only element {place} does"
                )
    errors = alone(slot, sizes)
    size, error = max(errors.items(), key=lambda item: item[1])
    near, more = (ALONE_NEAR, "") if error < ALONE_NEAR else within(slot, ALONE_NEAR)
    return judged(error < near, f"an element alone against its place in a batch of {size}{more}", error)


def poisoned(module: nn.Module, x: Tensor) -> dict[int, list[int]]:
    """By the place of an element that is made NaN, the other elements that are then not the same."""
    found = {}
    with torch.no_grad():
        plain = module(x)
        for place in (0, len(x) - 1):
            other = x.clone()
            other[place] = torch.nan
            y = module(other)
            found[place] = [i for i in range(len(x)) if i != place and not y[i].equal(plain[i])]
    return found


def alone(slot: Slot, sizes: list[int]) -> dict[int, float]:
    """By the size of a batch, the error of an element by itself against its place there, of the largest number."""
    module, x = slot.perturbed().double(), slot.tokens(batch=max(sizes), dtype=torch.float64)
    with torch.no_grad():
        one, wholes = module(x[1:2]), {size: module(x[:size]) for size in sizes}
    scales = {size: float(whole.abs().max().clamp_min(1e-300)) for size, whole in wholes.items()}
    return {size: far(one, whole[1:2]) / scales[size] for size, whole in wholes.items()}


def causality(slot: Slot) -> Finding:
    """The future changed by 1e4 leaves the past equal, bit by bit, whatever token the change begins at."""
    if not slot.site.causal:
        return Finding("not applicable", "it is not declared causal")
    module, n, firsts = slot.perturbed(), slot.site.tokens, places(slot.site.tokens)
    x, other = slot.tokens(batch=TOGETHER), HUGE * slot.tokens(batch=TOGETHER, seed=1)
    with torch.no_grad():
        plain = module(x)
    for start in range(0, len(firsts), TOGETHER):
        some = [*firsts[start:], *TOGETHER * firsts[-1:]][:TOGETHER]  # every pass of one shape, so of one rounding
        future = torch.arange(n) >= torch.tensor(some)[:, None]
        with torch.no_grad():
            moved = (module(torch.where(future[..., None], other, x)) - plain).abs().amax(-1)
        wrong = ~future & ~(moved == 0)
        if wrong.any():
            which, token = wrong.nonzero()[0].tolist()
            about = f"token {token} changes when only tokens {some[which]} and after do"
            return Finding("fail", about, float(moved[wrong].max()))
    return judged(True, f"the past is equal to the last bit, future changed at {len(firsts)} places", 0.0)


def places(n: int) -> list[int]:
    """Around powers of two, where chunks begin and end, and some between; from 1 to n - 1."""
    edges = [2**power + step for power in range(1, 12) for step in (-1, 0, 1)]
    return sorted({place for place in [*edges, 48, 49, 96, 97, 100, n // 3, n - 2, n - 1] if 0 < place < n})


def training(slot: Slot) -> Finding:
    """In training as in eval; and the same numbers whether gradients are asked for or not."""
    x, module = slot.tokens(), slot.perturbed()
    with torch.random.fork_rng(devices=[]):
        plain = module(x)
        same = slot.perturbed().train()(x).equal(plain)
        with torch.no_grad():
            error = far(module(x), plain) / float(plain.detach().abs().max().clamp_min(1e-30))
    if not error <= GRADELESS_NEAR:
        return Finding("fail", "without gradients it computes other numbers than with them", error)
    noise = [knob for knob in slot.entry.config.model_fields if "dropout" in knob]
    if not same and noise and any(getattr(slot.config, knob) for knob in noise):
        return Finding("fact", f"training differs from eval, as its knob {noise[0]} says")
    return judged(same, "training computes the same as eval" if same else "training differs from eval; no knob says so")


def chance(slot: Slot) -> Finding:
    """Two builds from one seed are one, and neither building nor forward interferes with the global random state."""
    module, x = slot.perturbed(), slot.tokens()
    if not slot.perturbed()(x).equal(module(x)):
        return Finding("fail", "two builds from one seed compute different numbers")
    if seeded(slot):
        return Finding("fail", "building it seeds the global random state, which belongs to whoever builds")
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


def seeded(slot: Slot) -> bool:
    """Whether two builds from different random states leave the same one behind."""
    left = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            slot.entry.module(slot.site, slot.config)
            left.append(torch.get_rng_state())
    return left[0].equal(left[1])


def state(slot: Slot) -> Finding:
    """What was computed before, on other tokens and batches and in another block, leaves no trace."""
    module, x = slot.perturbed(), slot.tokens()
    first, before = module(x), {key: value.clone() for key, value in module.state_dict().items()}
    module(slot.tokens(batch=3, seed=5))
    replace(slot, site=replace(slot.site, block=slot.site.block + 1)).build()(slot.tokens(seed=6))
    again, fresh = module(x), slot.perturbed()(x)
    changed = [key for key, value in module.state_dict().items() if not value.equal(before[key])]
    if changed:
        return Finding("fail", f"forward changes {changed[0]}")
    if not first.equal(again):
        return Finding("fail", "a call changes the next one", far(first, again))
    same = first.equal(fresh)
    return judged(
        same, "no call leaves a trace" if same else "a call changes modules that are built later", far(first, fresh)
    )


def untouched(slot: Slot) -> Finding:
    """With gradients and without, where some take a cheaper way."""
    module, x = slot.perturbed(), slot.tokens()
    before = x.clone()
    module(x)
    with torch.no_grad():
        module(x)
    same = x.equal(before)
    return judged(same, "the input is left as it was" if same else "the input is changed in place", far(x, before))


def layout(slot: Slot) -> Finding:
    """Channels first in memory, as a convolution leaves them; and every second element of a batch."""
    module, x = slot.perturbed().double(), slot.tokens(batch=4, dtype=torch.float64)
    y = module(x)
    turned = module(x.movedim(-1, 1).contiguous().movedim(1, -1))
    error = max(far(turned, y), far(module(x[::2]), y[::2])) / float(y.abs().max().clamp_min(1e-300))
    near, more = (ALONE_NEAR, "") if error < ALONE_NEAR else within(slot, ALONE_NEAR)
    return judged(error < near, f"other layouts in memory compute the same{more}", error)


def far(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())
