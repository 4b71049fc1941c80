"""What a mechanism costs at a site: time, memory, work and traffic of a forward pass alone, and with a backward pass.

`efficiency:` in a sweep file, or `attnbench run cost MECHANISM --sides 16,64,256`. Every point is a process of its own,
several of them where rounds are, for times spread more between processes than within one. Memory has a pass of its own.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import product
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

import mechanisms
from attnbench import measure
from attnbench.cell import Spec
from attnbench.flops import Work
from attnbench.host import Usage
from attnbench.memory import peaks
from attnbench.probes._clock import timing
from attnbench.probes._energy import energy
from attnbench.probes._expand import built, site_of, worked
from attnbench.probes._limits import gbps, gflops, share
from attnbench.probes._probe import Point, Probe, Section, Sizes, Tell, several, words
from attnbench.probes._work import traffic
from attnbench.probes._work import work as counted_work

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
    """The columns and raw samples of one cell: time, then memory, then what the machine can do, each for itself."""
    device = spec["device"]

    def wait() -> None:
        measure.synchronise(device)

    columns = counted(spec)
    tell({"cost": columns})
    awake(device)
    step = Step(spec)
    before = Usage.now()
    timed = timing(step, wait)
    foreign = before.foreign_until(Usage.now())
    columns |= timed.columns() | {"foreign_cpu": foreign, "shared": os.environ.get("ATTNBENCH_SHARED", "") == "1"}
    columns["noisy"] = timed.noisy or (foreign or 0.0) > measure.BUSY
    columns["tokens_per_s"] = 1e3 * spec["batch"] * site_of(spec).tokens / timed.median_ms
    tell({"cost": columns})
    columns |= {f"{key}_mib": value for key, value in peaks(step, device).items()}
    columns["memory_method"] = "torch.cuda allocator" if device == "cuda" else "torch profiler, allocator"
    columns |= energy(step, wait, device) | against_limits(step, columns, wait)
    return {"cost": columns, "raw": {"step_ms": timed.samples}}


def counted(spec: Spec) -> dict[str, Any]:
    """Weights and work: matmul_flops and fft_flops of a forward pass of one example, step_flops of the whole step."""
    flops, why = counted_work(spec)
    found = {**asdict(worked(spec)), "step_flops": flops, "flops_why": why, "threads": torch.get_num_threads()}
    return found | {"order": declared(spec)}


def declared(spec: Spec) -> str:
    """How the mechanism says that its work grows with the number of tokens at such a site."""
    name, knobs = spec["mechanism"]["name"], spec["mechanism"]["knobs"]
    entry = mechanisms.find(name)
    return entry.order_at(site_of(spec), mechanisms.configure(entry.config, knobs, of=name))


def against_limits(step: "Step", columns: Mapping[str, Any], wait: Callable[[], None]) -> dict[str, Any]:
    """The bytes that a step must move, what the machine can do, and the share of it that was reached."""
    moved = traffic(step.module, step.tokens, both=step.both)
    device, dtype = step.tokens.device.type, step.tokens.dtype
    found = {"peak_gflops": gflops(device, dtype, wait), "peak_gbps": gbps(device, moved, wait)}
    seconds = columns["step_ms"] / 1e3
    reached, limit = share(columns["step_flops"], moved, seconds, (found["peak_gflops"], found["peak_gbps"]))
    return {**found, "bytes": moved, "peak_share": reached, "limit": limit}


def awake(device: str) -> None:
    """Starts what a process starts once, such as the engine of gradients, so that no mechanism pays for it."""
    some = torch.ones(8, 8, device=device, requires_grad=True)
    torch.autograd.grad((some @ some).sum(), some)


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

    def forward(self) -> None:
        with torch.inference_mode():
            self.module(self.tokens)

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
    "peak_share": "of limit",
    "limit": "limit",
    "noisy": "noisy",
}
PROBE = Probe(config=Efficiency, protocol=1, work=work, estimate_s=estimate_s, shown=SHOWN)
