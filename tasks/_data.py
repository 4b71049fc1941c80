"""Keeps made data on disk, in a folder named after what determines them: whole or not at all, checked at each reading.

A folder holds one .npy file an array and meta.json, which says how the arrays were made and carries each file's
SHA-256. It is written under another name and renamed, so whoever sees it sees all of it, and of two makers one wins.
"""

import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

Recipe = Mapping[str, Any]
META = "meta.json"


def content_key(recipe: Recipe) -> str:
    """20 hexadecimal digits that stand for everything that determines the data."""
    return sha256(canonical(recipe).encode()).hexdigest()[:20]


def keep(folder: Path, recipe: Recipe, make: Callable[[], Mapping[str, np.ndarray]]) -> str:
    """Makes the arrays unless the folder has them already; returns their content hash, "sha256:...".

    Raises ValueError when what is there is damaged or was made otherwise.
    """
    if not folder.exists():
        publish(folder, recipe, make())
    files = read_meta(folder, recipe)["files"]
    for name in files:
        read_bytes(folder, name, files)
    return f"sha256:{sha256(canonical(files).encode()).hexdigest()}"


def load(folder: Path, recipe: Recipe, name: str) -> np.ndarray:
    """One array, its hash checked. Raises ValueError when it is missing, damaged or was made otherwise."""
    if not folder.exists():
        raise ValueError(f"There are no data in {folder}; make them first with `attnbench data {folder.parent.name}`.")
    files = read_meta(folder, recipe)["files"]
    return np.load(io.BytesIO(read_bytes(folder, f"{name}.npy", files)), allow_pickle=False)


def publish(folder: Path, recipe: Recipe, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the folder beside its place and renames it; one that was there first stays."""
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        files = {f"{name}.npy": write(draft / f"{name}.npy", npy(array)) for name, array in arrays.items()}
        write(draft / META, json.dumps({"recipe": dict(recipe), "files": files}, indent=2, sort_keys=True).encode())
        try:
            draft.rename(folder)
        except OSError:  # a folder with files in it cannot be renamed over, whatever errno the file system calls that
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write(path: Path, content: bytes) -> str:
    """Writes and syncs a file; returns the SHA-256 of its content."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return sha256(content).hexdigest()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_meta(folder: Path, recipe: Recipe) -> dict[str, Any]:
    try:
        meta = json.loads((folder / META).read_bytes())
        same = canonical(meta["recipe"]) == canonical(recipe) and isinstance(meta["files"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        same, meta = False, {}
    if not same:
        raise damaged(folder, META, "does not describe the data that belong there")
    return meta


def read_bytes(folder: Path, file: str, files: Mapping[str, str]) -> bytes:
    try:
        content = (folder / file).read_bytes()
    except FileNotFoundError:
        raise damaged(folder, file, "is missing") from None
    if sha256(content).hexdigest() != files.get(file):
        raise damaged(folder, file, "does not match its hash")
    return content


def damaged(folder: Path, file: str, how: str) -> ValueError:
    return ValueError(f"The data in {folder} are damaged: {file} {how}; delete that folder and they are made again.")


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
