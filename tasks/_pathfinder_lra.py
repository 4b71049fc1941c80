"""Long Range Arena's Pathfinder images, as its release has them: folders of small PNG files and of lists of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

Level = Literal["curv_baseline", "curv_contour_length_9", "curv_contour_length_14"]
PARTS = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}  # of the images in the order of the lists
EMPTY = ("pathfinder32", "curv_baseline", "imgs", "0", "sample_172.png")  # the release has nothing in this file
SOURCE = (
    "it is in https://storage.googleapis.com/long-range-arena/lra_release.gz, about 8 GB, whose folder {name} has"
    " 200,000 images of this level"
)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An image of the lists and whether its marks are connected, 1 or 0."""

    file: Path
    answer: int


def listed(folder: Path, level: Level) -> list[Listed]:
    """All images of a level in the order of their lists. Raises ValueError for lists that are missing or damaged."""
    lists = sorted((folder / level / "metadata").glob("*.npy"), key=lambda file: (len(file.stem), file.stem))
    if not lists:
        raise ValueError(
            f"There are no lists {folder / level / 'metadata' / '*.npy'}; {SOURCE.format(name=folder.name)}."
        )
    return [entry(text, folder / level, f"{file}, line {line}") for file in lists for line, text in lines(file)]


def lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a list with their numbers; despite its name it is a text."""
    try:
        text = file.read_bytes().decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is damaged: the arena's lists are plain text; found other bytes.") from None
    return list(enumerate(text.splitlines(), 1))


def entry(text: str, folder: Path, where: str) -> Listed:
    """What a line says: folder, file, number, whether connected, and how the image was made."""
    words = text.split()
    if len(words) < 4 or words[3] not in ("0", "1"):
        raise ValueError(
            f"{where} is damaged: it should be a folder, a file, a number, 0 or 1, and more; found {text[:60]!r}."
        )
    return Listed(file=folder / words[0] / words[1], answer=int(words[3]))


def part(entries: list[Listed], split: str, count: int) -> list[Listed]:
    """The first images of a split that are there. Raises ValueError when there are fewer."""
    low, high = (round(share * len(entries)) for share in PARTS[split])
    chosen = [one for one in entries[low:high] if one.file.parts[-5:] != EMPTY]
    if len(chosen) < count:
        raise ValueError(f"The arena's lists have {len(chosen)} images for {split}; {split} asks for {count}.")
    return chosen[:count]


def images(entries: list[Listed], side: int, workers: int, done: Callable[[], None]) -> np.ndarray:
    """Their pixels, 0 to 255 [images, side, side]; workers are threads, for decoding releases the interpreter."""
    found = []
    with ThreadPoolExecutor(workers) as pool:
        for one in pool.map(lambda entry: pixels(entry.file, side), entries):
            found.append(one)
            done()
    return np.stack(found)


def pixels(file: Path, side: int) -> np.ndarray:
    """One image in grey. Raises ValueError when it is missing, damaged or of another size."""
    try:
        with Image.open(file) as image:
            found = np.array(image.convert("L"))
    except FileNotFoundError:
        raise ValueError(f"There is no image {file}, which the arena's lists name; unpack the release again.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file} is damaged: it cannot be read as an image ({error}); unpack it again.") from None
    if found.shape != (side, side):
        height, width = found.shape
        raise ValueError(f"{file} is damaged: it should have {side} x {side} pixels; found {height} x {width}.")
    return found
