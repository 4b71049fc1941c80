"""Shapes, types and weights: what goes in comes out alike, at every size that is not refused."""

import io
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from attnbench.contract.slots import Finding, Slot, Subject, apart, judged

ODD: dict[str, list[tuple[int, ...]]] = {
    "sequence": [(1,), (7,), (31,), (40,), (63,), (65,), (128,)],
    "causal": [(1,), (7,), (63,), (65,), (97,), (128,), (600,)],
    "grid": [(1, 1), (1, 6), (5, 5), (5, 7), (7, 9), (8, 16), (12, 20), (13, 16), (15, 15), (32, 32)],
}
HUGE = 1e4
SENTENCE = r"^\S[^\n]*[.?]$"
SINGLE_NEAR, HALF_NEAR = 1e-3, 0.1  # relative error of a whole output in float32 and bfloat16
AUTOCAST_NEAR = 16 * 2**-8  # several roundings to 8 bits in a row, on numbers of order one


def shape(slot: Slot) -> Finding:
    x = slot.tokens()
    y = slot.build()(x)
    return whole(y, x) or judged(True, "the shape of the tokens is kept and every number is finite")


def whole(y: Tensor, x: Tensor) -> Finding | None:
    """What is wrong with an output, if anything is."""
    if not isinstance(y, Tensor):
        return Finding("fail", f"forward returns a {type(y).__name__}; it should be one tensor")
    if y.shape != x.shape:
        return Finding("fail", f"tokens {list(x.shape)} came out as {list(y.shape)}")
    if not y.isfinite().all():
        return Finding("fail", "the output has numbers that are not finite", float((~y.isfinite()).sum()))
    return None


def large(slot: Slot) -> Finding:
    """Scores in the thousands: a softmax that does not shift by its maximum overflows."""
    x = 100 * slot.tokens()
    for module in (slot.build(), slot.perturbed()):
        if wrong := overflow(module, x):
            return wrong
    return judged(True, "inputs a hundred times as large, and their gradients, stay finite")


def plain(slot: Slot) -> Finding:
    """Where a norm, a variance or a length is zero, and where one token outweighs all others."""
    inputs = kinds(slot.tokens(batch=1))
    x = torch.cat(list(inputs.values()))
    for module in (slot.build(), slot.perturbed()):
        if overflow(module, x):  # then which of them
            found = {name: overflow(module, one) for name, one in inputs.items()}
            name, wrong = next((item for item in found.items() if item[1]), ("a batch of these", overflow(module, x)))
            assert wrong is not None
            return wrong._replace(about=f"with {name}, {wrong.about}")
    return judged(True, f"outputs and gradients stay finite with {', '.join(inputs)}")


def kinds(x: Tensor) -> dict[str, Tensor]:
    """Tokens that occur: padding, blank pictures, an outlier."""
    first = x.flatten(1, -2)[:, :1].view(1, *[1] * (x.ndim - 2), -1)
    huge = x.clone()
    huge.view(-1, x.shape[-1])[x[0, ..., 0].numel() // 2] *= HUGE
    return {
        "tokens of zeros": torch.zeros_like(x),
        "tokens of ones": torch.ones_like(x),
        "all tokens equal": first.expand_as(x).contiguous(),
        "one token huge": huge,
    }


def overflow(module: torch.nn.Module, x: Tensor) -> Finding | None:
    """What of the output, or of the gradients of tokens and weights, is not finite."""
    x = x.clone().requires_grad_()
    y = module(x)
    if wrong := whole(y, x):
        return wrong
    if not y.requires_grad:
        return None
    leaves = {"the input": x, **{name: one for name, one in module.named_parameters() if one.requires_grad}}
    found = torch.autograd.grad(y.sum(), list(leaves.values()), allow_unused=True)
    lost = [name for name, one in zip(leaves, found, strict=True) if one is not None and not one.isfinite().all()]
    return Finding("fail", f"the gradient of {lost[0]} is not finite") if lost else None


def dtypes(slot: Slot) -> Finding:
    exact = slot.perturbed().double()(slot.tokens(dtype=torch.float64))
    errors = {}
    for dtype, near in ((torch.float64, 0.0), (torch.float32, SINGLE_NEAR), (torch.bfloat16, HALF_NEAR)):
        x = slot.tokens(dtype=dtype)
        y = slot.perturbed().to(dtype)(x)
        name = str(dtype).removeprefix("torch.")
        if y.dtype != dtype:
            return Finding("fail", f"{name} comes out as {str(y.dtype).removeprefix('torch.')}")
        errors[name] = apart(y, exact)
        if wrong := whole(y, x):
            return wrong._replace(about=f"in {name}, {wrong.about}")
        if errors[name] > near:
            return Finding("fail", f"{name} differs from float64 by more than {near:g}", errors[name])
    return judged(True, "float64, float32 and bfloat16 are kept; the error of bfloat16", errors["bfloat16"])


def autocast(slot: Slot) -> Finding:
    module, x = slot.perturbed(), slot.tokens().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    if y.requires_grad:
        y.float().sum().backward()
    if x.grad is None or not x.grad.isfinite().all():
        return Finding("fail", "under bfloat16 autocast the gradient of the input is missing or not finite")
    error = apart(y, module(x.detach()))
    return judged(error < AUTOCAST_NEAR, f"error under bfloat16 autocast, at most {AUTOCAST_NEAR:.3f}", error)


def sizes(slot: Slot) -> Finding:
    """Odd, prime and unequal sides: served, or refused in one sentence when it is built."""
    served, refused = [], []
    for sides in ODD[slot.site.setting]:
        other, name = slot.at(sides), "x".join(map(str, sides))
        try:
            module = other.build()
        except ValueError as error:
            if not re.match(SENTENCE, str(error)):
                return Finding("fail", f"{name} is refused, but not in one sentence: {str(error)[:80]!r}")
            refused.append(name)
            continue
        except Exception as error:
            return Finding("fail", f"{name} is not refused with a ValueError: {told(error)}")
        if wrong := served_wrong(module, other):
            return wrong._replace(about=f"at {name}, {wrong.about}")
        served.append(name)
    return judged(True, told_sizes(served, refused), float(len(served)))


def choices(slot: Slot) -> Finding:
    """Which choices of knobs this place or this machine refuses: no other line has looked at them here."""
    setting = slot.site.setting
    tried = list(Subject(entry=slot.entry, knobs=slot.knobs, settings=(setting,)).changed())
    refused = [f"{setting} {knob}={value}" for s in tried if s.refused() for knob, value in s.added.items()]
    if not tried:
        return Finding("not applicable", "no knob is a choice or a switch")
    if not refused:
        return judged(True, f"all {len(tried)} choices beside the defaults serve", 0.0)
    about = f"{len(refused)} of {len(tried)} choices are refused, and so seen by no line: {', '.join(refused)}"
    return Finding("fact", about, float(len(refused)))


def served_wrong(module: torch.nn.Module, slot: Slot) -> Finding | None:
    x = slot.tokens()
    try:
        return whole(module(x), x)
    except Exception as error:
        return Finding("fail", f"it was built, but forward raised {told(error)}")


def told_sizes(served: Sequence[str], refused: Sequence[str]) -> str:
    parts = [f"serves {', '.join(served)}"] if served else []
    parts += [f"refuses {', '.join(refused)} in a sentence"] if refused else []
    return "; ".join(parts)


def meta(slot: Slot) -> Finding:
    """Where a sweep builds and counts every cell: nothing may look at a number of a tensor."""
    with torch.device("meta"):
        module = slot.build()
        y = module(torch.empty(1, *slot.site.shape, slot.site.channels))
    real = [name for name, tensor in module.state_dict().items() if not tensor.is_meta]
    if real:
        return Finding("fail", f"{real[0]} is not on the meta device when it is built there")
    if not y.is_meta:
        return Finding("fail", "built on the meta device, it computes an output elsewhere")
    try:
        y = slot.build().to("meta")(slot.tokens().to("meta"))
    except Exception as error:
        hint = "is a tensor made without device=, or a mask no buffer?"
        return Finding("fail", f"built here and moved to another device, forward raises {told(error)}; {hint}")
    return judged(bool(y.is_meta), "builds and runs on the meta device, and once moved there")


def saved(slot: Slot) -> Finding:
    first, second, x = slot.perturbed(seed=1), slot.perturbed(seed=2), slot.tokens()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    same = second(x).equal(first(x))
    return judged(same, "weights that were saved and loaded compute the same" if same else "loaded weights differ")


def bound(slot: Slot) -> Finding:
    """Whether weights depend on the shape of the place, against `bound_to_shape`."""
    others = [slot.at([2 * side for side in slot.site.shape]), *(slot.at(sides) for sides in ODD[slot.site.setting])]
    other = next((one for one in others if one.site.shape != slot.site.shape and one.refusal() is None), None)
    if other is None:
        return Finding("not applicable", "it takes no other size to compare with")
    with torch.device("meta"):
        mine, its = ({key: one.shape for key, one in some.build().state_dict().items()} for some in (slot, other))
    found, declared = mine != its, slot.entry.bound_at(slot.site, slot.config)
    word = "depend" if found else "do not depend"
    about = f"shapes of weights {word} on the grid; declared bound_to_shape={declared}"
    return judged(found == declared, about)


def told(error: BaseException) -> str:
    """An error on one line."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
