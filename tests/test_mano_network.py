"""The published network of MANO: its parameter counts, one layer written out, and the grids it takes."""

from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from attnbench.models import maker
from attnbench.models.mano_net import Config, Multipole
from attnbench.oracles._dense import places_of, softmax_average
from attnbench.oracles.mano import convolve, copies, holding, mean_of_blocks, published, spread
from mechanisms._levels import most
from tasks import Port
from tests.exact import drawn, same

FIELD = Port(inputs=1, outputs=1, shape=(16, 16))


def made(port: Port = FIELD, **knobs: object) -> nn.Module:
    return maker("mano_net", knobs, None, 0)(port)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# channels, heads, head_channels, mlp, rate, depth; attention, samplers, mlp of a block; the network; with averages;
# with a halved head; with three inputs
TABLE = [
    (128, 4, 32, 128, 2, 8, 66_176, 131_072, 33_280, 1_861_377, 812_801, 1_853_057, 1_861_633),
    (128, 4, 32, 128, 4, 8, 66_176, 524_288, 33_280, 5_007_105, 812_801, 4_998_785, 5_007_361),
    (64, 4, 16, 64, 2, 4, 16_704, 32_768, 8_448, 236_161, 105_089, 234_049, 236_289),
    (32, 2, 16, 64, 2, 2, 4_256, 8_192, 4_256, 34_625, 18_241, 34_081, 34_689),
]


@pytest.mark.parametrize("line", TABLE, ids=lambda line: f"{line[0]}-rate={line[4]}")
def test_the_network_has_the_published_number_of_weights(line):
    knobs = dict(zip(("channels", "heads", "head_channels", "mlp", "rate", "depth"), line, strict=False))
    attention, samplers, mlp, conv, average, halved, three = line[6:]
    with torch.device("meta"):
        net = made(**knobs)
        assert size(net) == conv
        assert size(made(**knobs, sampling="average")) == average
        assert size(made(**knobs, head="halved")) == halved
        assert size(made(Port(inputs=3, outputs=1, shape=(16, 16)), **knobs)) == three
    block = net.get_submodule("blocks.0")
    assert size(block.get_submodule("mlp")) == mlp
    down, up = (size(block.get_submodule(f"attention.{name}")) for name in ("down", "up"))
    assert down == up
    assert (size(block.get_submodule("attention")) - down - up, down + up) == (attention, samplers)


@pytest.mark.parametrize("knobs", [{"levels": 2}, {"levels": 3}, {"window": 4}, {"stride": 1}])
def test_the_number_of_weights_depends_on_no_level_window_or_stride(knobs):
    with torch.device("meta"):
        assert size(made(**knobs)) == size(made(Port(inputs=1, outputs=1, shape=(32, 8)))) == 236_161


def test_a_single_head_as_wide_as_a_token_has_no_last_projection():
    with torch.device("meta"):
        one, two = (made(channels=8, heads=1, head_channels=width, depth=1) for width in (8, 4))
    assert isinstance(one.get_submodule("blocks.0.attention.out"), nn.Identity)
    assert isinstance(two.get_submodule("blocks.0.attention.out"), nn.Linear)


@pytest.mark.parametrize(
    ("shape", "window", "stride", "rate", "levels"),
    [
        ((16, 16), 2, 2, 2, 4),
        ((64, 64), 2, 2, 2, 6),
        ((243, 243), 3, 3, 3, 5),  # the released code's logarithm rounds to 4
        ((64, 64), 8, 8, 2, 4),
        ((16, 64), 2, 1, 2, 4),
        ((12, 12), 2, 2, 2, 2),  # 12, 6; windows do not cover 3 x 3
        ((12, 12), 2, 1, 2, 3),
        ((15, 15), 3, 3, 2, 1),
        ((85, 85), 2, 2, 2, 0),
    ],
)
def test_the_most_levels_are_counted_in_whole_grids_that_windows_cover(shape, window, stride, rate, levels):
    assert most(shape, rate, Config(window=window, stride=stride)) == levels
    port = Port(inputs=1, outputs=1, shape=shape)
    knobs = {"window": window, "stride": stride, "rate": rate, "depth": 1, "channels": 4, "head_channels": 1}
    with torch.device("meta"):
        if levels:
            assert made(port, **knobs).get_submodule("blocks.0.attention").levels == levels
        else:
            with pytest.raises(ValueError, match=r"^mano_net: level 0 of a 85 x 85 grid.*do not cover.*\.$"):
                made(port, **knobs)


@pytest.mark.parametrize(
    ("port", "knobs", "sentence"),
    [
        (Port(inputs=1, outputs=1, shape=(16,)), {}, r"mano_net serves grids"),
        (FIELD, {"levels": 5}, r"mano_net: .* levels is 5, at most 4 fit\."),
        (FIELD, {"window": 3, "stride": 2}, r"mano_net: .* do not cover"),
        (FIELD, {"window": 32}, r"mano_net: .* less than window 32"),
        (FIELD, {"stride": 3}, r"mano_net: stride 3 is more than window 2"),
        (
            FIELD,
            {"channels": 7, "head": "halved"},
            r"mano_net: a halved head needs an even number of channels; got 7\.",
        ),
    ],
)
def test_what_does_not_fit_is_refused_when_the_network_is_built(port, knobs, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        made(port, **knobs)


def layer_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def windows(grid: Tensor, weights: dict[str, Tensor], heads: int, window: int, stride: int) -> Tensor:
    """Window after window: its tokens normed twice, projected without bias, attended, projected; then the mean."""
    total, count = torch.zeros_like(grid), torch.zeros(*grid.shape[:2], 1, dtype=grid.dtype)
    flat, whole = grid.reshape(-1, grid.shape[-1]), (grid.shape[0], grid.shape[1])
    sides, steps, places = (window, window), (stride, stride), places_of(grid)
    found = {tuple(seen) for place in places for seen in holding(place, whole, window=sides, stride=steps)}
    for seen in sorted(found):
        tokens = layer_norm(layer_norm(flat[list(seen)], weights, "norms.0"), weights, "norms.1")
        q, k, v = (tokens @ part.T for part in weights["qkv.weight"].chunk(3))
        parts = torch.arange(q.shape[-1]).chunk(heads)
        answers = [torch.cat([softmax_average(query[one], k[:, one], v[:, one]) for one in parts]) for query in q]
        for token, answer in zip(seen, answers, strict=True):
            total[places[token]] += weights["out.weight"] @ answer + weights["out.bias"]
            count[places[token]] += 1
    return total / count


@pytest.mark.parametrize("shape", [(8, 8), (4, 12)])
@pytest.mark.parametrize("knobs", [{}, {"stride": 1}, {"sampling": "average"}, {"rate": 4, "window": 1}])
def test_a_layer_is_window_attention_on_every_level_summed_with_the_published_weights(shape, knobs):
    port = Port(inputs=2, outputs=1, shape=shape)
    net = made(port, **{"channels": 6, "heads": 2, "head_channels": 4, "mlp": 5, "depth": 1, **knobs}).double()
    layer = net.get_submodule("blocks.0.attention")
    assert isinstance(layer, Multipole)
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / sqrt(3)
    weights, x = {name: tensor.detach() for name, tensor in layer.named_parameters()}, drawn(1, *shape, 6)
    rate, window = knobs.get("rate", 2), knobs.get("window", 2)
    learned = "down.weight" in weights
    expected = published(
        x[0],
        attend=[lambda grid: windows(grid, weights, 2, window, knobs.get("stride", window))] * layer.levels,
        down=[convolve(weights["down.weight"]) if learned else mean_of_blocks((rate, rate))] * (layer.levels - 1),
        up=[spread(weights["up.weight"]) if learned else copies((rate, rate))] * (layer.levels - 1),
    )
    assert layer.levels > 1
    assert learned == (knobs.get("sampling") != "average")
    same(layer(x)[0], expected)


def test_blocks_add_without_a_norm_before_the_attention_and_the_head_bends_by_a_tanh():
    net = made(Port(inputs=2, outputs=3, shape=(4, 6)), channels=6, heads=2, head_channels=3, mlp=5, depth=2).double()
    weights, x = {name: tensor.detach() for name, tensor in net.named_parameters()}, drawn(2, 4, 6, 2)

    def linear(y: Tensor, name: str) -> Tensor:
        return y @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    y = linear(x, "lift")
    for block in ("blocks.0", "blocks.1"):
        y = y + net.get_submodule(f"{block}.attention")(y)
        hidden = linear(layer_norm(y, weights, f"{block}.mlp.0"), f"{block}.mlp.1")
        y = y + linear(hidden * (1 + torch.erf(hidden / sqrt(2))) / 2, f"{block}.mlp.3")
    same(net(x), linear(torch.tanh(linear(layer_norm(y, weights, "norm"), "head.0")), "head.2"))


def test_the_network_reaches_every_weight_and_stays_finite_far_from_zero():
    net, x = made(channels=8, heads=2, head_channels=4, depth=2), drawn(2, 16, 16, 1).float()
    net(x).square().sum().backward()
    assert not [name for name, one in net.named_parameters() if one.grad is None or not one.grad.any()]
    assert net(1e4 * x).isfinite().all()
