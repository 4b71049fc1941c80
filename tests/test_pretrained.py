"""Weights trained elsewhere: what of a model came from them, what is trained further, which files are refused."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mechanisms
from attnbench import flops
from attnbench.models import _origins, _pretrained, maker
from mechanisms import Site
from tasks import Port, update
from tests.timm_peers import IMAGE, SWIN, VIT, full, images, made, mano, peer_vit, saved, small_peer, swin, weights

STRANGER = Site(channels=1, shape=(1,))  # an object, which a file of weights alone does not hold


def started(folder: Path, **knobs: Any) -> Any:
    """MANO on the weights of a trained Swin V2 for other classes."""
    port = Port(inputs=3, outputs=7, shape=(16, 16), once=True)
    return made("swinv2", port, SWIN | {"pretrained": saved(small_peer(), folder)} | knobs, mano)


def fresh(name: str) -> bool:
    return any(word in name for word in ("mechanism.down", "mechanism.up", "head.fc", ".adapter."))


def test_only_samplers_and_the_head_of_mano_are_drawn(tmp_path):
    model, peer = started(tmp_path), small_peer().state_dict()
    origin = model.origin()
    assert origin == {name: "drawn" if fresh(name) else "pretrained" for name, _ in model.named_parameters()}
    assert sum(source == "drawn" for source in origin.values()) == 4 * 2 + 2
    weight, fused = model.state_dict(), peer["layers.1.blocks.0.attn.qkv.weight"]
    assert torch.equal(weight["net.layers.1.blocks.0.mechanism.cosine.k.weight"], fused[16:32])
    assert torch.equal(weight["net.norm.weight"], peer["norm.weight"])


@pytest.mark.parametrize(
    ("train", "trained"),
    [("all", lambda _: True), ("head", lambda name: "head.fc" in name), ("new", fresh)],
    ids=["all", "head", "new"],
)
def test_what_is_not_trained_stays_as_it_is(train, trained, tmp_path):
    model = started(tmp_path, train=train, adapter_stages=1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    for _ in range(2):  # an adapter's first layer moves only once its second has
        batch = images(IMAGE, torch.float32), torch.tensor([1, 6])
        update(model.train(), batch, nn.functional.cross_entropy, optimiser, 0.01)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if trained(name)}


def test_one_set_of_projections_fills_those_of_every_level(tmp_path):
    def build(site: Site) -> nn.Module:
        knobs = {"heads": 2, "window": 2, "levels": 2, "attention": "per_level"}
        return mechanisms.build("mano", site, position=position, **knobs)

    peer = small_peer()
    for position in ("plain", "swin_v2"):
        model = made("swinv2", IMAGE, SWIN | {"pretrained": saved(peer, tmp_path)}, build)
        origin = {name for name, source in model.origin().items() if source == "drawn"}
        assert not {name for name in origin if not fresh(name)}, position


def test_an_adapter_adds_nothing_before_it_is_trained(tmp_path):
    file = saved(small_peer(), tmp_path)
    with_it, without = (
        made("swinv2", IMAGE, SWIN | {"pretrained": file, "adapter_stages": stages}, swin).eval() for stages in (2, 0)
    )
    x = images(IMAGE, torch.float32)
    assert torch.equal(with_it(x), without(x))
    assert weights(with_it) - weights(without) == 2 * 8 * 8**2 + 2 * 8 * 16**2


def test_weights_for_a_class_token_lose_it_and_their_last_norm_moves(tmp_path):
    peer = peer_vit(IMAGE, class_token=True)
    file, state = saved(peer, tmp_path), peer.state_dict()
    pooled = made("vit", IMAGE, VIT | {"pretrained": file}, full)
    assert set(pooled.origin().values()) == {"pretrained"}
    assert torch.equal(pooled.net.pos_embed, state["pos_embed"][:, 1:])
    assert torch.equal(pooled.net.fc_norm.weight, state["norm.weight"])
    dense = made("vit", Port(inputs=3, outputs=2, shape=(32, 16)), VIT | {"pretrained": file}, full)
    assert {name for name, source in dense.origin().items() if source == "drawn"} == {"head.0.weight", "head.0.bias"}
    assert dense.net.pos_embed.shape == (1, 32, 8)


@pytest.mark.parametrize("knobs", [{"patch": 2}, {"patch": 4}])
def test_counting_needs_the_shapes_of_pretrained_weights_alone(knobs, tmp_path):
    port = Port(inputs=3, outputs=5, shape=(32, 32), once=True)
    for name, small, peer in (("swinv2", SWIN, small_peer()), ("vit", VIT, peer_vit(IMAGE))):
        options = small | {"pretrained": saved(peer, tmp_path)} | knobs
        assert flops.count(maker(name, options, ("full", {"heads": 2}), 0), port).params > 0


@pytest.mark.parametrize(
    ("name", "tag"), [("swinv2", "swinv2_tiny_window8_256.ms_in1k"), ("vit", "vit_tiny_patch16_224.augreg_in21k")]
)
def test_a_name_on_timms_hub_is_checked_without_fetching_it(name, tag):
    port = Port(inputs=3, outputs=10, shape=(256, 256), once=True)
    with torch.device("meta"):
        model = made(name, port, {"pretrained": tag}, lambda _: nn.Identity())
    drawn_ones = {name for name, source in model.origin().items() if source == "drawn"}
    head = "net.head.fc" if name == "swinv2" else "net.head"
    assert drawn_ones == {f"{head}.weight", f"{head}.bias"}


@pytest.mark.parametrize("kind", ["plain", "wrapped", "safetensors"])
def test_files_of_three_kinds_are_read(kind, tmp_path):
    state = small_peer().state_dict()
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if kind == "wrapped" else state, file)
    model = made("swinv2", IMAGE, SWIN | {"pretrained": str(file)}, swin)
    assert set(model.origin().values()) == {"pretrained"}
    assert torch.equal(model.net.head.fc.weight, state["head.fc.weight"])


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_that_was_cut_off_is_refused(ending, tmp_path):
    file = tmp_path / f"weights.{ending}"
    save_file(small_peer().state_dict(), file) if ending == "safetensors" else saved(small_peer(), tmp_path)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"swinv2.pretrained: /.*weights.{ending} is damaged, or no file of weights"):
        made("swinv2", IMAGE, SWIN | {"pretrained": str(file)}, swin)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda state: state | {"layers.1.blocks.2.norm1.weight": torch.ones(16)}, "holds 'layers.1.blocks.2"),
        (lambda state: {k: v for k, v in state.items() if k != "norm.bias"}, "lacks 'norm.bias'"),
        (lambda state: state | {"norm.bias": torch.ones(3)}, r"'norm.bias' is \(3,\) there and \(16,\) here"),
        (lambda state: state | {"epoch": 3}, "is no mapping of names to weights"),
        (lambda _: [1, 2], "is no mapping of names to weights"),
        (lambda _: STRANGER, "is damaged, or no file of weights alone"),
    ],
)
def test_a_file_of_other_weights_is_refused(damage, words, tmp_path):
    file = Path(saved(small_peer(), tmp_path))
    torch.save(damage(small_peer().state_dict()), file)
    with pytest.raises(ValueError, match=words):
        made("swinv2", IMAGE, SWIN | {"pretrained": str(file)}, swin)


def test_other_heads_than_the_weights_were_trained_with_are_refused(tmp_path):
    file = saved(small_peer(), tmp_path)
    with pytest.raises(ValueError, match=r"mechanism.logit_scale' is \(2, 1, 1\) there and \(4, 1, 1\) here"):
        made("swinv2", IMAGE, SWIN | {"pretrained": file}, lambda site: swin(site, 4))


def test_the_work_of_a_model_says_how_many_weights_are_trained_and_came_from_a_file(tmp_path):
    model = started(tmp_path, train="new")
    origin, weights = model.origin(), dict(model.named_parameters())
    file = saved(small_peer(), tmp_path)
    knobs = SWIN | {"pretrained": file, "train": "new"}
    inside = ("mano", {"heads": 2, "window": 2, "levels": 2, "position": "swin_v2"})
    port = Port(inputs=3, outputs=7, shape=(16, 16), once=True)
    work = flops.count(maker("swinv2", knobs, inside, 0), port)
    told = {name: weight.numel() for name, weight in weights.items()}
    assert work.params == sum(told.values())
    assert work.params_trained == sum(number for name, number in told.items() if fresh(name)) < work.params
    assert work.params_pretrained == sum(number for name, number in told.items() if origin[name] == "pretrained")
    plain = flops.count(maker("swinv2", SWIN, inside, 0), port)
    assert (plain.params_trained, plain.params_pretrained) == (plain.params, 0)


def test_a_row_names_the_file_of_its_weights_with_the_hash_of_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(_origins, "READ", {})
    monkeypatch.setattr(_pretrained, "READ", _origins.READ)
    assert _origins.weights_read() == {}
    knobs = SWIN | {"pretrained": saved(small_peer(), tmp_path)}
    inside, port = ("full", {"heads": 2}), Port(inputs=3, outputs=7, shape=(16, 16), once=True)
    flops.count(maker("swinv2", knobs, inside, 0), port)
    assert _origins.weights_read() == {}  # shapes alone
    maker("swinv2", knobs, inside, 0)(port)
    file = Path(knobs["pretrained"])
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert _origins.weights_read() == {"pretrained": file.name, "pretrained_hash": f"sha256:{digest}"}


def test_the_hash_of_weights_without_a_file_tells_values_names_and_types():
    state = {"a": torch.ones(2, dtype=torch.float16), "b": torch.zeros(0)}
    others = [
        {"a": torch.ones(2)},
        {"a": torch.zeros(2, dtype=torch.float16)},
        {"c": torch.ones(2, dtype=torch.float16)},
    ]
    hashes = [_pretrained.content(state), *(_pretrained.content({"b": torch.zeros(0)} | other) for other in others)]
    assert len(set(hashes)) == 4
    assert _pretrained.content(dict(reversed(state.items()))) == hashes[0]
