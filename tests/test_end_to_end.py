"""A real sweep through the command line, with nothing made up: killed in the middle, resumed, finished, said again.

Eight fields of 8 x 8 nodes, one pass over them, two mechanisms, two seeds: four trainings and two cost measurements.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
from click.testing import CliRunner

import attnbench
from attnbench.cli import main
from attnbench.engine._child import cores
from tests import tiny

SWEEP = json.dumps(
    {
        "question": "Does all of it hold together?",
        "runs": 4,
        "tasks": [{"name": "darcy", **tiny.TASK}],
        "models": [{"name": "isotropic", **tiny.MODEL}],
        "mechanisms": [{"name": "full"}, {"name": "mano", "levels": 2}],
        "seeds": [0, 1],
        "figures": [{"name": "error", "kind": "variants", "y": "result.rel_l2", "color": "mechanism"}],
    }
)
PATIENCE_S = 300


@dataclass(frozen=True)
class Place:
    """An empty folder in which attnbench is called as a person calls it."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = os.environ | {
            "PYTHONPATH": str(Path(attnbench.__file__).parents[1]),
            "PYTHONSAFEPATH": "1",
            "ATTNBENCH_DATA": str(self.folder / "data"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "XDG_CONFIG_HOME": str(self.folder / "settings"),
            "TMPDIR": str(self.folder / "scratch"),
        }
        environment.pop("ATTNBENCH_RESULTS", None)
        return subprocess.Popen(
            [sys.executable, "-m", "attnbench", *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *words: str) -> tuple[int, str]:
        """Exit code and all that was printed."""
        process = self.start(*words)
        said, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, said

    def rows(self) -> dict[str, bytes]:
        """The committed rows by cell, to the last byte."""
        return {file.parent.name: file.read_bytes() for file in self.results.glob("cells/??/*/result.json")}

    def attempts(self) -> dict[str, int]:
        """How often each cell was started."""
        cells = self.results.glob("cells/??/*")
        return {cell.name: len(list(cell.glob("attempts/*.jsonl"))) for cell in cells}


@dataclass(frozen=True)
class Story:
    """What was there when the sweep was killed, and what the calls afterwards said."""

    place: Place
    outliving: list[psutil.Process]
    killed_rows: dict[str, bytes]
    killed_attempts: dict[str, int]
    status: tuple[int, str]
    resumed: tuple[int, str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Starts the sweep, kills it without warning while cells run and two have ended, and resumes it."""
    place = Place(tmp_path_factory.mktemp("sweep"))
    (place.folder / "scratch").mkdir()
    (place.folder / "asked.yaml").write_text(SWEEP)
    process = place.start("sweep", "asked.yaml", "--device", "cpu", "--launcher", "local")
    children: list[psutil.Process] = []
    ends = time.monotonic() + PATIENCE_S
    try:
        while not children and process.poll() is None and time.monotonic() < ends:
            time.sleep(0.02)
            if len(place.rows()) >= 2 and sum(place.attempts().values()) > len(place.rows()):
                children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()  # SIGKILL: it has no say in it
        said, _ = process.communicate()
    assert children, said
    _, outliving = psutil.wait_procs(children, timeout=2)  # it would have taken longer by itself
    rows, attempts = place.rows(), place.attempts()
    status = place.call("status", "asked.yaml", "--json")
    resumed = place.call("sweep", "asked.yaml", "--device", "cpu", "--launcher", "local")
    return Story(place, outliving, rows, attempts, status, resumed)


def test_a_kill_takes_the_running_cells_along(story):
    assert not story.outliving
    assert 2 <= len(story.killed_rows) < 6


def test_status_after_a_kill_tells_what_is_done_and_what_is_left(story):
    code, said = story.status
    assert code == 3
    told = json.loads(said)
    assert told["total"] == 6
    assert told["counts"]["ok"] == len(story.killed_rows)


def test_a_resumed_sweep_ends_with_a_row_for_every_cell(story):
    code, said = story.resumed
    assert code == 0, said
    rows = {id: json.loads(content) for id, content in story.place.rows().items()}
    assert len(rows) == 6
    assert {row["status"] for row in rows.values()} == {"ok"}
    trainings = [row for row in rows.values() if row["spec"]["kind"] == "train"]
    assert sorted((row["spec"]["mechanism"]["name"], row["spec"]["seed"]) for row in trainings) == [
        ("full", 0),
        ("full", 1),
        ("mano", 0),
        ("mano", 1),
    ]
    assert len({row["data"]["hash"] for row in trainings}) == 1
    assert len({row["code"]["fingerprint"] for row in rows.values()}) == 1


def test_no_finished_cell_is_run_again_and_its_row_stays_to_the_last_byte(story):
    rows, attempts = story.place.rows(), story.place.attempts()
    for id, before in story.killed_rows.items():
        assert rows[id] == before
        assert attempts[id] == story.killed_attempts[id] == 1
    killed = sum(story.killed_attempts.values()) - len(story.killed_rows)
    assert 1 <= killed <= max(1, cores())
    assert max(attempts.values()) == 2  # those that were killed
    assert sum(attempts.values()) == 6 + killed


def test_tables_and_figures_are_there_and_hold_the_rows(story):
    folder = story.place.results / "asked"
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert names >= {"cells.json", "rows.csv", "rows.parquet", "summary.md", "summary.tex"}
    assert names >= {"figures/error.png", "figures/error.pdf"}
    assert all((folder / name).stat().st_size > 100 for name in names)
    table = pd.read_csv(folder / "rows.csv").set_index("id")
    assert len(table) == 6
    for id, content in story.place.rows().items():
        row = json.loads(content)
        for name, number in row["result"].items():
            assert table.loc[id, f"result.{name}"] == pytest.approx(number, rel=1e-12)
        for name in ("params", "matmul_flops", "train_samples_per_s", "memory_train_mib"):
            assert table.loc[id, f"cost.{name}"] > 0  # of a training the numbers of its cost cell
    assert "full" in (folder / "summary.md").read_text()


def test_a_second_call_starts_nothing(story):
    before, attempts = story.place.rows(), story.place.attempts()
    code, said = story.place.call("sweep", "asked.yaml", "--device", "cpu", "--launcher", "local")
    assert code == 0
    assert "All 6 cells have ended already; nothing is started." in said
    assert (story.place.rows(), story.place.attempts()) == (before, attempts)
    code, said = story.place.call("status", "asked")
    assert (code, "6 ok" in said) == (0, True)


def test_one_cell_by_hand_is_the_sweeps_own_and_is_not_run_again(story):
    before = story.place.attempts()
    knobs = [word for name, value in tiny.TASK.items() for word in (f"--{name}", str(value))]
    knobs += ["--channels", "8", "--depth", "1", "--levels", "2", "--seed", "1", "--device", "cpu"]
    places = ["--results", str(story.place.results), "--data-dir", str(story.place.folder / "data")]
    result = CliRunner().invoke(main, ["run", "darcy", "mano", *knobs, *places, "--json"])
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert (row["spec"]["mechanism"]["name"], row["spec"]["seed"]) == ("mano", 1)
    assert story.place.attempts() == before


def test_data_that_are_there_are_found_by_their_hash(story):
    words = [word for name, value in tiny.TASK.items() for word in ("--set", f"{name}={value}")]
    files = {file: file.stat().st_mtime_ns for file in (story.place.folder / "data").rglob("*")}
    folder = str(story.place.folder / "data")
    result = CliRunner().invoke(main, ["data", "darcy", *words, "--data-dir", folder, "--quiet"])
    assert result.exit_code == 0, result.output
    hashes = {json.loads(row)["data"].get("hash") for row in story.place.rows().values()} - {None}
    assert hashes == {result.stdout.strip()}
    assert files == {file: file.stat().st_mtime_ns for file in (story.place.folder / "data").rglob("*")}


def test_nothing_of_ours_is_left_in_the_folder_for_temporary_files(story):
    assert not list((story.place.folder / "scratch").glob("*attnbench*"))
