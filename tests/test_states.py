"""The state of a cell, told from literals: what the store knows and what the scheduler says."""

from dataclasses import dataclass, field, replace

import pytest

from attnbench.engine._records import AttemptInfo, machine
from attnbench.engine.states import CellState, Pace, state, states, summary
from attnbench.engine.store import Evidence
from attnbench.manifest import Manifest
from tests.fake_sweep import cell

NOW = 1000.0
SLURM = {"nonce": "n"}
FULL = {"memory_mib": 100.0}
BEGUN = AttemptInfo(
    **{"uuid": "a", "host": "node7", "pid": 1, "started": NOW - 300, "heartbeat": NOW - 200, "rss_mib": 95.0},
    **{"end": None, "generation": 0, "where": {}, "machine": "elsewhere", "born": "1"},
)
ERROR = {"type": "E", "message": "it broke\nhere", "signature": "E at f.py:3"}


@dataclass(frozen=True)
class FakeJob:
    state: str
    detail: str = "job 7"


@dataclass(frozen=True)
class FakeQueue:
    cells: dict[str, FakeJob] = field(default_factory=dict)


BROKEN = ["SLURM does not answer"]
EMPTY = FakeQueue()
PENDING, WORKING = FakeQueue({"c": FakeJob("PENDING")}), FakeQueue({"c": FakeJob("RUNNING")})


def attempt(outcome: str | None = None, **fields) -> AttemptInfo:
    end = {"outcome": outcome, "signature": "E at f.py:3", "error": ERROR} if outcome else None
    return replace(BEGUN, end=end, **fields)


def known(*attempts: AttemptInfo, **fields) -> Evidence:
    return Evidence(id="c", attempts=attempts, **fields)


@pytest.mark.parametrize(
    ("evidence", "queue", "word", "detail"),
    [
        (known(), EMPTY, "new", ""),
        (known(), None, "new", ""),
        (known(), PENDING, "queued", "job 7"),
        (known(), WORKING, "queued", "job 7"),  # its job has not come to it yet
        (known(BEGUN, live=BEGUN), None, "running", "on node7 for 300 s, 95 MiB"),
        (known(BEGUN, live=BEGUN), EMPTY, "running", "on node7 for 300 s, 95 MiB"),
        (known(BEGUN), WORKING, "running", "job 7"),  # silent, but the scheduler knows its job
        (known(BEGUN), EMPTY, "lost", "no sign of it for 200 s"),
        (known(BEGUN), PENDING, "queued", "job 7"),
        (known(attempt(where=SLURM)), EMPTY, "lost", "no sign of it for 200 s"),
        (known(attempt(where=SLURM)), None, "running", "no sign of it for 200 s, and the scheduler did not answer"),
        (
            known(attempt(where=SLURM, machine=machine())),
            None,
            "lost",
            "no sign of it for 200 s",
        ),  # it is dead for sure
        (known(BEGUN), None, "lost", "no sign of it for 200 s"),  # no scheduler had it
        (
            known(attempt(where=FULL)),
            EMPTY,
            "lost",
            "no sign of it for 200 s; its last heartbeat held 95 of 100 MiB, so it probably ran out of memory",
        ),
        (known(attempt("error")), EMPTY, "retry", "1 failed: E at f.py:3: it broke"),
        (known(attempt("machine")), EMPTY, "retry", "1 failed: E at f.py:3: it broke"),
        (
            known(attempt("killed"), attempt("stopped"), attempt("error")),
            None,
            "retry",
            "2 failed: E at f.py:3: it broke",
        ),
        (known(attempt("error")), PENDING, "queued", "job 7"),
        (known(attempt("preempted")), EMPTY, "new", "preempted before it was finished"),
        (known(attempt("error"), attempt("error"), failed=ERROR), WORKING, "failed", "E at f.py:3: it broke"),
        (known(corrupt=True), EMPTY, "corrupt", "a file of it was damaged; `attnbench sweep` makes it again"),
        (known(status="ok"), PENDING, "ok", ""),
        (known(status="oom"), None, "oom", ""),
        (known(status="timeout"), None, "timeout", ""),
        (known(status="diverged"), None, "diverged", ""),
    ],
)
def test_a_cell_is_in_the_state_that_its_evidence_says(evidence, queue, word, detail):
    found = state(evidence, queue, now=NOW)
    assert (found.state, found.detail) == (word, detail)


@pytest.mark.parametrize(
    ("evidence", "queue", "trouble"),
    [
        (known(), PENDING, ""),
        (known(BEGUN), PENDING, "the attempt before vanished on node7"),
        (
            known(attempt(where=FULL | {"node": "n1"})),
            WORKING,
            "the attempt before vanished on n1; its last heartbeat held 95 of 100 MiB",
        ),
        (known(attempt("preempted")), PENDING, "the attempt before ended on node7 with 'preempted'"),
        (known(attempt("yielded")), PENDING, ""),
        (known(attempt("machine")), PENDING, "the attempt before ended on node7 with 'machine': E at f.py:3: it broke"),
        (known(attempt("error"), BEGUN, live=BEGUN), None, "the attempt before ended on node7 with 'error': "),
        (known(BEGUN, live=BEGUN), None, ""),
    ],
)
def test_of_a_cell_that_waits_or_runs_again_it_is_told_what_went_wrong_before(evidence, queue, trouble):
    told = state(evidence, queue, now=NOW).trouble
    assert told.startswith(trouble)
    assert bool(told) is bool(trouble)


def test_a_summary_tells_of_trouble_and_of_a_scheduler_that_does_not_answer():
    found = {"a": CellState("queued", trouble="the attempt before vanished on n1"), "b": CellState("ok")}
    causes = summary(manifest(*found), found, broken=BROKEN).causes
    assert causes["queued: the attempt before vanished on n1"] == 1
    assert causes["SLURM does not answer"] == 1
    done = {"b": CellState("ok")}
    assert summary(manifest(*done), done, broken=BROKEN).causes == {}


def test_states_are_told_for_every_cell():
    found = states(
        [cell("a"), cell("c")], {"a": Evidence(id="a", status="ok", wall_s=2.0), "c": known()}, None, now=NOW
    )
    assert found == {"a": CellState("ok", wall_s=2.0), "c": CellState("new")}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("ok oom timeout diverged", 0),
        ("ok failed", 4),
        ("ok failed new", 3),
        ("running", 3),
        ("queued", 3),
        ("lost ok", 3),
        ("retry", 3),
        ("corrupt failed running", 5),
    ],
)
def test_the_exit_code_of_a_sweep_tells_whether_to_wait_to_look_or_to_worry(words, code):
    found = {str(at): CellState(word) for at, word in enumerate(words.split())}
    assert summary(manifest(*found), found).code == code


def manifest(*ids: str) -> Manifest:
    return Manifest(sweep="s", question="?", device="cpu", cells=tuple(cell(id, estimate_s=10.0) for id in ids))


def test_a_summary_counts_names_causes_and_estimates():
    found = {
        **{
            "a": CellState("ok", wall_s=4.0),
            "b": CellState("running"),
            "c": CellState("running"),
            "d": CellState("new"),
        },
        **{"e": CellState("failed", "E: no"), "f": CellState("failed", "E: no"), "g": CellState("lost", "gone")},
    }
    told = summary(manifest(*found), found)
    assert told.counts == {"ok": 1, "running": 2, "new": 1, "failed": 2, "lost": 1}
    assert told.causes == {"failed: E: no": 2, "lost: gone": 1}
    assert told.left_s == 8.0  # four cells of 4 s, two at a time
    assert told.json()["total"] == 7


def test_time_is_told_by_the_variant_then_by_the_mechanism_then_by_scaled_estimates():
    base = replace(cell("a", estimate_s=100.0), variant="v1")
    pace = Pace()
    assert pace.expect_s(base) == 100.0
    pace.add(base, 50.0)
    pace.add(base, 70.0)
    pace.add(replace(base, variant="v2"), 30.0)
    assert pace.expect_s(base) == 60.0
    assert pace.expect_s(replace(base, variant="v3")) == 50.0
    other = replace(base, variant="v3", mechanism="swin", estimate_s=10.0)
    assert pace.expect_s(other) == 5.0
    cost = replace(other, kind="cost")
    assert pace.left_s([base, base, base, cost], workers=2) == 95.0
