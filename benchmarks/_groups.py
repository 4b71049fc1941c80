"""Who is timed beside whom: groups of modules on the same tokens; the others are held to the first of each group."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Any

import torch
from torch import nn

import mechanisms
from benchmarks._rivals import Bare, Layers, Unfolded, timm_beside
from mechanisms import Site

SIZES = [2**power for power in (10, 12, 14, 16, 18)]
COMPILED = 2**14  # the size at which compiled modules are timed, since each takes long to compile
ELSEWHERE = ("full_xformers", "neighborhood_natten", "gla_fla", "deltanet_fla")  # kernels of packages for CUDA alone


@dataclass(frozen=True, kw_only=True)
class Group:
    """Modules by label, made for one number of tokens; the first is the one that the others are divided by."""

    name: str
    make: Callable[[int], dict[str, nn.Module]]
    channels: int = 128
    setting: str = "grid"
    most: int = SIZES[-1]  # tokens
    bases: tuple[str, ...] = ()  # labels by which times are divided, round by round
    alike: dict[str, float] = field(default_factory=dict)  # which must give the first one's outputs, and to what

    def shape(self, tokens: int) -> tuple[int, ...]:
        return (isqrt(tokens), isqrt(tokens)) if self.setting == "grid" else (tokens,)


def site(channels: int, shape: tuple[int, ...], *, causal: bool = False, block: int = 0) -> Site:
    return Site(channels=channels, shape=shape, causal=causal, block=block)


def square(tokens: int) -> tuple[int, int]:
    return isqrt(tokens), isqrt(tokens)


def full(tokens: int) -> dict[str, nn.Module]:
    subject = mechanisms.build("full", site(128, (tokens,)), heads=4)
    return {"bare attention": Bare(subject, causal=False), "full": subject}


def swin(version: str, window: int) -> Callable[[int], dict[str, nn.Module]]:
    def make(tokens: int) -> dict[str, nn.Module]:
        knobs = {"heads": 4, "window": window, "version": version}
        subject = mechanisms.build("swin", site(128, square(tokens), block=1), **knobs)
        return {"timm": timm_beside(subject, square(tokens), 128, knobs), "swin": subject}

    return make


def mano(window: int, stride: int, levels: int) -> Callable[[int], dict[str, nn.Module]]:
    def make(tokens: int) -> dict[str, nn.Module]:
        knobs = {"heads": 4, "window": window, "stride": stride, "levels": levels}
        subject = mechanisms.build("mano", site(128, square(tokens)), **knobs)
        return {"unfolded": Unfolded(subject, window, stride), "layers alone": Layers(subject), "mano": subject}

    return make


def compiled(make: Callable[[int], dict[str, nn.Module]]) -> Callable[[int], dict[str, nn.Module]]:
    """Compiled; but for the unfolded form, whose fold crashes in torch 2.13's code for CPUs."""

    def made(tokens: int) -> dict[str, nn.Module]:
        torch._dynamo.reset()
        found = {label: module for label, module in make(tokens).items() if label != "unfolded"}
        return {label: torch.compile(module) for label, module in found.items()}  # type: ignore[misc]

    return made


VARIANTS: dict[str, list[tuple[str, dict[str, Any]]]] = {  # of mechanisms of which more than the default is of interest
    "linear": [("linear", {}), ("linear favor", {"feature": "favor"})],
    "fma": [("fma", {}), ("fma pooled", {"queries": "pooled"})],
    "mano": [("mano", {}), ("mano window 4", {"window": 4}), ("mano window 8", {"window": 8})],
    "swin": [("swin", {}), ("swin v2", {"version": "v2"})],
}


def catalogue(setting: str) -> Callable[[int], dict[str, nn.Module]]:
    """All mechanisms of a setting at their defaults, beside full attention; those that refuse a size are absent."""

    def make(tokens: int) -> dict[str, nn.Module]:
        shape = square(tokens) if setting == "grid" else (tokens,)
        here = site(64, shape, causal=setting == "causal")
        names = [name for name in mechanisms.names() if name not in ELSEWHERE and name not in ("full", "identity")]
        found: dict[str, nn.Module] = {"full": mechanisms.build("full", here, heads=2)}
        for name in names:
            entry = mechanisms.find(name)
            if setting not in entry.fits:
                continue
            heads = {"heads": 2} if "heads" in entry.config.model_fields else {}
            for label, knobs in VARIANTS.get(name, [(name, {})]):
                try:
                    found[label] = mechanisms.build(name, here, **heads, **knobs)
                except ValueError:
                    continue  # a size that it does not take is a gap in the table
        return found

    return make


RIVALS = ("unfolded", "layers alone")
GROUPS = {
    group.name: group
    for group in (
        Group(name="full", make=full, setting="sequence", bases=("bare attention",), alike={"full": 1e-5}),
        *(
            Group(
                name=f"swin {version} window {window}",
                make=swin(version, window),
                most=2**16,
                bases=("timm",),
                alike={"swin": 1e-4},
            )
            for version in ("v1", "v2")
            for window in (4, 8)
        ),
        *(Group(name=f"mano window {w}", make=mano(w, w, 3), bases=RIVALS, alike={"mano": 1e-5}) for w in (2, 4, 8)),
        *(
            Group(name=f"mano window {w} stride {s}", make=mano(w, s, 1), bases=RIVALS, alike={"mano": 1e-5})
            for w, s in ((2, 1), (4, 2))
        ),
        *(
            Group(name=f"catalogue {kind}", make=catalogue(kind), bases=("full",), channels=64, setting=kind)
            for kind in ("grid", "causal")
        ),
    )
}
GROUPS |= {
    f"{name} compiled": replace(GROUPS[name], name=f"{name} compiled", make=compiled(GROUPS[name].make), alike={})
    for name in ("mano window 2", "mano window 4", "mano window 8")
}
