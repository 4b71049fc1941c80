"""Where a mechanism is tried: small places of every setting it fits, one choice of its knobs changed at a time."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args, get_origin

import torch
from torch import Tensor, nn

from mechanisms import Knobs, Mechanism, Site, configure

Word = Literal["pass", "fail", "not applicable", "fact"]
SHAPES: dict[str, list[tuple[int, ...]]] = {  # the first that a mechanism takes is the usual one
    "sequence": [(24,), (32,), (64,), (128,), (256,)],
    "causal": [(150,), (192,), (256,), (512,)],  # more tokens than two chunks of a chunked sum hold
    "grid": [(16, 16), (12, 20), (32, 32), (24, 24), (14, 14), (64, 64)],
}
ELSEWHERE: dict[str, list[tuple[int, ...]]] = {  # odd, a power of two, unequal, and longer than any one chunk
    "sequence": [(31,), (65,)],
    "causal": [(97,), (128,), (600,)],
    "grid": [(5, 7), (7, 9), (12, 20)],
}
CHANNELS = (16, 24, 64)
MOVED = 0.1  # of the spread of a weight's entries; of 1 where they are all the same
OWN = 1000  # before the seed of what moves them, so that it is not the draw they were made from
DEEP = ({"block": 2}, {"stage": 2}, {"stage": 3, "block": 1})


class Finding(NamedTuple):
    """What a check found at one place: a word, a sentence, and the number behind them if there is one."""

    word: Word
    about: str
    number: float | None = None


def judged(good: bool, about: str, number: float | None = None) -> Finding:
    return Finding("pass" if good else "fail", about, number)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A mechanism with knobs at one place; `added` are the knobs that this slot changes beside the subject's own."""

    entry: Mechanism
    site: Site
    knobs: Mapping[str, Any]
    added: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Knobs:
        return configure(self.entry.config, self.knobs, of=self.entry.name)

    @property
    def label(self) -> str:
        shape = "x".join(map(str, self.site.shape))
        knobs = [f"{knob}={value}" for knob, value in self.added.items()]
        block = ["", "odd block"][self.site.block] if self.site.block < 2 else f"block {self.site.block}"
        stage = f"stage {self.site.stage}" if self.site.stage > 1 else ""
        return ", ".join(filter(None, [f"{self.site.setting} of {shape}", block, stage, *knobs]))

    def build(self, seed: int = 0) -> nn.Module:
        """Seeded, in eval mode, and without a trace in the global random state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.entry.module(self.site, self.config).eval()

    def perturbed(self, seed: int = 0) -> nn.Module:
        """As it is built, but every weight moved a little: a gate that starts at zero hides what it will let through.

        Odd blocks take the opposite draws, for some gates open on one side only.
        """
        module, generator = self.build(seed), torch.Generator().manual_seed(OWN + seed)
        sign = -1 if self.site.block % 2 else 1
        for weight in module.parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                weight.data.add_(noise, alpha=sign * MOVED * spread(weight.detach()))
        return module

    def tokens(self, batch: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        shape = (batch, *self.site.shape, self.site.channels)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

    def at(self, shape: Sequence[int]) -> "Slot":
        return replace(self, site=replace(self.site, shape=tuple(shape)))

    def others(self) -> list["Slot"]:
        """A later block, later stages, and places of other sizes where it serves them."""
        deep = [replace(self, site=replace(self.site, **deeper)) for deeper in DEEP]
        return [*deep, *(slot for slot in map(self.at, ELSEWHERE[self.site.setting]) if slot.sound())]

    def sound(self) -> bool:
        """Whether it computes something here; where it does not, the line of sizes tells why."""
        x = self.tokens()
        try:
            y = self.build()(x)
        except Exception:
            return False
        return isinstance(y, Tensor) and y.shape == x.shape and bool(y.isfinite().all())

    def refused(self) -> bool:
        """Whether it is refused as a mechanism should refuse; what breaks otherwise is for the checks to tell."""
        try:
            return (self.refusal() or self.declined()) is not None
        except Exception:
            return False

    def declined(self) -> str | None:
        """What forward says of knobs that this machine cannot serve, such as a kernel that is not here; else None."""
        try:
            with torch.no_grad():
                self.build()(self.tokens())
        except ValueError as error:
            return str(error) if re.match(rf"{self.entry.name}\b[^\n]*\.$", str(error)) else None
        return None

    def refusal(self) -> str | None:
        """Why it cannot be built here, by its own words; None when it can. On the meta device, at once at any size."""
        try:
            with torch.device("meta"):
                self.build()
        except ValueError as error:
            return str(error)
        return None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A mechanism with the knobs it is looked at with, in all settings it fits, or only in some."""

    entry: Mechanism
    knobs: Mapping[str, Any]
    settings: tuple[str, ...] = ("sequence", "causal", "grid")

    def usual(self) -> list[Slot]:
        """One slot for each setting it fits. Raises ValueError, with its last words, where it takes no place of one."""
        return [self.place(setting) for setting in self.settings if setting in self.entry.fits]

    def place(self, setting: str) -> Slot:
        """The first place of a setting that it takes."""
        why = None
        for channels in CHANNELS:
            for shape in SHAPES[setting]:
                site = Site(channels=channels, shape=shape, causal=setting == "causal")
                slot = Slot(entry=self.entry, site=site, knobs=self.knobs)
                try:
                    why = slot.refusal()
                except Exception as error:  # told below, should no other place do
                    why = f"{type(error).__name__}: {error}"
                if why is None:
                    return slot
        tried = ", ".join("x".join(map(str, shape)) for shape in SHAPES[setting])
        raise ValueError(f"{self.entry.name} takes no {setting} of {tried}; it says: {why}")

    def base(self) -> list[Slot]:
        """The usual places, in both kinds of block: some mechanisms alternate from block to block."""
        return [replace(slot, site=replace(slot.site, block=block)) for slot in self.usual() for block in (0, 1)]

    def each(self) -> list[Slot]:
        """The same, and every choice and switch of every knob by itself, where it is not refused."""
        return [*self.base(), *(slot for slot in self.changed() if not slot.refused())]

    def wide(self) -> list[Slot]:
        """The same, a later block, a later stage, and places of other sizes, where they are served."""
        return [*self.each(), *(other for usual in self.usual() for other in usual.others())]

    def changed(self) -> Iterator[Slot]:
        for usual in self.usual():
            for knob, field_ in self.entry.config.model_fields.items():
                for value in choices(field_.annotation):
                    if value == getattr(usual.config, knob):
                        continue
                    site = replace(usual.site, block=1)
                    yield replace(usual, site=site, knobs={**self.knobs, knob: value}, added={knob: value})


def choices(annotation: Any) -> list[Any]:
    """All values of a choice or a switch; nothing for other knobs."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if annotation is bool:
        return [False, True]
    return [choice for part in get_args(annotation) for choice in choices(part)]


def spread(weight: Tensor) -> float:
    """Standard deviation of its entries; 1 where they are all the same, but for rounding."""
    mean = weight.mean()
    found = float((weight - mean).abs().square().mean().sqrt())
    return found if found > 1e-6 * float(mean.abs()) else 1.0


def apart(one: Tensor, other: Tensor) -> float:
    """Distance of two tensors over the size of the second, in float64."""
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).norm() / other.norm().clamp_min(1e-300))
