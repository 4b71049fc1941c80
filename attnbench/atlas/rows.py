"""Attention rows, exactly: with which weight each token reads every other's value, in every head.

A mechanism's map from values to outputs, its queries and keys held, is a matrix G over tokens and channels. Full
attention's is the same row of weights for every channel of a head. A mechanism's row is the mean over the channels of a
head of what a channel reads of itself: the nearest in Frobenius' norm that a single row can come to G. Where rows are
the same for all channels that is G itself; learned filters of single channels, or maps that mix channels, are more than
rows, and `share` says how much of G they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from attnbench.atlas.held import ValueMap

Kind = Literal["heads", "channels", "mixing"]
AT_ONCE = 2**21  # numbers of a batch of probes times the tokens, so that no batch takes much memory
ALL_CHANNELS = 8192  # tokens times channels up to which a map that mixes channels is read on all of them
ROUNDING = 1e-8  # in float64, of maps that are read as what they are


@dataclass(frozen=True, kw_only=True)
class Rows:
    """weights: [heads, N, N], the query first.

    kind: whether rows are the same in all channels of a head, each channel has its own, or channels are mixed.
    share: of the squared Frobenius norm of the whole map, what rows hold; 1 for `heads`.
    """

    weights: Tensor
    kind: Kind
    share: float


def rows(module: nn.Module, tokens: Tensor, heads: int) -> Rows:
    """The rows of one sample.

    tokens: [1, *shape, C]. Raises Unheld, a ValueError, where the map from values cannot be isolated.
    """
    answers = ValueMap(module, tokens)
    shape, channels = tokens.shape[1:-1], tokens.shape[-1]
    count, width = shape.numel(), channels // heads

    def read(values: Tensor) -> Tensor:
        return answers(values.view(-1, *shape, channels)).reshape(-1, count, channels)

    by_head = torch.cat(list(in_heads(read, tokens, count, channels, width)), -1)
    chance = torch.Generator().manual_seed(11)
    values = torch.randn(2, count, channels, generator=chance, dtype=torch.float64).to(tokens)
    seen = read(values)
    if agree(applied(by_head.repeat_interleave(width, 0), values), seen):
        return Rows(weights=by_head, kind="heads", share=1.0)
    by_channel = torch.cat(list(in_channels(read, tokens, count, channels)), -1)
    if agree(applied(by_channel, values), seen):
        mean = by_channel.unflatten(0, (heads, width)).mean(1)
        share = float(width * mean.square().sum() / by_channel.square().sum())
        return Rows(weights=mean, kind="channels", share=share)
    return mixed(read, tokens, heads)


def applied(weights: Tensor, values: Tensor) -> Tensor:
    """What rows [C, N, N] read from values [B, N, C]."""
    return torch.einsum("cij,bjc->bic", weights, values)


def agree(one: Tensor, other: Tensor) -> bool:
    near = ROUNDING if one.dtype == torch.float64 else 1e-4
    return float((one - other).norm()) <= near * float(other.norm())


def batches(count: int, size: int) -> Iterator[range]:
    step = max(1, AT_ONCE // size)
    return (range(first, min(first + step, count)) for first in range(0, count, step))


def in_heads(read, tokens: Tensor, count: int, channels: int, width: int) -> Iterator[Tensor]:
    """Columns [heads, N, some], if all channels of a head have the same: each channel shows another token's."""
    groups = -(-count // width)
    for batch in batches(groups, count * max(count, channels)):
        values = tokens.new_zeros(len(batch), count, channels)
        places = (torch.tensor(batch).unsqueeze(1) * width + torch.arange(channels) % width).to(tokens.device)
        inside = places < count
        number, channel = (torch.arange(n, device=tokens.device) for n in (len(batch), channels))
        values[number.unsqueeze(1), places.clamp(max=count - 1), channel] = inside.to(values.dtype)
        seen = read(values).unflatten(-1, (-1, width))  # [groups, N, heads, width]
        columns = seen.permute(2, 1, 0, 3).flatten(2)
        yield columns[..., : count - batch[0] * width]


def in_channels(read, tokens: Tensor, count: int, channels: int) -> Iterator[Tensor]:
    """Columns [C, N, some], if no channel reads another."""
    for batch in batches(count, count * max(count, channels)):
        values = tokens.new_zeros(len(batch), count, channels)
        values[torch.arange(len(batch)), torch.tensor(batch)] = 1
        yield read(values).permute(2, 1, 0)


def mixed(read, tokens: Tensor, heads: int) -> Rows:
    """Rows of a map that mixes channels: one token and one channel at a time, of all channels where that is feasible,
    else of the first of every head."""
    count, channels = tokens.shape[1:-1].numel(), tokens.shape[-1]
    width = channels // heads
    step = 1 if count * channels <= ALL_CHANNELS else width
    weights, whole = tokens.new_zeros(heads, count, count), 0.0
    for channel in range(0, channels, step):
        for batch in batches(count, count * max(count, channels)):
            values = tokens.new_zeros(len(batch), count, channels)
            values[torch.arange(len(batch)), torch.tensor(batch), channel] = 1
            seen = read(values)
            whole += float(seen.square().sum())
            weights[channel // width, :, batch[0] : batch[-1] + 1] += seen[..., channel].T * step / width
    return Rows(weights=weights, kind="mixing", share=float(width / step * weights.square().sum()) / whole)


def full_rows(full: nn.Module, tokens: Tensor, heads: int, *, causal: bool) -> Tensor:
    """Full attention's rows [heads, N, N] from its queries and keys; tokens [1, *shape, C]."""
    with torch.no_grad():
        q, k = (
            full.get_submodule(part)(tokens.flatten(1, -2)[0]).unflatten(-1, (heads, -1)).movedim(1, 0) for part in "qk"
        )
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        return scores.softmax(-1)
