"""MANO on Swin V2's attention: the same numbers as timm's with one level, and the weights that its levels add."""

import importlib
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from einops import rearrange

import mechanisms
from attnbench.models._timm import timm
from mechanisms import Site
from tests.exact import CHANNELS, build, drawn, grid, mixing, same


def swin_v2() -> ModuleType:
    timm()
    return importlib.import_module("timm.models.swin_transformer_v2")


STAGES = [(96, 64, 2, 3, 3), (192, 32, 2, 6, 2), (384, 16, 6, 12, 1), (768, 8, 2, 24, 1)]
"""Of SwinV2-T at 256 x 256: channels, side, blocks, heads, and the levels that its paper gives MANO."""


def test_levels_on_the_attention_of_swin_v2_tiny_add_the_published_number_of_weights():
    def size(channels: int, side: int, heads: int, levels: int) -> int:
        knobs = {"position": "swin_v2", "window": 8, "levels": levels, "heads": heads}
        mano = mechanisms.build("mano", grid(side, side, channels=channels), **knobs)
        return sum(parameter.numel() for parameter in mano.parameters())

    package, timm_attention = timm(), swin_v2().WindowAttention
    with torch.device("meta"):
        backbone = package.create_model("swinv2_tiny_window8_256")
        attentions = [module for module in backbone.modules() if isinstance(module, timm_attention)]
        theirs = sum(parameter.numel() for module in attentions for parameter in module.parameters())
        one = sum(blocks * size(channels, side, heads, 1) for channels, side, blocks, heads, _ in STAGES)
        all_levels = sum(
            blocks * size(channels, side, heads, levels) for channels, side, blocks, heads, levels in STAGES
        )
    assert len(attentions) == 12
    assert one == theirs
    assert all_levels - theirs == 737_280


@pytest.mark.parametrize("window", [2, 4])
def test_one_level_on_swin_v2_is_the_attention_of_timm(window):
    mano = build("mano", grid(4, 8), window=window, levels=1, position="swin_v2")
    theirs = swin_v2().WindowAttention(CHANNELS, (window, window), 2).double()
    inner = {name.removeprefix("cosine."): tensor for name, tensor in mano.state_dict().items()}
    names = {"position": "cpb_mlp", "out": "proj", "logit_scale": "logit_scale"}
    state = {
        name.replace(first, names[first], 1): tensor
        for name, tensor in inner.items()
        if (first := name.split(".")[0]) in names
    }
    state |= {"q_bias": inner["q.bias"], "v_bias": inner["v.bias"]}
    state |= {"qkv.weight": torch.cat([inner[f"{part}.weight"] for part in ("q", "k", "v")])}
    missing = theirs.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"relative_coords_table", "relative_position_index", "k_bias"}
    x = drawn(2, 4, 8, CHANNELS)
    windows = rearrange(x, "b (i m) (j n) c -> (b i j) (m n) c", m=window, n=window)
    y = rearrange(theirs(windows), "(b i j) (m n) c -> b (i m) (j n) c", b=2, i=4 // window, m=window)
    torch.testing.assert_close(mano(x), y, rtol=1e-5, atol=1e-5)  # their table of offsets is in float32


@pytest.mark.parametrize("site", [grid(4, 4), grid(6, 6), Site(channels=8, shape=(9,))], ids=["4x4", "6x6", "9"])
def test_overlapping_windows_on_swin_v2_are_averaged(site):
    """Values are the tokens themselves and all scores are equal: each window gives its own mean."""
    knobs = {"window": 3 if site.shape != (4, 4) else 2, "stride": 1, "levels": 1}
    mano = build("mano", replace(site, channels=1), heads=1, position="swin_v2", **knobs)
    for name, parameter in mano.named_parameters():
        parameter.data.fill_(float(name in ("cosine.v.weight", "cosine.out.weight")))
    y = mano(torch.eye(site.tokens, dtype=torch.float64).reshape(site.tokens, *site.shape, 1))
    same(y.reshape(site.tokens, site.tokens).T, mixing("mano", site, **knobs))


def test_one_softmax_over_levels_on_swin_v2_is_refused():
    with pytest.raises(ValueError, match=r"^mano: combine 'softmax'.*needs position 'plain'\.$"):
        build("mano", grid(8, 8), combine="softmax", position="swin_v2")
