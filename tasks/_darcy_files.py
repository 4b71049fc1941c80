"""Reads the field's Darcy files, the FNO paper's and the package neuraloperator's, into the arrays of tasks/darcy.py.

fno: piececonst_r421_N1024_smooth1.mat and ..._smooth2.mat, 1,024 fields each of 421 x 421, MATLAB's format 5 or 7.3;
every (420 / (side - 1))-th point is kept, as the paper does. Their points are the middles of 421 x 421 cells, so that
the pressure at the edge is small and not zero; as in the paper's code they are taken for nodes from 0 to 1.
neuralop: darcy_train_16.pt, darcy_test_16.pt and so on, tensors x, 0 or 1 by the material, and y, the pressure; taken
as they are.
Of the first file, or the one named train, the first fields train and the last validate, counted from the end; of the
other the first test. Where a SHA-256 of a published file is known, it is checked.
"""

import importlib
import json
import pickle
import zlib
from collections.abc import Callable, Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

Source = Literal["generated", "fno", "neuralop"]
Fields = np.ndarray  # [fields, 2, side, side], float32: coefficient and pressure

VERSION = 1  # raised whenever the same files would give other fields
ORIGIN = "origin"  # the array that says what the files were: JSON as bytes, size and SHA-256 by name
FINE, COUNT = 421, 1024  # points an axis and fields of a file of the paper
SIDES = (16, 32, 64, 128, 421)  # of the package's files
HASHED = 2**30  # bytes; of a larger file only the size is compared when the fields made from it are used again
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, zlib.error, pickle.UnpicklingError)
SHA256 = {
    "darcy_train_32.pt": "f44a1151802eaf2eac65ddaded1ecf105bac019add0e3d277a3e9939cca1cd8b",
    "darcy_test_32.pt": "f9fbe30065908327f132425d760d573ed7ce29cb2a54cfdb3fcefd3d80d7ac83",
}
FNO_FROM = (
    "get Darcy_421.zip, whose two files hold about 3 GB of fields each, from"
    " https://drive.google.com/drive/folders/1UnbQh2WWc6knEHbLn-ZaXrKUZhp7pjt-"
)


def refuse(source: Source, side: int, sizes: Mapping[str, int]) -> None:
    """Raises ValueError for a side or for numbers of fields that the files of a source cannot have."""
    if source == "neuralop" and side not in SIDES:
        raise ValueError(f"neuraloperator's files have sides {', '.join(map(str, SIDES))}; got {side}.")
    if source != "fno":
        return
    if (FINE - 1) % (side - 1):
        sides = ", ".join(str(1 + n) for n in range(3, FINE) if (FINE - 1) % n == 0)
        raise ValueError(f"the FNO paper's files thin out to sides {sides}; got {side}.")
    for words, asked in (("train and valid", sizes["train"] + sizes["valid"]), ("test", sizes["test"])):
        if asked > COUNT:
            raise ValueError(f"a file of the FNO paper has {COUNT} fields; {words} ask for {asked}.")


def given(source: Source, folder: Path, side: int, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Every split's fields, and beside them what the files were.

    folder: where those of this source lie.
    Raises ValueError for files that are missing, damaged, other than published, or have too few fields.
    """
    known, test = names(source, side)
    empty = np.empty((0, 2, side, side), np.float32)
    found, files = {"train": empty, "valid": empty}, []
    if sizes["train"] + sizes["valid"]:
        fields = enough(source, folder / known, side, sizes["train"] + sizes["valid"])
        found |= {"train": fields[: sizes["train"]], "valid": fields[::-1][: sizes["valid"]]}
        files.append(folder / known)
    found["test"] = enough(source, folder / test, side, sizes["test"])[: sizes["test"]]
    files.append(folder / test)
    origin = {file.name: [file.stat().st_size, digest(file)] for file in files}
    return found | {ORIGIN: np.frombuffer(json.dumps(origin).encode(), np.uint8)}


def refuse_changed(folder: Path, origin: np.ndarray, made: Path) -> None:
    """Raises ValueError when a file is no longer what fields in `made` were made from; one that is gone is fine."""
    for name, (size, its) in json.loads(origin.tobytes()).items():
        file = folder / name
        if not file.is_file():
            continue
        now = file.stat().st_size
        if now != size or (size <= HASHED and digest(file) != its):
            raise ValueError(
                f"{file} has changed since the fields in {made} were made from it: expected {size} bytes with SHA-256"
                f" {its}, found {now} with {digest(file)}; put it back, or delete {made} to make them again."
            )


def names(source: Source, side: int) -> tuple[str, str]:
    """The file of training and validation fields, and that of test fields."""
    if source == "fno":
        return "piececonst_r421_N1024_smooth1.mat", "piececonst_r421_N1024_smooth2.mat"
    return f"darcy_train_{side}.pt", f"darcy_test_{side}.pt"


def where(source: Source, side: int) -> str:
    if source == "fno":
        return FNO_FROM
    return (
        f"get darcy_{side}.tgz from https://zenodo.org/records/12784353, of up to 6,000 fields, so at most"
        f" {6000 * 8 * side**2 / 1e6:,.0f} MB unpacked"
    )


def enough(source: Source, file: Path, side: int, needed: int) -> Fields:
    """A file's fields, at this side. Raises ValueError as `given` says."""
    remedy = where(source, side)
    if not file.is_file():
        raise ValueError(f"There is no file {file}; {remedy}, and unpack it there.")
    if (expected := SHA256.get(file.name)) and (found := digest(file)) != expected:
        raise ValueError(f"{file} is not the published file: expected SHA-256 {expected}, found {found}; {remedy}.")
    try:
        pair = [checked(file, key, array, source, side) for key, array in READERS[source](file)]
    except Damaged as damage:
        raise ValueError(f"{file} is damaged: {damage}; {remedy}.") from None
    except UNREADABLE as error:
        said = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(f"{file} is damaged: it cannot be read ({said}), {state(file)}; {remedy}.") from error
    if len(pair[0]) != len(pair[1]) or len(pair[0]) < needed:
        counts = " and ".join(str(len(array)) for array in pair)
        raise ValueError(f"{file} has {counts} fields of coefficient and pressure; {needed} are asked for.")
    return np.stack(pair, 1)


class Damaged(Exception):
    """What is wrong with a file's content, without its name."""


def checked(file: Path, key: str, array: np.ndarray | None, source: Source, side: int) -> np.ndarray:
    """One quantity, thinned out to the side. Raises Damaged unless it has its shape and finite numbers."""
    points = FINE if source == "fno" else side
    count = COUNT if source == "fno" else None
    shape = "missing" if array is None else list(array.shape)
    if array is None or array.shape[1:] != (points, points) or count not in (None, len(array)):
        expected = f"[{count or 'fields'}, {points}, {points}]"
        raise Damaged(f"expected {key!r} of shape {expected}, found {shape}, {state(file)}")
    step = (points - 1) // (side - 1)
    kept = np.ascontiguousarray(array[:, ::step, ::step], np.float32)
    wrong = ~np.isfinite(kept).all((1, 2)) | (kept == 0).all((1, 2)) & (key in ("sol", "y"))
    if wrong.any():
        raise Damaged(f"{key!r} of field {wrong.argmax()} is empty or not finite, {state(file)}")
    return kept


def matlab(file: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """coeff and sol [fields, 421, 421] of a file of either format, one after the other."""
    for key in ("coeff", "sol"):
        try:
            yield key, loadmat(file, variable_names=[key]).get(key)
        except NotImplementedError:
            yield key, hdf(file, key)
        except MatReadError as error:
            raise ValueError(str(error)) from error


def hdf(file: Path, key: str) -> np.ndarray | None:
    """A quantity of format 7.3, which is HDF5 with its axes reversed."""
    try:
        library = importlib.import_module("h5py")
    except ModuleNotFoundError:
        raise Damaged("its format 7.3 needs the package h5py; install it: pip install h5py") from None
    with library.File(file, "r") as opened:
        return opened[key][()].T if key in opened else None


def tensors(file: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """x and y [fields, side, side]."""
    held = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(held, dict):
        raise Damaged(f"expected a dict of 'x' and 'y', found a {type(held).__name__}, {state(file)}")
    for key in ("x", "y"):
        value = held.get(key)
        yield key, value.numpy() if isinstance(value, torch.Tensor) else None


READERS: Mapping[Source, Callable[[Path], Iterator[tuple[str, np.ndarray | None]]]] = {
    "fno": matlab,
    "neuralop": tensors,
}


def state(file: Path) -> str:
    return f"{file.stat().st_size} bytes with SHA-256 {digest(file)}"


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
