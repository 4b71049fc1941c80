"""Pathfinder: a flood fill gives every answer, nothing else gives it away."""

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from attnbench.models import maker
from mechanisms import configure
from mechanisms._knobs import resolved
from tasks._labelled import streams
from tasks._pathfinder import ALIKE, APART, Point, Scene, ends, paint, scene
from tasks.pathfinder import Config, Pathfinder
from tests.splits import read

SMALL = {"train": 24, "valid": 6, "test": 8, "batch": 8}
SETTINGS = [
    {},
    {"side": 16, "dashes": 3, "distractors": 2},
    {"dashes": 14, "distractors": 5},
    {"side": 64, "dashes": 9, "dash": 5, "gap": 2},
    {"side": 16, "dashes": 8, "dash": 1, "gap": 0, "bend": 1.2, "distractors": 2},
]
SPLITS = ("train", "valid", "test")


def made(tmp_path: Path, **knobs: object) -> Pathfinder:
    task = Pathfinder(configure(Config, {**SMALL, **knobs}, of="pathfinder"), tmp_path)
    task.prepare(lambda *_: None, 1)
    return task


def drawn(count: int, **knobs: object) -> list[Scene]:
    shape = configure(Config, knobs, of="pathfinder")
    return [scene(np.random.default_rng(number), shape, bool(number % 2)) for number in range(count)]


def flooded(ground: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    """All that is reached from a pixel over neighbours by side or corner."""
    reached, front = np.zeros_like(ground), {start} if ground[start] else set()
    while front:
        for pixel in front:
            reached[pixel] = True
        around = {(r + dr, c + dc) for r, c in front for dr in (-1, 0, 1) for dc in (-1, 0, 1)}
        front = {
            pixel
            for pixel in around
            if all(0 <= i < len(ground) for i in pixel) and ground[pixel] and not reached[pixel]
        }
    return reached


def pieces(ground: np.ndarray) -> int:
    """How many parts do not touch."""
    left, count = ground.copy(), 0
    while left.any():
        left &= ~flooded(left, tuple(np.argwhere(left)[0].tolist()))
        count += 1
    return count


def nearest(point: Point, ink: np.ndarray) -> tuple[int, int]:
    """The inked pixel next to a point."""
    row, column = min(np.argwhere(ink).tolist(), key=lambda place: math.dist(place, point))
    return row, column


def pixel(point: Point) -> tuple[int, int]:
    return round(point[0]), round(point[1])


# --- answers


@pytest.mark.parametrize("knobs", SETTINGS)
def test_a_flood_from_one_mark_reaches_the_other_just_when_the_answer_is_one(knobs):
    for one in drawn(12, **knobs):
        first, second = map(pixel, one.marks)
        assert flooded(one.masks().max(0), first)[second] == one.connected


@pytest.mark.parametrize("knobs", SETTINGS)
def test_every_curve_is_of_one_piece_and_none_touches_another(knobs):
    for one in drawn(8, **knobs):
        masks = one.masks()
        assert [pieces(mask) for mask in masks] == [1] * len(masks)
        assert pieces(masks.max(0)) == len(masks)


def test_the_painted_curves_without_gaps_tell_the_same_to_a_flood():
    for one in drawn(30):
        ink = paint(replace(one, marks=()), gap=0) > 0.36 * 255  # what lies within half a pixel of a curve
        first, second = (nearest(mark, ink) for mark in one.marks)
        assert flooded(ink, first)[second] == one.connected
        assert pieces(ink) == len(one.curves)


def test_the_marks_lie_on_the_ends_of_one_long_curve_or_of_both():
    for one in drawn(40):
        long = [(curve[0], curve[-1]) for curve in one.curves[:2]]
        owner = [next(number for number, ends in enumerate(long) if mark in ends) for mark in one.marks]
        assert one.marks[0] != one.marks[1]
        assert (owner[0] == owner[1]) == one.connected


def test_a_painted_image_has_as_many_dashes_as_were_asked_for_and_bright_marks():
    for one in drawn(10, side=64, dashes=5, distractors=3, dash=4, gap=3):
        bare = paint(replace(one, marks=()), gap=3)
        assert pieces(bare > 0.3 * 255) == 2 * 5 + 1 * (len(one.curves) - 2)
        assert bare.max() < 0.8 * 255
        image = paint(one, gap=3)
        assert all(image[pixel(mark)] == 255 for mark in one.marks)
        far = np.ones((64, 64), bool)
        for mark in one.marks:
            row, column = np.ogrid[:64, :64]
            far &= np.hypot(row - mark[0], column - mark[1]) > 2.5
        np.testing.assert_array_equal(image[far], bare[far])


def test_every_kept_image_has_the_answer_of_its_scene(tmp_path):
    task = made(tmp_path, data_seed=5)
    for split in SPLITS:
        images, answers = read(task, split)
        for image, answer, chance in zip(images, answers, streams(5, split, len(answers)), strict=True):
            one = scene(chance, task.config, bool(answer))
            np.testing.assert_array_equal((255 * image[..., 0]).round().numpy(), paint(one, 1))
            first, second = map(pixel, one.marks)
            assert flooded(one.masks().max(0), first)[second] == bool(answer)


def test_answers_are_balanced_in_every_split(tmp_path):
    task = made(tmp_path, train=25)
    assert [int(read(task, split)[1].sum()) for split in SPLITS] == [12, 3, 4]


# --- what must not give the answer away


@pytest.mark.parametrize("knobs", [{}, {"side": 16, "dashes": 8, "dash": 1, "gap": 0, "bend": 1.4}])
def test_the_answer_changes_nothing_but_which_ends_are_marked(knobs):
    shape = Config(**knobs)
    for number in range(40):
        yes, no = (scene(np.random.default_rng(number), shape, answer) for answer in (True, False))
        assert yes.curves == no.curves
        distances = [math.dist(*one.marks[:2]) for one in (yes, no)]
        assert abs(distances[0] - distances[1]) <= ALIKE
        assert min(distances) >= APART


def test_ends_are_marked_only_where_two_marks_have_room_and_look_alike_in_both_answers():
    def bay(column: float, width: float, slope: float) -> list[Point]:
        """Three sides of a box, open above; its sides lean outwards by so much."""
        right = column + width
        return [(5.0, column), (8.0, column + slope), (8.0, right - slope), (5.0, right)]

    def chosen(along: float, across: float, slope: float = 0.0) -> list[tuple[Point, Point]]:
        return ends(np.random.default_rng(0), bay(5.0, along, 0.0), bay(5.0 + along + across, along, slope))

    assert not chosen(2, 2.5)  # no room for two marks
    assert not chosen(5, 3.5)
    assert not chosen(5, 8)  # as far from each other in one answer alone
    assert [math.dist(*pair) for pair in chosen(5, 5.5)] == [5, 5.5]
    assert [math.dist(*pair) for pair in chosen(5, 5.5, slope=0.5)] == [5, 5.5]
    assert not chosen(5, 5.5, slope=1.5)  # left in other directions


def headings(one: Scene) -> list[float]:
    """The cosines, in order, of the angles between what leaves a mark and the straight way to the other mark."""
    found = []
    for mark, other in (one.marks[:2], one.marks[1::-1]):
        (first,) = (line[1] for curve in one.curves[:2] for line in (curve, curve[::-1]) if line[0] == mark)
        leaving, away = np.subtract(first, mark), np.subtract(other, mark)
        found.append(float(leaving @ away / np.linalg.norm(leaving) / np.linalg.norm(away)))
    return sorted(found)


def fitted(features: np.ndarray, answers: np.ndarray) -> float:
    """Share of right answers of a linear classifier on the half that it was not fitted to."""
    half = len(features) // 2
    features = (features - features.mean(0)) / (features.std(0) + 1e-9)
    features = np.concatenate([features, np.ones((len(features), 1))], 1)
    known, penalty = features[:half], 10 * np.eye(features.shape[1])
    weights = np.linalg.solve(known.T @ known + penalty, known.T @ (2 * answers[:half] - 1))
    return float(((features[half:] @ weights > 0) == answers[half:]).mean())


@pytest.fixture(scope="module")
def many() -> tuple[list[Scene], np.ndarray, np.ndarray]:
    scenes = drawn(1200, side=24, dashes=5, distractors=2)
    images = np.stack([paint(one, 1) for one in scenes]) / 255
    return scenes, images, np.array([one.connected for one in scenes])


def test_brightness_distance_and_direction_stay_near_chance(many):
    scenes, images, answers = many
    rows = np.concatenate([images.mean(1), images.mean(2), images.mean((1, 2))[:, None]], 1)
    levels = np.stack([np.histogram(image, 16, (0, 1))[0] for image in images])
    apart = np.array([math.dist(*one.marks[:2]) for one in scenes])
    powers = np.stack([apart, apart**2, apart**3], 1)
    pixels = images.reshape(len(images), -1)
    cosines = np.array([headings(one) for one in scenes])
    for features in (rows, levels, powers, pixels, np.concatenate([cosines, cosines**2], 1)):
        assert abs(fitted(features, answers) - 0.5) < 4 * 0.5 / math.sqrt(600)
    assert fitted(answers[:, None] + 0.1 * powers[:, :1], answers) > 0.9  # it would find one


def test_the_marks_are_as_far_apart_when_they_are_connected_as_when_not(many):
    scenes, _, answers = many
    apart = np.array([math.dist(*one.marks[:2]) for one in scenes])
    error = apart.std() * math.sqrt(4 / len(apart))
    assert abs(apart[answers].mean() - apart[~answers].mean()) < 4 * error


# --- data


def test_the_seed_decides_every_image_and_the_number_of_images_none(tmp_path):
    one, again, more = made(tmp_path / "a"), made(tmp_path / "b"), made(tmp_path / "c", train=30)
    hashes = [task.prepare(lambda *_: None, workers) for task, workers in ((one, 1), (again, 3))]
    assert hashes[0] == hashes[1] != made(tmp_path / "d", data_seed=1).prepare(lambda *_: None, 1)
    for part in (0, 1):
        assert torch.equal(read(one, "train")[part], read(more, "train")[part][:24])


def test_splits_share_no_image(tmp_path):
    task = made(tmp_path)
    seen = [{image.numpy().tobytes() for image in read(task, split)[0]} for split in SPLITS]
    assert [len(images) for images in seen] == [24, 6, 8]
    assert not any(one & other for one, other in combinations(seen, 2))


def test_flat_gives_the_same_images_row_after_row_from_the_same_files(tmp_path):
    square, flat = made(tmp_path), made(tmp_path, flat=True)
    assert square.folder == flat.folder
    assert (square.config.port.shape, flat.config.port.shape) == ((32, 32), (1024,))
    images, sequences = read(square, "test")[0], read(flat, "test")[0]
    assert (images.shape, sequences.shape) == ((8, 32, 32, 1), (8, 1024, 1))
    assert torch.equal(images[:, 3, 7], sequences[:, 3 * 32 + 7])
    assert (images.min(), images.max()) == (0, 1)


def test_progress_counts_every_image(tmp_path):
    seen: list[tuple[int, int]] = []
    Pathfinder(configure(Config, SMALL, of="pathfinder"), tmp_path).prepare(
        lambda done, total: seen.append((done, total)), 1
    )
    assert seen == [(number, 38) for number in range(1, 39)]


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"side": 8}, "pathfinder.side should be greater than or equal to 12"),
        ({"source": "lra", "side": 48}, "the arena's images have side 32, 64, 128, 256; got 48"),
        ({"level": "curv_contour_length_6"}, "pathfinder.level is one of .* got 'curv_contour_length_6'"),
        ({"bend": 0.0}, "pathfinder.bend should be greater than 0"),
        ({"dashes": 2, "dash": 1}, r"2 dashes of 1 \+ 1 pixels are 4 long; two marks need more than 4 between them"),
        ({"batch": 64}, "batch is 64, more than the 24 training examples"),
        ({"distracters": 2}, "Did you mean 'distractors'"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        configure(Config, {**SMALL, **knobs}, of="pathfinder")
    assert "\n" not in str(refusal.value)


def test_curves_without_room_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks._pathfinder.SCENES", 3)
    with pytest.raises(ValueError, match=r"no room on side 12 for two curves of 14 dashes of 2 \+ 1 pixels"):
        made(tmp_path, side=12, dashes=14)


def test_knobs_of_the_other_source_stay_out_of_an_id():
    given, shown = (set(resolved(Config(source=source))) for source in ("lra", "generated"))
    assert shown - given == {"dashes", "distractors", "dash", "gap", "bend", "data_seed"}
    assert given - shown == {"level"}


def test_a_model_learns_short_unbroken_curves(tmp_path):
    easy = {"side": 14, "dashes": 3, "dash": 3, "bend": 1.6, "gap": 0, "distractors": 0}
    task = made(tmp_path, **easy, train=4000, valid=200, test=400, epochs=8, batch=64, rate=3e-3)
    model = {"channels": 64, "depth": 2, "patch": 2}
    found = task.run(maker("isotropic", model, ("full", {}), 0), seed=0, device="cpu").result
    assert found["chance"] == 0.5
    assert found["accuracy"] > 0.5 + 3 * 0.5 / math.sqrt(400)
