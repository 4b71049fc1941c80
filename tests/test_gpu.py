"""What needs a CUDA device; one command runs it where there is one: pytest -m gpu."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mechanisms
from attnbench import measure
from attnbench.models import maker
from mechanisms import Site, configure
from tasks import find
from tests import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]
SITES = [
    Site(channels=32, shape=(16, 16), block=1),
    Site(channels=32, shape=(128,)),
    Site(channels=32, shape=(256,), causal=True),
]
SLOTS = [
    (name, site)
    for name in mechanisms.names()
    for site in SITES
    if site.setting in mechanisms.find(name).fits and "cuda" in mechanisms.find(name).devices
]


def built(name: str, site: Site) -> torch.nn.Module:
    if why := mechanisms.find(name).absence("cuda"):
        pytest.skip(why)
    torch.manual_seed(0)
    return mechanisms.build(name, site)


@pytest.mark.parametrize(("name", "site"), SLOTS, ids=lambda it: it if isinstance(it, str) else it.setting)
def test_cuda_computes_what_the_cpu_computes_in_float64_forward_and_backward(name, site):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    module = built(name, site)
    exact = mechanisms.build(mechanisms.find(name).reference or name, site).double()
    exact.load_state_dict({key: weight.double() for key, weight in module.state_dict().items()})
    x = torch.randn(2, *site.shape, site.channels)
    fast_x, exact_x = x.cuda().requires_grad_(), x.double().requires_grad_()
    fast, slow = module.cuda()(fast_x), exact(exact_x)
    fast.square().mean().backward()
    slow.square().mean().backward()
    if name.endswith("_fla"):  # kernels that compute in bfloat16 inside
        assert (fast.double().cpu() - slow).norm() <= 0.05 * slow.norm()
        return
    torch.testing.assert_close(fast.double().cpu(), slow, rtol=1e-4, atol=1e-5)
    if slow.requires_grad and exact_x.grad is not None and fast_x.grad is not None:
        torch.testing.assert_close(fast_x.grad.double().cpu(), exact_x.grad, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("name", "site"), SLOTS, ids=lambda it: it if isinstance(it, str) else it.setting)
def test_autocast_to_bfloat16_stays_finite_and_near(name, site):
    module = built(name, site).cuda()
    x = torch.randn(2, *site.shape, site.channels, device="cuda")
    plain = module(x)
    with torch.autocast("cuda", torch.bfloat16):
        low = module(x).float()
    assert low.isfinite().all()
    assert (low - plain).norm() <= 0.05 * plain.norm()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU or none is here")
def test_two_gpus_train_a_cell_with_the_numbers_of_one(tmp_path):
    """The same code as on a CPU, with nccl; see test_train_parallel.py."""
    tiny.data(tmp_path / "data")
    knobs = tiny.TASK | {"epochs": 2, "batch": 3}
    found = {}
    for gpus in (1, 2):
        (place := tmp_path / str(gpus)).mkdir()
        asked = tiny.spec(device="cuda", gpus=gpus, task={"name": "darcy", "version": 1, "knobs": knobs})
        command = [sys.executable, "-m", "attnbench.run", str(tiny.written(place, asked)), str(place / "outcome.json")]
        words = ["--data", str(tmp_path / "data"), "--cell", str(place)]
        root = Path(__file__).parent.parent
        done = subprocess.run([*command, *words], cwd=root, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        found[gpus] = json.loads((place / "outcome.json").read_text())
        assert found[gpus]["error"] is None
    assert found[2]["result"] == pytest.approx(found[1]["result"], rel=1e-3)


def costs(name: str, channels: int) -> dict[str, float]:
    task = find("darcy")
    config = configure(task.config, {"side": 16}, of="darcy")
    make = maker("isotropic", {"channels": channels, "depth": 2}, (name, {}), 0)
    return measure.cost(make, task.cls(config, Path("unused")), config.port, device="cuda")[0]


def test_memory_peaks_do_not_carry_over_from_a_larger_model_to_a_smaller():
    small, large = costs("full", 16), costs("full", 64)
    again = costs("full", 16)
    assert large["memory_train_mib"] > small["memory_train_mib"]
    assert again["memory_train_mib"] == pytest.approx(small["memory_train_mib"], rel=0.02)


def test_a_training_cell_trains_on_cuda(tmp_path):
    task = find("darcy")
    config = configure(
        task.config, {"side": 8, "refine": 2, "train": 32, "valid": 8, "test": 8, "epochs": 2}, of="darcy"
    )
    darcy = task.cls(config, tmp_path)
    darcy.prepare(lambda *_: None, 1)
    make = maker("isotropic", {"channels": 16, "depth": 1}, ("mano", {"levels": 2}), 0)
    weights = copy.deepcopy(make(config.port).state_dict())
    assert all(not weight.is_cuda for weight in weights.values())
    assert 0 < darcy.run(make, seed=0, device="cuda").result["rel_l2"] < 1.5
