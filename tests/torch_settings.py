"""What a cell's child sets for its whole process, put back: tests have one process for many cells."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

DETERMINISTIC: Any = torch.utils.deterministic  # whose attributes type checkers do not see


@contextmanager
def put_back() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filling = DETERMINISTIC.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        DETERMINISTIC.fill_uninitialized_memory = filling
