"""Our models among others': in timm's registry by an import alone, and under neuraloperator's own trainer."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import tasks
from attnbench.models import maker, neuralop
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


# --- timm


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


# --- neuraloperator

NETS: dict[str, dict[str, Any]] = {
    "mano_net": {"model": "mano_net", "channels": 8, "heads": 2, "head_channels": 4, "mlp": 8, "depth": 1},
    "mano": {"model": "isotropic", "mechanism": ("mano", {"levels": 2}), "channels": 8, "depth": 1},
    "full": {"model": "isotropic", "mechanism": "full", "channels": 8, "depth": 1},
    "fno": {"model": "fno", "modes": 4, "channels": 4, "depth": 1},
}
each_net = pytest.mark.parametrize("name", NETS)


def operator(name: str, shape: tuple[int, int] = (16, 16), seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return neuralop(in_channels=1, out_channels=1, shape=shape, **NETS[name])


@pytest.fixture
def darcy(tmp_path: Path) -> Any:
    """The package's own Darcy data set, read from files made up in its form: a field of zeros and ones, an answer."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for side in (16, 32):
            x = torch.rand(6, side, side, generator=generator) > 0.5
            torch.save({"x": x, "y": 3 * x.roll(1, -1) + 0.1 * side}, tmp_path / f"darcy_{split}_{side}.pt")
    datasets = importlib.import_module("neuralop.data.datasets.darcy")
    counts = {"n_train": 6, "n_tests": [6, 6], "batch_size": 3, "test_batch_sizes": [3, 3]}
    return datasets.DarcyDataset(tmp_path, train_resolution=16, test_resolutions=[16, 32], download=False, **counts)


def loaders(darcy: Any) -> tuple[Any, dict[int, Any]]:
    """Batches to train on, and to test on by side."""
    return DataLoader(darcy.train_db, batch_size=3), {
        side: DataLoader(found, batch_size=3) for side, found in darcy.test_dbs.items()
    }


def trained(model: nn.Module, darcy: Any, processor: bool = True, **more: Any) -> dict[str, Any]:
    """What the package's trainer reports after two epochs."""
    kind = importlib.import_module("neuralop.training").Trainer
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 1)
    train, tests = loaders(darcy)
    trainer = kind(model=model, n_epochs=2, data_processor=darcy.data_processor if processor else None)
    return trainer.train(train, tests, optimiser, scheduler, **more)


@each_net
def test_neuraloperators_trainer_trains_it_and_tests_it_at_two_resolutions(name, darcy):
    model = operator(name)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    metrics = trained(model, darcy)
    moved = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    assert {key for key in before if key.endswith("weight")} <= moved
    train, tests = loaders(darcy)
    known = torch.cat([batch["y"] for batch in train])
    for side in (16, 32):
        errors = []
        for batch in tests[side]:
            answers = known.std() * model.eval()(batch["x"]).detach() + known.mean()
            errors += [float((a - y).norm() / y.norm()) for a, y in zip(answers, batch["y"], strict=True)]
        assert float(metrics[f"{side}_l2"]) == pytest.approx(sum(errors) / 6, rel=1e-3)
    assert metrics["train_err"] > 0


def test_the_trainer_trains_it_without_a_data_processor(darcy):
    metrics = trained(operator("mano_net"), darcy, processor=False)
    assert 0 < float(metrics["32_l2"]) < 10


@each_net
def test_training_resumes_from_what_the_trainer_saved_and_a_checkpoint_makes_the_model_again(name, darcy, tmp_path):
    model, other, x = operator(name), operator(name, seed=1), drawn(2, 1, 16, 16).float()
    trained(model, darcy, save_every=1, save_dir=tmp_path / "saved")
    assert not torch.equal(other(x), model(x))
    again = type(model).from_checkpoint(tmp_path / "saved", "model")
    assert torch.equal(again(x), model(x))
    assert again.port == model.port
    torch.manual_seed(2)
    trained(model, darcy, resume_from_dir=tmp_path / "saved")  # the epoch that was saved last, once more
    torch.manual_seed(2)
    trained(other, darcy, resume_from_dir=tmp_path / "saved")
    assert torch.equal(other(x), model(x))


@each_net
def test_it_is_our_model_with_the_packages_coordinates_behind_its_channels(name):
    model, x = operator(name, (16, 8)), drawn(2, 1, 16, 8).float()
    rows, columns = torch.arange(16) / 16, torch.arange(8) / 8
    first, second = torch.meshgrid(rows, columns, indexing="ij")
    given = torch.stack([x[:, 0], first.expand(2, 16, 8), second.expand(2, 16, 8)], -1)
    knobs = dict(NETS[name])
    inside = knobs.pop("mechanism", None)
    port = Port(inputs=3, outputs=1, shape=(16, 8), places=True)
    ours = maker(knobs.pop("model"), knobs, (inside, {}) if isinstance(inside, str) else inside, 0)(port)
    ours.load_state_dict(model.net.state_dict())
    torch.testing.assert_close(model(x), ours(given)[..., 0].unsqueeze(1))
    assert torch.equal(model(x, y=x), model(x))


def test_weights_at_another_resolution_are_the_same_and_learn_there_too():
    model, x = operator("mano"), drawn(1, 1, 32, 32).float()
    port = Port(inputs=3, outputs=1, shape=(32, 32), places=True)
    larger = maker("isotropic", {"channels": 8, "depth": 1}, ("mano", {"levels": 2}), 0)(port)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        larger.load_state_dict(model.net.state_dict())
        given = model.places(x).movedim(1, -1)
        torch.testing.assert_close(model(x), larger(given).movedim(-1, 1))
        model(x).square().sum().backward()
        assert all(weight.grad is not None for weight in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
    assert len(list(model.parameters())) == len(list(larger.parameters()))


def test_weights_bound_to_a_grid_are_refused_on_another():
    model = neuralop(
        "isotropic", in_channels=1, out_channels=1, shape=(8, 8), mechanism="full", position="learned", channels=8
    )
    with pytest.raises(ValueError, match=r"isotropic has weights that depend on its grid \(8, 8\), so it cannot serve"):
        model(torch.zeros(1, 1, 16, 16))


def test_torchs_seed_decides_the_weights():
    one, same, other = (operator("mano", seed=seed).net.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lift.weight"], other["lift.weight"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "isotropc", "mechanism": "full"}, "Did you mean 'isotropic'"),
        ({"model": "isotropic"}, "isotropic needs a mechanism; got none"),
        ({"model": "mano_net", "mechanism": "full"}, "mano_net is a whole model and takes no mechanism"),
        ({"model": "mano_net", "widht": 3}, "mano_net has no knob 'widht'"),
        ({"model": "mano_net", "window": 3}, "mano_net"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        neuralop(in_channels=1, out_channels=1, shape=(16, 16), **arguments)
