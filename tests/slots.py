"""Where every mechanism is tried: its defaults and each choice of each knob, in every setting it fits."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
import torch
from torch import Tensor, nn

import mechanisms
from mechanisms import Site

SHAPES = {  # the first that a mechanism takes: awkward ones, then such as powers of two and cells divide
    "sequence": [(24,), (32,), (64,)],
    "causal": [(150,), (192,), (256,)],  # more tokens than two chunks of a chunked sum hold
    "grid": [(16, 16)],
}
# Beside every choice and switch, which are tried by themselves: numbers and combinations that take other paths.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "muse": [
        {"query_clusters": 4, "key_clusters": 8, "block": 16},
        {"query_clusters": 1, "key_clusters": 1, "iterations": 0},
    ],
    "neighborhood": [{"window": 3, "dilation": 2}, {"window": 5, "position": "relative"}],
    "nystrom": [{"landmarks": 7, "convolution": 5}],
    "htransformer": [{"block": 4}],
    "linformer": [{"rank": 5}],
    "linear": [{"feature": "favor", "features": 7}],
    "sliding": [{"window": 8, "sinks": 0}, {"window": 200}],
    "gla": [{"rank": 2, "temperature": 1}],
    "swin": [{"window": 8, "position": "none"}, {"window": 5, "pad": True}, {"version": "v2", "window": 8}],
    "fma": [{"cell": 2, "rank": 2}, {"basis": "average", "size_weight": False}, {"cell": 8}],
    "mano": [
        {"levels": 1, "stride": 1},
        {"levels": 3, "window": 4, "stride": 2, "combine": "published"},
        {"downsample": "average", "upsample": "nearest", "rate": 4, "levels": 2},
        {"samplers": "per_level", "attention": "per_level", "combine": "softmax"},
        {"position": "swin_v2", "stride": 1},
    ],
}


class Slot(NamedTuple):
    """A mechanism with knobs in one setting; block 1 turns on what alternates from block to block."""

    name: str
    setting: str
    knobs: dict[str, Any]
    block: int = 0

    @property
    def site(self) -> Site:
        return replace(usual(self.name, self.setting), block=self.block)

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return mechanisms.build(self.name, self.site, **self.knobs).eval()

    def tokens(self, batch: int = 2, seed: int = 0) -> Tensor:
        shape = (batch, *self.site.shape, self.site.channels)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@cache
def usual(name: str, setting: str) -> Site:
    """Where a mechanism is tried in a setting."""
    return next(fitting(name, setting, SHAPES[setting]))


def fitting(name: str, setting: str, shapes: Sequence[tuple[int, ...]]) -> Iterator[Site]:
    """Sites of those shapes that a mechanism takes with its defaults."""
    for shape in shapes:
        site = Site(channels=16, shape=shape, causal=setting == "causal")
        try:
            with torch.device("meta"):
                mechanisms.build(name, site)
        except ValueError:
            continue
        yield site


def label(slot: Slot) -> str:
    block = [f"block={slot.block}"] if slot.block else []
    return "-".join([slot.name, slot.setting, *block, *(f"{knob}={value}" for knob, value in slot.knobs.items())])


def choices(annotation: Any) -> list[Any]:
    """All values of a choice or a switch, also of one that may be left out; nothing for other knobs."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if annotation is bool:
        return [False, True]
    return [choice for part in get_args(annotation) for choice in choices(part)]


def serves(slot: Slot) -> bool:
    """Whether a slot is not refused: built on the meta device, where even large ones are built at once, or, of a kernel
    chosen by name, when it runs."""
    try:
        with torch.device("meta"):
            slot.build()
        if "backend" in slot.knobs:
            slot.build()(slot.tokens())
    except ValueError:
        return False
    return True


def slots(name: str, setting: str) -> list[Slot]:
    """The defaults in both kinds of block, then one knob changed at a time, then what VARIANTS adds."""
    fields = mechanisms.find(name).config.model_fields.items()
    others = [(knob, value) for knob, field in fields for value in choices(field.annotation) if value != field.default]
    single = [Slot(name, setting, {knob: value}, block=1) for knob, value in others]
    more = [Slot(name, setting, knobs, block) for block, knobs in enumerate(VARIANTS.get(name, []), 1)]
    return [Slot(name, setting, {}), Slot(name, setting, {}, block=1), *filter(serves, single), *more]


FITTING = [(name, setting) for name in mechanisms.usable("cpu") for setting in sorted(mechanisms.find(name).fits)]
SLOTS = [slot for name, setting in FITTING for slot in slots(name, setting)]
each_slot = pytest.mark.parametrize("slot", SLOTS, ids=label)
each_causal = pytest.mark.parametrize("slot", [slot for slot in SLOTS if slot.setting == "causal"], ids=label)
each_name = pytest.mark.parametrize("name", mechanisms.usable("cpu"))
