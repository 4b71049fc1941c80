"""Swin attention: softmax attention inside square windows, shifted by half a window in every second block.

Liu et al., "Swin Transformer", ICCV 2021, sections 3.2 and equation 4. https://arxiv.org/abs/2103.14030
Version 2: Liu et al., "Swin Transformer V2", CVPR 2022, sections 3.3 and equation 2. https://arxiv.org/abs/2111.09883
Version 1 scores by scaled dot products and a table of biases; version 2 by cosines times a learned factor, and a bias
that an MLP makes of the offset on a logarithmic scale; its keys have no bias.
Work N for a fixed window.
Departs from the paper: the shift is left out along an axis that a single window covers, axis by axis as in timm; grids
that the window does not divide are refused unless `pad` is on; then padding comes before the shift, where timm shifts
first and so joins rows from both ends, and padded tokens are masked, where timm lets them be seen as zeros. Version 2's
norm after the attention belongs to the block.
"""

from collections.abc import Mapping
from math import log
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._project import project
from mechanisms._registry import Reach, register
from mechanisms._reorder import reorder
from mechanisms._site import Site, Tokens
from mechanisms._windows import attend_cut, cosines

HIDDEN = 512  # channels inside the MLP that makes version 2's biases


class Config(Knobs):
    neutral: ClassVar[Mapping[str, Any]] = {"version": "v1", "pretrained_window": 0}

    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    window: PositiveInt = 4
    """side of a window in tokens"""
    shift: bool = True
    """whether windows of odd blocks are shifted by half a window"""
    position: Literal["relative", "none"] = "relative"
    """a learned bias for each relative place in a window, or nothing; version 2 makes it of the offset by an MLP"""
    version: Literal["v1", "v2"] = "v1"
    """dot products and a table of biases, or cosines and biases made of the offset"""
    pretrained_window: NonNegativeInt = 0
    """of version 2, side of the windows in which its weights were trained; 0 is this window"""
    pad: bool = False
    """whether grids that the window does not divide are padded; padded tokens are seen by nobody"""

    def idle(self) -> set[str]:
        still = {"shift"} if self.window == 1 else set()
        bound = self.version == "v2" and self.position == "relative"
        return still if bound else still | {"pretrained_window"}


def reach(site: Site, config: Config) -> Reach:
    """All tokens where one window covers the grid."""
    if max(site.shape) <= config.window:
        return "token" if site.tokens == 1 else "global"
    return "token" if config.window == 1 else "local"


@register("swin", Config, fits=("grid",), order="N", reach=reach)
class Swin(nn.Module):
    mask: Tensor | None
    order: Tensor
    inverse: Tensor
    place: Tensor

    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="swin")
        self.heads, self.window = config.heads, config.window
        self.padding = padding(site, config)
        cosine = config.version == "v2"
        q, k, v, out = (nn.Linear(site.channels, site.channels, bias=has) for has in (True, not cosine, True, True))
        self.q, self.k, self.v, self.out = q, k, v, out
        moved = shift(site, config)
        order = window_order(site, self.padding, moved, self.window)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", order.argsort(), persistent=False)
        self.register_buffer("mask", mask(site, self.padding, moved, self.window), persistent=False)
        self.bias = self.offset_bias = None
        if config.position == "relative":
            self.register_buffer("place", relative_places(self.window), persistent=False)
            if cosine:
                self.offset_bias = OffsetBias(self.heads, self.window, config.pretrained_window or self.window)
            else:
                self.bias = nn.Parameter(torch.empty((2 * self.window - 1) ** 2, self.heads))
                nn.init.trunc_normal_(self.bias, std=0.02)
        self.logit_scale = nn.Parameter(torch.full((self.heads, 1, 1), log(10))) if cosine else None

    def forward(self, x: Tokens) -> Tokens:
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 0, self.padding[1], 0, self.padding[0])) if any(self.padding) else x
        cut = reorder(padded.flatten(1, 2), self.order, self.inverse).unflatten(1, (-1, self.window**2)).flatten(0, 1)
        qkv, scale = project(cut, self.q, self.k, self.v), None
        if self.logit_scale is not None:
            qkv, scale = cosines(qkv, self.logit_scale), 1.0
        y = self.out(attend_cut(qkv, heads=self.heads, bias=self.biases(), mask=self.mask, scale=scale))
        y = reorder(y.reshape(len(x), len(self.order), x.shape[-1]), self.inverse, self.order)
        return y.unflatten(1, padded.shape[1:3])[:, :height, :width]

    def biases(self) -> Tensor | None:
        """What is added to the scores of every pair of tokens in a window [heads, M, M]."""
        table = self.bias if self.offset_bias is None else self.offset_bias()
        return None if table is None else table[self.place].movedim(-1, 0).contiguous()


class OffsetBias(nn.Module):
    """Version 2's biases [(2 window - 1)^2, heads], in the order of version 1's table."""

    offsets: Tensor

    def __init__(self, heads: int, window: int, trained: int):
        super().__init__()
        self.farthest = max(trained - 1, 1)
        self.hidden, self.head = nn.Linear(2, HIDDEN), nn.Linear(HIDDEN, heads, bias=False)
        steps = torch.cartesian_prod(*(torch.arange(1 - window, window),) * 2)
        self.register_buffer("offsets", steps, persistent=False)

    def forward(self) -> Tensor:
        far = 8 * self.offsets.to(self.head.weight.dtype) / self.farthest
        spaced = far.sign() * (1 + far.abs()).log2() / 3  # 3 is the logarithm of 8
        return 16 * self.head(F.relu(self.hidden(spaced))).sigmoid()


def from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of timm's WindowAttention, of either version, under the names that `swin` gives them.

    state: its state dict: `qkv.weight`, `proj.weight`, ... Raises KeyError for another module's.
    """
    fused = dict(zip("qkv", state["qkv.weight"].chunk(3), strict=True))
    found = {f"{name}.weight": weight for name, weight in fused.items()}
    found |= {"out.weight": state["proj.weight"], "out.bias": state["proj.bias"]}
    if "logit_scale" not in state:
        found |= {f"{name}.bias": part for name, part in zip("qkv", state["qkv.bias"].chunk(3), strict=True)}
        return found | {"bias": state["relative_position_bias_table"]}
    found |= {"q.bias": state["q_bias"], "v.bias": state["v_bias"], "logit_scale": state["logit_scale"]}
    found |= {f"offset_bias.hidden.{part}": state[f"cpb_mlp.0.{part}"] for part in ("weight", "bias")}
    return found | {"offset_bias.head.weight": state["cpb_mlp.2.weight"]}


def padding(site: Site, config: Config) -> tuple[int, int]:
    """Rows and columns to add so that windows fit. Raises ValueError where some are needed and `pad` is off."""
    rows, columns = (-side % config.window for side in site.shape)
    if (rows or columns) and not config.pad:
        height, width = site.shape
        raise ValueError(
            f"swin.window must divide the {height} x {width} grid of its site, unless pad is on; got {config.window}."
        )
    return rows, columns


def shift(site: Site, config: Config) -> tuple[int, int]:
    """Tokens by which the windows of this block are shifted, on each axis."""
    half = config.window // 2 if config.shift and site.block % 2 else 0
    height, width = (half if side > config.window else 0 for side in site.shape)
    return height, width


def window_order(site: Site, padding: tuple[int, int], shift: tuple[int, int], window: int) -> Tensor:
    """Places of tokens on the padded grid, window by window after the cyclic shift [H W]."""
    rows, columns = (side + more for side, more in zip(site.shape, padding, strict=True))
    places = torch.arange(rows * columns).view(rows, columns).roll([-s for s in shift], (0, 1))
    return rearrange(places, "(i m) (j n) -> (i j m n)", m=window, n=window)


def mask(site: Site, padding: tuple[int, int], shift: tuple[int, int], window: int) -> Tensor | None:
    """What keeps a token from looking at another of its window [windows, M, M]: 0 or -inf; None where none is kept.

    After the cyclic shift a window can hold tokens from opposite borders: they carry another region's number.
    """
    if not any(padding) and not any(shift):
        return None
    region = torch.zeros(site.shape[0] + padding[0], site.shape[1] + padding[1], dtype=torch.long)
    region[site.shape[0] :] = region[:, site.shape[1] :] = 1
    region = region.roll([-s for s in shift], (0, 1))
    for axis, step in enumerate(shift):
        if step:
            region.narrow(axis, region.shape[axis] - step, step).add_(2 * (axis + 1))
    region = rearrange(region, "(i m) (j n) -> (i j) (m n)", m=window, n=window)
    apart = region.unsqueeze(-1) != region.unsqueeze(-2)
    return torch.zeros(apart.shape).masked_fill(apart, -torch.inf)


def relative_places(window: int) -> Tensor:
    """For each pair of tokens in a window [M, M], the row of the bias table that holds their relative place."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    down = rows.flatten()[:, None] - rows.flatten()[None]
    right = columns.flatten()[:, None] - columns.flatten()[None]
    return (down + window - 1) * (2 * window - 1) + right + window - 1
