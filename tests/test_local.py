"""Running on this machine: order, exit codes, what is shown, and what Ctrl-C leaves behind."""

import io
import re
import signal
from collections import Counter

import pytest

from attnbench.engine.local import closing, resume_line, run_local
from attnbench.engine.progress import Progress, span
from attnbench.engine.shard import Event, Limits
from attnbench.engine.store import Store
from tests.fake_cell import runs, spec, starts, until
from tests.fake_sweep import cell, clean, sweep


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def local(store: Store, cells, **more) -> int:
    return run_local(store, cells, data=None, limits=Limits(), **{"quiet": True, "workers": 2, **more})


def test_cost_cells_run_after_all_training_cells(store, trace):
    kinds = ["cost", "train", "cost", "train", "train"]
    cells = [cell(store.ask(spec(trace, seed, sleep=0.05)), seed, kind) for seed, kind in enumerate(kinds)]
    assert local(store, cells) == 0
    order = [seed for seed, _ in starts(trace)]
    assert sorted(order[:3]) == [1, 3, 4]
    assert order[3:] == [0, 2]


def test_what_had_ended_before_is_counted_from_the_first_line_on_wherever_it_stands(store, trace, capfd):
    kinds = ["train", "train", "train", "cost"]
    cells = [cell(store.ask(spec(trace, seed)), seed, kind) for seed, kind in enumerate(kinds)]
    local(store, cells[2:])
    assert local(store, cells, quiet=False, workers=1) == 0
    lines = capfd.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["[3/4]", "[4/4]"]
    assert " left" in lines[0]
    assert " left" not in lines[1]


def test_the_exit_code_tells_that_cells_are_set_aside_and_quiet_says_nothing(store, trace, capfd):
    cells = [cell(store.ask(spec(trace, seed, do)), seed) for seed, do in enumerate(["raise", "ok"])]
    assert [local(store, cells), local(store, cells)] == [4, 4]
    assert len(starts(trace)) == 3
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_each_finished_cell_is_one_line(store, trace, capfd):
    cells = [cell(store.ask(spec(trace, seed, do)), seed) for seed, do in enumerate(["ok", "raise", "diverged"])]
    local(store, cells[:1])
    assert local(store, cells, quiet=False, workers=1) == 4
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["[1/3]", "error"], ["[2/3]", "diverged"], ["[3/3]", "failed"],
    ]  # fmt: skip
    assert all(" s  cell " in line for line in lines)
    assert out.startswith("3 cells: 1 diverged, 1 done, 1 failed.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_drops_what_runs_keeps_what_is_done_and_says_how_to_go_on(store, trace, number):
    ids = [store.ask(spec(trace, seed, sleep=9.0 * (seed == 1))) for seed in range(4)]
    process = sweep(store, ids)
    until(lambda: len(starts(trace)) == 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=5)
    assert process.returncode == 1, err
    assert out.splitlines()[0] == "4 cells: 1 ok, 3 stopped."
    assert out.splitlines()[1].startswith("Nothing finished is lost. To go on: fake_sweep.py ")
    assert not any(runs(pid) for _, pid in starts(trace))
    assert [info.end and info.end["outcome"] for info in store.attempts(ids[1])] == ["stopped"]
    assert "Traceback" not in err
    assert clean(store)


def test_the_line_that_goes_on_is_the_command_that_was_typed():
    assert resume_line(["/opt/bin/attnbench", "sweep", "my sweep.yaml"]) == "attnbench sweep 'my sweep.yaml'"
    assert resume_line(["/x/attnbench/__main__.py", "sweep", "a"]) == "python -m attnbench sweep a"
    assert closing(Counter(ok=2), ["attnbench"]) == "2 cells: 2 ok."
    assert closing(Counter(ok=2, held=1), ["attnbench"]).endswith("To go on: attnbench")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3000, "50 min"), (12_000, "3 h 20 min")]
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert span(seconds) == said


def test_cells_done_before_count_as_done_and_not_in_the_rate():
    cells = [cell(str(number), estimate_s=10.0) for number in range(6)]
    progress = Progress(cells, workers=2, quiet=True)
    assert progress.left_s() == 30.0
    for id in "012":
        progress.watch(Event(kind="skip", id=id, outcome="done"))
    assert (progress.done, progress.left_s()) == (3, 15.0)
    progress.watch(Event(kind="end", id="3", outcome="ok", wall_s=4.0))
    assert (progress.done, progress.left_s()) == (4, 4.0)
    progress.watch(Event(kind="end", id="4", outcome="error", wall_s=0.1))
    assert (progress.done, progress.left_s()) == (4, 4.0)


def test_a_terminal_gets_one_display_with_counts_cells_and_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    cells, stream = [cell(f"{number}abc", estimate_s=1000.0) for number in range(3)], Terminal()
    with Progress(cells, stream=stream) as progress:
        progress.watch(Event(kind="start", id="0abc"))
        progress.watch(Event(kind="end", id="0abc", outcome="ok", wall_s=600.0))
        progress.watch(Event(kind="start", id="1abc"))
        progress.watch(Event(kind="end", id="1abc", outcome="failed", wall_s=1.0, message="ValueError: [why]"))
        progress.watch(Event(kind="start", id="2abc"))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())  # without colours
    assert "about 20 min left" in shown
    last = shown.rpartition("\r")[2]
    assert last.startswith("2/3 ")
    assert "1 failed" in last
    assert "about 10 min left" in last
    assert "cell 2abc" in last
    assert [line for line in shown.splitlines() if "ValueError: [why]" in line]
