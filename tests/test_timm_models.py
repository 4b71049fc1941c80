"""timm's Swin V2 and ViT with a mechanism in their sockets: timm's own outputs, its sizes, and what each site is."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import mechanisms
from attnbench import flops
from attnbench.models import _pretrained, maker
from attnbench.models._timm import timm
from mechanisms import Site
from tasks import Port
from tests.timm_peers import (
    HEADS,
    IMAGE,
    LEVELS,
    SWIN,
    VIT,
    full,
    images,
    made,
    mano,
    peer_swin,
    peer_vit,
    saved,
    small_peer,
    swin,
    weights,
)


@pytest.fixture
def doubled() -> Iterator[None]:
    """Everything is made in float64 meanwhile."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def alike(model: nn.Module, peer: nn.Module, port: Port) -> None:
    """Equal outputs, and equal gradients of the input."""
    x, y = images(port).requires_grad_(), images(port).requires_grad_()
    ours, theirs = model.eval()(x), peer(torch.stack(y.unbind(-1), 1))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    assert float(ours.detach().std()) > 0.01
    grads = [torch.autograd.grad(out.square().sum(), given)[0] for out, given in ((ours, x), (theirs, y))]
    torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-8)


@pytest.mark.usefixtures("doubled")
def test_swinv2_tiny_with_swin_in_the_socket_gives_timms_own_outputs(monkeypatch):
    port = Port(inputs=3, outputs=5, shape=(64, 64), once=True)
    peer = peer_swin(port, 96, (2, 2, 6, 2), (3, 6, 12, 24), 4)
    monkeypatch.setattr(_pretrained, "read", lambda *_: peer.state_dict())
    model = made("swinv2", port, {"pretrained": "x"}, lambda site: swin(site, HEADS[site.stage]))
    assert set(model.origin().values()) == {"pretrained"}
    assert weights(model) == weights(peer)
    alike(model, peer, port)


@pytest.mark.usefixtures("doubled")
@pytest.mark.parametrize("shape", [(16, 16), (32, 16)])
def test_a_small_swinv2_with_weights_from_a_file_gives_timms_own_outputs(shape, tmp_path):
    port = Port(inputs=3, outputs=5, shape=shape, once=True)
    peer = small_peer(port)
    alike(made("swinv2", port, SWIN | {"pretrained": saved(peer, tmp_path)}, swin), peer, port)


@pytest.mark.usefixtures("doubled")
@pytest.mark.parametrize("shape", [(16, 16), (24, 16)])
def test_vit_with_full_in_the_socket_gives_timms_own_outputs(shape, tmp_path):
    port = Port(inputs=3, outputs=5, shape=shape, once=True)
    peer = peer_vit(port)
    model = made("vit", port, VIT | {"pretrained": saved(peer, tmp_path)}, full)
    assert weights(model) == weights(peer)
    alike(model, peer, port)


@pytest.mark.parametrize(("size", "name"), [("tiny", "tiny"), ("small", "small"), ("base", "base")])
def test_sizes_are_timms(size, name):
    port = Port(inputs=3, outputs=1000, shape=(256, 256), once=True)
    heads = HEADS if size != "base" else {1: 4, 2: 8, 3: 16, 4: 32}
    with torch.device("meta"):
        theirs = timm().create_model(f"swinv2_{name}_window8_256")
        ours = made("swinv2", port, {"size": size}, lambda site: swin(site, heads[site.stage], 8))
        their_vit = timm().create_model(f"vit_{name}_patch16_224", img_size=256, class_token=False, global_pool="avg")
        our_vit = made("vit", port, {"size": size}, lambda site: mechanisms.build("full", site, heads=1))
    assert weights(ours) == weights(theirs)
    assert weights(our_vit) == weights(their_vit)


@pytest.mark.parametrize("build", ["mano", "adapter"])
def test_mano_adds_its_published_number_of_weights_to_swinv2_tiny_and_the_control_as_many(build):
    port = Port(inputs=3, outputs=100, shape=(256, 256), once=True)
    mechanism = {
        "mano": lambda site: mano(site, HEADS[site.stage], LEVELS[site.stage], 8),
        "adapter": lambda site: swin(site, HEADS[site.stage], 8),
    }[build]
    with torch.device("meta"):
        plain = made("swinv2", port, {}, lambda site: swin(site, HEADS[site.stage], 8))
        model = made("swinv2", port, {"adapter_stages": 2 if build == "adapter" else 0}, mechanism)
    assert weights(plain) == 27_578_154 + 768 * 100 + 100
    assert weights(model) - weights(plain) == 737_280


# --- sites


def test_build_is_called_once_a_block_with_the_grid_of_its_stage():
    sites: list[Site] = []

    def build(site: Site) -> nn.Module:
        sites.append(site)
        return nn.Identity()

    port = Port(inputs=3, outputs=5, shape=(24, 20), once=True)
    made("swinv2", port, SWIN | {"blocks": "2 1 1"}, build)
    stages = [(1, 0, 8, (12, 10)), (1, 1, 8, (12, 10)), (2, 0, 16, (6, 5)), (3, 0, 32, (3, 3))]
    assert sites == [Site(channels=c, shape=shape, stage=stage, block=block) for stage, block, c, shape in stages]
    sites.clear()
    made("vit", port, VIT, build)
    assert sites == [Site(channels=8, shape=(6, 5), block=block) for block in (0, 1)]


@pytest.mark.parametrize(("name", "knobs"), [("swinv2", SWIN), ("vit", VIT)])
def test_drop_path_rises_to_the_last_block(name, knobs):
    model = made(name, IMAGE, knobs | {"drop_path": 0.5}, lambda _: nn.Identity())
    chances = [module.drop_prob for module in model.modules() if hasattr(module, "drop_prob")]
    assert chances[-2:] == [0.5, 0.5]
    assert chances == sorted(chances)


@pytest.mark.parametrize(("name", "knobs"), [("swinv2", SWIN), ("vit", VIT)])
def test_another_mechanism_leaves_all_weights_around_it_alike(name, knobs):
    found = [
        maker(name, knobs, mechanism, 0)(IMAGE).state_dict() for mechanism in (("linear", {}), ("mano", {"levels": 1}))
    ]
    around = [{key: value for key, value in one.items() if ".mechanism." not in key} for one in found]
    assert around[0].keys() == around[1].keys()
    assert all(torch.equal(around[0][key], around[1][key]) for key in around[0])
    assert any("linear" not in key and ".mechanism." in key for key in found[0])


@pytest.mark.parametrize(("name", "knobs"), [("swinv2", SWIN), ("vit", VIT)])
@pytest.mark.parametrize("mechanism", ["identity", "full", "mano"])
def test_shapes_alone_are_enough_to_count_the_work(name, knobs, mechanism):
    port = Port(inputs=1, outputs=10, shape=(32, 32), once=True)
    options = {"levels": 1} if mechanism == "mano" else {}
    assert flops.count(maker(name, knobs, (mechanism, options), 0), port).matmul_flops > 0


def test_each_patch_answers_for_its_own_points():
    """Nothing is mixed between patches, so an input point moves the answers of its patch alone."""
    port = Port(inputs=2, outputs=3, shape=(8, 12))
    model = made("vit", port, VIT, lambda _: nn.Identity()).eval()
    x = images(port, torch.float32)
    other = x.clone()
    other[:, 5, 6, 1] += 1.0
    moved = (model(x) != model(other)).any(-1).any(0)
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[4:8, 4:8] = True
    assert model(x).shape == (2, 8, 12, 3)
    assert torch.equal(moved, expected)
    head, tokens = model.head[0], model.net(model.first(x)).unflatten(1, (2, 3))
    answers = head(tokens)[1, 1, 2].reshape(4, 4, 3)  # of the patch in the last row and column
    torch.testing.assert_close(model(x)[1, 4:8, 8:12], answers)


# --- refusals


@pytest.mark.parametrize(
    ("name", "port", "knobs", "words"),
    [
        ("swinv2", Port(inputs=3, outputs=1, shape=(16, 16)), {}, "swinv2 gives one answer an example"),
        ("swinv2", Port(inputs=3, outputs=1, shape=(64,), once=True), {}, r"swinv2 serves grids .* shape is \(64,\)"),
        ("vit", Port(inputs=3, outputs=1, shape=(8, 8), once=True, symbols=True), {}, "vit serves images"),
        ("vit", IMAGE, {"patch": 5}, r"vit.patch must divide the task's shape \(16, 16\); got 5"),
        ("swinv2", IMAGE, {"blocks": "2 0"}, "swinv2.blocks should be one number of blocks for each stage"),
        ("swinv2", IMAGE, {"train": "new"}, "swinv2: train 'new' trains what is not pretrained"),
        ("swinv2", IMAGE, {"pretrained": "absent.pth"}, "swinv2.pretrained: there is no file /.*absent.pth"),
        ("vit", IMAGE, {"pretrained": "vit_nowhere"}, "vit.pretrained is a file .* got 'vit_nowhere'"),
    ],
)
def test_what_does_not_fit_is_refused(name, port, knobs, words):
    with pytest.raises(ValueError, match=words):
        made(name, port, (SWIN if name == "swinv2" else VIT) | knobs, lambda _: nn.Identity())
