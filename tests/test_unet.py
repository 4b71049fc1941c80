"""The plain U-Net: one pass written out, its weights counted, what it refuses, and an epoch of each of its tasks."""

import sys
from dataclasses import replace
from math import log
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnbench import flops
from attnbench.models import find, maker
from attnbench.models._segmentation import PACKAGE, library
from tasks import Port
from tests.epochs import trained
from tests.exact import drawn

FIELD = Port(inputs=3, outputs=2, shape=(16, 24))


def made(port: Port = FIELD, **knobs: int) -> nn.Module:
    return maker("unet", knobs, None, 0)(port)


def redrawn(model: nn.Module) -> nn.Module:
    """Every weight and running mean drawn, in float64."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64) / 3
    for buffer in model.double().buffers():
        if buffer.dtype.is_floating_point:
            buffer.data = torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + 0.5
    return model.eval()


def written(weights: dict[str, Tensor], x: Tensor, levels: int) -> Tensor:
    """The network of the paper's figure 1, padded and normed, from channels first to channels first."""

    def convolved(y: Tensor, name: str) -> Tensor:
        y = F.conv2d(F.pad(y, (1, 1, 1, 1)), weights[f"{name}.0.weight"])
        mean, spread, factor, shift = (
            weights[f"{name}.1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((y - mean) / (spread + 1e-5).sqrt() * factor + shift).clamp(min=0)

    kept = []
    for level in range(levels + 1):
        if level:
            x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax((3, 5))
        x = convolved(convolved(x, f"down.{level}.0"), f"down.{level}.1")
        kept.append(x)
    for step, level in enumerate(reversed(range(levels))):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = torch.cat([x, kept[level]], 1)
        x = convolved(convolved(x, f"up.blocks.{step}.conv1"), f"up.blocks.{step}.conv2")
    return F.conv2d(x, weights["head.0.weight"], weights["head.0.bias"])


@pytest.mark.parametrize("levels", [1, 3])
def test_a_pass_is_the_papers_written_out(levels):
    model, x = redrawn(made(channels=4, levels=levels)), drawn(2, 16, 24, 3)
    first = torch.stack(list(x.unbind(-1)), 1)
    expected = written(model.state_dict(), first, levels)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(model(x), torch.stack(list(expected.unbind(1)), -1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("channels", "levels"), [(64, 4), (16, 3)])
def test_weights_are_those_of_convolutions_and_norms(channels, levels):
    """Two of 9 a b weights and 2 b of their norm a level and direction, and one point-wise map."""
    widths = [channels * 2**level for level in range(levels + 1)]
    pairs = list(zip([3, *widths], widths, strict=False))
    pairs += [(widths[level + 1] + widths[level], widths[level]) for level in range(levels)]
    expected = sum(9 * (before + after) * after + 4 * after for before, after in pairs) + 2 * channels + 2
    with torch.device("meta"):
        model = made(replace(FIELD, shape=(16, 32)), channels=channels, levels=levels)
    assert sum(weight.numel() for weight in model.parameters()) == expected


def test_a_point_sees_its_own_place_at_full_size():
    """With all that comes from below at rest, the answer still follows each point's neighbourhood."""
    model, x = redrawn(made(channels=4, levels=2)), drawn(1, 16, 24, 3)
    model.get_parameter("down.1.0.0.weight").data.zero_()  # what goes down is the same everywhere from here on
    other = x.clone()
    other[0, 5, 7] += 1.0
    moved = (model(x) != model(other)).any(-1)[0].nonzero()
    assert (moved.amin(0) >= torch.tensor([1, 3])).all()  # four convolutions reach four points far
    assert (moved.amax(0) <= torch.tensor([9, 11])).all()
    assert len(moved) > 20


def test_shapes_alone_are_enough_to_count_the_work():
    make = maker("unet", {"channels": 4}, None, 0)
    work = flops.count(make, FIELD)
    assert work.params == sum(weight.numel() for weight in make(FIELD).parameters())
    assert work.matmul_flops > 2 * 9 * 4 * 4 * 16 * 24


@pytest.mark.parametrize(
    ("port", "words"),
    [
        (
            Port(inputs=3, outputs=1, shape=(12, 20)),
            r"unet.levels: a grid \(12, 20\) cannot be halved 3 times; .* multiples of 8",
        ),
        (Port(inputs=3, outputs=1, shape=(64,)), "unet serves grids"),
        (Port(inputs=3, outputs=1, shape=(8, 8), once=True), "unet serves fields.* one answer an example"),
        (Port(inputs=3, outputs=1, shape=(8, 8), symbols=True), "unet serves fields.* gives symbols"),
    ],
)
def test_what_does_not_fit_is_refused(port, words):
    with pytest.raises(ValueError, match=words):
        made(port)


@pytest.mark.parametrize("instead", [None, ModuleType(PACKAGE)], ids=["nothing", "a lone file"])
def test_without_the_package_the_refusal_says_how_to_get_it(instead, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, PACKAGE, instead)
    with pytest.raises(ValueError, match=r"^unet needs the package segmentation-models-pytorch: pip install .*brings"):
        made()


def test_a_fault_inside_the_package_is_not_taken_for_its_absence(tmp_path, monkeypatch):
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        library("no_such_module", of="unet")
    (tmp_path / "half_there").mkdir()
    (tmp_path / "half_there" / "__init__.py").write_text("import no_such_requirement")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("attnbench.models._segmentation.PACKAGE", "half_there")
    with pytest.raises(ModuleNotFoundError, match="no_such_requirement"):
        library(of="unet")
    monkeypatch.setattr("attnbench.models._segmentation.PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match="unet needs the package"):
        library(of="unet")


def test_it_is_a_whole_model():
    assert not find("unet").socket


# --- trainings

SMALL = "--train=8 --valid=4 --test=4 --epochs=1 --batch=4 --model.channels=4 --levels=2"


@pytest.mark.parametrize(("task", "knobs"), [("darcy", "--side=8"), ("segment", "--side=32")])
def test_it_trains_an_epoch(task, knobs, tmp_path):
    loss = trained(task, "unet", f"{knobs} {SMALL}", tmp_path)["train_loss"]
    assert 0 < loss < {"darcy": 3.0, "segment": 2 * log(11)}[task]
