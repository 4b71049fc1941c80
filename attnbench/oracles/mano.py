"""Multipole attention of neural operators: one window attention on the grid and on ever coarser copies, summed."""

from collections.abc import Callable
from math import log, log2, sqrt
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import Weights, places_of, project, softmax_average
from mechanisms import Site

Step = Callable[[Tensor], Tensor]  # [H, W, C] -> a grid: a coarser or finer one, or the same after attention
Sides = tuple[int, int]  # rows and columns; a sequence is a grid of one row

CASES = [
    Case(site, {"heads": 2, **knobs})
    for site, knobs in (
        (at(4, 6), {"window": 2, "levels": 1}),
        (at(4, 4), {"window": 2, "levels": 1, "stride": 1}),
        (at(7, 5), {"window": 3, "levels": 1, "stride": 2}),
        (at(8, 12), {"window": 2, "levels": 2}),
        (at(8, 8), {"window": 2, "levels": 3}),
        (at(8, 8), {"window": 2, "levels": 3, "combine": "published"}),
        (at(16, 16, channels=2), {"window": 2, "levels": 4, "combine": "published"}),
        (at(8, 8), {"window": 2, "levels": 3, "stride": 1}),
        (at(9, 9), {"window": 3, "levels": 2, "rate": 3}),
        (at(8, 8), {"window": 2, "levels": 2, "downsample": "average"}),
        (at(8, 8), {"window": 2, "levels": 2, "upsample": "nearest"}),
        (at(8, 8), {"levels": 3, "downsample": "average", "upsample": "nearest", "combine": "published"}),
        (at(4, 8), {"window": 1, "levels": 3, "samplers": "per_level"}),
        (at(8, 4), {"window": 1, "levels": 3, "attention": "per_level", "upsample": "nearest"}),
        (at(8, 8), {"levels": 3, "samplers": "per_level", "attention": "per_level", "combine": "published"}),
        (at(4, 8), {"levels": 2, "combine": "gate"}),
        (at(8, 8), {"levels": 3, "combine": "gate", "samplers": "per_level", "attention": "per_level"}),
        (at(4, 6), {"levels": 1, "combine": "softmax", "attention": "per_level"}),
        (at(8, 4), {"levels": 2, "combine": "softmax"}),
        (at(8, 8), {"levels": 3, "combine": "softmax", "stride": 1}),
        (at(8, 8), {"levels": 3, "combine": "softmax", "downsample": "average", "upsample": "nearest"}),
        (at(8, 8), {"levels": 3, "combine": "softmax", "samplers": "per_level", "attention": "per_level"}),
        (at(9, 3), {"window": 1, "levels": 2, "rate": 3, "combine": "softmax"}),
        (at(7), {"window": 3, "levels": 1, "stride": 2}),
        (at(24), {"window": 2, "levels": 3}),
        (at(36), {"window": 4, "levels": 3, "rate": 3, "stride": 4, "combine": "published"}),
        (at(20), {"window": 5, "levels": 3, "downsample": "average", "upsample": "nearest", "combine": "softmax"}),
        (at(24), {"window": 2, "levels": 3, "stride": 1, "combine": "softmax", "samplers": "per_level"}),
        (at(12), {"window": 3, "levels": 2, "combine": "gate", "attention": "per_level"}),
        (at(4, 8), {"window": 4, "levels": 1, "position": "swin_v2"}),
        (at(8, 8), {"window": 2, "levels": 3, "position": "swin_v2"}),
        (at(3, 6), {"window": 3, "stride": 1, "levels": 1, "position": "swin_v2"}),
        (at(4, 8), {"window": 1, "levels": 3, "position": "swin_v2", "combine": "published", "samplers": "per_level"}),
        (at(4, 8), {"window": 2, "levels": 2, "position": "swin_v2", "combine": "gate", "attention": "per_level"}),
        (at(12), {"window": 3, "levels": 3, "position": "swin_v2", "downsample": "average", "upsample": "nearest"}),
        (at(10), {"window": 4, "stride": 2, "levels": 1, "position": "swin_v2"}),
    )
]


def holding(place: Sides, grid: Sides, *, window: Sides, stride: Sides) -> list[list[int]]:
    """Every window over a place, as the tokens in it in flattened order."""
    found = []
    for top in range(0, grid[0] - window[0] + 1, stride[0]):
        for left in range(0, grid[1] - window[1] + 1, stride[1]):
            rows, columns = range(top, top + window[0]), range(left, left + window[1])
            if place[0] in rows and place[1] in columns:
                found.append([row * grid[1] + column for row in rows for column in columns])
    return found


def windows(sample: Tensor, weights: Weights, *, heads: int, window: Sides, stride: Sides) -> tuple[Tensor, Tensor]:
    """What every token reads in the windows over it, before the last projection [H, W, C], and how much stood there.

    Both are means over those windows; the second [H, W, heads] is the logarithm of the sum of exp(score).
    """
    height, width, channels = sample.shape
    size = channels // heads
    q, k, v = (project(weights, name, sample.reshape(-1, channels)) for name in ("q", "k", "v"))
    answers, masses = [], []
    for i in range(len(q)):
        over = holding((i // width, i % width), (height, width), window=window, stride=stride)
        for head in range(heads):
            mine = slice(head * size, (head + 1) * size)
            read = [softmax_average(q[i, mine], k[seen, mine], v[seen, mine]) for seen in over]
            stood = [torch.logsumexp(k[seen, mine] @ q[i, mine] / sqrt(size), 0) for seen in over]
            answers.append(sum(read[1:], read[0]) / len(over))
            masses.append(sum(stood[1:], stood[0]) / len(over))
    return torch.cat(answers).reshape(sample.shape), torch.stack(masses).reshape(height, width, heads)


def cosine(sample: Tensor, weights: Weights, *, heads: int, window: Sides, stride: Sides) -> Tensor:
    """The same with Swin V2's attention, last projection included: a softmax of cosine x temperature + bias."""
    height, width, channels = sample.shape
    size, flat = channels // heads, sample.reshape(-1, channels)
    q, k, v = project(weights, "q", flat), flat @ weights["k.weight"].T, project(weights, "v", flat)
    temperature = torch.exp(torch.clamp(weights["logit_scale"].flatten(), max=log(100)))
    places, bias = places_of(sample), {}
    for down in range(1 - window[0], window[0]):
        for right in range(1 - window[1], window[1]):
            bias[down, right] = offset_bias((down, right), weights, window)
    answers = []
    for i, here in enumerate(places):
        over = holding(here, (height, width), window=window, stride=stride)
        for head in range(heads):
            mine = slice(head * size, (head + 1) * size)
            read = []
            for seen in over:
                angles = [torch.cosine_similarity(q[i, mine], k[j, mine], dim=0, eps=1e-24) for j in seen]
                extra = [bias[here[0] - places[j][0], here[1] - places[j][1]][head] for j in seen]
                scores = torch.stack(angles) * temperature[head] + torch.stack(extra)
                read.append(torch.softmax(scores, 0) @ v[seen, mine])
            answers.append(sum(read[1:], read[0]) / len(over))
    return project(weights, "out", torch.cat(answers).reshape(sample.shape))


def offset_bias(offset: Sides, weights: Weights, window: Sides) -> Tensor:
    """What Swin V2 adds to the scores of two tokens so far apart, query minus key: one number a head."""
    scaled = [8 * step / max(side - 1, 1) for step, side in zip(offset, window, strict=True)]
    logs = [(1 if step > 0 else -1) * log2(1 + abs(step)) / 3 for step in scaled]
    x = torch.tensor(logs, dtype=weights["position.0.weight"].dtype)
    hidden = torch.relu(project(weights, "position.0", x))
    return 16 * torch.sigmoid(weights["position.2.weight"] @ hidden)


def convolve(filters: Tensor) -> Step:
    """Merges k x l tokens by a learned map; filters [out, in, k, l] as torch's Conv2d holds them."""
    k, wide = filters.shape[2:]

    def down(sample: Tensor) -> Tensor:
        rows = []
        for row in range(len(sample) // k):
            cells = []
            for column in range(sample.shape[1] // wide):
                cell = [(a, b) for a in range(k) for b in range(wide)]
                parts = [filters[:, :, a, b] @ sample[row * k + a, column * wide + b] for a, b in cell]
                cells.append(sum(parts[1:], parts[0]))
            rows.append(torch.stack(cells))
        return torch.stack(rows)

    return down


def spread(filters: Tensor) -> Step:
    """Makes k x l tokens of one by a learned map; filters [in, out, k, l] as torch's ConvTranspose2d holds them."""
    k, wide = filters.shape[2:]

    def up(sample: Tensor) -> Tensor:
        rows = []
        for row in range(len(sample) * k):
            here = [
                (sample[row // k, c // wide], filters[:, :, row % k, c % wide]) for c in range(len(sample[0]) * wide)
            ]
            rows.append(torch.stack([token @ weight for token, weight in here]))
        return torch.stack(rows)

    return up


def mean_of_blocks(rate: Sides) -> Step:
    """Merges k x l tokens into their mean."""
    k, wide = rate

    def down(sample: Tensor) -> Tensor:
        rows = []
        for top in range(0, len(sample), k):
            lefts = range(0, sample.shape[1], wide)
            rows.append(torch.stack([sample[top : top + k, left : left + wide].mean(dim=(0, 1)) for left in lefts]))
        return torch.stack(rows)

    return down


def copies(rate: Sides) -> Step:
    """Repeats every token k x l times."""
    k, wide = rate

    def up(sample: Tensor) -> Tensor:
        rows = []
        for row in range(len(sample) * k):
            rows.append(torch.stack([sample[row // k, column // wide] for column in range(sample.shape[1] * wide)]))
        return torch.stack(rows)

    return up


def below(steps: list[Step], level: int, sample: Tensor) -> Tensor:
    """D_(m-1)(... D_0(x)), what level m sees."""
    for step in steps[:level]:
        sample = step(sample)
    return sample


def above(steps: list[Step], level: int, sample: Tensor) -> Tensor:
    """U_0(... U_(m-1)(y)), what level m hands up to the finest."""
    for step in reversed(steps[:level]):
        sample = step(sample)
    return sample


def weighted_sum(sample: Tensor, *, attend: list[Step], down: list[Step], up: list[Step], factors: Any) -> Tensor:
    """sum over m of factor_m U_0(... U_(m-1)(A_m(D_(m-1)(... D_0(x)))))."""
    total = torch.zeros_like(sample)
    for m, level in enumerate(attend):
        total = total + factors[m] * above(up, m, level(below(down, m, sample)))
    return total


def published(sample: Tensor, *, attend: list[Step], down: list[Step], up: list[Step]) -> Tensor:
    """The released code's chain: r = y of the coarsest, then y of the next finer + up(r) / (j + 1), j = 0, 1, ..."""
    answers = [level(below(down, m, sample)) for m, level in enumerate(attend)]
    result, levels = answers[-1], len(answers)
    for j in range(levels - 1):
        result = answers[levels - 2 - j] + up[levels - 2 - j](result) / (j + 1)
    return result


def merged(answers: list[tuple[Tensor, Tensor]], up: list[Step], rate: Sides) -> Tensor:
    """From (answer [H, W, C], log of its mass [H, W, heads]) of each level, finest first, to their weighted mean."""
    result, mass = answers[-1]
    for m in reversed(range(len(answers) - 1)):
        fine, fine_mass = answers[m]
        raised, raised_mass = up[m](result), copies(rate)(mass) + log(rate[0] * rate[1])
        total = torch.log(torch.exp(fine_mass - raised_mass) + 1) + raised_mass
        size = fine.shape[-1] // mass.shape[-1]
        cells = []
        for row, column in [(row, column) for row in range(len(fine)) for column in range(fine.shape[1])]:
            for head in range(mass.shape[-1]):
                here = row, column, slice(head * size, (head + 1) * size)
                a, b = fine_mass[row, column, head], raised_mass[row, column, head]
                end = total[row, column, head]
                cells.append(torch.exp(a - end) * fine[here] + torch.exp(b - end) * raised[here])
        result, mass = torch.cat(cells).reshape(fine.shape), total
    return result


def as_grids(weights: Weights) -> Weights:
    """The filters of sequences [out, in, k] as filters of grids of one row [out, in, 1, k]."""
    return {name: tensor.unsqueeze(2) if tensor.ndim == 3 else tensor for name, tensor in weights.items()}


def of_level(weights: Weights, level: int) -> Weights:
    """The weights that serve a level: its own, such as q.1.weight, under the names of shared ones, q.weight."""
    own = {name.replace(f".{level}.", ".", 1): tensor for name, tensor in weights.items() if f".{level}." in name}
    return {**weights, **own}


def inside(name: str, weights: Weights) -> Weights:
    """The weights of a part, under their names in it."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in weights.items() if key.startswith(f"{name}.")}


def samplers(weights: Weights, rate: Sides, steps: int, config: Any) -> tuple[list[Step], list[Step]]:
    """The steps down, from each level to the next, and those up again."""
    down: list[Step] = [mean_of_blocks(rate)] * steps
    up: list[Step] = [copies(rate)] * steps
    if config.downsample == "conv":
        down = [convolve(of_level(weights, m)["down.weight"]) for m in range(steps)]
    if config.upsample == "transposed":
        up = [spread(of_level(weights, m)["up.weight"]) for m in range(steps)]
    return down, up


def oracle(site: Site, config: Any) -> Oracle:
    axes, levels = len(site.shape), config.levels
    window, stride, rate = (
        (1, side)[-2:] if axes == 1 else (side, side) for side in (config.window, config.stride, config.rate)
    )

    def level(weights: Weights, m: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        return lambda grid: windows(grid, of_level(weights, m), heads=config.heads, window=window, stride=stride)

    def attention(weights: Weights, m: int) -> Step:
        if config.position == "swin_v2":
            own, sides = inside("cosine", of_level(weights, m)), {"window": window, "stride": stride}
            return lambda grid: cosine(grid, own, heads=config.heads, **sides)
        return lambda grid: project(of_level(weights, m), "out", level(weights, m)(grid)[0])

    def run(weights: Weights, sample: Tensor) -> Tensor:
        weights, grid = as_grids(weights), sample.reshape((1, *sample.shape)[-3:])
        down, up = samplers(weights, rate, levels - 1, config)
        attend = [attention(weights, m) for m in range(levels)]
        if config.combine == "softmax" and levels > 1:
            answers = [level(weights, m)(below(down, m, grid)) for m in range(levels)]
            y = project(weights, "out", merged(answers, up, rate))
        elif config.combine == "published":
            y = published(grid, attend=attend, down=down, up=up)
        else:
            factors = weights.get("gate", torch.ones(levels, dtype=sample.dtype))
            y = weighted_sum(grid, attend=attend, down=down, up=up, factors=factors)
        return y.reshape(sample.shape)

    return run
