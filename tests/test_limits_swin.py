"""Swin attention of both versions is timm's, with timm's weights: outputs and gradients, shifted or not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mechanisms
from attnbench.models._timm import timm
from mechanisms.swin import from_timm
from tests.exact import CHANNELS, build, differ, drawn, grid, same

PLACES = [  # grid, window, shift
    ((8, 8), 4, 0),
    ((8, 8), 4, 2),
    ((12, 6), 3, 1),
    ((14, 14), 7, 3),
    ((4, 4), 4, 2),  # one window: timm leaves the shift out
    ((5, 5), 5, 0),
    ((6, 4), 2, 1),
]


def precise(table: Tensor, window: int) -> Tensor:
    """timm's table of offsets, which it makes in float32, in float64: undone, rounded to whole tokens, done again."""
    scale = 8 / max(window - 1, 1)
    tokens = (table.sign() * (2 ** (3 * table.abs()) - 1) / scale).round() * scale
    return tokens.sign() * (1 + tokens.abs()).log2() / 3


def block(version: str, shape: tuple[int, int], window: int, shift: int, pretrained: int = 0) -> Any:
    """timm's block in float64, every weight drawn, the biases too."""
    timm()
    from timm.models.swin_transformer import SwinTransformerBlock
    from timm.models.swin_transformer_v2 import SwinTransformerV2Block

    kind = {"v1": SwinTransformerBlock, "v2": SwinTransformerV2Block}[version]
    more: dict[str, Any] = {"pretrained_window_size": pretrained} if pretrained else {}
    made = kind(CHANNELS, shape, num_heads=2, window_size=window, shift_size=shift, **more).double().eval()
    if version == "v2":
        made.attn.relative_coords_table = precise(made.attn.relative_coords_table, pretrained or made.window_size[0])
    generator = torch.Generator().manual_seed(5)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return made


def ours(version: str, peer: Any, shape: tuple[int, int], window: int, shift: int, **more: Any) -> nn.Module:
    site = grid(*shape, block=int(shift > 0))
    module = mechanisms.build("swin", site, heads=2, window=window, version=version, **more).double()
    module.load_state_dict(from_timm(peer.attn.state_dict()))
    return module


def gradient(run: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = run(x)
    return y, torch.autograd.grad(y, x, drawn(*y.shape, seed=7))[0]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("shape", "window", "shift"), PLACES)
def test_with_timms_weights_it_gives_timms_outputs_and_gradients(version, shape, window, shift):
    peer = block(version, shape, window, shift)
    module, x = ours(version, peer, shape, window, shift), drawn(2, *shape, CHANNELS)
    for one, other in zip(gradient(module, x), gradient(peer._attn, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_weights_of_other_windows_keep_their_scale():
    peer = block("v2", (8, 8), 4, 2, pretrained=7)
    module = ours("v2", peer, (8, 8), 4, 2, pretrained_window=7)
    x = drawn(1, 8, 8, CHANNELS)
    torch.testing.assert_close(module(x), peer._attn(x), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_small_grid_has_the_window_that_timm_shrinks_to_it(version):
    peer = block(version, (4, 4), 8, 4)
    assert peer.window_size == (4, 4)
    module, x = ours(version, peer, (4, 4), 4, 4), drawn(1, 4, 4, CHANNELS)
    torch.testing.assert_close(module(x), peer._attn(x), rtol=1e-8, atol=1e-9)


def test_padded_tokens_are_seen_in_timm_and_not_here():
    """timm fills up with zeros that take part in the softmax; here nobody sees them. Else both agree."""
    peer = block("v1", (7, 8), 4, 0)
    module, x = ours("v1", peer, (7, 8), 4, 0, pad=True), drawn(1, 7, 8, CHANNELS)
    torch.testing.assert_close(module(x)[:, :4], peer._attn(x)[:, :4], rtol=1e-8, atol=1e-9)
    differ(module(x)[:, 4:], peer._attn(x)[:, 4:])


@pytest.mark.parametrize(("channels", "heads"), [(96, 3), (192, 6)])
def test_version_two_has_the_weights_that_are_published(channels, heads):
    """Of a block 12 C^2 + 12 C + 513 h + 1536, of which norms and MLP hold 8 C^2 + 9 C."""
    site = grid(8, 8, channels=channels)
    count = sum(p.numel() for p in mechanisms.build("swin", site, heads=heads, window=8, version="v2").parameters())
    assert count == 4 * channels**2 + 3 * channels + 513 * heads + 1536


def test_version_two_does_not_see_the_length_of_its_queries():
    """Cosines: queries and keys may be scaled as one likes."""
    module, x = build("swin", grid(8, 8), version="v2", window=4), drawn(1, 8, 8, CHANNELS)
    before = module(x)
    for name, factor in (("q", 3.0), ("k", 7.0)):
        for parameter in module.get_submodule(name).parameters():
            parameter.data *= factor
    same(module(x), before)


def test_version_two_starts_at_ten_and_stops_at_a_hundred():
    module, x = build("swin", grid(8, 8), version="v2", window=4), drawn(1, 8, 8, CHANNELS)
    plain = mechanisms.build("swin", grid(8, 8), version="v2", window=4, heads=2)
    torch.testing.assert_close(plain.get_parameter("logit_scale").exp(), torch.full((2, 1, 1), 10.0))
    module.get_parameter("logit_scale").data.fill_(5.0)
    hot = module(x)
    module.get_parameter("logit_scale").data.fill_(9.0)
    assert module(x).equal(hot)
