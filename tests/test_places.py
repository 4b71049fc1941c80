"""Places on cores and GPUs: how many there are, who gets which, and what is found out about how many a GPU takes."""

import time
from pathlib import Path

import psutil
import pytest

from attnbench.engine import _climb, _places
from attnbench.engine._climb import Climb, Gauge, gain
from attnbench.engine._places import Places, arranged, free_mib, usable_cores, visible_gpus
from tests.fake_cell import until

LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb)
  MIG 1g.18gb     Device  0: (UUID: MIG-b0)
  MIG 1g.18gb     Device  1: (UUID: MIG-b1)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 16 cores without a job; call it with what nvidia-smi does to give it one."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(_places, "usable_cores", lambda: 16)
    monkeypatch.setattr(_places, "free_mib", lambda limit_mib: limit_mib)

    def smi(script: str) -> Path:
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{script}\n')
        program.chmod(0o755)
        return tmp_path / "asked"

    return smi


def gpus_given(places: Places, count: int) -> list[tuple[str, ...]]:
    given = [places.take() for _ in range(count)]
    return [place.gpus for place in given if place]


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2,5"}, ("2", "5")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1, MIG-GPU-2/1/0"}, ("GPU-1", "MIG-GPU-2/1/0")),
        ({"CUDA_VISIBLE_DEVICES": "3,-1,4"}, ("3",)),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "6"}, ("0",)),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "6,7"}, ("6", "7")),
        ({}, ("GPU-aaaa", "MIG-b0", "MIG-b1")),
    ],
)
def test_gpus_are_those_that_were_given_else_all_and_parts_of_one_count_singly(machine, monkeypatch, variables, found):
    asked = machine(f"cat <<'END'\n{LISTED}END")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert visible_gpus() == found
    assert asked.exists() == (not variables)


def test_a_machine_without_a_driver_or_with_a_broken_one_has_no_gpus(machine):
    assert visible_gpus() == ()
    machine("echo 'GPU 0: x (UUID: GPU-a)'; exit 9")
    assert visible_gpus() == ()


def test_cores_are_those_of_the_process_of_its_job_and_of_its_container(monkeypatch):
    monkeypatch.setattr(_places, "cores", lambda: 8)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(_places.Path, "read_text", lambda path: {"/sys/fs/cgroup/cpu.max": "max 100000"}[str(path)])
    assert usable_cores() == 8
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")  # left over in a shell that is no job
    assert usable_cores() == 8
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert usable_cores() == 4
    monkeypatch.setattr(_places.Path, "read_text", lambda path: {"/sys/fs/cgroup/cpu.max": "250000 100000"}[str(path)])
    assert usable_cores() == 2
    monkeypatch.setattr(_places, "cores", lambda: 1)
    assert usable_cores() == 1


def test_memory_is_the_limit_or_what_others_leave_of_it(monkeypatch):
    monkeypatch.setattr(_places.Path, "read_text", lambda _: "MemFree: 1 kB\nMemAvailable:  2048000 kB\n")
    assert [free_mib(limit) for limit in (100.0, 4000.0, None)] == [100.0, 2000.0, 2000.0]


def test_each_child_gets_a_gpu_that_has_fewest_and_none_has_more_than_its_share():
    places = Places(5, gpus=["a", "b"])
    assert gpus_given(places, 6) == [("a",), ("b",), ("a",), ("b",), ("a",)]
    assert places.full()
    assert Places(2, gpus=["a", "b", "c"]).width == 2


def test_a_gpu_given_back_is_given_out_again_and_a_place_knows_that_it_was_shared():
    places = Places(2, gpus=["a"])
    first, second = places.take(), places.take()
    assert first
    assert second
    assert (first.shared, second.shared, places.take()) == (True, True, None)
    places.give(first)
    third = places.take()
    assert third
    assert third.gpus == ("a",)
    assert third.environment() == {"CUDA_VISIBLE_DEVICES": "a"}
    lonely = Places(1, gpus=["a"]).take()
    assert lonely
    assert not lonely.shared


def test_a_cell_of_several_gpus_gets_whole_ones():
    places = Places(3, gpus=["a", "b", "c", "d", "e"], each=2)
    assert places.width == 2
    assert gpus_given(places, 3) == [("a", "b"), ("c", "d")]


def test_who_wants_a_gpu_alone_waits_for_an_empty_one_and_keeps_others_out():
    places = Places(4, gpus=["a", "b"])
    first = places.take()
    whole = places.take(whole=True)
    assert whole
    assert whole.gpus == ("b",)
    assert gpus_given(places, 2) == [("a",)]
    assert places.take(whole=True) is None
    assert not places.open(whole=True)
    assert first
    assert places.open() is False  # one of the two GPUs is full, the other is kept for one
    places.give(first)
    assert (places.open(), places.open(whole=True)) == (True, False)
    assert not whole.shared


@pytest.mark.parametrize(
    ("spec", "variables", "workers", "width"),
    [
        ({"threads": 1}, {}, "auto", 16),
        ({"threads": 0}, {}, "auto", 1),
        ({"threads": 1}, {}, 3, 3),
        ({"device": "cuda", "gpus": 1, "threads": 0}, {"CUDA_VISIBLE_DEVICES": "0,1"}, "auto", 2),
        ({"device": "cuda", "gpus": 1, "threads": 0}, {"CUDA_VISIBLE_DEVICES": "0,1"}, 6, 6),
        ({"device": "cuda", "gpus": 2, "threads": 0}, {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4"}, "auto", 2),
        ({"device": "cuda", "gpus": 2, "threads": 0}, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 1, 1),
        ({"device": "cuda", "gpus": 1, "threads": 0}, {}, "auto", 1),
        ({}, {}, "auto", 16),
    ],
)
def test_auto_is_as_many_as_the_machine_bears_and_a_number_is_that_number(
    machine, monkeypatch, spec, variables, workers, width
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert arranged([spec] * 2, workers, memory_mib=None).width == width
    assert machine


def test_too_few_gpus_for_a_cell_are_left_for_it_to_complain_about(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    place = arranged([{"device": "cuda", "gpus": 2}], "auto", memory_mib=None).take()
    assert machine
    assert place
    assert place.environment() == {}


def test_nobody_looks_for_gpus_where_cells_run_on_a_cpu(machine):
    asked = machine(f"cat <<'END'\n{LISTED}END")
    place = arranged([{"device": "cpu", "threads": 1}], "auto", memory_mib=None).take()
    assert place
    assert not asked.exists()
    assert place.environment() == {}


def test_another_cell_starts_only_where_the_largest_so_far_would_find_room():
    places = Places(8, memory_mib=4000.0)
    assert not places.full()
    places.take()
    places.take()
    assert not places.full([300.0, 500.0])  # three of 1024 MiB, while none has ended
    third = places.take()
    assert places.full([300.0, 500.0, 200.0])
    assert third
    places.give(third, peak_mib=600.0)
    assert not places.full([300.0, 500.0])
    places.take()
    assert not places.full([300.0, 500.0, 0.0])  # four of 600 of the 3200 that may be filled
    assert places.full([900.0, 500.0, 0.0])
    small = Places(8, memory_mib=100.0)
    assert not small.full()  # the first one starts whatever it will hold
    small.take()
    assert small.full()


def test_fewer_run_after_the_memory_was_too_small_for_so_many():
    places = Places(4)
    taken = [place for place in (places.take() for _ in range(3)) if place]
    places.crowded(taken[-1])
    assert places.width == 2
    on_gpus = Places(8, gpus=["a", "b"])
    taken = [place for place in (on_gpus.take() for _ in range(8)) if place]
    on_gpus.crowded(taken[0])
    assert on_gpus.width == 6


def climbed(monkeypatch, seconds: dict[int, float], *, full: float = 0.01, gpus: int = 1, most: int = 16) -> Climb:
    """What is found where a cell takes so many seconds beside so many others, and each fills as much of the memory."""
    monkeypatch.setattr(Gauge, "look", lambda gauge: setattr(gauge, "highest", full * climb.width))
    climb = Climb([str(number) for number in range(gpus)], most)
    for number in range(100):
        climb.look()
        climb.ended(climb.width, f"cell {number % 3}", seconds[climb.width], 1.0)
    return climb


@pytest.mark.parametrize(
    ("seconds", "full", "most", "width"),
    [
        ({1: 10.0, 2: 10.0, 4: 10.0, 8: 10.0, 16: 10.0}, 0.01, 16, 16),
        ({1: 10.0, 2: 11.0, 4: 18.0, 8: 34.0}, 0.01, 16, 4),  # the last doubling gains 6 %
        ({1: 10.0, 2: 18.3}, 0.01, 16, 1),  # 9 %
        ({1: 10.0, 2: 18.0, 4: 36.0}, 0.01, 16, 2),  # 11 %
        ({1: 10.0, 2: 10.0, 4: 10.0}, 0.15, 16, 4),  # eight might not fit
        ({1: 10.0}, 0.5, 16, 1),
        ({1: 10.0, 2: 10.0, 4: 10.0}, 0.01, 6, 4),  # cores
    ],
)
def test_twice_as_many_children_come_to_a_gpu_while_cells_an_hour_rise_and_memory_lasts(
    monkeypatch, seconds, full, most, width
):
    assert climbed(monkeypatch, seconds, full=full, most=most).width == width


def test_nothing_is_decided_before_every_place_of_a_width_has_ended_a_cell(monkeypatch):
    monkeypatch.setattr(Gauge, "look", lambda gauge: setattr(gauge, "highest", 0.1))
    climb = Climb(["0", "1"], 16)
    widths = []
    for _ in range(7):
        climb.look()
        climb.ended(climb.width, "cell", 1.0, 1.0)
        if climb.width > 1:
            climb.ended(1, "cell", 1.0, 1.0)  # one that began when fewer ran says nothing
        widths.append(climb.width)
    assert widths == [1, 2, 2, 2, 2, 4, 4]


def test_where_the_memory_of_gpus_cannot_be_seen_they_are_not_shared(machine):
    machine("exit 1")
    climb = Climb(["0"], 16)
    for _ in range(5):
        climb.look()
        climb.ended(1, "cell", 1.0, 1.0)
    assert climb.width == 1
    climb.close()


def test_gain_compares_cells_that_are_alike_and_only_else_what_was_expected_of_unlike_ones():
    before = {"a": [(10.0, 1.0)], "b": [(100.0, 1.0)]}
    assert gain(before, {"a": [(12.0, 1.0), (13.0, 1.0)]}) == 2 / 1.25
    assert gain(before, {"a": [(12.5, 1.0)], "c": [(900.0, 1.0)]}) == 2 / 1.25
    assert gain({"a": [(10.0, 5.0)]}, {"c": [(40.0, 10.0)]}) == 1.0


def test_the_memory_of_gpus_is_asked_for_now_and_then_and_its_highest_share_kept(machine, monkeypatch):
    monkeypatch.setattr(_climb, "LOOK_S", 0.05)
    asked = machine("echo '4000, 10000, Default'; echo '[N/A], [N/A], Default'; echo '1000, 10000, Default'")
    gauge = Gauge(["GPU-a", "GPU-b"])
    until(lambda: gauge.look() or gauge.highest)
    assert gauge.highest == 0.4
    assert asked.read_text().splitlines()[0].endswith("-i GPU-a,GPU-b")
    machine("echo '1000, 10000, Exclusive_Process'")
    until(lambda: gauge.look() or gauge.highest == 1.0)  # no room for a second process, whatever the memory
    gauge.close()


def test_a_driver_that_hangs_stops_nobody(machine, monkeypatch):
    monkeypatch.setattr(_climb, "ANSWER_S", 0.1)
    machine("exec sleep 30")
    gauge = Gauge(["0"])
    began = time.monotonic()
    gauge.look()
    time.sleep(0.2)
    for _ in range(3):
        gauge.look()
    gauge.close()
    assert time.monotonic() - began < 10
    assert gauge.highest is None


def test_a_search_that_is_dropped_leaves_no_process(machine):
    before = set(psutil.Process().children())
    machine("exec sleep 30")
    places = Places(8, gpus=["0"], climb=Climb(["0"], 8))
    places.look()
    assert set(psutil.Process().children()) - before  # nvidia-smi was asked
    places.close()
    assert not set(psutil.Process().children()) - before
    assert places.width == 1
