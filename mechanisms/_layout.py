"""In what order multipole attention keeps the tokens of its levels: nested where sizes permit, else row by row.

Nested, the tokens of every window, and of every block that becomes one coarser token, follow one another on all levels
at once. Then sampling is a matrix product and windows are cut without moving anything: tokens are moved once on the way
in and once on the way out. Row by row is the plain form, for sizes that do not nest, and the reference for tests.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mechanisms._levels import Windows, attend, resample
from mechanisms._site import Tokens
from mechanisms._windows import attend_cut


class Layout(Protocol):
    """Tokens [B, *grid, C] into an order and back; sampling and attention in windows within that order.

    flat: tokens lie on one axis, window after window, so that those of several levels can follow one another.
    """

    flat: bool

    def into(self, x: Tokens) -> Tensor: ...
    def back(self, y: Tensor) -> Tokens: ...
    def resample(self, module: nn.Module, x: Tensor) -> Tensor: ...
    def attend(self, qkv: Tensor, *, heads: int) -> Tensor: ...


def layout(shape: tuple[int, ...], windows: Windows, *, levels: int, rate: int) -> Layout:
    """Nested if windows touch and each side, of windows and of blocks, divides the next larger one.

    No window may lie between two blocks in size either: a block's tokens would not stand row by row, as filters do.
    """
    blocks = [rate**m for m in range(levels)]
    sides = sorted({*blocks, *(windows.window * block for block in blocks)})
    divide = not any(large % small for small, large in pairwise(sides))
    between = any(small < side < large for small, large in pairwise(blocks) for side in sides)
    nests = divide and not between and windows.step == windows.window
    return Nested(shape, sides, windows.window, rate) if nests else RowByRow(windows)


class RowByRow:
    """Tokens stay [B, *grid, C]."""

    flat = False

    def __init__(self, windows: Windows):
        self.windows = windows

    def into(self, x: Tokens) -> Tensor:
        return x

    def back(self, y: Tensor) -> Tokens:
        return y

    def resample(self, module: nn.Module, x: Tensor) -> Tensor:
        return resample(module, x)

    def attend(self, qkv: Tensor, *, heads: int) -> Tensor:
        return attend(qkv, heads=heads, windows=self.windows)


class Nested:
    """Tokens become [B, N, C], cell by cell. Cells have these sides, 1 the first, each a multiple of the one before."""

    flat = True

    def __init__(self, shape: tuple[int, ...], sides: list[int], window: int, rate: int):
        self.window, self.rate, self.axes = window ** len(shape), rate ** len(shape), "xy"[: len(shape)]
        ratios = [large // small for small, large in pairwise(sides)][::-1]  # coarsest first
        counts = {axis: [side // sides[-1], *ratios] for axis, side in zip(self.axes, shape, strict=True)}
        self.counts = {f"{axis}{i}": n for axis in self.axes for i, n in enumerate(counts[axis])}
        cells = range(len(ratios) + 1)
        rows = " ".join("(" + " ".join(f"{axis}{i}" for i in cells) + ")" for axis in self.axes)
        self.rows, self.cells = rows, "(" + " ".join(f"{axis}{i}" for i in cells for axis in self.axes) + ")"

    def into(self, x: Tokens) -> Tensor:
        return rearrange(x, f"b {self.rows} c -> b {self.cells} c", **self.counts)

    def back(self, y: Tensor) -> Tokens:
        return rearrange(y, f"b {self.cells} c -> b {self.rows} c", **self.counts)

    def resample(self, module: nn.Module, x: Tensor) -> Tensor:
        return SAMPLERS[type(module)](module, x, self.rate)

    def attend(self, qkv: Tensor, *, heads: int) -> Tensor:
        y = attend_cut(qkv.reshape(-1, self.window, qkv.shape[-1]), heads=heads)
        return y.reshape(*qkv.shape[:2], y.shape[-1])


def merged(filters: nn.Module, x: Tensor, block: int) -> Tensor:
    """A convolution whose stride is its width, on blocks of tokens that follow one another."""
    weight = filters.get_parameter("weight").movedim(1, -1).flatten(1)  # [out, taps in]
    return F.linear(x.unflatten(1, (-1, block)).flatten(2), weight)


def spread(filters: nn.Module, x: Tensor, block: int) -> Tensor:
    """A transposed one, whose weight is [in, out, *taps]."""
    weight = rearrange(filters.get_parameter("weight"), "i o ... -> (...) o i").flatten(0, 1)
    return F.linear(x, weight).unflatten(-1, (block, -1)).flatten(1, 2)


def averaged(_: nn.Module, x: Tensor, block: int) -> Tensor:
    return x.unflatten(1, (-1, block)).mean(2)


def copied(_: nn.Module, x: Tensor, block: int) -> Tensor:
    return x.unsqueeze(2).expand(-1, -1, block, -1).flatten(1, 2)


SAMPLERS: dict[type[nn.Module], Callable[[nn.Module, Tensor, int], Tensor]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d), merged),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d), spread),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d), averaged),
    nn.Upsample: copied,
}
