"""One point of the atlas: a mechanism against full attention at one site, on one kind of tokens, with one seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from attnbench.atlas import numbers, trained
from attnbench.atlas.held import Unheld
from attnbench.atlas.inputs import Kind, smooth, white
from attnbench.atlas.pairs import PARTS, Pair, fresh, heads_of, paired
from attnbench.atlas.rows import full_rows, rows
from attnbench.flops import formulas
from mechanisms import Site, build, find

ROWS_UP_TO = 1024  # tokens up to which rows and their singular values are computed
Columns = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and on what is compared.

    length: correlation length of smooth tokens as a share of the side. sharpness: factor of the scores of fresh
    weights. examples: samples over which errors of outputs and gradients are averaged; rows are those of the first.
    """

    site: Site
    input: Kind
    seed: int
    length: float = 0.2
    sharpness: float = 1.0
    examples: int = 2
    dtype: str = "float64"


@dataclass(kw_only=True)
class Point:
    """What came out: numbers by name, why some are missing, and where trained weights come from."""

    result: Columns = field(default_factory=dict)
    cost: Columns = field(default_factory=dict)
    data: Columns = field(default_factory=dict)


def compare(name: str, knobs: Mapping[str, Any], place: Place, data: Path, device: str = "cpu") -> Point:
    """The errors of a mechanism; `numbers.py` says what each is, and those that are not finite are left out.

    data: the data folder, for trained weights. Raises ValueError for what the mechanism or the input refuses.
    """
    point = Point(cost={"matmul_flops": work(name, knobs, place.site)})
    tokens, weights = given(name, knobs, place, data, point)
    pair = paired(name, knobs, place.site, weights, seed=place.seed)
    kind = getattr(torch, place.dtype)
    pair.mechanism.to(device, kind)
    pair.full.to(device, kind)
    tokens = tokens.to(device, kind)
    with torch.no_grad():
        found, truth = (module(tokens).flatten(1, -2) for module in (pair.mechanism, pair.full))
        plain = averaging(pair, tokens).flatten(1, -2)
    each = [numbers.outputs(*three) for three in zip(found, truth, plain, strict=True)]
    result, why = attended(pair, tokens[:1])
    result |= averaged(each) | gradients(pair, tokens, place.seed)
    point.result |= {column: value for column, value in result.items() if isinstance(value, str) or isfinite(value)}
    point.result |= {"shared": " ".join(pair.shared), "own_params": pair.own}
    point.result |= {"no_rows": why} if why else {}
    return point


def averaging(pair: Pair, tokens: Tensor) -> Tensor:
    """What full attention would answer if every token read all that it may see alike."""
    values = pair.full.get_submodule("v")(tokens).flatten(1, -2)
    if pair.site.causal:
        count = torch.arange(1, values.shape[1] + 1, device=values.device, dtype=values.dtype)
        values = values.cumsum(1) / count.unsqueeze(-1)
    else:
        values = values.mean(1, keepdim=True).expand_as(values)
    return pair.full.get_submodule("out")(values).view_as(tokens)


def given(name: str, knobs: Mapping[str, Any], place: Place, data: Path, point: Point) -> tuple[Tensor, dict]:
    """Tokens, and weights of full attention. Of trained ones the hash enters the point."""
    heads, site = heads_of(name, knobs), place.site
    if place.input == "trained":
        trained.side_of(site)
        found = trained.trained(data, channels=site.channels, heads=heads, seed=place.seed)
        point.data |= {"weights_hash": found.content}
        point.result |= {"trained_error": found.error}
        tokens = trained.tokens(found, site, heads, data, examples=place.examples, seed=place.seed)
        return tokens, found.weights
    drawn = {"examples": place.examples, "seed": place.seed}
    tokens = white(site, **drawn) if place.input == "random" else smooth(site, length=place.length, **drawn)
    return tokens, fresh(site, heads, seed=place.seed, sharpness=place.sharpness)


def attended(pair: Pair, sample: Tensor) -> tuple[Columns, str]:
    """Errors of rows and of their singular values on one sample [1, *shape, C], and why there are none."""
    if not pair.alike:
        lacking = ", ".join(part for part in PARTS if part not in pair.shared)
        return {}, f"it does not share {lacking} with full attention"
    if pair.site.tokens > ROWS_UP_TO:
        return {}, f"rows of more than {ROWS_UP_TO} tokens are not computed"
    try:
        mine = rows(pair.mechanism, sample, pair.heads)
    except Unheld as why:
        return {}, str(why)
    theirs = full_rows(pair.full, sample, pair.heads, causal=pair.site.causal)
    told = {"rows_kind": mine.kind, "row_share": mine.share}
    return numbers.rows(mine.weights, theirs) | numbers.spectrum(mine.weights, theirs) | told, ""


def averaged(each: list[dict[str, float]]) -> Columns:
    return {column: sum(one[column] for one in each) / len(each) for column in each[0]}


def gradients(pair: Pair, tokens: Tensor, seed: int) -> Columns:
    """Relative errors of the gradients of the same random combination of outputs.

    gradient_error: with respect to the tokens, mean over samples. gradient_error_weights: with respect to the weights
    of q, k, v and out that are shared one by one, all together; none where a mechanism has several of a projection.
    """
    chance = torch.Generator().manual_seed(seed + 2)
    cotangent = torch.randn(tokens.shape, generator=chance, dtype=torch.float64).to(tokens)
    (mine, own), (theirs, other) = (gradient(module, tokens, cotangent) for module in (pair.mechanism, pair.full))
    each = [numbers.relative(one, another) for one, another in zip(mine, theirs, strict=True)]
    found = {"gradient_error": sum(each) / len(each)}
    names = [name for name in other if name in own and name.partition(".")[0] in pair.shared]
    if {name.partition(".")[0] for name in names} == set(PARTS):
        joined = (torch.cat([some[name].flatten() for name in names]) for some in (own, other))
        found["gradient_error_weights"] = numbers.relative(*joined)
    return found


def gradient(module: torch.nn.Module, tokens: Tensor, cotangent: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Of sum(cotangent * output): with respect to the tokens, and to weights by name."""
    x = tokens.clone().requires_grad_()
    weights = dict(module.named_parameters())
    total, leaves = (module(x) * cotangent).sum(), [x, *weights.values()]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    own, *rest = (torch.zeros_like(of) if one is None else one for of, one in zip(leaves, found, strict=True))
    return own, dict(zip(weights, rest, strict=True))


def work(name: str, knobs: Mapping[str, Any], site: Site) -> int:
    """FLOPs of matrix products and Fourier transforms in one pass over one sample, counted on the meta device."""
    with torch.device("meta"):
        module = build(find(name).reference or name, site, **knobs)
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
            module(torch.empty(1, *site.shape, site.channels))
    return counter.get_total_flops()
