"""In float16, which ends at 65,504 and holds nothing below 6e-8, mechanisms give what they give in float32."""

from typing import Any

import pytest
import torch
from torch import Tensor

import mechanisms
from mechanisms import Site


def apart(name: str, site: Site, x: Tensor, *, cast: bool, **knobs: Any) -> float:
    """Error of float16 against float32, relative; cast is autocast, else weights are in float16 too."""
    torch.manual_seed(0)
    module = mechanisms.build(name, site, **knobs)
    with torch.no_grad():
        exact = module(x)
        if cast:
            with torch.autocast("cpu", torch.float16):
                found = module(x)
        else:
            found = module.half()(x.half())
            assert found.dtype == torch.float16
    return float((found.float() - exact).norm() / exact.norm())


@pytest.mark.parametrize("cast", [False, True], ids=["half", "autocast"])
@pytest.mark.parametrize("feature", ["elu", "relu", "softplus", "favor", "l2vit", "efficient"])
@pytest.mark.parametrize("causal", [False, True])
def test_linear_attention_keeps_masses_of_thousands_of_tokens(feature, causal, cast):
    if causal and feature in ("l2vit", "efficient"):
        pytest.skip("defined over all tokens")
    site = Site(channels=64, shape=(4096,), causal=causal)
    x = 2 * torch.randn(1, 4096, 64, generator=torch.Generator().manual_seed(1))
    assert apart("linear", site, x, cast=cast, heads=1, feature=feature) < 0.01


@pytest.mark.parametrize("cast", [False, True], ids=["half", "autocast"])
@pytest.mark.parametrize(
    ("name", "site", "knobs"),
    [
        ("swin", Site(channels=32, shape=(6, 7)), {"window": 4, "version": "v2", "pad": True}),
        ("mano", Site(channels=32, shape=(8, 8)), {"position": "swin_v2"}),
        ("deltanet", Site(channels=32, shape=(8,), causal=True), {}),
        ("xca", Site(channels=32, shape=(8,)), {}),
    ],
)
def test_a_token_of_zeros_has_a_direction_that_is_a_number(name, site, knobs, cast):
    x = torch.randn(1, *site.shape, 32, generator=torch.Generator().manual_seed(1))
    x[0, 1] = 0
    assert apart(name, site, x, cast=cast, **knobs) < 0.02
