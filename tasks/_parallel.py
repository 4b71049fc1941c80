"""Several processes that train one model together: each takes its share of every batch, and all make the same step.

Each holds the model and all data, and scores the model by itself; of the scores that of the first counts.
The order of the data, the batches and the steps are those of one process. Gradients are added up before they are
clipped, so that all processes hold the same weights to the last bit, and those of one process up to rounding. That is
not so where a model draws numbers, as in dropout, or norms over a batch: each process draws its own, from a seed for
every step and process, and norms over its own share. The numbers of such a model depend on how many processes there
are; they are the same whenever that many train it with the same seed. Buffers are those of the first process.

Processes are on one machine. They meet by a file, and nothing of theirs listens beyond the loopback interface.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(hours=2)  # with a process that lives and does not come; the end of one is noticed at once
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def size() -> int:
    """How many processes train together; 1 where nobody has joined any."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if size() > 1 else 0


def join(place: Path, rank: int, size: int, device: str) -> None:
    """Meets the others by a file of that name, once in the life of a process; on CUDA each has the GPU of its number.

    There is no way out but the end of the process: one that fails and took leave first would be known by that to the
    others, before it has told why.
    """
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = LOOPBACK
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{place.absolute()}",
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
        device_id=torch.device("cuda", rank) if device == "cuda" else None,
    )


def share(tensor: Tensor) -> Tensor:
    """The part of a batch that is this process's; it may be empty."""
    return tensor.tensor_split(size())[rank()]


def add_up(model: nn.Module, value: Tensor) -> Tensor:
    """Makes every gradient the sum of those of all processes; returns the sum of the values, in float64.

    A weight that no process has a gradient of goes on without one, as the optimiser treats it otherwise.
    """
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    there = torch.tensor([float(weight.grad is not None) for weight in learning], device=value.device)
    told = torch.cat([value.double().reshape(1), there.double()])
    dist.all_reduce(told)
    gradients = []
    for weight, known in zip(learning, told[1:].tolist(), strict=True):
        if known and weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        if weight.grad is not None:
            gradients.append(weight.grad)
    for kind in dict.fromkeys(gradient.dtype for gradient in gradients):
        alike = [gradient for gradient in gradients if gradient.dtype == kind]
        flat = torch.cat([gradient.flatten() for gradient in alike])
        dist.all_reduce(flat)
        for gradient, part in zip(alike, flat.split([gradient.numel() for gradient in alike]), strict=True):
            gradient.copy_(part.view_as(gradient))
    return told[0]


@torch.no_grad()
def agree(tensors: Iterable[Tensor]) -> None:
    """Gives these tensors of all processes the values of the first."""
    held = [tensor for tensor in tensors if tensor.numel()]
    if size() == 1 or not held:
        return
    flat = torch.cat([tensor.detach().flatten().view(torch.uint8) for tensor in held])
    dist.broadcast(flat, 0)
    parts = flat.split([tensor.numel() * tensor.element_size() for tensor in held])
    for tensor, part in zip(held, parts if rank() else (), strict=bool(rank())):
        tensor.copy_(part.clone().view(tensor.dtype).view_as(tensor))


def same(value: float) -> float:
    """The number of the first process, in all of them; they wait for it."""
    if size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    agree([told := torch.tensor([value], dtype=torch.float64, device=device)])
    return told.item()


@contextmanager
def after_the_first() -> Iterator[None]:
    """What is within is done by the first process, then by the others."""
    if rank():
        same(0.0)
    yield
    if not rank():
        same(0.0)


def draw(seed: int, step: int) -> None:
    """Seeds what the model draws in a step, for each process differently; for a process alone, nothing.

    A step has seeds of its own, so that a training that goes on from a checkpoint needs to know none.
    """
    if size() > 1:
        digest = sha256(f"{seed} {step} {rank()}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "big"))
