"""What people are told in a word: what cannot be used, what was left over, and a cell that has no row."""

import getpass
import json
import os
import signal
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

import mechanisms
from attnbench import doctor, plugins, verbs
from attnbench.engine import codes
from attnbench.engine._freeze import PLUGINS
from attnbench.engine._records import machine, make_scratch, scratch, sweep_scratch
from attnbench.engine._submission import MAKER
from attnbench.engine._upkeep import sweep_away
from attnbench.engine.store import Store
from tests import tiny
from tests.slurm_sweep import Sweep


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No plugin before and none after."""
    monkeypatch.setenv(PLUGINS, "")
    monkeypatch.setattr(mechanisms.mechanisms, "guests", {})
    monkeypatch.setattr(mechanisms.mechanisms, "entries", dict(mechanisms.mechanisms.entries))


def test_the_doctor_says_why_what_a_package_announces_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for folder, text in (("torn_pack", "1 / 0\n"), ("whole_pack", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(text)
    (tmp_path / "whole_pack" / "hollow.py").write_text("x = 1\n")
    modules = ("torn_pack.mine", "whole_pack.gone", "whole_pack.hollow")
    points = [metadata.EntryPoint(module, module, plugins.GROUP) for module in modules]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == plugins.GROUP else [])
    found = {subject: (state, about) for subject, state, about in doctor.guests()}
    why = "the package of torn_pack.mine cannot be imported: ZeroDivisionError: division by zero."
    assert found["plugin mine"] == ("hurt", why)
    assert found["plugin gone"] == ("hurt", "an installed package announces whole_pack.gone, which is not there.")
    hollow = f"{tmp_path}/whole_pack/hollow.py registers nothing; a class under @register('hollow', ...) is its entry."
    assert found["plugin hollow"] == ("hurt", hollow)


@pytest.mark.parametrize("message", ["why it is so", "why it is so."])
def test_a_cell_that_was_set_aside_is_told_with_one_full_stop(message, tmp_path: Path, capsys):
    store = Store(tmp_path)
    id = store.ask(tiny.spec())
    for _ in range(2):
        error = {"type": "ValueError", "message": message, "frame": "f", "traceback": ""}
        store.begin(id, where={}).end("error", error=error, signature="s")
    assert verbs.not_done(store, id) == codes.SET_ASIDE
    told = capsys.readouterr().err
    assert "set aside: ValueError: why it is so. Logs: " in told


def dies(store: Store, id: str) -> None:
    """A process that begins an attempt, and is killed between its row and the end of its record."""
    if pid := os.fork():
        os.waitpid(pid, 0)
        return
    attempt = store.begin(id, where={"memory_mib": 100.0})
    attempt.heartbeat(95.0)
    make_scratch(scratch(attempt.uuid))
    store.spec_path(id).with_name(f"{attempt.uuid}.1.tmp").write_text("half a row")
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_doctor_finds_what_killed_processes_left_and_nothing_of_living_ones(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    store = Store(tmp_path / "results")
    here = store.begin(store.ask(tiny.spec() | {"seed": 7}), where={})
    make_scratch(scratch(here.uuid))
    here.path.parent.with_name(f"{here.uuid}.1.tmp").write_text("being written")
    assert list(doctor.leftovers(store)) == []
    dies(store, store.ask(tiny.spec()))
    torn = store.root / "submissions" / "0123456789ab"
    torn.mkdir(parents=True)
    (torn / MAKER).write_text(json.dumps({"machine": machine(), "pid": os.getpid(), "born": "1"}))
    found = {subject: (state, about) for subject, state, about in doctor.leftovers(store)}
    assert {subject: state for subject, (state, _) in found.items()} == dict.fromkeys(
        ("drafts", "scratch folders", "submissions", "attempts"), "left"
    )
    assert all(found[subject][1].startswith("1 ") for subject in found)
    assert found["attempts"][1].endswith("so it probably ran out of memory")
    sweep_away(store.root)
    sweep_scratch()
    store.done(store.ask(tiny.spec()))
    assert [subject for subject, _, _ in doctor.leftovers(store)] == ["attempts"]
    assert scratch(here.uuid).exists()


@pytest.mark.parametrize("told", [True, False])
def test_the_doctor_tells_the_clusters_limits_as_far_as_slurm_does(tmp_path, monkeypatch, told):
    answers = {
        "scontrol": "MaxArraySize            = 1001",
        "sinfo": "main* 2-00:00:00\nhigh infinite",
        "sacctmgr": "500\n",
    }
    for name, said in answers.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}'\n" if told else "#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sentences = list(doctor.limits(None))
    if told:
        user = getpass.getuser()
        assert sentences == [
            "arrays of at most 1001 jobs", "jobs of at most 2-00:00:00", f"at most 500 jobs of {user} at once",
        ]  # fmt: skip
    else:
        assert len(sentences) == 3
        assert all("told" in said or "needs one" in said for said in sentences)


def test_the_doctor_names_mechanisms_that_lack_a_package_or_a_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    found = {subject: about for subject, _, about in doctor.missing()}
    assert "needs the package natten" in found["neighborhood_natten"]
    assert "needs the package fla" in found["gla_fla"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert {subject: about for subject, _, about in doctor.missing()}["gla_fla"] == "runs on cuda only"


@pytest.mark.slurm
def test_the_doctor_finds_jobs_that_nobody_needs(cluster, tmp_path):
    sweep = Sweep(tmp_path / "results")
    sweep.add(2, seconds=20)
    assert sweep.run(wait=False) == 3
    assert [line for line in doctor.orphans(sweep.store) if line[0] == "jobs"] == []
    (job,) = {job.id for job in sweep.jobs() if sweep.queue().shards[job.id] == sweep.ids[:1]}
    strange = list(doctor.orphans(Store(tmp_path / "other")))
    assert [line[:2] for line in strange] == [("jobs", "left")]
    assert "2 belong to no submission" in strange[0][2]
    attempt = sweep.store.begin(sweep.ids[0], where={})
    sweep.store.commit(sweep.ids[0], {"status": "ok"}, attempt.uuid)
    assert [line[1:] for line in doctor.orphans(sweep.store)] == [
        ("hurt", f"the cells of 1 have all ended: scancel {job}")
    ]
    assert cluster.jobs()
