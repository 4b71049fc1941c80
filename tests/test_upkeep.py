"""What the controller sees to beside submitting, and what is the machine's fault: told from literals and scripts."""

import errno
import io
import json
import sys
import time
from collections import namedtuple
from dataclasses import replace

import pytest

from attnbench.engine import _controller, _freeze, _upkeep, _verdict, shard_job
from attnbench.engine._clerk import Event
from attnbench.engine._queue import Job, QueueSnapshot
from attnbench.engine._upkeep import Deaf, avoiding, refusal, shortage
from attnbench.engine.progress import Progress
from attnbench.engine.settings import SiteSettings
from attnbench.engine.store import Evidence
from attnbench.reading import STALE, stale_rows
from tests.fake_cells import FakeCells
from tests.fake_sweep import cell
from tests.slurm_sweep import REQUEST
from tests.test_states import BEGUN, FULL

Usage = namedtuple("Usage", "total used free")
WORDS = {
    "full": (
        "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.",
    ),
    "clear": (
        "sbatch: error: invalid partition specified: nope",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
    ),
    "unsure": (
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Munge decode failed: Invalid credential",
        "sbatch: error: If munged is up, restart with --num-threads=10\nsbatch: error: Protocol authentication error",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "something else",
    ),
}


@pytest.mark.parametrize(("meant", "words"), [(meant, text) for meant, texts in WORDS.items() for text in texts])
def test_what_sbatch_says_is_a_full_queue_a_clear_no_or_no_answer(meant, words):
    assert refusal(words) == meant


def test_a_disk_without_room_for_the_code_and_the_rows_is_told(tmp_path, monkeypatch):
    needed = _freeze.size() + 10 * _upkeep.CELL_BYTES
    assert needed > 1_000_000
    for free, told in ((needed, False), (needed - 1, True)):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: Usage(10**9, 0, free))
        assert bool(shortage(tmp_path / "not there yet", 10)) is told


def lost(node: str, **more: object) -> Evidence:
    return Evidence(id="c", attempts=(replace(BEGUN, where={"node": node, **more}),))


@pytest.mark.parametrize(
    ("evidence", "nodes", "avoided"),
    [
        ([lost("n1")], "n1 idle\nn2 idle", []),  # once is chance
        ([lost("n1"), lost("n1")], "n1 idle\nn2 idle", ["n1"]),
        ([lost("n1"), lost("n1")], "n1 idle\nn2 down*", []),  # no other is left
        ([lost("n1"), lost("n1"), lost("n2"), lost("n2")], "n1 idle\nn2 idle", []),
        ([lost("n1"), lost("n1")], None, []),  # nobody says which there are
        ([lost("n1", **FULL), lost("n1", **FULL)], "n1 idle\nn2 idle", []),  # the cell lacked memory
    ],
)
def test_a_node_is_avoided_after_two_losses_as_long_as_there_is_another(monkeypatch, evidence, nodes, avoided):
    monkeypatch.setattr(_upkeep, "ask", lambda *_: nodes)
    request = replace(REQUEST, site=SiteSettings(options={"exclude": "n9"}))
    changed, found = avoiding(request, evidence)
    assert found == avoided
    assert changed.site.options["exclude"] == ("n1,n9" if avoided else "n9")


def test_a_running_job_is_deaf_once_nothing_of_its_cells_has_moved_for_long(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    job = Job("7", "n", 0, "RUNNING", "None", "n1")
    seen, deaf = QueueSnapshot((job,), {"7": ["c"]}), Deaf()
    silent, begun = Evidence(id="c", attempts=(BEGUN,)), Evidence(id="c", attempts=(BEGUN,), live=BEGUN)

    def look(at: float, known: Evidence, queue: QueueSnapshot = seen) -> bool:
        now[0] = at
        return bool(deaf.jobs(queue, {"c": known}))

    assert not look(0, silent)
    assert not look(299, silent)
    assert look(301, silent)
    assert not look(302, begun)
    assert not look(303, silent)
    moved = Evidence(id="c", attempts=(BEGUN, replace(BEGUN, heartbeat=BEGUN.heartbeat + 1)))
    assert not look(604, moved)
    assert not look(605, moved, QueueSnapshot((replace(job, state="PENDING"),), {"7": ["c"]}))
    assert not look(905, moved)


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("[Errno 5] Input/output error: '/data/x'", "machine"),
        (f"[Errno {errno.ENOSPC}] No space left on device", "machine"),
        ("CUDA error: uncorrectable ECC error encountered", "machine"),
        (f"[Errno {errno.EROFS}] Read-only file system: '/data/x'", "machine"),
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", "machine"),
        ("[Errno 2] No such file or directory", "error"),
        ("CUDA error: device-side assert triggered", "error"),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_an_error_of_the_machine_is_told_from_one_of_the_cell(tmp_path, monkeypatch, message, outcome, full):
    told = {"status": "error", "error": {"type": "E", "message": message}}
    (tmp_path / "outcome.json").write_text(json.dumps(told))
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**9, 0, 0 if full else 10**9))
    ending = _verdict.Ending(code=1, killed=None, peak_mib=1.0, limit_mib=None, limit_s=None)
    found = _verdict.judge(ending, tmp_path / "outcome.json", tmp_path / "log")
    assert found.outcome == ("stopped" if full else outcome)
    assert found.error == {"type": "E", "message": message}


class OnFullDisk(io.StringIO):
    def write(self, _text: str, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_on_a_full_disk_costs_no_row(monkeypatch):
    progress = Progress([cell("a")], stream=OnFullDisk())
    monkeypatch.setattr(sys, "stdout", OnFullDisk())
    event = Event(kind="end", id="a", outcome="ok", wall_s=1.0)
    progress.watch(event)
    shard_job.say(event)
    monkeypatch.undo()
    assert progress.done == 1


def test_rows_of_other_code_than_todays_are_counted_as_stale(tmp_path, monkeypatch):
    cells = FakeCells(tmp_path / "results")
    cells.add(3)
    for id, made in zip(cells.ids, ("aaaa", "bbbb", None), strict=True):
        attempt = cells.store.begin(id, where={})
        code = {"commit": "x", "fingerprint": made} if made else {}
        cells.store.commit(id, {"status": "ok", "code": code}, attempt.uuid)
        attempt.end("ok")
    monkeypatch.setattr("attnbench.host.shared", lambda: "aaaa")
    assert stale_rows(cells.store.scan(cells.ids).values()) == 1
    monkeypatch.undo()
    assert cells.status(cause="stale: ")["causes"] == {STALE: 2}


def test_a_store_that_cannot_be_written_now_is_waited_for_and_one_that_never_can_is_not(tmp_path, monkeypatch):
    cells = FakeCells(tmp_path / "results")
    cells.add(1)
    with Progress(cells.cells, quiet=True) as progress:
        control = _controller.Controller(cells.store, cells.cells, REQUEST, progress=progress, note=lambda _: None)

        def fail(number: int) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(_controller, "snapshot", lambda *_, **__: fail(errno.ENOSPC))
        assert control.turn() is False
        assert "cannot be written" in control.waits_for
        monkeypatch.setattr(_controller, "snapshot", lambda *_, **__: fail(errno.EACCES))
        with pytest.raises(PermissionError):
            control.turn()
