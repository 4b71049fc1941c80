"""Reads the field's image data sets from the files that their authors publish, unpacked under <data folder>/<task>/.

Splits. A published test split is the test split; where only a validation split has labels (ImageNet, Tiny-ImageNet,
ADE20K, any folder without test/), that one is. Where no other validation split is left, every tenth training image of
each class, in the order of a hash of data_seed and the file's name, is taken for it. An image whose bytes are those of
a test image is left out of validation and training, of a validation image out of training. A split is the first
examples of what it may use, in the order of the same hash, so example i is the same however many are asked for.

Pixels. An image is scaled, bicubically, until its shorter side is what is asked, and its middle is cut out; masks
likewise, with nearest neighbours. Grey and palette images become RGB; orientation tags are not followed.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tasks._labelled import SPLITS, UNASKED, Progress

RECORD = 2 + 3 * 32 * 32  # bytes of an image in CIFAR-100's binary files: coarse class, fine class, three planes
HASHED = 2**30  # bytes; of larger sets only names and sizes are compared when they are used again
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
TENTH = 10


class Example(NamedTuple):
    """An image, in a file of its own or as a record of one; its class, or the file of its classes, 0 for unlabelled."""

    file: str
    label: int = 0
    record: int = -1
    mask: str = ""


Splits = dict[str, list[Example]]
Files = dict[str, tuple[int, str]]  # size and SHA-256 by name


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a data set lies on disk.

    folder: under the task's data folder.
    find: lists the examples of its splits from there; `valid` may be absent.
    classes: how many it has.
    counts: how many examples the published splits hold, None for a set of one's own.
    source: where to get it.
    size: of the download, in words.
    """

    folder: str
    find: Callable[[Path], Splits]
    classes: int
    counts: Mapping[str, int] | None
    source: str
    size: str


def collect(
    layout: Layout, data: Path, sizes: Mapping[str, int], side: int, data_seed: int, making: tuple[Progress, int]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], Files]:
    """Inputs [examples, side, side, 3] and targets of each split, and what the files were.

    making: what is called with (done, total), and how many threads may work.
    Raises ValueError for a set that is missing, incomplete, damaged or smaller than asked for.
    """
    root = data / layout.folder
    splits = published(layout, root)
    progress, workers = making
    with ThreadPoolExecutor(workers) as threads:
        names = sorted({name for split in splits.values() for one in split for name in (one.file, one.mask) if name})
        files = dict(zip(names, threads.map(lambda name: fingerprint(root / name), names), strict=True))
        usable = apart(cut(splits, data_seed), root, files)
        made, done, total = {}, 0, sum(sizes.values())
        for split, size in sizes.items():
            chosen = usable[split][:size]
            if len(chosen) < size:
                raise ValueError(f"{split} is {size}, but {root} has {len(chosen)} examples to use for it; lower it.")
            inputs, target = [], []
            for image, label in threads.map(partial(decoded, root, side, layout.classes), chosen):
                inputs.append(image)
                target.append(label)
                done += 1
                progress(done, total)
            made[split] = np.stack(inputs), np.stack(target)
    return made, files


def published(layout: Layout, root: Path) -> Splits:
    """The splits as they are on disk. Raises ValueError unless all their examples are listed."""
    where = f"get it from {layout.source} ({layout.size}) and unpack it there"
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}; {where}.")
    try:
        splits = layout.find(root)
    except FileNotFoundError as error:
        raise ValueError(f"{root} has no {Path(error.filename).relative_to(root)}; {where}.") from None
    except (KeyError, IndexError) as error:
        raise ValueError(f"The lists in {root} do not fit together ({error!r}); {where}.") from error
    found = {split: len(examples) for split, examples in splits.items()}
    if layout.counts and found != dict(layout.counts):
        raise ValueError(f"{root} should hold {words(layout.counts)} images, it has {words(found)}; {where}.")
    labels = {example.label for examples in splits.values() for example in examples}
    has = 1 + max(labels, default=0)
    if min(labels, default=0) < 0 or has > layout.classes or (layout.counts is None and has < layout.classes):
        raise ValueError(f"{root} should have {layout.classes} classes, it has {has}.")
    return splits


def words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in counts.items())


def order(data_seed: int, example: Example) -> str:
    return sha256(f"{data_seed}:{example.file}:{example.record}".encode()).hexdigest()


def cut(splits: Splits, data_seed: int) -> Splits:
    """The three splits, each in the order in which it is used."""
    ordered = {split: sorted(examples, key=partial(order, data_seed)) for split, examples in splits.items()}
    if "valid" in ordered:
        return ordered
    seen: dict[int, int] = defaultdict(int)
    parts: Splits = {"train": [], "valid": [], "test": ordered["test"]}
    for example in ordered["train"]:
        seen[example.label] += 1
        parts["train" if seen[example.label] % TENTH else "valid"].append(example)
    return parts


def apart(splits: Splits, root: Path, files: Files) -> Splits:
    """The splits without examples whose image is byte for byte in one that is read later."""
    known: set[str] = set()
    found: Splits = {}
    for split in reversed(SPLITS):
        prints = [content(root, example, files) for example in splits[split]]
        found[split] = [one for one, its in zip(splits[split], prints, strict=True) if its not in known]
        known.update(prints)
    return found


def content(root: Path, example: Example, files: Files) -> str:
    if example.record < 0:
        return files[example.file][1]
    return sha256(cifar_record(root / example.file, example.record)[2:].tobytes()).hexdigest()


def fingerprint(path: Path) -> tuple[int, str]:
    try:
        with path.open("rb") as file:
            return path.stat().st_size, file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}, which its data set lists; unpack the set again.") from None


def refuse_changes(layout: Layout, made: Path, known: Mapping[str, tuple[int, str]]) -> None:
    """Raises ValueError when a file is not what it was when the data in `made` were made; a set that is gone is fine.

    A set of more than HASHED bytes is compared by the sizes of its files alone.
    """
    root = made.parent / layout.folder
    if not root.is_dir():
        return
    hashed = sum(size for size, _ in known.values()) <= HASHED
    for name, (size, digest) in known.items():
        path = root / name
        same_size = path.is_file() and path.stat().st_size == size
        if same_size and not hashed:
            continue
        found, its = fingerprint(path)
        if (found, its) != (size, digest):
            raise ValueError(
                f"{path} has changed since the data in {made} were made from it: expected {size} bytes with SHA-256"
                f" {digest}, found {found} with {its}; put it back, or delete {made} to make them again."
            )


# --- pixels


def decoded(root: Path, side: int, classes: int, example: Example) -> tuple[np.ndarray, np.ndarray]:
    """Image [side, side, 3] and class, or image and classes [side, side]."""
    if example.record >= 0:
        planes = cifar_record(root / example.file, example.record)[2:].reshape(3, 32, 32)
        image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
    else:
        image = opened(root / example.file).convert("RGB")
    pixels = np.asarray(fitted(image, side, Image.Resampling.BICUBIC))
    if not example.mask:
        return pixels, np.array(example.label, np.int16)
    mask = opened(root / example.mask)
    marks = np.asarray(fitted(mask, side, Image.Resampling.NEAREST)).astype(np.int16)
    if mask.size != image.size or marks.ndim != 2 or marks.max() > classes:
        raise ValueError(
            f"{root / example.mask} should hold classes 0 to {classes} for {image.size} pixels, one number each; it"
            f" has {mask.size} pixels of mode {mask.mode}, up to {marks.max()}."
        )
    return pixels, np.where(marks == 0, np.int16(UNASKED), marks - 1)


def opened(path: Path) -> Image.Image:
    """An image, read whole. Raises ValueError for a file that is none or breaks off."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:
        size, digest = fingerprint(path)
        raise ValueError(
            f"{path} cannot be read as an image ({error}); it has {size} bytes with SHA-256 {digest}."
        ) from error


def fitted(image: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    """The middle of an image whose shorter side has become `side`."""
    shorter = min(image.size)
    width, height = (max(side, round(length * side / shorter)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), how).crop((left, top, left + side, top + side))


def cifar_record(path: Path, number: int) -> np.ndarray:
    return np.fromfile(path, np.uint8, RECORD, offset=number * RECORD)
