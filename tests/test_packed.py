"""Cells side by side: each has its GPUs, what lacked memory in company is no result, and no number changes."""

import os
from collections import Counter
from itertools import accumulate

import pytest

from attnbench.engine import _climb, _places
from attnbench.engine._packed import kinds
from attnbench.engine._places import Places, arranged
from attnbench.engine.local import run_local
from attnbench.engine.shard import Event, Limits
from attnbench.engine.store import Store
from tests import tiny
from tests.fake_cell import spec, starts
from tests.fake_sweep import cell, clean, row, supervisor


def ends(store: Store, id: str) -> list[str]:
    """How each attempt at a cell ended."""
    return [info.end["outcome"] for info in store.attempts(id) if info.end]


def company(store: Store, ids: list[str]) -> dict[str, int]:
    """The most attempts at once on each GPU, by what their records say."""
    marks: dict[str, list[tuple[float, int]]] = {}
    for info in (info for id in ids for info in store.attempts(id)):
        assert info.end
        for gpu in info.where["gpus"]:
            marks.setdefault(gpu, []).extend([(info.started, 1), (info.end["at"], -1)])
    return {gpu: max(accumulate(step for _, step in sorted(of))) for gpu, of in marks.items()}


def test_each_child_sees_the_gpu_that_it_was_given_and_nobody_elses(store, trace):
    asked = {"names": ["CUDA_VISIBLE_DEVICES"], "sleep": 0.3}
    ids = [store.ask(spec(trace, seed, "environment", **asked)) for seed in range(6)]
    assert supervisor(store).run(ids, places=Places(2, gpus=["GPU-1", "MIG-2"])) == Counter(ok=6)
    rows = [row(store, id) for id in ids]
    assert {found["host"]["CUDA_VISIBLE_DEVICES"] for found in rows} == {"GPU-1", "MIG-2"}
    assert all([found["host"]["CUDA_VISIBLE_DEVICES"]] == found["where"]["gpus"] for found in rows)
    assert company(store, ids) == {"GPU-1": 1, "MIG-2": 1}


def test_cells_share_a_gpu_up_to_their_share_and_cells_of_several_have_them_alone(store, trace):
    ids = [store.ask(spec(trace, seed, sleep=0.4)) for seed in range(8)]
    assert supervisor(store).run(ids[:5], places=Places(4, gpus=["a", "b"])) == Counter(ok=5)
    assert company(store, ids[:5]) == {"a": 2, "b": 2}
    assert supervisor(store).run(ids[5:], places=Places(3, gpus=["a", "b", "c"], each=2)) == Counter(ok=3)
    assert company(store, ids[5:]) == {"a": 1, "b": 1}
    assert row(store, ids[5])["where"]["gpus"] == ["a", "b"]


@pytest.mark.parametrize(("do", "first"), [("oom-once", "crowded"), ("hang-once", "crowded"), ("raise-once", "error")])
def test_what_goes_wrong_on_a_shared_gpu_runs_again_on_one_of_its_own_and_leaves_no_row(store, trace, do, first):
    ids = [store.ask(spec(trace, 0, do)), *(store.ask(spec(trace, seed, sleep=0.3)) for seed in range(1, 6))]
    told: list[Event] = []
    assert supervisor(store, told.append, cell_s=1.2).run(ids, places=Places(2, gpus=["a"])) == Counter(ok=6)
    assert ends(store, ids[0]) == [first, "ok"]
    again = store.attempts(ids[0])[1]
    assert again.end
    for other in (info for id in ids[1:] for info in store.attempts(id)):
        assert other.end
        assert other.end["at"] <= again.started or other.started >= again.end["at"]
    assert [event.message for event in told if event.outcome == "crowded"] == (
        ["others took memory or time from it; it runs again with fewer beside it"] * (first == "crowded")
    )
    assert clean(store)


def test_out_of_memory_on_a_gpu_of_its_own_is_a_result(store, trace):
    ids = [store.ask(spec(trace, 0, "oom")), store.ask(spec(trace, 1, sleep=0.3))]
    assert supervisor(store).run(ids, places=Places(2, gpus=["a", "b"])) == Counter(oom=1, ok=1)
    assert ends(store, ids[0]) == ["oom"]
    both = [store.ask(spec(trace, 2, "oom")), store.ask(spec(trace, 3, sleep=0.3))]
    assert supervisor(store).run(both, places=Places(2, gpus=["a"])) == Counter(oom=1, ok=1)
    assert ends(store, both[0]) == ["crowded", "oom"]


def test_cells_that_fill_the_memory_together_run_with_fewer_beside_them(store, trace):
    ids = [store.ask(spec(trace, seed, "hold", mib=100, sleep=0.8)) for seed in range(4)]
    told: list[Event] = []
    assert supervisor(store, told.append, memory_mib=200.0).run(ids, places=Places(3)) == Counter(ok=4)
    crowded = [event.id for event in told if event.outcome == "crowded"]
    assert 1 <= len(crowded) <= 2  # from three at once to one
    assert ids[0] not in crowded  # the youngest goes
    assert {tuple(ends(store, id)) for id in ids} <= {("ok",), ("crowded", "ok"), ("crowded", "crowded", "ok")}
    assert clean(store)


def test_a_gpu_takes_more_children_as_long_as_that_pays_and_every_row_counts(store, trace, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 10, 1000, Default\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(_climb, "LOOK_S", 0.02)
    monkeypatch.setattr(_places, "usable_cores", lambda: 4)
    asked = [spec(trace, seed, sleep=1.0, device="cuda") for seed in range(12)]
    ids, watcher = [store.ask(one) for one in asked], supervisor(store)
    places = arranged(asked, "auto", memory_mib=None)
    assert (places.width, watcher.run(ids, places=places), places.width) == (1, Counter(ok=12), 4)
    assert company(store, ids) == {"0": 4}
    assert Counter(seed for seed, _ in starts(trace)) == dict.fromkeys(range(12), 1)


def test_on_a_cpu_as_many_run_as_there_are_cores_and_cost_cells_alone_on_one_gpu(store, trace, monkeypatch):
    monkeypatch.setattr(_places, "usable_cores", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    at_work, most = set(), []

    def watch(event: Event) -> None:
        (at_work.add if event.kind == "start" else at_work.discard)(event.id)
        most.append(len(at_work))

    cells = [cell(store.ask(spec(trace, seed, sleep=0.5)), seed) for seed in range(6)]
    monkeypatch.setattr("attnbench.engine.progress.Progress.watch", lambda _, event: watch(event))
    assert run_local(store, cells, workers="auto", data=None, limits=Limits(), quiet=True) == 0
    assert max(most) == 3
    asked = {"names": ["CUDA_VISIBLE_DEVICES"], "device": "cuda", "kind": "cost"}
    costs = [cell(store.ask(spec(trace, seed, "environment", **asked)), seed, "cost") for seed in (6, 7)]
    most.clear()
    assert run_local(store, costs, workers="auto", data=None, limits=Limits(), quiet=True) == 0
    assert max(most) == 1
    assert [row(store, one.id)["host"]["CUDA_VISIBLE_DEVICES"] for one in costs] == ["4", "4"]


def test_a_cell_with_a_damaged_spec_counts_as_a_training(store, trace):
    ids = [store.ask(spec(trace, seed, kind=kind)) for seed, kind in enumerate(["cost", "train", "cost"])]
    store.spec_path(ids[2]).write_text("{")
    assert kinds(store, ids) == {"train": ids[1:], "cost": ids[:1]}


def test_numbers_of_real_trainings_are_the_same_to_the_last_bit_however_many_run_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(_places, "usable_cores", lambda: 2)
    monkeypatch.setattr(_places, "free_mib", lambda _: 1e5)
    tiny.data(tmp_path / "data")
    found = []
    for workers in (1, 2, "auto"):
        store = Store(tmp_path / str(workers))
        cells = [cell(store.ask(tiny.spec(seed=seed)), seed) for seed in range(2)]
        assert run_local(store, cells, workers=workers, data=tmp_path / "data", limits=Limits(), quiet=True) == 0
        rows = [row(store, one.id) for one in cells]
        assert (rows[0]["finished"] > rows[1]["started"]) == (workers != 1)
        found.append([(one["result"], one["raw"], one["data"], one["host"]["threads"]) for one in rows])
    assert found[0] == found[1] == found[2]
    assert found[0][0] != found[0][1]
