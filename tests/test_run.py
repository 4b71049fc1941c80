"""A cell's child process: whatever happens, one outcome, whole, and the same numbers for the same spec."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tasks
from attnbench import host, measure, run
from tests import tiny
from tests.torch_settings import DETERMINISTIC

BLOCKS = {"status", "result", "cost", "host", "data", "code", "raw", "error"}
Outcome = dict[str, Any]
pytestmark = pytest.mark.usefixtures("settings_put_back")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the tiny task's fields."""
    place = tmp_path_factory.mktemp("data")
    tiny.data(place)
    return place


def fails(error: BaseException):
    def work(*_: Any) -> Outcome:
        raise error

    return work


def outcome(asked: dict[str, Any], data: Path, work=None) -> Outcome:
    """An outcome, as it reads after it has been written down."""
    return json.loads(json.dumps(run.execute(asked, data, work or run.KINDS[asked["kind"]])))


def test_a_trained_cell_has_numbers_the_hash_of_its_data_and_where_it_ran(folder):
    found = outcome(tiny.spec(), folder)
    assert found["error"] is None
    assert found.keys() == BLOCKS
    assert found["status"] == "ok"
    assert 0 < found["result"]["rel_l2"] < 10
    assert found["data"] == {"hash": tiny.data(folder)}
    assert found["raw"]["train_loss"] == [found["result"]["train_loss"]]
    assert found["cost"].keys() >= {"train_wall_s", "data_wall_s", "run_wall_s"}
    assert found["cost"]["run_wall_s"] >= found["cost"]["train_wall_s"] > 0
    assert found["host"]["threads"] == 1
    assert found["host"]["torch"] == torch.__version__.split("+")[0] or found["host"]["torch"] == torch.__version__


def test_the_same_spec_gives_the_same_numbers_to_the_last_bit_and_another_seed_does_not(folder):
    torch.manual_seed(1)
    first = outcome(tiny.spec(), folder)
    torch.manual_seed(2)  # whatever was drawn before
    again, other = outcome(tiny.spec(), folder), outcome(tiny.spec(seed=1), folder)
    assert (first["result"], first["raw"]) == (again["result"], again["raw"])
    assert other["result"]["rel_l2"] != first["result"]["rel_l2"]


def test_an_error_is_told_with_its_place_and_the_other_blocks_stay(folder):
    found = outcome(tiny.spec(), folder, fails(RuntimeError("nobody knows")))
    assert found["status"] == "error"
    assert (found["error"]["type"], found["error"]["message"]) == ("RuntimeError", "nobody knows")
    assert found["error"]["frame"].startswith("test_run.py:work:")
    assert "Traceback" in found["error"]["traceback"]
    assert found.keys() == BLOCKS
    assert found["host"]["name"]
    assert len(found["code"]["fingerprint"]) == 12


def test_a_wrong_spec_is_an_error_of_the_cell(folder):
    wrong = tiny.spec(mechanism={"name": "mano", "version": 1, "knobs": {"levels": 9}})
    found = outcome(wrong, folder)
    assert (found["status"], found["error"]["type"]) == ("error", "ValueError")
    assert "mano: level 3" in found["error"]["message"]


def test_missing_data_are_an_error_only_where_they_cannot_be_made(tmp_path):
    (tmp_path / "darcy").write_text("a file where a folder belongs")
    assert outcome(tiny.spec(), tmp_path)["status"] == "error"


def test_a_device_that_is_not_there_is_an_error(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = outcome(tiny.spec(device="cuda"), folder)
    assert found["status"] == "error"
    assert "no CUDA device" in found["error"]["message"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError("cannot allocate an array"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_running_out_of_memory_is_a_result(folder, error):
    found = outcome(tiny.spec(), folder, fails(error))
    assert found["status"] == "oom"
    assert found["error"]["message"] == str(error)


def test_the_cpus_own_refusal_of_memory_is_understood(folder):
    found = outcome(tiny.spec(), folder, lambda *_: {"result": {"bytes": torch.empty(2**55).numel()}})
    assert found["status"] == "oom"


def test_divergence_is_a_result_with_the_step_at_which_it_came(folder, monkeypatch):
    darcy = tasks.find("darcy").cls
    monkeypatch.setattr(darcy, "loss", lambda *_: torch.tensor(torch.nan, requires_grad=True))
    found = outcome(tiny.spec(), folder)
    assert (found["status"], found["error"]["type"]) == ("diverged", "Diverged")
    assert "step 1 of epoch 1" in found["error"]["message"]


@pytest.mark.parametrize(("asked", "expected"), [(1, 1), (2, 2), (0, len(os.sched_getaffinity(0)))])
def test_a_cell_runs_on_as_many_threads_as_its_spec_says(folder, asked, expected):
    found = outcome(tiny.spec(threads=asked), folder, lambda *_: {"result": {"threads": torch.get_num_threads()}})
    assert found["result"]["threads"] == found["host"]["threads"] == expected


@pytest.mark.parametrize(("kind", "filled"), [("train", True), ("cost", False)])
def test_new_memory_is_filled_in_trainings_and_not_where_time_is_measured(kind, filled):
    """Deterministic torch fills it with NaN, which shows what is read before it is written, and takes time."""
    run.set_up(tiny.spec(kind=kind))
    assert DETERMINISTIC.fill_uninitialized_memory is filled
    held = [torch.empty(1000) for _ in range(8)]
    assert not filled or torch.stack(held).isnan().all()  # unfilled memory may hold anything


def test_a_cost_cell_needs_no_data_and_says_whether_it_was_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "cost", lambda *_, **__: ({"train_step_ms": 2.5}, {"train_step_ms": [2.0, 3.0]}))
    found = {}
    for shared in ("1", ""):
        monkeypatch.setenv("ATTNBENCH_SHARED", shared)
        found[shared] = outcome(tiny.spec(kind="cost", seed=None), tmp_path)
    assert [found[shared]["cost"]["shared"] for shared in ("1", "")] == [True, False]
    assert found[""]["cost"]["params"] > 0
    assert found[""]["cost"]["matmul_flops"] > 0
    assert found[""]["cost"]["fft_flops"] == 0
    assert found[""]["raw"] == {"train_step_ms": [2.0, 3.0]}
    assert found[""]["data"] == {}
    assert not list(tmp_path.iterdir())


def child(place: Path, asked: dict[str, Any], data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The child as a supervisor starts it: in an empty folder of its own."""
    command = [sys.executable, "-m", "attnbench.run", str(tiny.written(place, asked)), str(place / "outcome.json")]
    places = os.pathsep.join([str(Path(run.__file__).parents[1]), *filter(None, sys.path)])
    return subprocess.run(
        [*command, "--data", str(data), *words],
        cwd=place,
        env=os.environ | {"PYTHONPATH": places, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_child_gives_the_numbers_that_this_process_gives_and_leaves_no_draft(folder, tmp_path):
    done = child(tmp_path, tiny.spec(), folder)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "outcome.json").read_text())
    assert found["status"] == "ok"
    assert found["result"] == outcome(tiny.spec(), folder)["result"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["outcome.json", "partial.json", "spec.json"]
    early = json.loads((tmp_path / "partial.json").read_text())
    assert early == {"host": found["host"], "code": found["code"]}


def test_preparing_makes_the_data_and_tells_how_far_it_is(folder, tmp_path):
    done = child(tmp_path, tiny.spec(), tmp_path / "data", "--prepare")
    found = json.loads((tmp_path / "outcome.json").read_text())
    assert found["data"] == {"hash": tiny.data(folder)}
    assert found["result"] == {}
    assert "preparing 16 16" in done.stdout.splitlines()


def test_the_outcome_appears_whole_or_not_at_all(folder, tmp_path, monkeypatch):
    seen: dict[str, tuple[str, bool]] = {}
    replace = Path.replace

    def watched(part: Path, target: Path) -> Path:
        seen[target.name] = part.read_text(), target.exists()
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", watched)
    words = [str(tiny.written(tmp_path, tiny.spec())), str(tmp_path / "outcome.json"), "--data", str(folder)]
    monkeypatch.setattr(sys, "argv", ["run", *words])
    run.main()
    text, there = seen["outcome.json"]  # at the moment before it appears, all of it was written elsewhere
    assert json.loads(text).keys() == BLOCKS
    assert not there
    assert (tmp_path / "outcome.json").read_text() == text


def test_where_it_runs_is_told_before_the_work_begins(folder):
    order: list[str] = []
    run.execute(tiny.spec(), folder, lambda *_: order.append("work") or {}, tell=lambda early: order.extend(early))
    assert order == ["host", "code", "work"]


def test_the_seed_draws_the_weights_and_is_handed_to_the_training(folder, monkeypatch):
    seen: list[tuple[int, list[float]]] = []

    def watched(task: Any, make: tasks.Make, *, seed: int, device: str) -> tasks.Trained:
        seen.append((seed, make(task.config.port).state_dict()["lift.weight"].flatten().tolist()))
        return tasks.Trained(result={"device": float(device == "cpu")}, raw={})

    monkeypatch.setattr(tasks.find("darcy").cls, "run", watched)
    for seed in (3, 4):
        assert outcome(tiny.spec(seed=seed), folder)["result"] == {"device": 1.0}
    assert [seed for seed, _ in seen] == [3, 4]
    assert seen[0][1] != seen[1][1]


def test_data_are_made_for_a_task_alone(tmp_path, folder):
    asked = tiny.spec()
    for word in ("model", "mechanism", "seed"):
        del asked[word]
    found = outcome(asked, tmp_path, run.prepare)
    assert found["error"] is None
    assert found["data"] == {"hash": tiny.data(folder)}


def test_the_fingerprint_changes_with_every_file_that_can_change_all_numbers_and_with_no_other(tmp_path, monkeypatch):
    plumbing = ["mechanisms/_knobs.py", "tasks/_train.py", "attnbench/models/_make.py", *host.DECIDING]
    others = ["mechanisms/other.py", "tasks/other.py", "attnbench/models/other.py", "attnbench/cli.py"]
    for name in plumbing + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(host, "package_root", lambda: tmp_path)
    monkeypatch.setattr(host, "imported_entries", lambda: [tmp_path / "mechanisms/other.py"])
    for name in plumbing:
        before = host.code()
        (tmp_path / name).write_text("changed")
        assert host.code()["fingerprint"] != before["fingerprint"]
        assert host.code()["entries"] == before["entries"]
    before = host.code()["fingerprint"]
    for name in others:
        (tmp_path / name).write_text("changed")
    assert host.code()["fingerprint"] == before
    (tmp_path / "mechanisms/_knobs.py").rename(tmp_path / "mechanisms/_words.py")
    assert host.code()["fingerprint"] != before


def test_the_entries_are_those_of_the_cell_and_a_changed_one_is_seen(folder, tmp_path):
    done = child(tmp_path, tiny.spec(kind="train"), folder)
    assert done.returncode == 0
    root = Path(run.__file__).parents[1]
    names = ["attnbench/models/isotropic.py", "mechanisms/mano.py", "tasks/darcy.py"]
    expected = host.fingerprint(root / name for name in names)
    assert json.loads((tmp_path / "outcome.json").read_text())["code"]["entries"] == expected
    assert host.fingerprint([root / names[0]]) != host.fingerprint([root / names[1]])
