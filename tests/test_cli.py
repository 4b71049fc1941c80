"""The command line: what it refuses and how, its exit codes, and which verbs answer without the heavy packages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from attnbench import cli
from attnbench.cli import main
from attnbench.engine import slurm
from attnbench.engine.store import Store
from attnbench.manifest import Cell, Manifest
from tests import tiny

HEAVY = ("torch", "numpy", "pandas", "pydantic", "matplotlib", "scipy", "neuralop")
WATCH = """
import json, sys
from attnbench.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(json.dumps([end.code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every call in an empty folder, with caches and settings of its own and no cluster."""
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("ATTNBENCH_RESULTS", "ATTNBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(slurm, "available", lambda: (False, "There is no sbatch here."))
    return here


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


def refused(*words: str) -> str:
    """The sentence with which a call is refused: exit code 1, nothing printed, nothing written."""
    result = call(*words)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("attnbench: ")
    assert result.stderr.count("\n") == 1
    assert not [file for file in Path.cwd().rglob("*") if file.is_file()]
    return result.stderr


def loaded(*words: str) -> tuple[int, set[str]]:
    """Exit code and imported packages of a call in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *words], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    code, names = json.loads(done.stderr.splitlines()[-1])
    return code, set(names)


def started(root: Path) -> list[str]:
    """A sweep of two cells that was asked for under a root of results, none of it run."""
    store = Store(root)
    ids = [store.ask(tiny.spec(seed=seed)) for seed in (0, 1)]
    cells = tuple(
        Cell(
            id=id,
            kind="train",
            label=f"mano, seed {seed}",
            variant="mano",
            mechanism="mano",
            model="isotropic",
            seed=seed,
            estimate_s=5.0,
        )
        for seed, id in enumerate(ids)
    )
    Manifest(sweep="asked", question="Does it?", device="cpu", cells=cells).write(root / "asked" / "cells.json")
    return ids


# what answers without torch


def test_help_list_and_status_import_nothing_heavy(tmp_path):
    started(tmp_path / "results")
    for code, *words in (
        (0, "--help"),
        (0, "sweep", "--help"),
        (0, "list", "mechanisms"),
        (0, "list", "tasks", "--json"),
        (0, "list", "sweeps"),
        (3, "status", "asked", "--results", str(tmp_path / "results")),
        (1, "status", "aske", "--results", str(tmp_path / "results")),
    ):
        found, packages = loaded(*words)
        assert found == code, words
        assert not packages & set(HEAVY), words
        assert "click" in packages


def test_the_help_names_the_verbs_in_the_order_of_a_first_day():
    lines = call("--help").stdout.splitlines()
    verbs = [line.split()[0] for line in lines[lines.index("Commands:") + 1 :] if line.strip()]
    assert verbs == ["check", "sweep", "status", "report", "ledger", "run", "list", "data", "doctor", "logs"]
    for verb in verbs:
        assert call(verb, "--help").exit_code == 0


# exit codes


@pytest.mark.parametrize(
    "words",
    [
        ("swep", "x"),
        ("sweep",),
        ("list", "knobs"),
        ("check",),
        ("sweep", "quickstart", "--workers", "0"),
        ("run", "darcy", "mano", "--seed", "-1"),
        ("sweep", "quickstart", "--launcher", "ssh"),
    ],
)
def test_wrong_usage_ends_with_2(words):
    result = call(*words)
    assert result.exit_code == 2
    assert "Usage" in result.stderr
    assert not list(Path.cwd().iterdir())


def test_an_unknown_sweep_is_answered_with_the_nearest():
    assert "no sweep file 'quickstrat'. Did you mean 'quickstart'?" in refused("check", "quickstrat")
    assert "Did you mean 'quickstart'?" in refused("sweep", "sweeps/quikstart.yaml")
    assert "no sweep 'quickstart' was started" in refused("report", "quickstart")


def test_a_sweep_that_was_not_started_is_named_beside_those_that_were(tmp_path):
    started(tmp_path / "results")
    result = call("status", "askd", "--results", str(tmp_path / "results"))
    assert result.exit_code == 1
    assert "Started there: asked." in result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("darcy", "mano", "--rate", "2"), "--rate is a knob of task and mechanism; write --task.rate."),
        (("darcy", "mano", "--levles", "2"), "nobody has a knob 'levles'. Did you mean 'levels'?"),
        (("darcy", "mano", "--mechanism.levles", "2"), "mano has no knob 'levles'. Did you mean 'levels'?"),
        (("darcy", "mano", "--mechansm.levels", "2"), "Did you mean 'mechanism'?"),
        (("darcy", "full", "--levels", "2"), "nobody has a knob 'levels'."),
        (("darcy", "fno", "--heads", "2"), "nobody has a knob 'heads'."),
        (("darcy", "fno", "--mechanism.heads", "2"), "has no owner of knobs 'mechanism'"),
        (("darcy", "mano", "--levels"), "--levels needs a value after it."),
        (("darcy", "mano", "levels", "2"), "knobs are written --name value; got 'levels'."),
        (("darcy", "mano", "--levels", "two"), "mano.levels should be"),
        (("darcy", "mano", "--levels=0"), "mano.levels should be greater than 0; got 0 (int)."),
        (("darcy", "mano", "--levels", "9"), "at most 4 fit"),
        (("darcy", "mano", "--levels", "[1, 2"), "'[1, 2' is no value"),
        (("darcy", "manoo"), "no mechanism or whole model 'manoo'. Did you mean 'mano'?"),
        (("darcie", "mano"), "no task 'darcie'. Did you mean 'darcy'?"),
        (("darcy", "mano", "--model", "isotrop"), "no model 'isotrop'. Did you mean 'isotropic'?"),
        (("darcy", "mano", "--model", "fno"), "fno belongs under baselines"),
    ],
)
def test_a_cell_that_is_not_exactly_understood_is_refused(words, sentence):
    assert sentence in refused("run", *words, "--device", "cpu")


def test_an_axis_is_no_single_cell():
    assert "--levels takes one value here" in refused("run", "darcy", "mano", "--levels", "[1, 2]", "--device", "cpu")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--retry", "oops"), "no outcome to retry 'oops'"),
        (("--set", "task.epoch=1"), "Did you mean 'epochs'?"),
        (("--only", "manno"), "Did you mean 'mano'?"),
        (("--slurm", "partitoin=a"), "partition"),
    ],
)
def test_a_sweep_with_a_wrong_option_is_refused_before_anything_is_written(words, sentence):
    assert sentence in refused("sweep", "quickstart", "--device", "cpu", *words)


def test_a_sweep_for_a_device_that_is_not_here_is_refused_before_anything_is_written(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in refused("sweep", "quickstart", "--device", "cuda", "--launcher", "local")
    assert "no CUDA device" in refused("run", "darcy", "mano", "--device", "cuda")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("side", "knobs are written --name value; got 'side'."),
        ("sde=8", "darcy has no knob 'sde'. Did you mean 'side'?"),
        ("side=[1", "'[1' is no value"),
        ("side=2", "darcy.side should be greater than or equal to 4; got 2 (int)."),
    ],
)
def test_data_with_a_wrong_knob_are_refused(setting, sentence):
    assert sentence in refused("data", "darcy", "--set", setting, "--data-dir", "data")


@pytest.mark.parametrize("words", [["--side", "x"], ["--task.side=x"], ["--set", "task.side=x"], ["--set", "side=x"]])
def test_data_take_knobs_as_run_and_as_sweep_do(words):
    assert "darcy.side should be a valid integer" in refused("data", "darcy", *words, "--data-dir", "data")


# check and dry runs


def test_check_counts_cells_weights_and_work():
    result = call("check", "quickstart", "--device", "cpu")
    assert result.exit_code == 0
    assert "10 trainings and 5 cost measurements on cpu" in result.stdout
    lines = {line.split("  ")[0]: line.split() for line in result.stdout.splitlines()[3:]}
    # 256 tokens of 32 channels, two blocks: projections and scores; lift, MLPs and head
    flops = 2 * (4 * 2 * 256 * 32 * 32 + 4 * 256 * 256 * 32) + 2 * 256 * (3 * 32 + 2 * 2 * 32 * 64 + 32)
    assert lines["full"][1:6] == ["2", "+", "1", "17,313", f"{flops / 1e6:.2f}"]
    assert set(lines) == {"identity", "full", "swin", "linear", "mano"}
    assert not list(Path.cwd().iterdir())


def test_check_says_which_cells_are_the_same(tmp_path):
    (file := tmp_path / "folded.yaml").write_text(
        "question: q\nruns: 1\ntasks: [{name: darcy}]\nmodels: [{name: isotropic}]\nseeds: 0\n"
        "mechanisms: [{name: mano, levels: 1, downsample: [conv, average]}]\n"
    )
    assert "1 further cells are the same as others" in call("check", str(file), "--device", "cpu").stdout


def test_check_tells_a_program_every_cell_and_its_work():
    result = call("check", "quickstart", "--json", "--only", "mano", "--set", "seeds=[3]", "--device", "cpu")
    told = json.loads(result.stdout)
    assert told["sweep"].startswith("quickstart@")
    assert [(cell["kind"], cell["mechanism"], cell["seed"]) for cell in told["cells"]] == [
        ("train", "mano", 3),
        ("cost", "mano", None),
    ]
    assert told["works"][told["cells"][0]["cost_id"]]["params"] == 33697


def test_a_dry_run_writes_nothing():
    result = call("sweep", "quickstart", "--dry-run", "--device", "cpu")
    assert result.exit_code == 0
    assert "10 trainings" in result.stdout
    assert len(re.findall(r"^[0-9a-f]{20}  to run  ", result.stdout, re.MULTILINE)) == 15
    assert not list(Path.cwd().iterdir())


# status, logs and doctor


def test_status_tells_a_program_the_state_of_a_sweep(tmp_path):
    started(tmp_path / "results")
    result = call("status", "some/where/asked.yaml", "--results", str(tmp_path / "results"), "--json")
    assert result.exit_code == 3
    told = json.loads(result.stdout)
    assert (told["sweep"], told["total"], told["counts"]) == ("asked", 2, {"new": 2})


def test_logs_are_found_by_the_start_of_an_id_or_by_a_label(tmp_path):
    ids, root = started(tmp_path / "results"), str(tmp_path / "results")
    for word in (ids[1][:8], "mano, seed 1"):
        assert f"{ids[1]}): not tried yet." in call("logs", "asked", word, "--results", root).stdout
    result = call("logs", "asked", "nothing", "--results", root)
    assert result.exit_code == 1
    assert "0 cells of asked begin with 'nothing'" in result.stderr


def test_doctor_tells_what_this_machine_can_run(tmp_path):
    result = call("doctor", "--results", str(tmp_path / "results"), "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 0, result.output
    for word in ("python", "torch", "slurm", "fused attention", "0 whole rows"):
        assert word in result.stdout
    assert not (tmp_path / "results").exists()


def test_doctor_ends_with_5_when_a_row_is_damaged(tmp_path):
    (id, _), root = started(tmp_path / "results"), tmp_path / "results"
    row = Store(root).spec_path(id).with_name("result.json")
    row.write_text('{"status": "ok", "resul')
    result = call("doctor", "--results", str(root), "--json", "--quiet")
    assert result.exit_code == 5
    (finding,) = json.loads(result.stdout)
    assert (finding["subject"], finding["state"]) == ("quarantine", "hurt")
    assert not row.exists()
    assert [file.read_text() for file in (root / "quarantine").glob(f"{id}*")] == ['{"status": "ok", "resul']
