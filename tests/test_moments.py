"""Faults at other moments: what is hurt, taken away or full while a sweep is at work, without a cluster."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from attnbench import launch
from attnbench.cli import main
from attnbench.engine import _files, _submission, _upkeep, slurm
from attnbench.engine._clerk import Event
from attnbench.engine._queue import Job
from attnbench.engine._submission import Submission, prepare
from attnbench.engine.progress import Progress
from attnbench.engine.states import state
from attnbench.engine.store import Store
from attnbench.manifest import Manifest
from tests.disks import ballast, small_disk
from tests.fake_cell import spec, starts, until
from tests.fake_sweep import cell, clean, row, supervisor
from tests.invariants import ROOT
from tests.slurm_sweep import REQUEST
from tests.test_attempts import no_links
from tests.test_faults_local import ASKED

NO_ROOM = OSError(errno.ENOSPC, "No space left on device", "/disk/x")
MOVED = {
    "taken away": shutil.rmtree,
    "damaged": lambda folder: [hurt(file) for file in (folder / "attempts").glob("*.jsonl")],
}


def hurt(file: Path) -> None:
    """The first line is no record any more."""
    file.write_bytes(b"[" + file.read_bytes()[1:])


def result(store: Store, id: str) -> Path:
    return store.spec_path(id).with_name("result.json")


@pytest.mark.fault("F11", "a committed row is truncated, or emptied, while the sweep still runs other cells")
@pytest.mark.parametrize("left", [0, 100])
def test_a_row_that_is_damaged_while_others_run_is_made_again_before_the_end(store, trace, left, monkeypatch):
    monkeypatch.setattr(_files, "FRESH_S", 0.5)
    ids = [store.ask(spec(trace, seed)) for seed in range(3)]

    def watch(event: Event) -> None:
        if event.kind == "start" and event.id == ids[2] and len(starts(trace)) < 4:
            os.truncate(result(store, ids[0]), left)

    assert supervisor(store, watch).run(ids) == Counter(ok=3)
    assert [row(store, id)["result"]["score"] for id in ids] == [seed / 7 for seed in range(3)]
    assert Counter(seed for seed, _ in starts(trace)) == {0: 2, 1: 1, 2: 1}
    assert clean(store)


@pytest.mark.fault("F11", "a committed row is emptied, and its time lies in the future")
def test_an_empty_row_whose_time_lies_in_the_future_is_damaged_and_not_just_being_made(store, trace):
    id = store.ask(spec(trace, 0))
    supervisor(store).run([id])
    result(store, id).write_bytes(b"")
    os.utime(result(store, id), (time.time(), time.time() + 9000))
    assert store.scan([id])[id].corrupt
    assert supervisor(store).run([id]) == Counter(ok=1)


@pytest.mark.fault("F11", "the record of an attempt is damaged, or its cell's folder taken away, while it runs")
@pytest.mark.parametrize("how", MOVED)
def test_a_cell_whose_folder_or_record_is_lost_while_it_runs_still_gets_its_row(store, trace, how):
    id = store.ask(spec(trace, 0, sleep=0.3))
    events = Counter()

    def watch(event: Event) -> None:
        events[event.kind] += 1
        assert events["wait"] < 5
        if event.kind == "start":
            until(lambda: starts(trace))
            MOVED[how](store.spec_path(id).parent)

    assert supervisor(store, watch).run([id]) == Counter(ok=1)
    assert row(store, id)["result"]["score"] == 0
    assert store.spec(id)["seed"] == 0
    assert clean(store)


@pytest.mark.fault("F11", "any bit of an attempt's record is flipped")
def test_a_flipped_bit_in_the_record_of_an_attempt_stops_nobody(store, trace):
    id = store.ask(spec(trace, 0))
    attempt = store.begin(id, where={"node": "n1"})
    attempt.heartbeat(1.5)
    attempt.end("error", "E at f.py:3", {"type": "E", "message": "why"}, wall_s=0.1)
    data = attempt.path.read_bytes()
    for at in range(len(data)):
        attempt.path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        known = store.scan([id])[id]
        assert state(known, None, now=time.time()).state in ("new", "retry", "lost", "running")
    attempt.path.write_bytes(data)
    assert state(store.scan([id])[id], None, now=time.time()).state == "retry"


@pytest.mark.fault("F15", "the disk is full when a damaged row is to be moved away")
def test_a_damaged_row_on_a_full_disk_waits_for_room(store, trace, monkeypatch):
    id = store.ask(spec(trace, 0))
    supervisor(store).run([id])
    os.truncate(result(store, id), 100)
    quarantine, full = _files.quarantine, [NO_ROOM, NO_ROOM]

    def move(*given):
        if full:
            raise full.pop()
        return quarantine(*given)

    monkeypatch.setattr(_files, "quarantine", move)
    events: list[Event] = []
    assert supervisor(store, events.append).run([id]) == Counter(ok=1)
    assert [event.kind for event in events] == ["wait", "wait", "start", "end"]


@pytest.mark.fault("F15", "the store becomes read-only for a while")
def test_a_store_that_is_read_only_for_a_while_is_waited_for(store, trace, monkeypatch):
    id, begin, refused = store.ask(spec(trace, 0)), store.begin, []

    def read_only(id, *, where):
        if len(refused) < 2:
            refused.append(id)
            raise OSError(errno.EROFS, "Read-only file system")
        return begin(id, where=where)

    monkeypatch.setattr(store, "begin", read_only)
    assert supervisor(store).run([id]) == Counter(ok=1)


def test_two_retries_that_have_seen_the_same_failure_open_one_generation(store, trace):
    id = store.ask(spec(trace, 0))
    for _ in range(2):
        store.begin(id, where={}).end("error", "E", {"message": "why"})
    seen = store.scan([id])
    assert [launch.reopen(store, seen, ["failed"]) for _ in range(2)] == [[id], [id]]
    assert store.generation(id) == 1


def test_a_full_disk_leaves_nothing_of_a_submission_and_a_manifest(tmp_path, monkeypatch):
    def full(*_given, **_more):
        raise NO_ROOM

    monkeypatch.setattr(_submission, "create", full)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            prepare(tmp_path, [["a"]], REQUEST)
    assert not list(tmp_path.glob("submissions/*"))
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        Manifest(sweep="s", question="?", device="cpu", cells=()).write(tmp_path / "s" / "cells.json")
    assert not list((tmp_path / "s").iterdir())


def test_where_there_are_no_links_what_a_child_or_a_job_reads_is_a_plain_file(store, trace, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    id = store.ask(spec(trace, 0))
    assert supervisor(store).run([id]) == Counter(ok=1)
    submission = prepare(store.root, [["a"], ["b", "c"]], REQUEST)
    assert json.loads((submission.folder / "intent.json").read_text())["shards"] == [["a"], ["b", "c"]]


def damaged_submission(root: Path) -> Submission:
    submission = prepare(root, [["a"], ["b"]], REQUEST)
    submission.write("jobs.json", {"job": "7", "released": 1.0})
    for file in submission.folder.glob("*s.json"):
        file.write_bytes(file.read_bytes()[:-9])
    os.truncate(submission.folder / "intent.json", 50)
    return submission


@pytest.mark.fault("F11", "the intent of a submission is truncated, and the note of its release")
def test_jobs_of_a_damaged_submission_have_no_cells_and_stop_nobody(tmp_path, monkeypatch):
    submission = damaged_submission(tmp_path)
    jobs = (Job("7_0", submission.nonce, 0, "RUNNING", "None", "n1"),)
    monkeypatch.setattr(_submission, "look", lambda *_, **__: jobs)
    seen = _submission.snapshot(tmp_path)
    assert seen is not None
    assert (seen.jobs, seen.cells, submission.released_s) == (jobs, {}, 0.0)


def test_the_last_words_of_jobs_come_from_a_log_that_says_something(tmp_path):
    folder = tmp_path / "submissions" / "n" / "submitit"
    folder.mkdir(parents=True)
    (folder / "7_0_0_log.err").write_text("no such module\n")
    (folder / "7_1_0_log.err").write_text("\n \n")
    os.utime(folder / "7_0_0_log.err", (1, 1))
    assert _upkeep.last_words(tmp_path, "") == f" (no such module; see {folder / '7_0_0_log.err'})"
    assert _upkeep.last_words(tmp_path, "refused") == " (refused)"


class Gone(io.StringIO):
    """A terminal that is closed after so many writes."""

    left = 3

    def isatty(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.EIO, "Input/output error")
        return len(text)


def test_a_terminal_that_is_closed_under_a_sweep_does_not_end_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    cells, stdout = [cell(str(number)) for number in range(20)], sys.stdout
    with Progress(cells, stream=Gone()) as progress:
        for one in cells:
            progress.watch(Event(kind="start", id=one.id))
            progress.watch(Event(kind="end", id=one.id, outcome="failed", wall_s=0.1, message="why"))
    assert progress.done == 20
    assert sys.stdout is stdout
    monkeypatch.setattr(sys, "stderr", Gone())
    for _ in range(9):
        slurm._note("SLURM does not answer.", quiet=False)


def test_a_damaged_list_of_cells_is_told_in_one_sentence(tmp_path):
    whole = Manifest(sweep="s", question="?", device="cpu", cells=(cell("a"),))
    whole.write(file := tmp_path / "cells.json")
    text = file.read_text()
    for hurt in ("", text[:40], "[]", "{}", text.replace('"label"', '"lable"'), text.replace('"sweep"', '"sweeq"')):
        file.write_text(hurt)
        with pytest.raises(ValueError, match="is damaged; `attnbench sweep`"):
            Manifest.read(file)
    whole.write(file)
    assert Manifest.read(file) == whole


@pytest.mark.fault("F15", "the disk is full when a sweep is started")
def test_a_full_disk_is_told_in_one_sentence(tmp_path):
    (file := tmp_path / "asked.yaml").write_text(yaml.safe_dump(ASKED))
    with small_disk(tmp_path / "disk", mib=1) as disk:
        (disk / "results").mkdir()
        words = ["sweep", str(file), "--results", str(disk / "results"), "--launcher", "local", "--device", "cpu"]
        with ballast(disk):
            said = CliRunner().invoke(main, words)
        assert (said.exit_code, said.output.count("attnbench: ")) == (1, 1), said.output
        assert "attnbench: No space left on device" in said.stderr
        assert "the same command goes on" in said.stderr
        assert not list(disk.rglob("*.tmp"))


MAKES = """\
import os, sys
from attnbench import launch
from attnbench.cli import main
child = "import pathlib, time; pathlib.Path({made!r}).touch(); time.sleep(60)"
launch.follow([sys.executable, "-c", child], dict(os.environ), "data", True)
"""


def test_an_interrupt_while_data_are_made_ends_the_process_that_makes_them_without_its_words(tmp_path):
    code = MAKES.format(made=str(tmp_path / "made"))
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        until((tmp_path / "made").exists, seconds=60)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=20)
    assert said.count("Traceback") == 1  # that of the program above
