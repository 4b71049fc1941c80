"""How each image data set lies on disk when its authors' archives are unpacked: one function and one entry a set."""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from tasks._image_folders import RECORD, SUFFIXES, Example, Layout, Splits, fingerprint


def folders(root: Path) -> Splits:
    """train/<class>/<image>, then val/ (or valid/, validation/) and test/ likewise; one of the two may be absent."""
    train = root / "train"
    classes = {folder.name: number for number, folder in enumerate(subfolders(train))}
    names = {"valid": ("val", "valid", "validation"), "test": ("test",)}
    found = {"train": list(in_folders(root, train, classes))}
    for split, words in names.items():
        for folder in (root / word for word in words if (root / word).is_dir()):
            if subfolders(folder):  # ImageNet's own test images have no classes
                found[split] = list(in_folders(root, folder, classes))
    if "test" not in found:
        if "valid" not in found:
            raise FileNotFoundError(2, "no split to test on", str(root / "test"))
        found["test"] = found.pop("valid")
    return found


def subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def in_folders(root: Path, split: Path, classes: Mapping[str, int]) -> Iterator[Example]:
    for folder in subfolders(split):
        if folder.name not in classes:
            raise ValueError(f"{folder} is no class of {root / 'train'}, which has {len(classes)}.")
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in SUFFIXES:
                yield Example(file.relative_to(root).as_posix(), classes[folder.name])


def cifar100(root: Path) -> Splits:
    """cifar-100-binary/train.bin and test.bin: records of coarse class, fine class, 32 x 32 red, green, blue."""
    found = {}
    for split in ("train", "test"):
        file = f"cifar-100-binary/{split}.bin"
        size = (root / file).stat().st_size
        if size % RECORD:
            raise ValueError(f"{root / file} breaks off: {size} bytes are no multiple of {RECORD}; unpack it again.")
        labels = np.fromfile(root / file, np.uint8).reshape(-1, RECORD)[:, 1].tolist()
        found[split] = [Example(file, label, record) for record, label in enumerate(labels)]
    return found


def tiny_imagenet(root: Path) -> Splits:
    """tiny-imagenet-200/train/<class>/images/, and val/images/ with its classes in val/val_annotations.txt."""
    top = root / "tiny-imagenet-200"
    classes = {name: number for number, name in enumerate(sorted((top / "wnids.txt").read_text().split()))}
    found: Splits = {"train": [], "test": []}
    for name, number in classes.items():
        files = sorted((top / "train" / name / "images").iterdir())
        found["train"] += [Example(file.relative_to(root).as_posix(), number) for file in files]
    for line in (top / "val" / "val_annotations.txt").read_text().splitlines():
        file, name = line.split("\t")[:2]
        found["test"].append(Example(f"tiny-imagenet-200/val/images/{file}", classes[name]))
    return found


def flowers102(root: Path) -> Splits:
    """jpg/image_00001.jpg and on, imagelabels.mat with classes from 1, setid.mat with each split's numbers."""
    labels = matlab(root / "imagelabels.mat")["labels"]
    numbers = matlab(root / "setid.mat")
    keys = {"train": "trnid", "valid": "valid", "test": "tstid"}
    return {
        split: [Example(f"jpg/image_{one:05d}.jpg", int(labels[one - 1]) - 1) for one in numbers[key].tolist()]
        for split, key in keys.items()
    }


def food101(root: Path) -> Splits:
    """food-101/images/<class>/<number>.jpg, listed in meta/train.txt and meta/test.txt."""
    top = root / "food-101"
    classes = {name: number for number, name in enumerate((top / "meta" / "classes.txt").read_text().split())}
    return {
        split: [
            Example(f"food-101/images/{name}.jpg", classes[name.partition("/")[0]])
            for name in (top / "meta" / f"{split}.txt").read_text().split()
        ]
        for split in ("train", "test")
    }


def pets(root: Path) -> Splits:
    """images/<breed>_<number>.jpg; annotations/trainval.txt and test.txt name each and its class, from 1."""
    found = {}
    for split, file in (("train", "trainval.txt"), ("test", "test.txt")):
        lines = [line.split() for line in (root / "annotations" / file).read_text().splitlines()]
        found[split] = [Example(f"images/{line[0]}.jpg", int(line[1]) - 1) for line in lines if line[0] != "#"]
    return found


def cars(root: Path) -> Splits:
    """cars_train/, cars_test/, and MATLAB files that give each image's class, from 1."""
    notes = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    return {
        split: [
            Example(f"cars_{split}/{one['fname']}", int(one["class"]) - 1)
            for one in np.atleast_1d(matlab(root / file)["annotations"])
        ]
        for split, file in notes.items()
    }


def ade20k(root: Path) -> Splits:
    """ADEChallengeData2016/images/{training,validation}/*.jpg and masks of the same names under annotations/."""
    found = {}
    for split, folder in (("train", "training"), ("test", "validation")):
        images = sorted((root / "ADEChallengeData2016" / "images" / folder).iterdir())
        found[split] = [
            Example(
                image.relative_to(root).as_posix(),
                mask=f"ADEChallengeData2016/annotations/{folder}/{image.stem}.png",
            )
            for image in images
            if image.suffix == ".jpg"
        ]
    return found


def matlab(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():  # scipy would try other names first
        raise FileNotFoundError(2, "missing", str(path))
    try:
        return loadmat(path, squeeze_me=True)
    except (MatReadError, ValueError, TypeError, OSError, zlib.error) as error:
        size, digest = fingerprint(path)
        raise ValueError(
            f"{path} cannot be read as a MATLAB file ({error}); it has {size} bytes with SHA-256 {digest}."
        ) from error


LAYOUTS: Mapping[str, Layout] = {
    "cifar100": Layout(
        folder="cifar100",
        find=cifar100,
        classes=100,
        counts={"train": 50_000, "test": 10_000},
        source="https://www.cs.toronto.edu/~kriz/cifar.html, the binary version",
        size="162 MB",
    ),
    "tiny_imagenet": Layout(
        folder="tiny_imagenet",
        find=tiny_imagenet,
        classes=200,
        counts={"train": 100_000, "test": 10_000},
        source="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        size="248 MB",
    ),
    "flowers102": Layout(
        folder="flowers102",
        find=flowers102,
        classes=102,
        counts={"train": 1020, "valid": 1020, "test": 6149},
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/, images, labels and splits",
        size="345 MB",
    ),
    "food101": Layout(
        folder="food101",
        find=food101,
        classes=101,
        counts={"train": 75_750, "test": 25_250},
        source="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
        size="5 GB",
    ),
    "pets": Layout(
        folder="pets",
        find=pets,
        classes=37,
        counts={"train": 3680, "test": 3669},
        source="https://www.robots.ox.ac.uk/~vgg/data/pets/, images and annotations",
        size="811 MB",
    ),
    "cars": Layout(
        folder="cars",
        find=cars,
        classes=196,
        counts={"train": 8144, "test": 8041},
        source="https://ai.stanford.edu/~jkrause/cars/car_dataset.html, images, devkit, test labels",
        size="2 GB",
    ),
    "imagenet": Layout(
        folder="imagenet",
        find=folders,
        classes=1000,
        counts={"train": 1_281_167, "test": 50_000},
        source="https://image-net.org, the task of 2012, the validation images sorted into folders of their classes",
        size="145 GB",
    ),
    "ade20k": Layout(
        folder="ade20k",
        find=ade20k,
        classes=150,
        counts={"train": 20_210, "test": 2000},
        source="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        size="968 MB",
    ),
}


def own(name: str, classes: int) -> Layout:
    """A folder of one's own."""
    return Layout(
        folder=name,
        find=folders,
        classes=classes,
        counts=None,
        source="a set of your own: train/<class>/*.jpg, val/<class>/ and test/<class>/, one of the two may be missing",
        size="any size",
    )
