"""A supervisor brings every cell to its end, whatever its child does, and leaves nothing over."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from attnbench.engine.shard import Event, Supervisor
from tests.fake_cell import runs, spec, starts, until
from tests.fake_sweep import clean, row, supervisor


def test_every_cell_gets_its_row_and_the_second_run_starts_nothing(store, trace):
    ids = [store.ask(spec(trace, seed)) for seed in range(4)]
    assert supervisor(store).run(ids, workers=2) == Counter(ok=4)
    assert [row(store, id)["result"]["score"] for id in ids] == [seed / 7 for seed in range(4)]
    assert row(store, ids[0])["where"]["who"] == "test"
    before = [path.read_bytes() for path in store.root.rglob("result.json")]
    assert supervisor(store).run(ids) == Counter(done=4)
    assert sorted(seed for seed, _ in starts(trace)) == [0, 1, 2, 3]
    assert [path.read_bytes() for path in store.root.rglob("result.json")] == before
    assert clean(store)


def test_at_most_so_many_cells_run_at_once(store, trace):
    ids = [store.ask(spec(trace, seed, sleep=0.5)) for seed in range(6)]  # starting may take long
    at_work, most = set(), []

    def watch(event: Event) -> None:
        (at_work.add if event.kind == "start" else at_work.discard)(event.id)
        most.append(len(at_work))

    supervisor(store, watch).run(ids, workers=3)
    assert max(most) == 3


@pytest.mark.parametrize(
    ("do", "counted", "times", "told"),
    [
        ("raise", "failed", 2, "RuntimeError at f.py:1"),
        ("raise-once", "ok", 2, None),
        ("raise-elsewhere", "failed", 4, "RuntimeError at f.py:2"),
        ("segfault", "failed", 2, "signal 11"),
        ("killed-once", "ok", 2, None),
        ("killed", "failed", 5, "signal 9"),
        ("family", "failed", 2, "no outcome"),
        ("nonsense", "failed", 2, "bad outcome"),
        ("hang", "timeout", 1, None),
        ("diverged", "diverged", 1, None),
        ("nan", "diverged", 1, None),
        ("notice", "ok", 1, None),  # a scheduler's USR2 does not harm a child
    ],
)
def test_a_cell_that_goes_wrong_ends_in_a_row_or_set_aside_and_harms_no_other(store, trace, do, counted, times, told):
    bad, good = store.ask(spec(trace, 0, do)), store.ask(spec(trace, 1))
    assert supervisor(store, cell_s=0.4).run([bad, good]) == Counter({counted: 1}) + Counter(ok=1)
    found = store.result(bad)
    assert (found and found["status"]) == (None if counted == "failed" else counted)
    failed = store.failed(bad)
    assert (failed and failed["signature"]) == told
    assert supervisor(store).run([bad, good]) == Counter({"failed" if told else "done": 1}) + Counter(done=1)
    assert [seed for seed, _ in starts(trace)].count(0) == times
    assert clean(store)


def test_a_cell_set_aside_names_its_cause_and_keeps_the_tail_of_its_log(store, trace):
    id = store.ask(spec(trace, 0, "segfault"))
    events: list[Event] = []
    supervisor(store, events.append).run([id])
    assert [(event.kind, event.outcome) for event in events] == [
        ("start", None), ("end", "error"), ("start", None), ("end", "failed"),
    ]  # fmt: skip
    assert "SIGSEGV" in str(events[-1].message)
    failed = store.failed(id)
    assert failed is not None
    assert failed["traceback"] == "a word in the log\n"


def test_what_a_child_started_does_not_outlive_it(store, trace):
    id = store.ask(spec(trace, 0, "family"))
    supervisor(store).run([id])
    groups = {pid for _, pid in starts(trace)}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = stat.read_text().rpartition(")")[2].split() if stat.exists() else ["Z"]
        assert fields[0] == "Z" or int(fields[2]) not in groups


def test_a_child_killed_by_somebody_is_tried_again_while_others_go_on(store, trace):
    ids = [store.ask(spec(trace, seed, sleep=0.3)) for seed in range(3)]
    killed = []

    def watch(event: Event) -> None:
        if event.kind == "start" and event.id == ids[1] and not killed:
            until(lambda: 1 in dict(starts(trace)))
            killed.append(dict(starts(trace))[1])
            os.kill(killed[0], signal.SIGKILL)

    assert supervisor(store, watch).run(ids, workers=3) == Counter(ok=3)
    assert Counter(seed for seed, _ in starts(trace)) == {0: 1, 1: 2, 2: 1}
    assert clean(store)


def test_a_cell_that_takes_too_much_memory_gets_a_row_that_says_so(store, trace):
    id, other = store.ask(spec(trace, 0, "grow", mib=120)), store.ask(spec(trace, 1))
    assert supervisor(store, memory_mib=100.0, cell_s=20.0).run([id, other]) == Counter(oom=1, ok=1)
    cost = row(store, id)["cost"]
    assert cost["memory_limit_mib"] == 100.0
    assert 90.0 <= cost["peak_rss_mib"] < 200.0
    assert len(starts(trace)) == 2


def test_heartbeats_tell_the_memory_of_the_child(store, trace):
    id = store.ask(spec(trace, 0, "grow", mib=40))
    supervisor(store, cell_s=0.6).run([id])
    info = store.attempts(id)[0]
    assert info.heartbeat > info.started
    assert 40.0 <= (info.rss_mib or 0) < 90.0


def test_a_child_gets_its_threads_and_no_module_from_the_folder_it_starts_in(store, trace):
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONSAFEPATH"]
    ids = [store.ask(spec(trace, 0, "environment", names=names) | {"threads": threads}) for threads in (1, 3, 0)]
    supervisor(store).run(ids)
    cores = str(len(os.sched_getaffinity(0)))
    seen = [[row(store, id)["host"][name] for name in names] for id in ids]
    assert seen == [["1", "1", "1"], ["3", "3", "1"], [cores, cores, "1"]]


def test_a_drain_kills_what_runs_charges_nobody_and_the_next_run_finishes(store, trace):
    ids = [store.ask(spec(trace, seed, sleep=0.3)) for seed in range(3)]
    held: list[Supervisor] = []

    def watch(event: Event) -> None:
        if event.kind == "end" and event.outcome == "ok":
            held[0].drain("preempted")

    held.append(supervisor(store, watch))
    assert held[0].run(ids) == Counter(ok=1, preempted=2)
    held[:] = [supervisor(store, lambda event: held[0].drain("preempted") if event.kind == "start" else None)]
    assert held[0].run(ids) == Counter(done=1, preempted=2)
    assert [info.end and info.end["outcome"] for info in store.attempts(ids[1])] == ["preempted"]
    assert supervisor(store).run(ids) == Counter(done=1, ok=2)
    assert clean(store)


def test_a_run_that_ends_in_an_exception_leaves_no_child_and_no_living_attempt(store, trace):
    id = store.ask(spec(trace, 0, "hang"))

    def watch(event: Event) -> None:
        until(lambda: starts(trace))
        raise KeyboardInterrupt(event.kind)

    with pytest.raises(KeyboardInterrupt, match="start"):
        supervisor(store, watch).run([id])
    assert not runs(starts(trace)[0][1])
    assert clean(store)


def test_a_supervisor_stops_by_the_clock(store, trace):
    ids = [store.ask(spec(trace, seed, "hang")) for seed in range(2)]
    end = time.time() + 0.3
    assert supervisor(store, until=lambda: end).run(ids) == {"time limit": 2}
    assert store.failed(ids[0]) is None
