"""What a mechanism costs at a site: time, memory, work and traffic of a forward pass alone, and with a backward pass.

`efficiency:` in a sweep file, or `attnbench run cost MECHANISM --sides 16,64,256`. Every point is a process of its own,
several of them where rounds are, for times spread more between processes than within one. Memory has a pass of its own.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from attnbench import measure
from attnbench.cell import Spec
from attnbench.flops import Work
from attnbench.host import Usage
from attnbench.memory import peaks
from attnbench.probes._clock import timing
from attnbench.probes._expand import built, site_of
from attnbench.probes._probe import Point, Probe, Section, Sizes, Tell, several, words

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Dtype = Literal["float32", "bfloat16", "float16"]
Pass = Literal["forward", "both"]


class Efficiency(Section):
    """The cost of every mechanism of the file, bare and untrained; a list is an axis."""

    dtypes: Annotated[list[Dtype], *several] = Field(default_factory=lambda: ["float32"])
    """of weights and tokens"""
    passes: Annotated[list[Pass], *several] = Field(default_factory=lambda: ["forward", "both"])
    """forward alone, without gradients and dropout; or forward and backward, as in training"""
    batch: Sizes = Field(default_factory=lambda: [1])
    """examples at once"""
    rounds: PositiveInt = 3
    """processes for every point: the interval over them is that of its time"""

    def points(self) -> Iterator[Point]:
        axes = (range(self.rounds), self.sites(), self.dtypes, self.passes, self.batch)
        for number, site, dtype, way, batch in product(*axes):
            asked = {"dtype": dtype, "pass": way, "batch": batch, "round": number}
            told = [words(site), *([f"{site.channels} channels"] if len(self.channels) > 1 else [])]
            told += [*(["causal"] if site.causal else []), dtype, way, *([f"batch {batch}"] if batch > 1 else [])]
            yield Point(site=site, words=asked, about=", ".join([*told, f"round {number}"]))


def work(spec: Spec, tell: Tell) -> Mapping[str, Any]:
    """The columns and raw samples of one cell."""
    device = spec["device"]
    step = Step(spec)
    before = Usage.now()
    timed = timing(step, lambda: measure.synchronise(device))
    foreign = before.foreign_until(Usage.now())
    columns: dict[str, Any] = timed.columns() | {"foreign_cpu": foreign}
    columns["noisy"] = timed.noisy or (foreign or 0.0) > measure.BUSY
    columns["tokens_per_s"] = 1e3 * spec["batch"] * site_of(spec).tokens / timed.median_ms
    tell({"cost": columns})
    columns |= {f"{key}_mib": value for key, value in peaks(step, device).items()}
    return {"cost": columns, "raw": {"step_ms": timed.samples}}


class Step:
    """One pass of the cell's mechanism over made-up tokens."""

    def __init__(self, spec: Spec):
        site, dtype = site_of(spec), DTYPES[spec["dtype"]]
        place = {"device": spec["device"], "dtype": dtype}
        torch.manual_seed(0)
        self.module: nn.Module = built(spec)().to(**place)
        self.tokens = torch.randn(spec["batch"], *site.shape, site.channels, **place)
        self.both = spec["pass"] == "both"
        self.module.train(self.both)
        if self.both:
            self.tokens.requires_grad_()
            self.towards = torch.randn_like(self.tokens)
            self.leaves = [self.tokens, *(weight for weight in self.module.parameters() if weight.requires_grad)]

    def __call__(self) -> None:
        self.backward() if self.both else self.forward()

    def forward(self) -> Tensor:
        with torch.inference_mode():
            return self.module(self.tokens)

    def backward(self) -> None:
        torch.autograd.grad(self.module(self.tokens), self.leaves, self.towards, allow_unused=True)


def estimate_s(spec: Spec, work: Work) -> float:
    """About the least time of a measurement, and more where a step takes long."""
    speed = {"cpu": 3e10, "cuda": 2e13}[spec["device"]]
    flops = work.matmul_flops + work.fft_flops
    step_s = spec["batch"] * (flops if flops == flops else 0) * (3 if spec["pass"] == "both" else 1) / speed
    return 3.0 + 12 * step_s


SHOWN = {
    "step_ms": "ms",
    "step_ms_low": "from",
    "step_ms_high": "to",
    "tokens_per_s": "tokens/s",
    "memory_mib": "peak MiB",
    "noisy": "noisy",
}
PROBE = Probe(config=Efficiency, protocol=1, work=work, estimate_s=estimate_s, shown=SHOWN)
