"""How long a step takes: warmed up until it has settled, in synchronised blocks, until the median is known.

At least 30 samples, and until the 95 % interval of the median is within 2 % of it, or up to a cap. The interval is that
of order statistics, which assumes nothing about how times are spread. No sample is dropped, and all are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, nan
from statistics import median
from time import perf_counter_ns

from scipy.stats import binom

from attnbench.measure import quartiles

PRECISION = 0.02  # half the 95 % interval of the median, as a share of it, which is aimed at
BLOCK_MS = 10.0  # least length of a sample: shorter steps are timed several at once
SAMPLES, SAMPLE_S, CAP_S = 30, 0.7, 8.0  # least samples and seconds, and when to give up; fewer samples are noisy
FEWEST = 3  # samples even of a step that takes longer than the cap
WARM_STEPS, WARM_S, WARM_CAP_S = 3, 0.3, 5.0
CALM = 0.02  # by how much the last three blocks of warming up may differ
LOOK = 10  # samples between two looks at the precision
Step = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What was measured of one step.

    samples: milliseconds of a step, one for each block. each: steps in a block. first_ms: of the very first step.
    warm_steps: how many were not counted.
    """

    samples: list[float]
    each: int
    first_ms: float
    warm_steps: int

    @property
    def median_ms(self) -> float:
        return median(self.samples)

    @property
    def compile_s(self) -> float:
        """What the first step took longer than the others: compiling, choosing kernels, filling caches."""
        return max(0.0, self.first_ms - self.median_ms) / 1e3

    @property
    def noisy(self) -> bool:
        """Whether there are fewer than 30 samples, or the median is not known to 2 %."""
        return len(self.samples) < SAMPLES or not known(self.samples)

    def columns(self) -> dict[str, float | int | bool]:
        """By name, for a row."""
        low, high = interval(self.samples)
        q25, middle, q75 = quartiles(self.samples) if len(self.samples) > 1 else [self.median_ms] * 3
        told = {"step_ms": middle, "step_ms_low": low, "step_ms_high": high, "step_ms_q25": q25, "step_ms_q75": q75}
        told |= {"step_ms_min": min(self.samples), "first_ms": self.first_ms, "compile_s": self.compile_s}
        return told | {"repeats": len(self.samples), "each": self.each, "warm_steps": self.warm_steps}


def timing(step: Step, wait: Callable[[], None]) -> Timing:
    """Times a step; wait: returns when the device has done all that it was given."""
    first_ms = block(step, wait, 1)
    each, warm = warmed(step, wait)
    samples: list[float] = []
    spent_s = 0.0
    while True:
        for _ in range(LOOK):
            samples.append(block(step, wait, each))
            spent_s += each * samples[-1] / 1e3
            if spent_s >= CAP_S and len(samples) >= FEWEST:
                return Timing(samples=samples, each=each, first_ms=first_ms, warm_steps=1 + warm)
        if len(samples) >= SAMPLES and spent_s >= SAMPLE_S and known(samples):
            return Timing(samples=samples, each=each, first_ms=first_ms, warm_steps=1 + warm)


def warmed(step: Step, wait: Callable[[], None]) -> tuple[int, int]:
    """Warms up until the last three blocks agree within 2 %, or the cap; how many steps fill a block, and were done."""
    times, each, done, spent_s = [], 1, 0, 0.0
    while True:
        times.append(block(step, wait, each))
        done, spent_s = done + each, spent_s + each * times[-1] / 1e3
        each = max(1, ceil(BLOCK_MS / max(min(times), 1e-6)))
        last = times[-WARM_STEPS:]
        calm = max(last) <= (1 + CALM) * min(last)
        if len(times) >= WARM_STEPS and spent_s >= WARM_S and (calm or spent_s >= WARM_CAP_S):
            return each, done


def block(step: Step, wait: Callable[[], None], each: int) -> float:
    """Milliseconds of one step, from so many in a row, with the device idle before and after."""
    wait()
    start = perf_counter_ns()
    for _ in range(each):
        step()
    wait()
    return (perf_counter_ns() - start) / 1e6 / each


def interval(samples: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median by order statistics; without bounds where there are too few samples for one."""
    ranks, n = sorted(samples), len(samples)
    skip = int(binom.ppf(0.025, n, 0.5))  # so many may lie below the median, or fewer, in 2.5 % of all cases
    if skip < 1:
        return nan, nan
    return ranks[skip - 1], ranks[n - skip]


def known(samples: list[float]) -> bool:
    low, high = interval(samples)
    return (high - low) / 2 <= PRECISION * median(samples)
