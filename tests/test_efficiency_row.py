"""A whole cell of `efficiency`: what its row holds, also where memory ran out or others were at work."""

from pathlib import Path

import pytest
import torch
from torch import nn

from attnbench import measure
from attnbench.host import Usage
from attnbench.probes import _clock, efficiency
from attnbench.probes.__main__ import execute
from tests.efficiency_cell import shortly, spec


@pytest.fixture
def quick():
    with shortly():
        yield


@pytest.mark.usefixtures("quick")
def test_a_row_has_batch_and_spread_and_what_was_agreed(tmp_path: Path):
    """Fault 5: the best over batch sizes, as a mean alone."""
    asked = spec("linear", (8, 8), batch=2)
    found = execute(asked, tmp_path / "early.json")
    assert found["status"] == "ok", found["error"]
    cost = found["cost"]
    assert cost["step_ms_q25"] <= cost["step_ms"] <= cost["step_ms_q75"]
    assert cost["tokens_per_s"] == pytest.approx(1e3 * 2 * 64 / cost["step_ms"])
    assert len(found["raw"]["step_ms"]) == cost["repeats"]
    agreed = "step_ms_low step_ms_high memory_mib rss_mib matmul_flops bytes energy_j peak_share limit peak_gflops"
    assert not {*agreed.split(), "peak_gbps", "compile_s", "noisy", "order", "flops_why"} - cost.keys()
    assert cost["step_flops"] == 2 * cost["matmul_flops"]
    assert cost["order"] == "N"


@pytest.mark.usefixtures("quick")
def test_contention_makes_a_row_noisy(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Usage, "foreign_until", lambda *_: 0.5)
    monkeypatch.setattr(_clock.Timing, "noisy", False)
    cost = execute(spec("identity"), tmp_path / "early.json")["cost"]
    assert cost["foreign_cpu"] == 0.5 > measure.BUSY
    assert cost["noisy"]
    monkeypatch.setattr(Usage, "foreign_until", lambda *_: 0.0)
    assert not execute(spec("identity"), tmp_path / "early.json")["cost"]["noisy"]


class Large(nn.Module):
    def forward(self, _: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.usefixtures("quick")
def test_running_out_of_memory_is_a_row_that_keeps_its_work(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(efficiency, "built", lambda _: Large)
    found = execute(spec("full", (16, 16)), tmp_path / "early.json")
    assert found["status"] == "oom"
    assert found["cost"]["step_flops"] == 4 * 2 * 256 * 64 * 64 + 4 * 256 * 256 * 64
    assert "step_ms" not in found["cost"]


@pytest.mark.usefixtures("quick")
def test_what_is_wrong_is_told_and_is_no_row(tmp_path: Path):
    found = execute(spec("full", knobs={"heads": 7}), tmp_path / "early.json")
    assert found["status"] == "error"
    assert "heads" in found["error"]["message"]
