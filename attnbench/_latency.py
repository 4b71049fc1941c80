"""The child process that solves for a width of equal latency, by timing a training step beside one of the target.

    python -m attnbench._latency ASKED.json OUTCOME.json --data DIR

Both are measured in turn, step by step in one process, so that what else the machine does meets both alike; a width
is judged by the ratio of the two medians. The width that comes nearest is then measured again with models made afresh,
several times: the median of those ratios is told, for the smallest of many noisy numbers is too good.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch

from attnbench import measure
from attnbench._equal import crossing
from attnbench.cell import Spec
from attnbench.host import Usage
from attnbench.run import execute, find_entries, made_config, made_model, made_task, out_of_memory, write
from tasks._step import AS_USUAL, how

AROUND = 1  # multiples on both sides of the crossing that are looked at
ROUNDS = 3  # how often what is told is measured
Timing = Mapping[str, Any]  # ratio, the summaries of variant and target, noisy


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attnbench._latency")
    parser.add_argument("asked", type=Path)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    asked = json.loads(given.asked.read_text())
    write(given.outcome, execute(asked["variant"], given.data, partial(found, asked)))


def found(asked: Mapping[str, Any], variant: Spec, data: Path) -> dict[str, Any]:
    """The width at which a variant takes as long as its target, and what was measured at it.

    Raises ValueError where it can be built at no width.
    """
    find_entries(asked["target"])

    def at(width: int) -> Timing | None:
        model = variant["model"]
        try:
            wider = variant | {"model": model | {"knobs": model["knobs"] | {asked["knob"]: width}}}
            seen = compared(wider, asked["target"], data)
        except ValueError:  # its knobs, or the mechanism at that place, refuse the width
            return None
        except Exception as error:
            if not (isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)):
                raise
            seen = {"ratio": inf}
        print(f"  {asked['knob']} {width}: {seen['ratio']:.3f}", flush=True)
        return seen

    return {"found": search(at, step=asked["step"], most=asked["most"])}


def search(at: Callable[[int], Timing | None], *, step: int, most: int) -> dict[str, Any]:
    """The multiple of a step whose time comes nearest to the target's, by powers of two and then by bisection.

    at: what is measured at a width; None where there is no such model.
    """
    tried: dict[int, float] = {}

    @cache
    def ratio(multiple: int) -> float | None:
        if (seen := at(multiple * step)) is None:
            return None
        tried[multiple * step] = seen["ratio"]
        return seen["ratio"]

    middle = crossing(ratio, 1.0, -(-most // step))
    around = range(max(1, middle - AROUND), middle + AROUND + 1)
    near = [(abs(have - 1), multiple) for multiple in around if (have := ratio(multiple)) is not None]
    if not near or not isfinite(min(near)[0]):
        raise ValueError(f"it can be built and run at no width up to {most}, as far as was tried: {sorted(tried)}")
    width = min(near)[1] * step
    rounds = [seen for _ in range(ROUNDS) if (seen := at(width))]
    rounds.sort(key=lambda seen: seen["ratio"])
    return {
        "width": width,
        **rounds[len(rounds) // 2],  # an odd number of them
        "ratios": [seen["ratio"] for seen in rounds],
        "tried": {str(width): ratio if isfinite(ratio) else None for width, ratio in sorted(tried.items())},
    }


def compared(variant: Spec, target: Spec, data: Path) -> Timing:
    """Times of a training step of both, at the batch of the task, and the ratio of their medians."""
    before = Usage.now()
    device = variant["device"]
    steps = [training(spec, data) for spec in (variant, target)]
    for step in steps:
        measure.warm_up(step, device)
    times = measure.in_turn(steps, device)
    foreign = before.foreign_until(Usage.now())
    own, other = (measured(each) for each in times)
    noisy = any(map(measure.noisy, times)) or (foreign or 0.0) > measure.BUSY
    ratio = own["step_ms"] / other["step_ms"]
    return {"ratio": ratio, "variant": own, "target": other, "noisy": noisy, "foreign_cpu": foreign}


def training(spec: Spec, data: Path) -> measure.Step:
    """The step of the training loop, of a model made afresh."""
    config, task, device = made_config(spec), made_task(spec, data), spec["device"]
    schedule = getattr(config, "schedule", None)
    inputs, target = task.batch(0, device)
    model = made_model(spec, 0)(config.port).to(device)
    return measure.training(model, task, inputs, target, how(schedule) if schedule else AS_USUAL)


def measured(times: list[float]) -> dict[str, Any]:
    """Median and quartiles of a step, and of how many."""
    q25, median, q75 = measure.quartiles(times)
    return {"step_ms": median, "step_ms_q25": q25, "step_ms_q75": q75, "repeats": len(times)}


if __name__ == "__main__":
    main()
