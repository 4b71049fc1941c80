"""Counts that were published, made again from the code itself: weights and multiply-adds, on the meta device."""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from typing import Any

import torch
from torch import nn

import mechanisms
from attnbench._yaml import SweepError
from attnbench.flops import count, reals
from attnbench.ledger.published import Claim
from attnbench.ledger.reruns import Built, Plan, Rerun
from attnbench.models import maker
from mechanisms import Site
from tasks import Port

UNITS = {"parameters": 1, "M": 10**6, "G": 10**9}


def counted(claim: Claim, entry: Rerun) -> Decimal:
    """What our code has, in the unit of the claim, with all its digits.

    Raises ValueError for what cannot be built, or for a unit that is none of a count.
    """
    assert entry.of is not None
    found = Decimal(amount(entry.of, entry.what) - (amount(entry.less, entry.what) if entry.less else 0))
    if entry.over:
        return 100 * found / amount(entry.over, entry.what)
    if claim.unit not in UNITS:
        raise ValueError(f"{claim.id}: a count has the unit {', '.join(UNITS)} or % with `over`; got {claim.unit!r}.")
    return found / UNITS[claim.unit]


def agrees(claim: Claim, ours: Decimal) -> bool:
    """Whether our count, rounded to the digits that were printed, is what was printed."""
    printed = Decimal(claim.value)
    return ours.quantize(printed, rounding=ROUND_HALF_EVEN) == printed


def all_counted(claims: Mapping[str, Claim], plan: Plan) -> dict[str, tuple[str, bool | None]]:
    """Of every claim about a count, what our code has, and whether that is what was printed; None where the source
    counted other things. Raises SweepError for what cannot be counted."""
    found: dict[str, tuple[str, bool | None]] = {}
    for id, entry in plan.reruns.items():
        if entry.kind != "count":
            continue
        try:
            ours = counted(claims[id], entry)
        except (TypeError, KeyError, ValueError) as error:
            raise SweepError(plan.file, None, f"{id}: {error}") from None
        found[id] = (shown(ours), agrees(claims[id], ours) if entry.comparable else None)
    return found


def shown(number: Decimal) -> str:
    """All digits of a whole number, six significant ones of another."""
    return f"{number:,}" if number == number.to_integral_value() else f"{float(number):#.6g}"


def amount(part: Built, what: str) -> int:
    """Weights, a complex one as two; or multiply-adds, half of the counted operations of one forward pass."""
    return kept(part.model_dump_json(), what)


@cache
def kept(text: str, what: str) -> int:
    """The same from a part's text: claims share networks, and building one takes a second."""
    part = Built.model_validate_json(text)
    if what == "macs":
        if not (part.model and part.port):
            raise ValueError("multiply-adds are counted of a model with a port; a bare mechanism has none here.")
        work = count(made(part), port(part.port))
        return (work.matmul_flops + work.fft_flops) // 2
    with torch.device("meta"):
        module = built(part)
    weights = dict(module.named_parameters())
    left = {name for name in weights if part.without and name.startswith(part.without)}
    if part.without and not left:
        raise ValueError(
            f"no weight's name starts with {part.without!r}; the first is {next(iter(weights), 'none')!r}."
        )
    return sum(reals(weight) for name, weight in weights.items() if name not in left)


def built(part: Built) -> nn.Module:
    """Raises ValueError for a part that is neither a model with its port nor a bare mechanism with its site."""
    if part.model and part.port and not part.site:
        return made(part)(port(part.port))
    if part.mechanism and part.site and not part.model:
        name, knobs = named(part.mechanism)
        return mechanisms.build(name, Site(**{**part.site, "shape": tuple(part.site["shape"])}), **knobs)
    raise ValueError("weights are counted of a model with a port, or of a mechanism with a site.")


def made(part: Built) -> Any:
    assert part.model is not None
    return maker(*named(part.model), named(part.mechanism) if part.mechanism else None, 0)


def named(entry: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and knobs; a knob that differs between stages is a map from stage to value."""
    if "name" not in entry:
        raise ValueError(f"a model or mechanism has a name; got {', '.join(map(str, entry))}.")
    knobs = {knob: value for knob, value in entry.items() if knob != "name"}
    return str(entry["name"]), {
        knob: {str(stage): one for stage, one in value.items()} if isinstance(value, dict) else value
        for knob, value in knobs.items()
    }


def port(entry: dict[str, Any]) -> Port:
    return Port(**{**entry, "shape": tuple(entry["shape"])})
