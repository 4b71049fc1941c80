"""The table of a sweep's rows: every cell has one, no digit is lost, and what is not of one making is told apart."""

import csv
import gc
import re
from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attnbench.manifest import Manifest
from attnbench.reports.collect import collect, gather
from attnbench.reports.report import write_report
from attnbench.reports.rows import read_csv, records, table, write_csv, write_parquet
from tests.made_rows import FakeStore, fail, pricing, small, training


def test_every_cell_has_a_row_whatever_became_of_it():
    store, manifest = small()
    ids = [training(manifest, "full", seed) for seed in range(3)]
    del store.rows[ids[0]], store.rows[ids[1]]
    store.set_aside[ids[1]] = {"type": "KeyError", "message": "'heads'", "frame": "x.py:3", "traceback": "..."}
    fail(store, ids[2], "timeout")
    rows = {row["id"]: row for row in records(collect(store, manifest))}
    assert list(rows) == sorted(cell.id for cell in manifest.cells)
    assert [rows[id]["status"] for id in ids] == ["missing", "failed", "timeout"]
    assert rows[ids[1]]["error"] == "KeyError: 'heads'"
    assert rows[ids[0]]["mechanism.heads"] == 4


def test_a_cell_that_never_reached_the_store_is_described_as_its_siblings():
    store, manifest = small()
    id = training(manifest, "full", 1)
    del store.rows[id], store.specs[id]
    row = next(row for row in records(collect(store, manifest)) if row["id"] == id)
    assert (row["task"], row["task.side"], row["mechanism.heads"], row["seed"]) == ("darcy", 32, 4, 1)


def test_trainings_carry_the_price_of_their_variant_and_keep_their_own():
    store, manifest = small()
    price = store.rows[pricing(manifest, "full")]["cost"]
    price["train_wall_s"] = -1.0
    own = store.rows[training(manifest, "full", 2)]["cost"]["train_wall_s"]
    row = next(row for row in records(collect(store, manifest)) if row["id"] == training(manifest, "full", 2))
    assert row["cost.train_samples_per_s"] == price["train_samples_per_s"]
    assert (row["cost.train_wall_s"], row["cost.status"]) == (own, "ok")


def test_a_csv_file_gives_back_the_frame(tmp_path: Path):
    store, manifest = small()
    store.rows[training(manifest, "full", 0)]["code"]["commit"] = "0123456"
    store.rows[training(manifest, "full", 1)]["error"] = {"type": "E", "message": 'a, "b"\nc\r\nd'}
    store.rows[training(manifest, "full", 2)]["host"]["gpus"] = ["a", "b"]
    frame = collect(store, manifest, mixed=True)
    write_csv(frame, tmp_path / "rows.csv")
    write_parquet(frame, tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "rows.csv"), frame, check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "rows.parquet"), frame, check_exact=True)
    assert "0123456" in set(frame["code.commit"])
    kinds = {name: str(frame[name].dtype) for name in ("seed", "cost.noisy", "result.rel_l2", "mechanism.window")}
    assert kinds == {"seed": "Int64", "cost.noisy": "boolean", "result.rel_l2": "float64", "mechanism.window": "Int64"}


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-300, 5e-324, 1e22, 12345678901, True, "1e5x", "nan", -3])
def test_no_digit_is_lost(tmp_path: Path, value: Any):
    frame = table([{"id": "a", "result.x": value}, {"id": "b"}])
    write_csv(frame, tmp_path / "rows.csv")
    found = records(read_csv(tmp_path / "rows.csv"))
    assert found[0]["result.x"] == value
    assert type(found[0]["result.x"]) is type(value)
    assert found[1]["result.x"] is None


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ([0.0, -0.0, 0.0, None], ["0.0", "-0.0", "0.0", ""]),
        ([inf, -inf, nan, 0.1], ["inf", "-inf", "", "0.1"]),
        ([1, True, 1.0, 1], ["1", "True", "1.0", "1"]),
        ([1, True, 1, None], ["1", "True", "1", ""]),
        ([2**53 + 1, 10**18 - 1, None, -3], ["9007199254740993", "999999999999999999", "", "-3"]),
        ([1.0, 1, 2, None], ["1.0", "1.0", "2.0", ""]),
        ([True, False, None, True], ["True", "False", "", "True"]),
        ([10**18, 1, 2, 3], ["1e+18", "1.0", "2.0", "3.0"]),
        ([" a ", "a", "", None], ["a", "a", "", ""]),
        (["1", "2", "2", None], ["1", "2", "2", ""]),
        ([[1, 2], [1, 2], "x", None], ["[1, 2]", "[1, 2]", "x", ""]),
    ],
    ids=[
        "signs of nought",
        "infinities",
        "alike but unlike",
        "one and truth",
        "long",
        "a whole float",
        "truth",
        "large",
        "words",
        "digits",
        "lists",
    ],
)
def test_values_that_are_alike_keep_their_kinds(tmp_path: Path, values: list[Any], fields: list[str]):
    frame = table({"id": f"{i}", "result.x": value} for i, value in enumerate(values))
    write_csv(frame, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert [line["result.x"] for line in csv.DictReader(file)] == fields
    pd.testing.assert_frame_equal(read_csv(tmp_path / "rows.csv"), frame, check_exact=True)


@pytest.mark.parametrize(
    "change", [lambda raw: b"\xef\xbb\xbf" + raw, lambda raw: raw.replace(b"\n", b"\r\n")], ids=["a mark first", "CRLF"]
)
def test_a_file_that_another_program_wrote_again_is_read(tmp_path: Path, change: Callable[[bytes], bytes]):
    frame = table({"id": f"{i}", "error": f"{i}" * 2_200_000, "result.x": i} for i in range(2))  # two blocks
    write_csv(frame, tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_bytes(change((tmp_path / "rows.csv").read_bytes()))
    pd.testing.assert_frame_equal(read_csv(tmp_path / "rows.csv"), frame, check_exact=True)


def test_no_end_of_a_line_within_a_field_is_lost(tmp_path: Path):
    frame = table({"id": f"{i:05}", "error": "b" + "\n" * (i % 97) + "b"} for i in range(60_000))
    write_csv(frame, tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_bytes((tmp_path / "rows.csv").read_bytes().replace(b"\n", b"\r\n"))
    found = [str(field).replace("\r\n", "\n") for field in read_csv(tmp_path / "rows.csv")["error"]]
    assert found == frame["error"].tolist()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "lacks the column 'id'"),
        ("{head}\n1,2\n", "is not a table of rows"),
        ("{head},id\n", "two columns 'id'"),
    ],
)
def test_a_file_that_is_no_table_of_rows_is_refused_by_name(tmp_path: Path, text: str, why: str):
    write_csv(table([{"id": "a"}]), tmp_path / "rows.csv")
    head = (tmp_path / "rows.csv").read_text().splitlines()[0]
    (tmp_path / "rows.csv").write_text(text.format(head=head))
    with pytest.raises(ValueError, match=f"rows.csv.*{why}"):
        read_csv(tmp_path / "rows.csv")


def test_a_refused_report_leaves_the_search_for_garbage_as_it_was(tmp_path: Path):
    store, manifest = small()
    store.rows[training(manifest, "full", 0)]["code"]["fingerprint"] = "other"
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="code"):
        write_report(store, manifest, tmp_path)
    assert gc.get_threshold() == before


def test_rows_of_different_code_are_refused_unless_asked(tmp_path: Path):
    store, manifest = small()
    store.rows[training(manifest, "full", 1)]["code"]["fingerprint"] = "f2"
    with pytest.raises(ValueError, match=r"2 versions of the code \(15 rows of f1, 1 rows of f2\).*--mixed"):
        write_report(store, manifest, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert "2 versions of the code" in write_report(store, manifest, tmp_path, mixed=True).read_text()


def test_rows_of_different_data_are_refused_for_one_task():
    store, manifest = small()
    store.rows[training(manifest, "full", 1)]["data"]["hash"] = "sha256:bb"
    with pytest.raises(ValueError, match="darcy come from 2 different data sets"):
        collect(store, manifest)


def test_committed_rows_are_read_where_the_store_is_empty(tmp_path: Path):
    store, manifest = small()
    write_report(store, manifest, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("rows.csv", "summary.tex")}
    text = write_report(FakeStore(), manifest, tmp_path).read_text()
    assert "read from rows.csv" in text
    assert (tmp_path / "rows.csv").read_bytes() == before["rows.csv"]
    assert (tmp_path / "summary.tex").read_bytes() == before["summary.tex"]
    more = replace(manifest, cells=(*manifest.cells, replace(manifest.cells[-1], id="f" * 20, seed=9)))
    gathered = gather(FakeStore(), more, tmp_path)
    assert len(gathered.frame) == len(more.cells)
    assert any("lacks 1 of the cells" in note for note in gathered.notes)


def test_rows_of_one_mechanism_made_with_different_files_of_it_are_refused(tmp_path: Path):
    """Unlike mechanisms have unlike files, which is no mixture; the fingerprint of what they share is one."""
    store, manifest = small()
    store.rows[training(manifest, "full", 1)]["code"]["entries"] = "e-other"
    with pytest.raises(ValueError, match=r"rows of full .* 2 versions of its files \(3 rows of .*, 1 rows of e-other"):
        collect(store, manifest)
    assert "2 versions of its files" in write_report(store, manifest, tmp_path, mixed=True).read_text()


def test_rows_say_which_code_made_them():
    store, manifest = small()
    id = training(manifest, "full", 0)
    store.rows[id]["code"]["dirty"] = True
    rows = {row["id"]: row for row in records(collect(store, manifest))}
    names = ("fingerprint", "entries", "commit", "dirty")
    assert [rows[id][f"code.{name}"] for name in names] == ["f1", "e-darcy-isotropic-full", "1234567", "True"]
    assert rows[training(manifest, "fno", 0)]["code.entries"] == "e-darcy-fno"


@pytest.mark.parametrize(
    ("block", "name", "value", "words"),
    [
        ("host", "device", "another", r"2 processors \(3 on made up, 1 on another\)"),
        ("cost", "threads", 1, r"2 numbers of threads \(3 on 2, 1 on 1\)"),
        ("host", "torch", "2.1", r"2 torches \(3 on 2.0, 1 on 2.1\)"),
    ],
)
def test_costs_from_unlike_machines_are_told(tmp_path: Path, block: str, name: str, value: Any, words: str):
    """Also after a way through the file, and only of costs that were measured: trainings may run where they like."""
    store, manifest = small()
    store.rows[training(manifest, "fno", 0)][block][name] = value
    assert not notes(store, manifest, tmp_path)
    price = store.rows[pricing(manifest, "fno")]
    price[block] = {**price[block], name: value}
    (note,) = notes(store, manifest, tmp_path)
    assert re.fullmatch(rf"Costs were measured with {words} and are no ground for a comparison\.", note)
    text = write_report(store, manifest, tmp_path).read_text()
    assert re.search(words, text)
    assert any(re.search(words, note) for note in notes(FakeStore(), manifest, tmp_path))
    price["status"] = "oom"
    assert not any(re.search(words, note) for note in notes(store, manifest, tmp_path))


def test_rows_from_a_checkout_with_changes_are_told(tmp_path: Path):
    store, manifest = small()
    for id in (training(manifest, "fno", 0), pricing(manifest, "full")):
        store.rows[id]["code"]["dirty"] = True
    assert notes(store, manifest, tmp_path) == ("2 rows were made from a checkout with uncommitted changes.",)
    assert "2 rows were made from a checkout" in write_report(store, manifest, tmp_path).read_text()


def test_rows_of_a_mechanism_that_breaks_its_contract_are_told(tmp_path: Path):
    store, manifest = small()
    store.rows[training(manifest, "full", 0)]["host"]["unproven"] = True
    told = "1 rows of full were made although it breaks its contract (--unproven)."
    assert notes(store, manifest, tmp_path) == (told,)


def notes(store: FakeStore, manifest: Manifest, folder: Path) -> tuple[str, ...]:
    return gather(store, manifest, folder).notes
