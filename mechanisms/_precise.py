"""Stretches of a forward that autocast leaves in full precision."""

from contextlib import AbstractContextManager, nullcontext

import torch


def least(dtype: torch.dtype) -> float:
    """The least length to divide by: 1e-12 as torch has it, which float16 would round to zero."""
    return max(1e-12, torch.finfo(dtype).tiny)


def uncast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which nothing is lowered; on devices without autocast, such as meta, there is nothing to prevent."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()
