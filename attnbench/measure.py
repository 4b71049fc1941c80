"""What a model costs on one device: time and memory of a training step and of an inference pass, at a fixed batch.

Times are wall clock around whole steps, the device idle before and after, warmed up, untouched by any profiler; memory
has a pass of its own. A training step is the very one of the training loop, gradients and dropout on; inference has
both off. Sizes come from made-up batches of the task's true shapes.
"""

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any

import torch
from torch import nn

from attnbench.host import Usage
from attnbench.memory import peaks
from tasks import Make, Runnable, update
from tasks._step import AS_USUAL, How, products

WARM_S, WARM_STEPS, WARM_CAP_S = 0.5, 3, 5.0  # least seconds and steps, and when to give up waiting for calm
REPEATS, REPEAT_S, REPEAT_CAP_S = 30, 1.0, 6.0  # least steps and seconds, and when to give up; fewer steps are noisy
LOOK_S = 0.25  # how often to see whether it is enough: sorting after every step would take longer than the steps
CALM = 0.05  # half the 95 % interval of the median, as a share of it, below which a timing is not noisy
BUSY = 0.1  # share of the machine's cores that other processes used meanwhile, above which a timing is noisy
TINY_RATE = 1e-6  # learning rate of measured steps: weights stay sound however many there are
Step = Callable[[], None]


def cost(
    make: Make, task: Runnable, port: Any, *, device: str, made: How = AS_USUAL
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Columns by name, and the raw milliseconds of every timed step.

    made: how a step is made, of the knobs of training.
    """
    model = make(port).to(device)
    inputs, target = task.batch(0, device)
    columns: dict[str, Any] = {"batch": len(inputs), "threads": torch.get_num_threads(), "warmup": "until calm"}
    raw: dict[str, list[float]] = {}
    before = Usage.now()
    steps = {"infer": inference(model, inputs, made), "train": training(model, task, inputs, target, made)}
    for name, step in steps.items():
        warm_up(step, device)
        times = repeat(step, device)
        raw[f"{name}_step_ms"] = times
        columns |= summary(name, times, len(inputs))
        columns |= {f"{key}_{name}_mib": value for key, value in peaks(step, device).items()}
    columns["memory_method"] = "torch.cuda allocator" if device == "cuda" else "torch profiler, allocator"
    columns["foreign_cpu"] = foreign = before.foreign_until(Usage.now())
    columns["noisy"] = columns["infer_noisy"] or columns["train_noisy"] or (foreign or 0.0) > BUSY
    return columns, raw


def inference(model: nn.Module, inputs: torch.Tensor, made: How = AS_USUAL) -> Step:
    def step() -> None:
        model.eval()
        with torch.inference_mode(), products(made.precision, inputs.device):
            model(inputs)

    return step


def training(
    model: nn.Module, task: Runnable, inputs: torch.Tensor, target: torch.Tensor, made: How = AS_USUAL
) -> Step:
    optimiser = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])

    def step() -> None:
        model.train()
        update(model, (inputs, target), task.loss, optimiser, TINY_RATE, made)

    return step


def warm_up(step: Step, device: str) -> None:
    """Until the last three steps agree within 5 %, or the cap: the first ones compile, allocate and fill caches."""
    times, spent = [], 0.0
    while True:
        times.append(timed(step, device))
        spent += times[-1] / 1e3
        last = times[-3:]
        calm = max(last) <= (1 + CALM) * min(last)
        if len(times) >= WARM_STEPS and spent >= WARM_S and (calm or spent >= WARM_CAP_S):
            return


def repeat(step: Step, device: str) -> list[float]:
    """Milliseconds of every step: at least 30 and 1 s and until the median is known to 5 %, or up to the cap."""
    return in_turn([step], device)[0]


def in_turn(steps: Sequence[Step], device: str) -> list[list[float]]:
    """Milliseconds of every step of each, in rounds of one step of each whose order is turned round every time.

    What else the machine does meets all alike. The least and the most time are those of `repeat` for each of them, and
    it goes on until every median is known.
    """
    times: list[list[float]] = [[] for _ in steps]
    spent, look = 0.0, REPEAT_S * len(steps)
    while True:
        places = range(len(steps)) if len(times[0]) % 2 else reversed(range(len(steps)))
        for place in places:
            times[place].append(timed(steps[place], device))
            spent += times[place][-1] / 1e3
        if spent < look:
            continue
        if not any(map(noisy, times)) or (spent >= REPEAT_CAP_S * len(steps) and len(times[0]) > 1):
            return times
        look = spent + LOOK_S


def timed(step: Step, device: str) -> float:
    """Milliseconds of one step, with the device idle before and after."""
    synchronise(device)
    start = perf_counter_ns()
    step()
    synchronise(device)
    return (perf_counter_ns() - start) / 1e6


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def noisy(times: list[float]) -> bool:
    """Whether there are fewer than 30, or the 95 % order-statistic interval of the median reaches over 5 % of it."""
    ranks, n = sorted(times), len(times)
    if n < REPEATS:
        return True
    reach = 0.98 * n**0.5  # 1.96 standard deviations of a binomial(n, 1/2)
    low, high = ranks[round(n / 2 - reach) - 1], ranks[round(n / 2 + reach)]  # of 30, the 10th and the 21st
    return (high - low) / 2 > CALM * statistics.median(times)


def summary(name: str, times: list[float], batch: int) -> dict[str, Any]:
    """Median and quartiles of the step, and of the throughput it means."""
    q25, median, q75 = quartiles(times)
    return {
        f"{name}_step_ms": median,
        f"{name}_step_ms_q25": q25,
        f"{name}_step_ms_q75": q75,
        f"{name}_samples_per_s": 1e3 * batch / median,
        f"{name}_samples_per_s_q25": 1e3 * batch / q75,
        f"{name}_samples_per_s_q75": 1e3 * batch / q25,
        f"{name}_repeats": len(times),
        f"{name}_noisy": noisy(times),
    }


def quartiles(times: list[float]) -> list[float]:
    """First quartile, median and third quartile, of at least two."""
    return statistics.quantiles(times, n=4, method="inclusive")
