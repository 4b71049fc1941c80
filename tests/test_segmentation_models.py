"""UPerNet around Swin V2: the package's own model with the same weights, what is trained, refusals, and an epoch."""

import sys
from collections.abc import Iterator
from math import log
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from attnbench import flops
from attnbench.models import find, maker
from attnbench.models._segmentation import PACKAGE, library
from tasks import Port
from tests.epochs import trained
from tests.timm_peers import images, made, redrawn, swin

IMAGE = Port(inputs=3, outputs=5, shape=(64, 128))
SMALL: dict[str, Any] = {
    "size": "custom",
    "channels": 8,
    "blocks": "2 1 2",
    "patch": 4,
    "drop_path": 0.0,
    "head_channels": 6,
}


@pytest.fixture
def doubled() -> Iterator[None]:
    """Everything is made in float64 meanwhile."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def peer() -> Any:
    """The package's own UPerNet around timm's own Swin V2, of the same small size."""
    sizes = {"img_size": IMAGE.shape, "embed_dim": 8, "depths": (2, 1, 2), "num_heads": (2, 2, 2), "window_size": 4}
    kind = library(of="this test").UPerNet
    model = kind(
        "tu-swinv2_tiny_window8_256",
        encoder_depth=4,
        encoder_weights=None,
        decoder_channels=6,
        in_channels=3,
        classes=5,
        **sizes,
    )
    return redrawn(model)


def saved(theirs: Any, folder: Path) -> str:
    """The encoder's weights as timm's whole model has them: with a last norm, which no stage shows."""
    state = {name.replace("layers_", "layers."): weight for name, weight in theirs.encoder.model.state_dict().items()}
    state |= {f"norm.{part}": torch.ones(32) for part in ("weight", "bias")}
    torch.save(state, folder / "weights.pth")
    return str(folder / "weights.pth")


@pytest.mark.usefixtures("doubled")
def test_with_swin_in_the_socket_it_is_the_packages_own_model(tmp_path):
    theirs, x = peer(), images(IMAGE)
    ours = made("upernet", IMAGE, SMALL | {"pretrained": saved(theirs, tmp_path)}, swin).eval()
    ours.head[0].load_state_dict(theirs.decoder.state_dict())
    ours.head[1].load_state_dict(theirs.segmentation_head.state_dict())
    expected = torch.stack(list(theirs(torch.stack(x.unbind(-1), 1)).unbind(1)), -1)
    assert float(expected.detach().std()) > 0.01
    torch.testing.assert_close(ours(x), expected, rtol=1e-8, atol=1e-8)
    assert sum(w.numel() for w in ours.parameters()) == sum(w.numel() for w in theirs.parameters())


@pytest.mark.usefixtures("doubled")
@pytest.mark.parametrize("train", ["all", "new", "head"])
def test_what_is_trained_is_all_or_what_was_drawn_or_the_head(train, tmp_path):
    knobs = SMALL | {"pretrained": saved(peer(), tmp_path), "train": train, "adapter_stages": 1}
    model = made("upernet", IMAGE, knobs, swin)
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    drawn = {name for name, source in model.origin().items() if source == "drawn"}
    head = {name for name in drawn if name.startswith("head.")}
    adapters = {name for name in drawn if ".adapter." in name}
    assert drawn == head | adapters
    assert len(adapters) == 2 * 2
    assert learning == {"all": set(model.origin()), "new": drawn, "head": head}[train]


def test_every_weight_learns():
    model = maker("upernet", SMALL, ("linear", {}), 0)(IMAGE)
    for module in model.modules():  # timm starts these norms at zero, where no block does anything
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
    y = model(images(IMAGE, torch.float32))
    assert y.shape == (2, 64, 128, 5)
    y.square().mean().backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]


def test_another_mechanism_leaves_all_weights_around_it_alike():
    found = [maker("upernet", SMALL, (name, {}), 0)(IMAGE).state_dict() for name in ("identity", "full")]
    assert found[0].keys() < found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("mechanism", [("mano", {"levels": 1}), ("pooled", {})])
def test_shapes_alone_are_enough_to_count_the_work(mechanism):
    assert flops.count(maker("upernet", SMALL, mechanism, 0), IMAGE).matmul_flops > 0


@pytest.mark.parametrize(
    ("port", "knobs", "words"),
    [
        (Port(inputs=3, outputs=5, shape=(32, 32), once=True), {}, "upernet answers at every point"),
        (Port(inputs=3, outputs=5, shape=(32,)), {}, "upernet serves grids"),
        (Port(inputs=3, outputs=5, shape=(30, 32)), {}, r"upernet.patch must divide the task's shape \(30, 32\)"),
        (IMAGE, {"blocks": "2"}, "upernet: blocks need two stages or more, for the head joins them; got '2'"),
        (IMAGE, {"head_channels": 0}, "upernet.head_channels should be greater than 0; got 0"),
    ],
)
def test_what_does_not_fit_is_refused(port, knobs, words):
    with pytest.raises(ValueError, match=words):
        made("upernet", port, SMALL | knobs, swin)


@pytest.mark.parametrize("instead", [None, ModuleType(PACKAGE)], ids=["nothing", "a lone file"])
def test_without_the_package_the_refusal_says_how_to_get_it(instead, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, PACKAGE, instead)
    with pytest.raises(ValueError, match=r"^upernet needs the package segmentation-models-pytorch: pip install"):
        made("upernet", IMAGE, SMALL, swin)


def test_it_has_a_socket_and_the_stages_of_its_size():
    entry: Any = find("upernet")
    assert entry.socket
    assert entry.config().stages == 4
    assert "blocks" in entry.config().idle()


def test_it_trains_an_epoch(tmp_path):
    words = "--levels=2 --window=2 --side=32 --task.train=8 --valid=4 --test=4 --epochs=1 --batch=4"
    small = "--size=custom --model.channels=8 --head-channels=8 --patch=4"
    result = trained("segment", "mano", f"{words} {small}", tmp_path, model="upernet")
    assert 0 < result["train_loss"] < 2 * log(11)
