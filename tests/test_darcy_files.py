"""Real Darcy files: the FNO paper's in both of MATLAB's formats and neuraloperator's, made by hand; what is refused."""

import importlib
import json
from collections.abc import Callable
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

import tasks
from mechanisms import configure, resolved
from tasks import _darcy_files as files
from tasks.darcy import Config, Darcy
from tests.test_darcy import Net, quiet

FNO = ("piececonst_r421_N1024_smooth1.mat", "piececonst_r421_N1024_smooth2.mat")
THREE = {"train": 1, "valid": 2, "test": 2}


@pytest.fixture
def _three(monkeypatch):
    monkeypatch.setattr(files, "COUNT", 3)


@cache
def smooth(seed: int, count: int) -> dict[str, np.ndarray]:
    """Fields as the paper's files have them, and one of the quantities that we do not read."""
    chance = np.random.default_rng(seed)
    coarse = chance.random((count, 1, 1)) + np.add.outer(np.arange(421), np.arange(421)) / 1e3
    return {
        "coeff": np.where(chance.random((count, 421, 421)) < 0.5, 3.0, 12.0),
        "Kcoeff": np.zeros((count, 2, 2)),
        "sol": (0.01 * coarse + 1e-6 * chance.random((count, 421, 421))).astype(np.float32),
    }


old, plain = partial(savemat, do_compression=True), savemat


def new(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """MATLAB's format 7.3: HDF5 after a header of 512 bytes, axes reversed."""
    with h5py.File(file, "w", userblock_size=512) as opened:
        for name, array in arrays.items():
            opened[name] = array.T
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: by hand HDF5 schema 1.00 .".ljust(124)
    content = bytearray(file.read_bytes())
    content[:128] = header + (0x0200).to_bytes(2, "little") + b"IM"
    file.write_bytes(content)


def put(data: Path, write: Callable[[Path, dict[str, np.ndarray]], None]) -> list[dict[str, np.ndarray]]:
    """Both files of the paper with three fields each."""
    (folder := data / "darcy" / "fno").mkdir(parents=True, exist_ok=True)
    made = [smooth(seed, 3) for seed in (0, 1)]
    for name, arrays in zip(FNO, made, strict=True):
        write(folder / name, arrays)
    return made


def pressures(count: int, side: int) -> torch.Tensor:
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(count)) / 100


def put_tensors(data: Path, side: int = 16, train: int = 40, test: int = 12) -> list[dict[str, torch.Tensor]]:
    """Both files of the package at this side: materials are booleans, pressures float32."""
    (folder := data / "darcy" / "neuralop").mkdir(parents=True, exist_ok=True)
    made = [{"x": pressures(count, side) > 0.005, "y": pressures(count, side) + 0.001} for count in (train, test)]
    for part, tensors in zip(("train", "test"), made, strict=True):
        torch.save(tensors, folder / f"darcy_{part}_{side}.pt")
    return made


def task(data: Path, source: str, name: str = "darcy", **knobs) -> Darcy:
    entry = tasks.find(name)
    made = entry.cls(configure(entry.config, {"batch": 1, "source": source, **THREE, **knobs}, of=name), data)
    assert isinstance(made, Darcy)
    return made


def ready(data: Path, source: str, **knobs) -> Darcy:
    made = task(data, source, **knobs)
    made.prepare(quiet, workers=1)
    return made


def refused(made: Darcy) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]+\.$") as refusal:
        made.prepare(quiet, workers=1)
    assert not made.folder.exists()
    return str(refusal.value)


# --- what is read


@pytest.mark.parametrize("write", [old, plain, new])
@pytest.mark.usefixtures("_three")
def test_the_papers_files_are_thinned_out_and_parted(tmp_path, write):
    known, test = put(tmp_path, write)
    made = ready(tmp_path, "fno", side=31)
    for split, source, rows in (("train", known, [0]), ("valid", known, [2, 1]), ("test", test, [0, 1])):
        fields = made.read(split)
        assert (fields.shape, fields.dtype) == ((len(rows), 2, 31, 31), np.float32)
        for channel, key in enumerate(("coeff", "sol")):
            by_hand = [[[source[key][row][14 * i][14 * j] for j in range(31)] for i in range(31)] for row in rows]
            np.testing.assert_array_equal(fields[:, channel], np.array(by_hand, np.float32))


def test_the_packages_files_are_taken_as_they_are(tmp_path):
    known, test = put_tensors(tmp_path)
    made = ready(tmp_path, "neuralop", train=20, valid=10, test=12)
    for split, source, rows in (
        ("train", known, slice(0, 20)),
        ("valid", known, range(39, 29, -1)),
        ("test", test, slice(0, 12)),
    ):
        for channel, key in enumerate("xy"):
            np.testing.assert_array_equal(made.read(split)[:, channel], source[key].float().numpy()[rows])


def test_a_field_is_the_same_however_many_are_asked(tmp_path):
    put_tensors(tmp_path)
    few, many = (ready(tmp_path, "neuralop", train=n, valid=n, test=n) for n in (3, 12))
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(few.read(split), many.read(split)[:3])


@pytest.mark.parametrize("name", ["darcy", "darcy_transfer", "darcy_interfaces"])
def test_every_task_on_darcy_flow_trains_on_files(tmp_path, name):
    put_tensors(tmp_path)
    put_tensors(tmp_path, side=64, train=1, test=12)
    other = {"test_side": 64} if name == "darcy_transfer" else {}
    made = ready(tmp_path, "neuralop", name=name, train=20, valid=10, test=12, batch=10, epochs=2, **other)
    result = made.run(Net, seed=0, device="cpu").result
    assert result["rel_l2"] > 0
    assert "rel_l2_interpolated" not in result


@pytest.mark.usefixtures("_three")
def test_transfer_on_the_papers_files_sees_the_same_solution_on_both_grids(tmp_path):
    put(tmp_path, old)
    made = ready(tmp_path, "fno", name="darcy_transfer", side=16, test_side=61, epochs=1)
    np.testing.assert_array_equal(made.there.read("test")[..., ::4, ::4], made.read("test"))  # type: ignore[attr-defined]
    assert made.run(Net, seed=0, device="cpu").result["rel_l2_interpolated"] > 0


# --- what the knob does to ids and data that were there before it


def test_the_source_stays_out_of_ids_and_recipes_of_generated_fields(tmp_path):
    assert "source" not in resolved(Config())
    assert "source" not in Darcy(Config(), tmp_path).recipe
    assert Darcy(Config(), tmp_path).folder.name == "8b9bfd727a556f44c6a6"
    assert resolved(Config(source="neuralop"))["source"] == "neuralop"
    idle = [Config(source="neuralop", refine=3), Config(source="neuralop", data_seed=5, faces="arithmetic")]
    assert {json.dumps(resolved(one)) for one in idle} == {json.dumps(resolved(Config(source="neuralop")))}


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"source": "neuralop", "side": 17}, "sides 16, 32, 64, 128, 421; got 17"),
        ({"source": "fno", "side": 32}, "thin out to sides 4, 5, 6, 7, 8, 11, .* 211, 421; got 32"),
        ({"source": "fno", "train": 1000, "valid": 25}, "has 1024 fields; train and valid ask for 1025"),
        ({"source": "fno", "test": 1025}, "test ask for 1025"),
        ({"source": "fn"}, "Did you mean 'fno'"),
    ],
)
def test_knobs_that_no_file_can_serve_are_refused(knobs, sentence):
    with pytest.raises(ValueError, match=sentence):
        configure(Config, knobs, of="darcy")


# --- missing, damaged, changed


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("fno", ["darcy/fno/piececonst_r421_N1024_smooth1.mat", "drive.google.com", "3 GB"]),
        ("neuralop", ["darcy/neuralop/darcy_train_16.pt", "zenodo.org/records/12784353", "12 MB"]),
    ],
)
def test_a_missing_file_is_named_with_where_to_get_it_and_its_size(tmp_path, source, words):
    said = refused(task(tmp_path, source))
    assert all(word in said for word in ["There is no file", *words])


@pytest.mark.parametrize("write", [old, plain, new])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.4, 0.9])
@pytest.mark.usefixtures("_three")
def test_a_truncated_file_of_the_paper_is_named_with_what_was_found(tmp_path, write, share):
    put(tmp_path, write)
    file = tmp_path / "darcy" / "fno" / FNO[1]
    content = file.read_bytes()
    file.write_bytes(cut := content[: int(share * len(content))])
    said = refused(task(tmp_path, "fno"))
    assert str(file) in said
    assert "is damaged" in said
    assert f"{len(cut)} bytes with SHA-256 {sha256(cut).hexdigest()}" in said
    assert file.read_bytes() == cut


@pytest.mark.usefixtures("_three")
def test_an_altered_file_of_the_paper_is_found_by_its_own_checksum(tmp_path):
    put(tmp_path, old)
    file = tmp_path / "darcy" / "fno" / FNO[0]
    half, content = file.stat().st_size // 2, file.read_bytes()
    file.write_bytes(content[:half] + bytes([content[half] ^ 16]) + content[half + 1 :])
    assert "is damaged" in refused(task(tmp_path, "fno"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.4, 0.99])
def test_a_truncated_file_of_the_package_is_named(tmp_path, share):
    put_tensors(tmp_path)
    file = tmp_path / "darcy" / "neuralop" / "darcy_test_16.pt"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    said = refused(task(tmp_path, "neuralop"))
    assert f"{file} is damaged" in said
    assert f"{file.stat().st_size} bytes with SHA-256" in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"x": torch.ones(40, 16, 64), "y": torch.ones(40, 16, 64)},
            r"expected 'x' of shape \[fields, 16, 16\], found",
        ),
        ({"x": torch.ones(40, 16, 16)}, "expected 'y' .* found missing"),
        (
            {"x": torch.ones(40, 16, 16), "y": torch.full((40, 16, 16), torch.inf)},
            "'y' of field 0 is empty or not finite",
        ),
        ({"x": torch.ones(40, 16, 16), "y": torch.zeros(40, 16, 16)}, "'y' of field 0 is empty"),
        ({"x": torch.ones(2, 16, 16), "y": torch.ones(2, 16, 16)}, "2 and 2 fields of .*; 3 are asked for"),
        ({"x": torch.ones(9, 16, 16), "y": torch.ones(8, 16, 16)}, "9 and 8 fields"),
        ([torch.ones(3)], "expected a dict of 'x' and 'y', found a list"),
        ({"x": Path("a"), "y": 1}, "cannot be read"),
    ],
)
def test_a_file_of_the_package_with_other_content_is_refused(tmp_path, content, sentence):
    put_tensors(tmp_path)
    torch.save(content, tmp_path / "darcy" / "neuralop" / "darcy_train_16.pt")
    with pytest.raises(ValueError, match=sentence):
        task(tmp_path, "neuralop").prepare(quiet, workers=1)


def test_another_number_of_fields_or_points_than_the_paper_published_is_refused(tmp_path):
    put(tmp_path, old)
    said = refused(task(tmp_path, "fno"))
    assert "expected 'coeff' of shape [1024, 421, 421], found [3, 421, 421]" in said


@pytest.mark.usefixtures("_three")
def test_a_file_of_the_paper_without_solutions_is_refused(tmp_path):
    put(tmp_path, lambda file, arrays: old(file, {"coeff": arrays["coeff"]}))
    assert "expected 'sol' of shape [3, 421, 421], found missing" in refused(task(tmp_path, "fno"))


def test_a_file_whose_published_hash_is_known_is_compared_with_it(tmp_path):
    put_tensors(tmp_path, side=32)
    file = tmp_path / "darcy" / "neuralop" / "darcy_train_32.pt"
    said = refused(task(tmp_path, "neuralop", side=32))
    assert f"expected SHA-256 {files.SHA256[file.name]}, found {sha256(file.read_bytes()).hexdigest()}" in said


def test_a_file_that_changes_after_the_fields_were_made_is_named(tmp_path):
    put_tensors(tmp_path)
    made = ready(tmp_path, "neuralop")
    file = tmp_path / "darcy" / "neuralop" / "darcy_train_16.pt"
    before, first = file.read_bytes(), made.prepare(quiet, workers=1)
    file.write_bytes(altered := before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(ValueError, match="has changed since") as refusal:
        made.prepare(quiet, workers=1)
    for content in (before, altered):
        assert sha256(content).hexdigest() in str(refusal.value)
    file.unlink()
    assert made.prepare(quiet, workers=1) == first


@pytest.mark.usefixtures("_three")
def test_the_package_that_the_newer_format_needs_is_named(tmp_path, monkeypatch):
    put(tmp_path, new)
    original = importlib.import_module

    def without(name: str):
        if name == "h5py":
            raise ModuleNotFoundError(name)
        return original(name)

    monkeypatch.setattr(importlib, "import_module", without)
    assert "format 7.3 needs the package h5py" in refused(task(tmp_path, "fno"))
