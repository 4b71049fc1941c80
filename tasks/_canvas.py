"""Handwritten digits dealt to the three splits, and canvases on which some of them stand among torn ones.

The images are those that scikit-learn ships: 1797 of 8 x 8 pixels in 17 levels of ink, 0 to 16, the test part of
Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
https://archive.ics.uci.edu/dataset/80
Of two images that differ by less than NEAR only one is used, so that no split holds what another knows; who wrote an
image is not told, so the same hands wrote for all splits. Every split has as many images of each digit as of any other.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Bool, UInt8

from tasks._labelled import SPLITS

SIDE = 8  # pixels an axis of a digit
INK = 16  # the most that a pixel holds
NEAR = 1.0  # root mean square difference of two images in levels of ink, below which they count as the same
SHARES = {"valid": 0.15, "test": 0.25}  # of the images of each digit; what is left trains
KINDS = 10

Image = UInt8[np.ndarray, "height width"]
Pool = Sequence[UInt8[np.ndarray, "images 8 8"]]  # the images of each digit


@cache
def pools(data_seed: int) -> Mapping[str, Pool]:
    """The images of each digit that a split may use, in the order in which it takes them."""
    images, labels = distinct()
    chance = np.random.default_rng(np.random.SeedSequence(data_seed))
    kinds = [images[labels == kind] for kind in range(KINDS)]
    kinds = [chance.permutation(kind) for kind in kinds]
    most = min(len(kind) for kind in kinds)
    sizes = {split: int(share * most) for split, share in SHARES.items()}
    sizes["train"] = most - sum(sizes.values())
    ends = np.cumsum([sizes[split] for split in SPLITS])
    return {split: [kind[end - sizes[split] : end] for kind in kinds] for split, end in zip(SPLITS, ends, strict=True)}


@cache
def distinct() -> tuple[UInt8[np.ndarray, "images 8 8"], np.ndarray]:
    """Images and their digits, without those that are nearly the same as one before them."""
    from sklearn.datasets import load_digits  # it takes a second, which only the making of data should pay

    images, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    squares = (images**2).sum(1)
    apart = squares[:, None] + squares - 2 * images @ images.T  # whole numbers, exact in float64
    near = np.tril(apart < NEAR**2 * SIDE**2, -1)
    kept = np.ones(len(images), bool)
    for number in np.flatnonzero(near.any(1)):
        kept[number] = not (near[number] & kept).any()
    return images[kept].astype(np.uint8).reshape(-1, SIDE, SIDE), labels[kept]


def any_of(chance: np.random.Generator, pool: Pool, kind: int) -> Image:
    return pool[kind][chance.integers(len(pool[kind]))]


class Canvas:
    """An empty square of ink, on which images of 8 x 8 pixels are put without touching what is there."""

    def __init__(self, side: int):
        self.ink: Image = np.zeros((side, side), np.uint8)
        corners = side - SIDE + 1
        self.free: Bool[np.ndarray, "corners corners"] = np.ones((corners, corners), bool)

    def room(self, chance: np.random.Generator) -> tuple[int, int] | None:
        """A corner, upper left, where an image still fits, all equally likely; None where none is left."""
        choices = np.flatnonzero(self.free)
        if not len(choices):
            return None
        row, column = divmod(int(choices[chance.integers(len(choices))]), len(self.free))
        return row, column

    def put(self, image: Image, corner: tuple[int, int]) -> tuple[slice, slice]:
        """Draws an image; returns the pixels it took."""
        row, column = corner
        where = slice(row, row + SIDE), slice(column, column + SIDE)
        self.ink[where] = image
        self.free[max(0, row - SIDE + 1) : row + SIDE, max(0, column - SIDE + 1) : column + SIDE] = False
        return where

    def litter(self, chance: np.random.Generator, pool: Pool, pieces: int) -> None:
        """Adds torn digits, that many or as many as find room."""
        for _ in range(pieces):
            corner = self.room(chance)
            if corner is None:
                return
            self.put(torn(chance, pool), corner)


def torn(chance: np.random.Generator, pool: Pool) -> Image:
    """The quarters of four digits, each from one, and none in the place it had."""
    found, half, shift = np.zeros((SIDE, SIDE), np.uint8), SIDE // 2, chance.integers(1, 4)
    for place in range(4):
        (row, column), (of_row, of_column) = divmod(place, 2), divmod((place + shift) % 4, 2)
        image = any_of(chance, pool, int(chance.integers(len(pool))))
        found[half * row :, half * column :][:half, :half] = image[half * of_row :, half * of_column :][:half, :half]
    return found


def far_apart(chance: np.random.Generator, side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two corners of images that lie at least half a canvas apart on one axis, all such pairs equally likely."""
    while True:
        corners = chance.integers(side - SIDE + 1, size=(2, 2))
        if 2 * np.abs(corners[0] - corners[1]).max() >= side:
            (top, left), (lower, right) = corners.tolist()
            return (top, left), (lower, right)
