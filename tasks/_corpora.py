"""Texts as bytes in three splits: the installed Python library's source, enwik8, text8; windows of them.

enwik8 and text8: Mahoney, "Large Text Compression Benchmark", 2006, whose sizes and MD5 sums are checked.
https://mattmahoney.net/dc/textdata.html
Splits are 90, 5 and 5 million bytes in that order, as in Chung et al., "Hierarchical Multiscale Recurrent Neural
Networks", 2016. https://arxiv.org/abs/1609.01704
The library's files are put in order of their names and parted by their content, nine tenths, one twentieth and one
twentieth on average, so that equal files are in one split.
"""

import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import md5, sha256
from pathlib import Path

import numpy as np

from tasks._labelled import SPLITS, streams

BYTES = 256
TEXT8 = " abcdefghijklmnopqrstuvwxyz"  # all that text8 holds
ASIDE = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})


@dataclass(frozen=True)
class Published:
    """A file as it is published: bytes in all, MD5 sum, where it is to be had, its splits' sizes."""

    size: int
    md5: str
    address: str
    splits: tuple[int, int, int]


FILES = {
    "enwik8": Published(
        100_000_000,
        "a1fa5ffddb56f4953e226637dabbb36a",
        "https://mattmahoney.net/dc/enwik8.zip",
        (90_000_000, 5_000_000, 5_000_000),
    ),
    "text8": Published(
        100_000_000,
        "3bea1919949baf155f99411df5fada7e",
        "https://mattmahoney.net/dc/text8.zip",
        (90_000_000, 5_000_000, 5_000_000),
    ),
}


def corpus(source: str, data: Path) -> Mapping[str, np.ndarray]:
    """The symbols of each split of a named text, uint8. Raises ValueError where its file is missing or another."""
    if source == "python":
        return library(Path(sysconfig.get_paths()["stdlib"]))
    text = np.frombuffer(published(data / "charlm" / source, FILES[source]), np.uint8)
    if source == "text8":
        text = np.maximum(text, ord("a") - 1) - (ord("a") - 1)  # the blank is 0, letters follow
    ends = np.cumsum(FILES[source].splits)
    return dict(zip(SPLITS, np.split(text, ends[:-1]), strict=True))


def published(place: Path, known: Published) -> bytes:
    """The content of a file, or of the file of the same name in the folder of that name, checked."""
    file = place / place.name if place.is_dir() else place
    if not file.is_file():
        raise ValueError(
            f"There is no file {file}; unpack {known.address} there, {known.size:,} bytes in all (35 MB packed)."
        )
    if (size := file.stat().st_size) != known.size:
        raise ValueError(f"{file} is not the published file: expected {known.size:,} bytes, found {size:,}.")
    content = file.read_bytes()
    if (found := md5(content, usedforsecurity=False).hexdigest()) != known.md5:
        raise ValueError(f"{file} is not the published file: expected MD5 {known.md5}, found {found}.")
    return content


def library(root: Path) -> Mapping[str, np.ndarray]:
    """The splits of all .py files below a folder, without tests and without what is installed beside the library."""
    parts: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    for content in sources(root):
        twentieth = int.from_bytes(sha256(content).digest()[:8], "big") % 20
        parts["test" if twentieth == 0 else "valid" if twentieth == 1 else "train"].append(content)
    if not all(parts.values()):
        raise ValueError(f"{root} holds too few .py files for three splits; choose another source.")
    return {split: np.frombuffer(b"".join(part), np.uint8) for split, part in parts.items()}


def sources(root: Path) -> Iterator[bytes]:
    """The files' contents in order of their names; empty ones say nothing."""
    inside = ((file.relative_to(root).as_posix(), file) for file in root.rglob("*.py"))
    for name, file in sorted(inside):
        if not ASIDE & set(name.split("/")) and (content := file.read_bytes()):
            yield content


def windows(text: np.ndarray, split: str, count: int, *, size: int, stride: int, data_seed: int) -> np.ndarray:
    """Windows of a split's text [count, size]: example i is the same however many are taken.

    Training windows start anywhere. The others start at multiples of the stride, each at most once, in an order that
    the seed decides. Raises ValueError where the text has too few.
    """
    there = len(text) - size + 1 if split == "train" else (len(text) - size) // stride + 1
    needed = 1 if split == "train" else count
    if len(text) < size or there < needed:
        raise ValueError(
            f"the {split} split has {len(text):,} symbols, {max(there, 0):,} windows of {size}; {count:,} are asked."
        )
    if split == "train":
        starts = np.array([chance.integers(there) for chance in streams(data_seed, split, count)])
    else:
        starts = stride * streams(data_seed, split, 1)[0].permutation(there)[:count]
    return np.lib.stride_tricks.sliding_window_view(text, size)[starts]
