"""Peak memory: against sums done by hand, reset between sizes, on a CPU and on an allocator of CUDA's manners."""

from collections.abc import Callable
from mmap import PAGESIZE, mmap

import pytest
import torch
from torch import nn

import tasks
from attnbench import measure, memory
from tests.test_measure import Line

MIB = 2**20


def holding(*sizes_mib: int) -> Callable[[], None]:
    """A step that holds these all at once, and nothing in the end."""

    def step() -> None:
        held = [torch.empty(size * MIB, dtype=torch.uint8).fill_(1) for size in sizes_mib]
        del held

    return step


def test_the_peak_is_what_was_held_at_once():
    def step() -> None:
        first = torch.empty(4 * MIB, dtype=torch.uint8)
        second = torch.empty(8 * MIB, dtype=torch.uint8)  # 12 MiB at once
        del first
        third = torch.empty(2 * MIB, dtype=torch.uint8)  # 10
        del second
        fourth = torch.empty(9 * MIB, dtype=torch.uint8)  # 11
        del third, fourth

    assert memory.peaks(step, "cpu")["memory"] == 12


def test_a_chain_without_gradients_holds_two_of_its_tensors():
    x = torch.ones(256, 1024)  # 1 MiB

    def step() -> None:
        with torch.no_grad():
            y = x
            for _ in range(6):
                y = y.sigmoid()

    assert memory.peaks(step, "cpu")["memory"] == 2


def test_the_peak_of_a_training_step_holds_what_backward_needs_and_the_gradients():
    model = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(3)))  # 1 MiB of weights each
    x = torch.ones(256, 512)  # 0.5 MiB, as each layer's output
    task: tasks.Runnable = Line()  # pyright: ignore[reportAssignmentType] - it needs no more of a task
    step = measure.training(model, task, x, torch.zeros(256, 512))
    found = memory.peaks(step, "cpu")["memory"]
    # The last update: three gradients, and AdamW's denominator of one layer.
    assert 4 <= found <= 4 + 2.5
    assert memory.peaks(step, "cpu")["memory"] == found


@pytest.mark.parametrize("sizes", [(64, 16, 4, 1), (1, 4, 16, 64)])
def test_peaks_do_not_depend_on_the_order_of_sizes(sizes):
    assert [memory.peaks(holding(size), "cpu")["memory"] for size in sizes] == list(sizes)


def mapping(size_mib: int) -> Callable[[], None]:
    """The same in pages of its own: an allocator may serve a request from what it has kept, and nothing grows."""

    def step() -> None:
        with mmap(-1, size_mib * MIB) as held:
            held[::PAGESIZE] = b"1" * len(range(0, size_mib * MIB, PAGESIZE))

    return step


def test_the_processes_peak_is_reset_between_sizes():
    if memory.resident_growth(mapping(1)) is None:
        pytest.skip("this kernel does not reset the resident peak")
    large = memory.peaks(mapping(96), "cpu")["rss"]
    small = memory.peaks(mapping(2), "cpu")["rss"]
    assert 90 < large < 110
    assert small < 8


class Allocator:
    """A CUDA allocator without CUDA: what is held, the peak since the last reset, and whether anything is pending."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.held = self.peak = 0
        self.pending: list[int] = []
        for name, does in {
            "synchronize": self.synchronise,
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": self.reset,
            "memory_allocated": lambda: self.held,
            "max_memory_allocated": lambda: self.peak,
            "max_memory_reserved": lambda: self.peak + MIB,
        }.items():
            monkeypatch.setattr(torch.cuda, name, does)

    def take(self, mib: int) -> None:
        self.held += mib * MIB
        self.peak = max(self.peak, self.held)

    def reset(self) -> None:
        self.peak = self.held

    def synchronise(self) -> None:
        self.pending.clear()


def test_on_cuda_the_peak_is_above_the_start_and_reset_between_sizes(monkeypatch):
    cuda = Allocator(monkeypatch)
    cuda.take(100)  # weights

    def step(mib: int) -> Callable[[], None]:
        return lambda: (cuda.take(mib), cuda.take(-mib))[0]

    descending = [memory.peaks(step(mib), "cuda") for mib in (64, 8, 1)]
    assert [found["memory"] for found in descending] == [64, 8, 1]
    assert [found["reserved"] for found in descending] == [165, 109, 102]


def test_what_is_allocated_once_is_not_the_steps(monkeypatch):
    cuda = Allocator(monkeypatch)
    once = iter([32])  # a workspace, from the first step on
    found = memory.peaks(lambda: (cuda.take(next(once, 0)), cuda.take(2), cuda.take(-2))[0], "cuda")
    assert found["memory"] == 2
