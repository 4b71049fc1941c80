"""Which variants lie on the front of quality against a cost, so that none is better in one and as good in the other.

Seeds and steps scatter, so a front has no edge: of each variant the chance to be on it is told, the share of resamples
in which it is. A resample draws seeds, the same for all variants, and of every time a value with its median and
quartiles. As means of few resampled seeds scatter too little, their way from the mean is stretched to that of a t
distribution: by sqrt(n / chi2) with chi2 of n - 1 degrees, one draw for all variants.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from attnbench.reports.ranking import Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESAMPLES, SEED, SEEDS_AT_LEAST = 2000, 0, 3
QUARTILE = 0.6744897501960817  # of the normal distribution
MORE = ("samples_per_s",)  # of which more is better
LESS = ("memory_train_mib", "memory_infer_mib", "params", "matmul_flops", "step_ms")  # of which less is
FRONTS = {"cost.train_samples_per_s": "speed", "cost.memory_train_mib": "memory"}
CAPTION = (
    "Front: the chance that no other variant is better and as cheap, or as good and cheaper, over resamples of seeds "
    "and of measured times, against the throughput or the peak memory of training. "
)
UNKNOWN = f"Fronts are not told: that takes {SEEDS_AT_LEAST} seeds that all variants with a cost have in common. "
MARKED = "Line: the front of these means, with the chance of each to be on it."
ROOM = "Line: the front of these means, with the chance of each to be on it where there is room."
LABEL = (30, 9)  # width and height of a label, in hundredths of an inch
Point = tuple[float, float]
Price = tuple[float, float, float]  # median and quartiles; nan without any


def cost_side(column: str) -> int:
    """1 for a cost of which less is better, -1 where more is, 0 for what is no cost."""
    if not column.startswith("cost."):
        return 0
    return -1 if column.endswith(MORE) else int(column.endswith(LESS))


def chances(values: Mapping[str, Values], prices: Mapping[str, Price], *, worse: int, dear: int) -> dict[str, float]:
    """The chance of each variant to be on the front; empty with less than 2 variants or 3 common seeds.

    values: of each variant, its measure by seed. prices: the cost of each; those without are left out.
    worse, dear: 1 where less of the measure, of the cost, is better, -1 where more is.
    """
    names = [name for name in values if values[name] and name in prices and isfinite(prices[name][0])]
    seeds = sorted(set.intersection(*(set(values[name]) for name in names))) if names else []
    if len(names) < 2 or len(seeds) < SEEDS_AT_LEAST:
        return {}
    chance = np.random.default_rng(SEED)
    losses = worse * means(np.array([[values[name][seed] for seed in seeds] for name in names]), chance)
    costs = dear * np.stack([drawn(prices[name], chance) for name in names], axis=1)
    return dict(zip(names, undominated(losses, costs).mean(axis=0).tolist(), strict=True))


def means(scores: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Means over resampled seeds of scores [variants, seeds], stretched: [resamples, variants]."""
    n = scores.shape[1]
    middle = scores.mean(axis=1)
    away = scores[:, chance.integers(n, size=(RESAMPLES, n))].mean(axis=2).T - middle
    return middle + away * np.sqrt(n / chance.chisquare(n - 1, size=(RESAMPLES, 1)))


def drawn(price: Price, chance: np.random.Generator) -> np.ndarray:
    """Draws of a cost: normal on either side of the median, with its quartiles; without any, the median itself."""
    middle, low, high = price
    z = chance.standard_normal(RESAMPLES)
    if not isfinite(low + high):
        return np.full(RESAMPLES, middle)
    return middle + z * np.where(z < 0, middle - low, high - middle) / QUARTILE


def undominated(losses: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Whether each of some points is on the front, less being better in both: [..., points] to the same.

    Points are taken by loss and then by cost, and each is on it that is cheaper than all before; equal ones share a
    fate.
    """
    order = np.lexsort((costs, losses), axis=-1)
    losses, costs = (np.take_along_axis(own, order, axis=-1) for own in (losses, costs))
    new = np.ones(losses.shape, dtype=bool)
    new[..., 1:] = costs[..., 1:] < np.minimum.accumulate(costs, axis=-1)[..., :-1]
    same = (losses[..., 1:] == losses[..., :-1]) & (costs[..., 1:] == costs[..., :-1])
    for i in np.flatnonzero(same.any(axis=tuple(range(same.ndim - 1)))):
        new[..., i + 1] = np.where(same[..., i], new[..., i], new[..., i + 1])
    found = np.empty(losses.shape, dtype=bool)
    np.put_along_axis(found, order, new, axis=-1)
    return found


def share(found: Mapping[str, float], variant: str) -> str:
    """A chance with two digits, never a certainty; an en dash where it is not known."""
    if variant not in found:
        return "–"  # noqa: RUF001
    chance = found[variant]
    return "< 0.01" if chance < 0.01 else "> 0.99" if chance > 0.99 else f"{chance:.2f}"


def mark(axes: "Axes", points: Mapping[str, Point], found: Mapping[str, float], sides: Sequence[int]) -> bool:
    """Draws the front of points as steps, and beside its points the chance to be on it; whether all had room for it.

    points: place on both axes. sides: 1 where less is better on that axis, -1 where more is.
    """
    names = list(points)
    places = np.array([points[name] for name in names])
    on = undominated(sides[1] * places[:, 1], sides[0] * places[:, 0])
    front = sorted((place for place, kept in zip(names, on, strict=True) if kept), key=lambda name: points[name][0])
    # between two points a step keeps the worse of what the nearer ones have
    where = "post" if sides[0] > 0 else "pre"
    xs, ys = zip(*(points[name] for name in front), strict=True)
    axes.step(xs, ys, where=where, color="#888888", linewidth=0.9, zorder=1.5, gid="front")
    told = roomy([name for name in front if name in found], axes.transData.transform(places), names)
    for name in told:
        look = {"textcoords": "offset points", "fontsize": 5.5, "color": "#444444", "zorder": 6, "gid": "chance"}
        axes.annotate(share(found, name), points[name], xytext=(4, 4), **look)
    return len(told) == sum(name in found for name in front)


def roomy(front: Sequence[str], pixels: np.ndarray, names: Sequence[str]) -> list[str]:
    """Of some points from left to right those whose labels do not run into one that was already kept.

    pixels: places of all `names`, [points, 2], at matplotlib's 100 dots an inch and before axes have their last size,
    which is near enough.
    """
    kept: list[np.ndarray] = []
    found = []
    for name in front:
        place = pixels[names.index(name)]
        if all((abs(place - other) >= LABEL).any() for other in kept):
            kept.append(place)
            found.append(name)
    return found
