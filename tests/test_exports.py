"""Our models among others': in timm's registry by an import alone."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tasks
from attnbench.models import maker
from attnbench.models._timm import timm
from mechanisms.swin import from_timm
from tasks import Port
from tests.exact import drawn
from tests.timm_peers import weights

ROOT = Path(tasks.__file__).parents[1]
HEADS = {"1": 3, "2": 6, "3": 12, "4": 24}


def child(code: str) -> list[str]:
    """The lines that Python code prints in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_after_an_import_that_leaves_timm_alone_timm_makes_our_model():
    code = """
import attnbench.models, sys
print(*(name for name in ("timm", "torchvision", "neuralop", "segmentation_models_pytorch") if name in sys.modules))
import timm
print(sum(weight.numel() for weight in timm.create_model("mano_swinv2_tiny").parameters()))
"""
    assert child(code) == ["", str(28_347_154 + 737_280)]


def test_timm_makes_our_model_also_where_it_was_imported_first():
    """The help for torchvision is taken from its file, so that nothing of this bench's models is there before timm."""
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("help", {str(ROOT / "attnbench/models/_timm.py")!r})
help = importlib.util.module_from_spec(spec)
spec.loader.exec_module(help)
timm = help.timm()
print(timm.is_model("mano_swinv2_tiny"), "attnbench" in sys.modules)
import attnbench.models
print(*timm.list_models("*mano_swin*"), *timm.list_models("attnbench_*"))
"""
    sizes = ("base", "small", "tiny")
    names = [f"{family}_swinv2_{size}" for family in ("mano", "attnbench") for size in sizes]
    assert child(code) == ["False False", " ".join(names)]


@pytest.mark.parametrize(("size", "more"), [("tiny", 737_280), ("small", 737_280), ("base", 16 * (128**2 + 256**2))])
def test_mano_adds_a_pair_of_samplers_to_every_block_of_the_first_two_stages(size, more):
    with torch.device("meta"):
        ours, theirs = (
            timm().create_model(f"{name}") for name in (f"mano_swinv2_{size}", f"swinv2_{size}_window8_256")
        )
    assert weights(ours) - weights(theirs) == more


def redrawn(model: Any) -> Any:
    """Norms drawn, too: timm starts Swin V2's at zero, where no block does anything."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / (3 if parameter.ndim < 2 else 20)
    return model.eval()


def test_it_is_our_own_model_with_mano_in_its_socket():
    model = redrawn(
        timm().create_model("mano_swinv2_tiny", img_size=64, levels=(2, 1, 1, 1), num_classes=7, in_chans=2)
    )
    knobs = {"heads": HEADS, "levels": {"1": 2, "2": 1, "3": 1, "4": 1}, "position": "swin_v2"}
    windows = {"1": 8, "2": 8, "3": 4, "4": 2}  # on grids of 16, 8, 4 and 2 tokens
    port, x = Port(inputs=2, outputs=7, shape=(64, 64), once=True), drawn(2, 64, 64, 2).float()
    ours = maker("swinv2", {}, ("mano", knobs | {"window": windows}), 0)(port).eval()
    ours.load_state_dict({f"net.{name}": weight for name, weight in model.state_dict().items()})
    expected = ours(x)
    assert float(expected.detach().std()) > 0.1
    assert torch.equal(model(x.movedim(-1, 1)), expected)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's weights with every attention's under the names of `swin`."""
    found = {name: weight for name, weight in state.items() if ".attn." not in name}
    for block in sorted({name.partition(".attn.")[0] for name in state if ".attn." in name}):
        start = f"{block}.attn."
        inside = from_timm({name.removeprefix(start): w for name, w in state.items() if name.startswith(start)})
        found |= {f"{block}.mechanism.{name}": weight for name, weight in inside.items()}
    return found


@pytest.mark.parametrize("features_only", [False, True])
def test_with_swin_in_the_socket_timm_gives_what_its_own_model_gives(features_only):
    common: dict[str, Any] = {"img_size": 128, "features_only": features_only}
    theirs = redrawn(timm().create_model("swinv2_tiny_window8_256", **common))
    windows = {1: 8, 2: 8, 3: 8, 4: 4}  # on grids of 32, 16, 8 and 4 tokens
    knobs = {"version": "v2", "heads": {int(stage): heads for stage, heads in HEADS.items()}, "window": windows}
    ours = timm().create_model("attnbench_swinv2_tiny", mechanism="swin", knobs=knobs, **common).eval()
    ours.load_state_dict(renamed(theirs.state_dict()))
    x = drawn(1, 3, 128, 128).float()
    expected, found = theirs(x), ours(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    if features_only:
        assert [tuple(one.shape) for one in found] == [(1, 32 >> i, 32 >> i, 96 << i) for i in range(4)]
        assert ours.feature_info.channels() == theirs.feature_info.channels() == [96, 192, 384, 768]


def test_timm_knows_the_model_as_its_own():
    resolve = importlib.import_module(f"{timm().__name__}.data").resolve_data_config
    with torch.device("meta"):
        model: Any = timm().create_model("mano_swinv2_tiny", num_classes=0)
        assert model(torch.empty(1, 3, 256, 256)).shape == (1, 768)
        model.reset_classifier(9)
        assert model(torch.empty(1, 3, 256, 256)).shape == (1, 9)
    assert resolve({}, model=model)["input_size"] == (3, 256, 256)
    assert model.pretrained_cfg["architecture"] == "mano_swinv2_tiny"
    first, last = (model.get_submodule(model.pretrained_cfg[name]) for name in ("first_conv", "classifier"))
    assert (first.in_channels, last.out_features) == (3, 9)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("mano_swinv2_tiny", {"levels": (2, 1)}, r"mano_swinv2_tiny: levels are one number for each of 4 stages"),
        ("mano_swinv2_tiny", {"img_size": 64}, "mano"),
        ("mano_swinv2_tiny", {"drop_rat": 0.5}, "swinv2 has no knob 'drop_rat'. Did you mean 'drop_path'"),
        ("attnbench_swinv2_tiny", {"mechanism": "mana"}, "Did you mean 'mano'"),
        ("attnbench_swinv2_tiny", {"knobs": {"hed": 3}}, "full has no knob 'hed'"),
    ],
)
def test_what_timm_hands_on_wrongly_is_refused(name, arguments, words):
    with pytest.raises(ValueError, match=words), torch.device("meta"):
        timm().create_model(name, **arguments)


def test_there_are_no_pretrained_weights_to_ask_for():
    with pytest.raises(RuntimeError, match="No pretrained weights exist for mano_swinv2_tiny"), torch.device("meta"):
        timm().create_model("mano_swinv2_tiny", pretrained=True)
