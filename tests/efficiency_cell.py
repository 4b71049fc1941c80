"""A cell of `efficiency`, and a way to measure it shortly, for where times do not matter."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from attnbench.probes import _clock, _limits
from tests.torch_settings import put_back


def spec(name: str = "full", shape: tuple[int, ...] = (8, 8), way: str = "forward", **more: Any) -> dict[str, Any]:
    site = {"channels": 64, "shape": list(shape), "causal": more.pop("causal", False)}
    asked = {"schema": 1, "protocol": 1, "kind": "efficiency", "site": site, "device": "cpu", "dtype": "float32"}
    asked |= {"mechanism": {"name": name, "version": 1, "knobs": more.pop("knobs", {})}, "threads": 1, "gpus": 0}
    return {**asked, "pass": way, "batch": 1, "round": 0, **more}


@contextmanager
def shortly() -> Iterator[None]:
    """Within it hardly anything is repeated."""
    with pytest.MonkeyPatch.context() as patch, put_back():
        for name, value in {"SAMPLE_S": 0.0, "CAP_S": 0.3, "WARM_S": 0.0, "WARM_CAP_S": 0.1, "BLOCK_MS": 0.1}.items():
            patch.setattr(_clock, name, value)
        for name, value in {"SIDES": {"cpu": 64}, "ROUND_S": 1e-3, "CAP_S": 5e-3}.items():
            patch.setattr(_limits, name, value)
        yield
