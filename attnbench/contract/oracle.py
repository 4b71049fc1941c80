"""Equality with the slow, obvious form of a mechanism, where it has one: outputs and all gradients in float64."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn

from attnbench import oracles
from attnbench.contract.precision import within
from attnbench.contract.slots import Finding, Slot, Subject, judged

NEAR = 1e-9  # of the largest entry
LONGEST_S, QUICK_S = 8.0, 0.6  # of computing, after which no further case is begun
BLOCKS = ({"block": 0}, {"block": 1}, {"block": 2, "stage": 2})
SMALL: dict[str, list[tuple[int, ...]]] = {
    "sequence": [(7,), (8,), (16,), (24,), (32,), (64,)],
    "causal": [(7,), (8,), (16,), (70,)],
    "grid": [(3, 4), (4, 4), (8, 8), (16, 16)],
}


def form(name: str) -> Any:
    """What holds `oracle` and `CASES`: a file among the oracles, or the mechanism's own; None where neither does."""
    places = (oracles.find(name), sys.modules.get(f"mechanisms.{name}"))
    return next((place for place in places if hasattr(place, "oracle")), None)


def oracle(slot: Slot) -> Finding:
    """At these knobs, at every choice of one of them that the slow form knows, and at all of its cases."""
    return held(slot, LONGEST_S, gradients=True)


def quick_oracle(slot: Slot) -> Finding:
    """At these knobs in this setting, and then at as many cases as a moment allows, outputs alone."""
    return held(slot, QUICK_S, gradients=False)


def held(slot: Slot, longest_s: float, *, gradients: bool) -> Finding:
    name = slot.entry.reference or slot.entry.name
    if (module := form(name)) is None:
        about = f"there is no slow form: attnbench/oracles/{name}.py, or `oracle` and CASES beside the mechanism"
        return Finding("not applicable", about)
    start, worst, count, left, more = process_time(), 0.0, 0, 0, ""
    for case in [*own(slot, module), *(chosen(slot, module) if gradients else []), *cases(slot, module)]:
        if count and process_time() - start > longest_s:
            left += 1
            continue
        if case.added and not known(case, module):
            continue
        where, error = compared(case, module, gradients=gradients)
        worst, count = max(worst, error), count + 1
        near, more = (NEAR, more) if error <= NEAR else within(case, NEAR)
        if not error <= near:
            knobs = ", ".join(f"{knob}={value}" for knob, value in case.knobs.items())
            return Finding("fail", f"{where} differs from the slow form at {case.label} ({knobs or 'defaults'})", error)
    more += f", {left} cases left out for time" if left else ""
    what = "output and gradients equal" if gradients else "output equals"
    return judged(count > 0, f"{what} the slow form at {count} places{more}", worst)


def own(slot: Slot, module: Any, blocks: Sequence[Mapping[str, int]] = BLOCKS) -> Iterator[Slot]:
    """The smallest place of the setting that takes these knobs, in both kinds of block and in a later stage."""
    listed = [case.site for case in getattr(module, "CASES", []) if case.site.setting == slot.site.setting]
    plain = [replace(slot.site, shape=shape) for shape in SMALL[slot.site.setting]]
    fitting = (site for site in [*listed, *plain] if replace(slot, site=site).refusal() is None)
    if site := next(fitting, None):
        yield from (replace(slot, site=replace(site, **where)) for where in blocks)


def chosen(slot: Slot, module: Any) -> Iterator[Slot]:
    """The same where one choice or switch is changed, unless it is refused there."""
    subject = Subject(entry=slot.entry, knobs=slot.knobs, settings=(slot.site.setting,))
    for changed in subject.changed():
        yield from (one for one in own(changed, module, BLOCKS[:2]) if not one.refused())


def known(slot: Slot, module: Any) -> bool:
    """Whether the slow form has these knobs; one that has not says so with a ValueError or a NotImplementedError."""
    built, sample = slot.build().double(), slot.tokens(batch=1, dtype=torch.float64)[0]
    try:
        with torch.no_grad():
            module.oracle(slot.site, slot.config)(dict([*built.named_parameters(), *built.named_buffers()]), sample)
    except (ValueError, NotImplementedError):
        return False
    return True


def cases(slot: Slot, module: Any) -> Iterator[Slot]:
    for case in getattr(module, "CASES", []):
        if case.site.setting == slot.site.setting:
            yield Slot(entry=slot.entry, site=case.site, knobs=case.knobs)


def compared(slot: Slot, module: Any, *, gradients: bool) -> tuple[str, float]:
    """Where the two differ most, the output or the gradient of what, and by how much of the largest entry."""
    built, x = drawn(slot), slot.tokens(batch=1, dtype=torch.float64).requires_grad_(gradients)
    weights = {**dict(built.named_parameters()), **dict(built.named_buffers())}
    with torch.set_grad_enabled(gradients):
        slow = module.oracle(slot.site, slot.config)
        expected = torch.stack([slow(weights, sample) for sample in x])
        found = built(x)
    if found.shape != expected.shape:
        return "the shape", float("inf")
    differences = {"the output": float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300))}
    if gradients:
        leaves = {"the input": x, **{name: one for name, one in built.named_parameters() if one.requires_grad}}
        mine, its = towards(found, list(leaves.values())), towards(expected, list(leaves.values()))
        largest = max(float(one.abs().max()) for one in its) or 1.0
        pairs = zip(leaves, mine, its, strict=True)
        differences |= {f"the gradient of {name}": float((a - b).abs().max()) / largest for name, a, b in pairs}
    return max(differences.items(), key=lambda item: item[1] if item[1] == item[1] else float("inf"))


def drawn(slot: Slot) -> nn.Module:
    """In float64, with weights large enough that no softmax is flat and no bias or table is zero."""
    module, generator = slot.build().double(), torch.Generator().manual_seed(1)
    for weight in module.parameters():
        size = max(weight[0].numel() if weight.ndim > 1 else 4, 4) ** -0.5
        random = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.data = (1.5 * size * random).to(weight.dtype)
    return module


def towards(output: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Gradients of a fixed random functional, so that no entry of the output weighs like another."""
    mark = torch.randn(output.shape, generator=torch.Generator().manual_seed(3), dtype=output.dtype)
    if not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(output, leaves, mark, allow_unused=True)
    return [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]
