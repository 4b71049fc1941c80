"""Scenes of dashed curves: where they run, which two ends are marked, how they look."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Protocol

import numpy as np

MARK = 1.5  # radius of a marked end, in pixels
INK = 0.75  # brightness of a dash; a mark has 1
APART = 2 * MARK + 1  # least distance of two marks, in pixels
ALIKE = 1.0  # largest difference, in pixels, between the marks' distances of the two answers that a scene may have
TURNED = 0.3  # and in radians, between the angles at which curves leave them
TURNS, CURVES, SCENES = 8, 40, 500  # attempts at a dash, at a curve, at a scene, before the one above begins anew

Point = tuple[float, float]
Pixel = tuple[int, int]


class Shape(Protocol):
    """The knobs that say which scenes are drawn; see tasks/pathfinder.py."""

    @property
    def side(self) -> int: ...
    @property
    def dashes(self) -> int: ...
    @property
    def distractors(self) -> int: ...
    @property
    def dash(self) -> int: ...
    @property
    def gap(self) -> int: ...
    @property
    def bend(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Curves that do not touch, each with its joints in order, in pixels from the middle of the first pixel.

    marks: the two marked ends.
    connected: whether one curve joins them.
    """

    side: int
    curves: list[list[Point]]
    marks: tuple[Point, ...]
    connected: bool

    def masks(self) -> np.ndarray:
        """The pixels of every curve, gaps filled [curves, side, side]: each is of one piece, corners counted, and no
        two touch."""
        found = np.zeros((len(self.curves), self.side, self.side), bool)
        for mask, joints in zip(found, self.curves, strict=True):
            for start, end in pairwise(joints):
                for row, column in pixels(start, end):
                    mask[row, column] = True
        return found


def scene(chance: np.random.Generator, shape: Shape, connected: bool) -> Scene:
    """Two long curves, then distractors, a third as long, as many as asked or as there is room for, each at random.

    Two pairs of the long curves' ends are kept that look alike, one on the same curve and one not; the answer that is
    asked for says which of them is marked, and nothing else. Raises ValueError when there is no room.
    """
    for _ in range(SCENES):
        ground = np.zeros((shape.side, shape.side), bool)
        curves = [curve(chance, ground, shape.dashes, shape) for _ in range(2)]
        if all(curves) and (pairs := ends(chance, *curves)):
            short = max(1, shape.dashes // 3)
            curves += filter(None, (curve(chance, ground, short, shape) for _ in range(shape.distractors)))
            return Scene(side=shape.side, curves=curves, marks=pairs[0 if connected else 1], connected=connected)
    raise ValueError(
        f"pathfinder found no room on side {shape.side} for two curves of {shape.dashes} dashes of"
        f" {shape.dash} + {shape.gap} pixels with ends that look alike; lower dash, or raise bend or side."
    )


def ends(chance: np.random.Generator, one: list[Point], other: list[Point]) -> list[tuple[Point, Point]]:
    """Two ends of one curve and two of different curves that look alike to who sees their surroundings alone: about as
    far from each other, and left by their curves in about the same directions; nothing where there are none."""
    along = {one[0]: one[1], one[-1]: one[-2], other[0]: other[1], other[-1]: other[-2]}  # where each end's dash leads
    same = [(one[0], one[-1]), (other[0], other[-1])]
    different = list(product((one[0], one[-1]), (other[0], other[-1])))
    fitting = [[near, far] for near, far in product(same, different) if alike(near, far, along)]
    return fitting[int(len(fitting) * chance.random())] if fitting else []


def alike(near: tuple[Point, Point], far: tuple[Point, Point], along: Mapping[Point, Point]) -> bool:
    """Whether two pairs of ends have room for their marks, and differ little in what lies at them."""
    apart = [math.dist(*near), math.dist(*far)]
    if min(apart) < APART or abs(apart[0] - apart[1]) > ALIKE:
        return False
    leaving = [sorted((leaves(a, along[a], b), leaves(b, along[b], a))) for a, b in (near, far)]
    return all(abs(mine - theirs) <= TURNED for mine, theirs in zip(*leaving, strict=True))


def leaves(end: Point, first: Point, other: Point) -> float:
    """The angle between a curve's first dash and the straight way to the other mark, 0 to pi."""
    there, away = math.atan2(first[0] - end[0], first[1] - end[1]), math.atan2(other[0] - end[0], other[1] - end[1])
    return abs((there - away + math.pi) % math.tau - math.pi)


def curve(chance: np.random.Generator, ground: np.ndarray, dashes: int, shape: Shape) -> list[Point]:
    """A curve of that many dashes over free ground, which is taken then; nothing where it finds no way."""
    for _ in range(CURVES):
        if joints := walk(chance, ground.copy(), dashes, shape):
            for start, end in pairwise(joints):
                take(ground, pixels(start, end), clearance(shape))
            return joints
    return []


def walk(chance: np.random.Generator, ground: np.ndarray, dashes: int, shape: Shape) -> list[Point]:
    """The joints of a curve that bends at random and keeps clear of what is taken and of itself."""
    edge, stride = shape.side - 3, shape.dash + shape.gap
    joints = [(1 + edge * chance.random(), 1 + edge * chance.random())]
    heading, room = math.tau * chance.random(), clearance(shape)
    back = max(2, math.ceil((room + 2) / stride))  # dashes; what lies nearer is where the next one begins
    for dash in range(dashes):
        for _ in range(TURNS):
            turned = heading + (2 * chance.random() - 1) * (shape.bend if dash else math.pi)
            row, column = joints[-1]
            end = row + stride * math.sin(turned), column + stride * math.cos(turned)
            if min(end) >= 1 and max(end) <= shape.side - 2 and free(ground, pixels(joints[-1], end)):
                break
        else:
            return []
        joints.append(end)
        heading = turned
        if dash >= back:
            take(ground, pixels(joints[dash - back], joints[dash - back + 1]), room)
    return joints


def clearance(shape: Shape) -> int:
    """Pixels between two curves: more than in the gap of one, and enough to keep a mark off the other."""
    return max(shape.gap + 1, 2)


def pixels(start: Point, end: Point) -> list[Pixel]:
    """The pixels of a straight line, neighbours by a side or a corner."""
    steps = math.ceil(2 * math.dist(start, end))
    points = (between(start, end, step / steps) for step in range(steps + 1))
    return [(round(row), round(column)) for row, column in points]


def free(ground: np.ndarray, line: list[Pixel]) -> bool:
    return not any(ground[pixel] for pixel in line)


def take(ground: np.ndarray, line: list[Pixel], around: int) -> None:
    """Marks the pixels of a line as taken, and those around."""
    for row, column in line:
        ground[max(0, row - around) : row + around + 1, max(0, column - around) : column + around + 1] = True


def paint(scene: Scene, gap: int) -> np.ndarray:
    """The image, 0 to 255 [side, side]: dashes one pixel wide, half a gap short of each joint, and discs as marks."""
    canvas = np.zeros((scene.side, scene.side))
    bare = gap / 2 + 0.5 if gap else 0.0  # the ink of a line reaches half a pixel beyond its end
    for joints in scene.curves:
        for start, end in pairwise(joints):
            share = bare / math.dist(start, end)
            ink(canvas, between(start, end, share), between(end, start, share), 0.5, INK)
    for mark in scene.marks:
        ink(canvas, mark, mark, MARK, 1.0)
    return np.rint(255 * canvas).astype(np.uint8)


def between(start: Point, end: Point, share: float) -> Point:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def ink(canvas: np.ndarray, start: Point, end: Point, radius: float, brightness: float) -> None:
    """Draws all pixels within a radius of a line; those at its rim in part."""
    reach = math.ceil(radius + 0.5)
    (top, left), (bottom, right) = (
        [round(choose(pair)) + sign * reach for pair in zip(start, end, strict=True)]
        for choose, sign in ((min, -1), (max, 1))
    )
    box = canvas[max(0, top) : bottom + 1, max(0, left) : right + 1]
    row, column = np.ogrid[max(0, top) : max(0, top) + box.shape[0], max(0, left) : max(0, left) + box.shape[1]]
    down, across = end[0] - start[0], end[1] - start[1]
    along = (row - start[0]) * down + (column - start[1]) * across
    share = (along / max(down**2 + across**2, 1e-12)).clip(0, 1)
    away = np.hypot(row - start[0] - share * down, column - start[1] - share * across)
    np.maximum(box, brightness * (radius + 0.5 - away).clip(0, 1), out=box)
