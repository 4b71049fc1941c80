"""What a user would take instead of a mechanism: bare fused attention, timm's modules, the published form of MANO.

All work on tokens [B, *grid, C] with the weights of the mechanism that they stand beside, so that outputs can be held
against each other before anything is timed.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from attnbench.models._timm import timm
from mechanisms._project import project
from mechanisms.swin import from_timm


class Bare(nn.Module):
    """Four projections around one call of scaled_dot_product_attention, as one would write them down."""

    def __init__(self, full: Any, *, causal: bool):
        super().__init__()
        self.q, self.k, self.v, self.out = full.q, full.k, full.v, full.out
        self.heads, self.causal = full.heads, causal

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = len(x), x.shape[-1]
        q, k, v = (layer(x).view(batch, -1, self.heads, channels // self.heads) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=self.causal
        )
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Layers(nn.Module):
    """MANO's floor: its linear and convolution layers alone, every one as often and on as many tokens as in MANO."""

    def __init__(self, mano: Any):
        super().__init__()
        self.mano = mano

    def forward(self, x: Tensor) -> Tensor:
        mano, grids = self.mano, [x.movedim(-1, 1)]
        for _ in range(mano.levels - 1):
            grids.append(mano.down(grids[-1]))
        y = None
        for grid in reversed(grids):
            tokens = grid.movedim(1, -1)
            q, k, v = project(tokens, mano.q, mano.k, mano.v).chunk(3, -1)
            here = mano.out(q + k + v).movedim(-1, 1)
            y = here if y is None else here + mano.up(y)
        assert y is not None
        return y.movedim(1, -1)


class Unfolded(nn.Module):
    """MANO as it was published: windows are unfolded, then projected, attended and folded, at every level."""

    def __init__(self, mano: Any, window: int, stride: int):
        super().__init__()
        self.mano, self.window, self.stride = mano, window, stride

    def forward(self, x: Tensor) -> Tensor:
        mano, grids = self.mano, [x]
        for _ in range(mano.levels - 1):
            grids.append(mano.down(grids[-1].movedim(-1, 1)).movedim(1, -1))
        y = None
        for grid in reversed(grids):
            here = self.attend(grid)
            y = here if y is None else here + mano.up(y.movedim(-1, 1)).movedim(1, -1)
        assert y is not None
        return y

    def attend(self, grid: Tensor) -> Tensor:
        mano, size = self.mano, tuple(grid.shape[1:3])
        geometry: dict[str, Any] = {"kernel_size": self.window, "stride": self.stride}
        windows = grid.unfold(1, self.window, self.stride).unfold(2, self.window, self.stride)
        tokens = rearrange(windows, "b i j c m n -> (b i j) (m n) c")
        qkv = project(tokens, mano.q, mano.k, mano.v)
        q, k, v = rearrange(qkv, "b n (p h d) -> p b h n d", p=3, h=mano.heads)
        y = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
        y = mano.out(rearrange(y, "b h n d -> b n (h d)"))
        columns = rearrange(y, "(b p) m c -> b (c m) p", b=len(grid))
        ones = torch.ones(1, self.window**2, columns.shape[-1], device=y.device, dtype=y.dtype)
        y = F.fold(columns, size, **geometry) / F.fold(ones, size, **geometry)
        return y.movedim(1, -1)


class Timm(nn.Module):
    """The attention of timm's Swin block: shift, windows, attention and back, with nothing else of the block."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block: Any = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block._attn(x)


def timm_beside(swin: nn.Module, shape: tuple[int, int], channels: int, knobs: dict[str, Any]) -> Timm:
    """timm's module of the same settings, shifted; its weights are loaded into `swin`."""
    timm()
    from timm.models.swin_transformer import SwinTransformerBlock
    from timm.models.swin_transformer_v2 import SwinTransformerV2Block

    kind = SwinTransformerBlock if knobs["version"] == "v1" else SwinTransformerV2Block
    window = knobs["window"]
    block = kind(channels, shape, num_heads=knobs["heads"], window_size=window, shift_size=window // 2)
    attention: Any = block.attn
    found = swin.load_state_dict(from_timm(attention.state_dict()), strict=False)
    assert not found.missing_keys, found
    return Timm(block)
