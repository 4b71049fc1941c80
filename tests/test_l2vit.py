"""L2ViT: its published sizes and work, one pass written out, where its socket is, and an epoch."""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mechanisms
from attnbench import flops
from attnbench.models import find, maker
from attnbench.models.l2vit import Config, L2Vit
from mechanisms import Site, configure, resolved
from tasks import Port
from tests.epochs import trained
from tests.exact import drawn

IMAGE = Port(inputs=3, outputs=1000, shape=(224, 224), once=True)
SMALL: dict[str, Any] = {"size": "custom", "channels": 64, "blocks": "2 3"}


def linear(site: Site) -> nn.Module:
    """Its own mechanism, with its own number of heads."""
    return mechanisms.build("linear", site, feature="l2vit", heads=site.channels // 32)


def made(port: Port = IMAGE, build: Any = linear, **knobs: Any) -> L2Vit:
    return L2Vit(port, configure(Config, knobs, of="l2vit"), build)


# --- sizes


@pytest.mark.parametrize(
    ("size", "weights", "published_m"),
    [("tiny", 28_596_781, 29), ("small", 50_199_157, 50), ("base", 88_577_188, 89)],
)
def test_sizes_have_the_weights_of_the_released_code_and_round_to_the_papers(size, weights, published_m):
    with torch.device("meta"):
        assert sum(weight.numel() for weight in made(size=size).parameters()) == weights
    assert round(weights / 1e6) == published_m


@pytest.mark.parametrize(
    ("size", "heads", "published_g"),
    [("tiny", (3, 6, 12, 24), 4.7), ("small", (3, 6, 12, 24), 9.0), ("base", (4, 8, 16, 32), 15.9)],
)
def test_the_work_is_the_papers(size, heads, published_g):
    """The paper's counter takes norms and activations as well, which are less than three percent."""
    staged = {str(stage): one for stage, one in enumerate(heads, 1)}
    make = maker("l2vit", {"size": size}, ("linear", {"feature": "l2vit", "heads": staged}), 0)
    assert flops.count(make, IMAGE).matmul_flops / 2e9 == pytest.approx(published_g, rel=0.03)


# --- one pass, written out


def redrawn(model: nn.Module) -> nn.Module:
    """Every weight and every running mean drawn, in float64, so large that the clamp of 100 acts on some rows only."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64) / 3
    for buffer in model.double().buffers():
        if buffer.dtype.is_floating_point and buffer.ndim == 1:
            buffer.data = torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + 0.5
    return model.eval()


class Written:
    """L2ViT from its paper's formulas: dense N x N attention, tokens in one list, no module of ours."""

    def __init__(self, weights: dict[str, Tensor], window: int, blocks: list[int]):
        self.weights, self.window, self.blocks, self.clamped = weights, window, blocks, set[bool]()

    def norm(self, x: Tensor, name: str) -> Tensor:
        y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return y * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        w = {part: self.weights[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
        return (x - w["running_mean"]) / (w["running_var"] + 1e-5).sqrt() * w["weight"] + w["bias"]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def convolve(self, x: Tensor, name: str, *, stride: int = 1) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        groups = x.shape[-1] // weight.shape[1]
        y = F.conv2d(x.movedim(-1, 1), weight, bias, stride, weight.shape[-1] // 2, 1, groups)
        return y.movedim(1, -1)

    def projected(self, x: Tensor, name: str) -> tuple[Tensor, ...]:
        """Queries, keys and values [b, heads, tokens, 32]."""
        found = (self.linear(x, f"{name}.{part}").flatten(1, 2).unflatten(-1, (-1, 32)) for part in "qkv")
        return tuple(part.transpose(1, 2) for part in found)

    def joined(self, y: Tensor, x: Tensor, name: str) -> Tensor:
        return self.linear(y.transpose(1, 2).flatten(2).view_as(x), f"{name}.out")

    def in_windows(self, x: Tensor, name: str) -> Tensor:
        rows, columns = (torch.arange(side) // self.window for side in x.shape[1:3])
        number = (rows[:, None] * 1000 + columns).flatten()
        q, k, v = self.projected(x, name)
        scores = (q @ k.transpose(-1, -2) / sqrt(32)).masked_fill(number[:, None] != number, -torch.inf)
        return self.joined(scores.softmax(-1) @ v, x, name)

    def everywhere(self, x: Tensor, name: str) -> Tensor:
        q, k, v = self.projected(x, name)
        pairs = q.relu() @ k.relu().transpose(-1, -2)
        mass = pairs.sum(-1, keepdim=True)
        self.clamped |= set((mass < 100).flatten().tolist())
        return self.joined(self.weights[f"{name}.tau"] * (pairs @ v) / mass.clamp(min=100), x, name)

    def block(self, x: Tensor, name: str, odd: int) -> Tensor:
        x = x + self.convolve(x, f"{name}.place")
        attend = self.everywhere if odd else self.in_windows
        x = x + attend(self.norm(x, f"{name}.norm"), f"{name}.mechanism")
        if odd:
            y = self.convolve(self.norm(x, f"{name}.concentrate.0"), f"{name}.concentrate.1.first")
            y = self.batch_norm(gelu(y), f"{name}.concentrate.1.norm")
            x = x + self.convolve(y, f"{name}.concentrate.1.last")
        else:
            x = x + self.convolve(x, f"{name}.place_again")
        return x + self.linear(gelu(self.linear(self.norm(x, f"{name}.mlp.0"), f"{name}.mlp.1")), f"{name}.mlp.3")

    def merge(self, x: Tensor, name: str) -> Tensor:
        x = F.pad(self.norm(x, f"{name}.norm"), (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        cells = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return self.linear(torch.cat(cells, -1), f"{name}.merge")

    def __call__(self, x: Tensor) -> Tensor:
        x = self.batch_norm(self.convolve(x, "stem.net.0", stride=2), "stem.net.1").relu()
        x = self.norm(self.batch_norm(self.convolve(x, "stem.net.3", stride=2), "stem.net.4"), "stem.norm")
        part = 0
        for stage, count in enumerate(self.blocks):
            if stage:
                x, part = self.merge(x, f"stages.{part}"), part + 1
            for block in range(count):
                x, part = self.block(x, f"stages.{part}", block % 2), part + 1
        return self.linear(self.norm(x, "norm").flatten(1, 2).mean(1), "head")


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / sqrt(2))) / 2


@pytest.mark.parametrize("window", [2, 3, 7])
@pytest.mark.parametrize("shape", [(32, 16), (24, 20)])
def test_a_pass_is_the_one_written_out(shape, window):
    """Windows that divide no grid, grids of odd sides, and windows wider than the grid among them."""
    port = Port(inputs=2, outputs=5, shape=shape, once=True)
    model = redrawn(made(port, **SMALL, window=window))
    written, x = Written(model.state_dict(), window, [2, 3]), drawn(2, *shape, 2)
    expected = written(x)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    assert float(expected.std()) > 0.1
    assert written.clamped == {True, False}


def test_sides_that_four_does_not_divide_are_padded_with_zeros_at_their_ends():
    odd, whole = (Port(inputs=2, outputs=5, shape=shape, once=True) for shape in ((30, 17), (32, 20)))
    model, x = redrawn(made(odd, **SMALL)), drawn(2, 30, 17, 2)
    padded = redrawn(made(whole, **SMALL))
    assert torch.equal(model(x), padded(F.pad(x, (0, 0, 0, 3, 0, 2))))


# --- the socket


@pytest.mark.parametrize("even", ["windows", "mechanism"])
def test_the_mechanism_stands_in_odd_blocks_or_in_all(even):
    sites: list[Site] = []

    def build(site: Site) -> nn.Module:
        sites.append(site)
        return nn.Identity()

    made(Port(inputs=3, outputs=5, shape=(40, 24), once=True), build, **SMALL, even=even)
    wanted = [(1, 0, 64, (10, 6)), (1, 1, 64, (10, 6)), *((2, block, 128, (5, 3)) for block in range(3))]
    assert sites == [
        Site(channels=channels, shape=shape, stage=stage, block=block)
        for stage, block, channels, shape in wanted
        if even == "mechanism" or block % 2
    ]


def test_another_mechanism_leaves_all_weights_around_it_alike():
    port = Port(inputs=1, outputs=5, shape=(16, 16), once=True)
    one, other = (maker("l2vit", SMALL, (name, {}), 0)(port).state_dict() for name in ("identity", "full"))
    assert one.keys() < other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert float(one["stages.0.mlp.1.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert not one["stages.0.place.bias"].any()


def test_drop_path_rises_from_nothing_to_the_last_block():
    port = Port(inputs=1, outputs=5, shape=(16, 16), once=True)
    model = made(port, **SMALL, drop_path=0.4)
    chances = [module.drop_prob for module in model.modules() if hasattr(module, "drop_prob")]
    assert chances == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("port", "knobs", "words"),
    [
        (Port(inputs=3, outputs=1, shape=(16, 16)), {}, "l2vit gives one answer an example"),
        (Port(inputs=3, outputs=1, shape=(64,), once=True), {}, r"l2vit serves grids .* shape is \(64,\)"),
        (Port(inputs=8, outputs=1, shape=(8, 8), once=True, symbols=True), {}, "l2vit serves images"),
        (IMAGE, {"blocks": "2 0"}, "l2vit.blocks should be one number of blocks for each stage"),
        (IMAGE, {"channels": 33}, "l2vit: channels must be even, for the stem starts with half of them; got 33"),
        (IMAGE, {"blocks": "1 1"}, "l2vit: a stage needs two blocks"),
    ],
)
def test_what_does_not_fit_is_refused(port, knobs, words):
    with pytest.raises(ValueError, match=words):
        made(port, **SMALL | knobs)


def test_it_is_a_backbone_whose_size_keeps_other_knobs_idle():
    assert find("l2vit").socket
    assert Config().idle() == {"channels", "blocks"}
    assert Config(size="custom", even="mechanism").idle() == {"window"}
    assert Config().stages == 4


@pytest.mark.parametrize("model", ["l2vit", "swinv2"])
def test_a_single_number_of_blocks_may_be_written_as_a_number(model):
    config: Any = find(model).config
    number, word = (configure(config, {"size": "custom", "blocks": blocks}, of=model) for blocks in (2, "2"))
    assert number == word
    assert (resolved(number)["blocks"], number.model_dump()["blocks"]) == ("2", "2")
    for wrong in (0, -2, True, 2.0):
        with pytest.raises(ValueError, match=rf"^{model}.blocks should be .*; got {wrong!r}"):
            configure(config, {"blocks": wrong}, of=model)


# --- a training


@pytest.mark.parametrize("blocks", ["2", "2 2"])
def test_it_trains_an_epoch(blocks, tmp_path):
    inside = f"--feature=l2vit --heads=1 --size=custom --blocks='{blocks}' --channels=8"
    words = "--source=canvas --side=32 --train=8 --valid=4 --test=4 --epochs=1 --batch=4"
    result = trained("images", "linear", f"{inside} {words}", tmp_path, model="l2vit")
    assert 0 < result["train_loss"] < 10
