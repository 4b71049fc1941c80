"""Writes the field's image data sets in small, in the form in which their authors publish them.

Every image is of one colour, which tells its class (red), its number in its class and split (green) and its split
(blue), so that whoever reads it back can say where it came from. JPEG changes a colour by a level or two.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

BLUE = {"train": 0, "valid": 100, "test": 200}
STEP = 8  # levels between two classes or numbers


def colour(label: int, number: int, split: str) -> tuple[int, int, int]:
    return STEP * label, STEP * number, BLUE[split]


def told(pixels: np.ndarray) -> tuple[int, int, str]:
    """Class, number and split that an image's mean colour tells."""
    red, green, blue = pixels.reshape(-1, 3).astype(float).mean(0)
    split = min(BLUE, key=lambda name: abs(BLUE[name] - blue))
    return round(red / STEP), round(green / STEP), split


def paint(file: Path, label: int, number: int, split: str, size: tuple[int, int] = (20, 14)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lossy = {} if file.suffix == ".png" else {"format": "JPEG", "quality": 100, "subsampling": 0}
    Image.new("RGB", size, colour(label, number, split)).save(file, **lossy)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def folder(root: Path, sizes: Mapping[str, int], names: Mapping[str, str], classes: int = 2) -> None:
    for split, size in sizes.items():
        for label in range(classes):
            for number in range(size):
                ending = ("png", "jpg", "JPEG")[number % 3]
                paint(root / names[split] / f"n{label:08d}" / f"{number}.{ending}", label, number, split)


def cifar100(root: Path, sizes: Mapping[str, int]) -> None:
    for split, size in sizes.items():
        file = root / "cifar-100-binary" / f"{split}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        records = bytearray()
        for number in range(size):
            for label in (0, 1):
                records += bytes([19, label]) + b"".join(bytes([one]) * 1024 for one in colour(label, number, split))
        file.write_bytes(records)


def tiny_imagenet(root: Path, sizes: Mapping[str, int]) -> None:
    top, classes = root / "tiny-imagenet-200", ["n01443537", "n02124075"]
    write(top / "wnids.txt", "".join(f"{name}\n" for name in reversed(classes)))
    notes = []
    for label, name in enumerate(classes):
        write(top / "train" / name / f"{name}_boxes.txt", "")
        for number in range(sizes["train"]):
            paint(top / "train" / name / "images" / f"{name}_{number}.JPEG", label, number, "train")
        for number in range(sizes["test"]):
            paint(top / "val" / "images" / f"val_{len(notes)}.JPEG", label, number, "test")
            notes.append(f"val_{len(notes)}.JPEG\t{name}\t0\t32\t44\t62\n")
    write(top / "val" / "val_annotations.txt", "".join(notes))
    paint(top / "test" / "images" / "test_0.JPEG", 0, 0, "test")


def flowers102(root: Path, sizes: Mapping[str, int]) -> None:
    labels, numbers = [], {}
    for key, (split, size) in zip(("trnid", "valid", "tstid"), sizes.items(), strict=True):
        first = len(labels)
        for number in range(size):
            for label in (0, 1):
                labels.append(label + 1)
                paint(root / "jpg" / f"image_{len(labels):05d}.jpg", label, number, split)
        numbers[key] = np.arange(first + 1, len(labels) + 1)[::-1]
    savemat(root / "imagelabels.mat", {"labels": np.array(labels)[None]})
    savemat(root / "setid.mat", {key: value[None] for key, value in numbers.items()})


def food101(root: Path, sizes: Mapping[str, int]) -> None:
    top, classes = root / "food-101", ["apple_pie", "waffles"]
    write(top / "meta" / "classes.txt", "".join(f"{name}\n" for name in classes))
    for split, size in sizes.items():
        names = []
        for label, name in enumerate(classes):
            for number in range(size):
                names.append(f"{name}/{BLUE[split]}{number}")
                paint(top / "images" / f"{names[-1]}.jpg", label, number, split)
        write(top / "meta" / f"{split}.txt", "".join(f"{name}\n" for name in names))


def pets(root: Path, sizes: Mapping[str, int]) -> None:
    for split, file in (("train", "trainval"), ("test", "test")):
        lines = []
        for label, name in enumerate(("Abyssinian", "american_bulldog")):
            for number in range(sizes[split]):
                lines.append(f"{name}_{BLUE[split] + number} {label + 1} {label + 1} 1\n")
                paint(root / "images" / f"{name}_{BLUE[split] + number}.jpg", label, number, split)
        write(root / "annotations" / f"{file}.txt", "".join(lines))


def cars(root: Path, sizes: Mapping[str, int]) -> None:
    fields = [(f"bbox_{corner}", "O") for corner in ("x1", "y1", "x2", "y2")] + [("class", "O"), ("fname", "O")]
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = []
        for label in (0, 1):
            for number in range(sizes[split]):
                rows.append((1, 1, 9, 9, label + 1, f"{len(rows) + 1:05d}.jpg"))
                paint(root / f"cars_{split}" / rows[-1][-1], label, number, split)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        savemat(root / file, {"annotations": np.array(rows, dtype=fields)[None]})


def ade20k(root: Path, split: str, number: int, photo: np.ndarray, mask: np.ndarray) -> tuple[Path, Path]:
    """One photograph [height, width, 3] and its mask [height, width], of the split training or validation."""
    short = {"training": "train", "validation": "val"}[split]
    top, name = root / "ADEChallengeData2016", f"ADE_{short}_{number:08d}"
    files = top / "images" / split / f"{name}.jpg", top / "annotations" / split / f"{name}.png"
    for file, pixels in zip(files, (photo, mask), strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return files
