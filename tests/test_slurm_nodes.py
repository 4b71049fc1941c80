"""A cell over two nodes of a real SLURM: it has the numbers of as many processes on one, and ends whole or not at all.

The cells are real ones, tiny; whatever is killed, the cell is tried again, and nothing of the killed attempt lives on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits
from attnbench.engine.slurm import Request, Resources
from attnbench.manifest import Cell
from tests import tiny
from tests.slurm_cluster import Cluster, end, until
from tests.slurm_sweep import Sweep

pytestmark = pytest.mark.slurm

RESOURCES = Resources(hours=1 / 6, gpus=0, cpus=1, memory_gib=1.5, parallel=1, nodes=2)
LONG = {"epochs": 150}  # of which some are left when the first checkpoint is there
RANK, WATCH = "attnbench._node_rank", "--node"  # parts of the commands of what trains, and of what watches it


class Training(Sweep):
    """One cell that two nodes train, and its processes."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        super().__init__(folder / "results")
        self.folder, self.cluster = folder, cluster
        tiny.data(folder / "data")

    def train(self, **knobs: Any) -> None:
        spec = tiny.spec(nodes=2, task={**tiny.spec()["task"], "knobs": tiny.TASK | knobs})
        names: dict[str, Any] = {"label": "cell", "variant": "mano", "mechanism": "mano", "model": "isotropic"}
        self.cells.append(Cell(id=self.store.ask(spec), kind="train", seed=0, estimate_s=1.0, **names))

    @property
    def request(self) -> Request:
        site = SiteSettings(poll_s=0.25)
        return Request(resources=RESOURCES, site=site, data=self.folder / "data", limits=Limits())

    def processes(self, word: str = "attnbench._node") -> list[psutil.Process]:
        """Those of the cell, by a part of their command: what waits for srun, what watches on a node, what trains."""
        found = []
        for pid in self.cluster.left_over():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if word in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def on(self, node: str, word: str) -> psutil.Process:
        """The one process of that kind on a node."""
        (found,) = [process for process in self.processes(word) if process.environ().get("SLURMD_NODENAME") == node]
        return found

    def until_it_trains(self) -> list[psutil.Process]:
        """Until both processes have made steps; all that work on the cell."""
        until(60, lambda: bool(list(self.store.root.glob("cells/*/*/checkpoint/*"))), "there is a checkpoint")
        assert list(self.store.root.glob("cells/*/*/attempts/*.scratch/partial.json"))  # where all see it
        return [*self.processes(), *self.processes("--nodes=2")]


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Training:
    assert cluster.idle()
    return Training(tmp_path, cluster)


def on_one_node(folder: Path, knobs: dict[str, Any]) -> dict[str, Any]:
    """The outcome of the same training by two processes of this machine."""
    spec = tiny.written(folder, tiny.spec(gpus=2, task={**tiny.spec()["task"], "knobs": tiny.TASK | knobs}))
    words = [str(spec), str(folder / "outcome.json"), "--data", str(folder / "data")]
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-m", "attnbench.run", *words], cwd=root, check=True, timeout=120)
    return json.loads((folder / "outcome.json").read_text())


def test_a_cell_over_two_nodes_has_the_numbers_of_two_processes_on_one(sweep):
    sweep.train(epochs=3)
    assert sweep.run(sweep.request) == 0
    (row,) = sweep.rows()
    alone = on_one_node(sweep.folder, {"epochs": 3})
    assert row["status"] == alone["status"] == "ok"
    assert row["result"] == alone["result"]
    assert row["raw"] == alone["raw"]
    assert row["where"]["nodes"] == "n[1-2]"
    assert not list(sweep.store.root.glob("cells/*/*/attempts/*.scratch"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of the long training on one node."""
    folder = tmp_path_factory.mktemp("alone")
    tiny.data(folder / "data")
    return on_one_node(folder, LONG)


def twins(sweep: Training) -> list[psutil.Process]:
    """The process that srun has forked, which looks after its tasks, and srun: in the order in which none can act."""
    both = [process for process in sweep.processes("--nodes=2") if process.name() == "srun"]
    return sorted(both, key=lambda process: process.ppid() not in {other.pid for other in both})


def waits(sweep: Training) -> psutil.Process:
    """What waits for srun: the child of the supervisor."""
    return twins(sweep)[-1].parents()[0]


def deaf(sweep: Training) -> list[psutil.Process]:
    """A process on the other node; that of the first does not notice, as one that waits within a GPU's library."""
    sweep.on("n1", RANK).suspend()
    return [sweep.on("n2", RANK)]


VICTIMS: dict[str, Callable[[Training], list[psutil.Process]]] = {
    "a process on the other node": lambda sweep: [sweep.on("n2", RANK)],
    "one, while the first does not notice": deaf,
    "the first process": lambda sweep: [sweep.on("n1", RANK)],
    "the watch on the other node": lambda sweep: [sweep.on("n2", WATCH)],
    "what SLURM has there": lambda sweep: [sweep.on("n2", WATCH).parents()[0]],
    "srun": lambda sweep: twins(sweep)[-1:],
    "srun and its twin": twins,
    "the child": lambda sweep: [waits(sweep)],
    "the supervisor": lambda sweep: [waits(sweep).parents()[0]],
}


@pytest.mark.chaos
@pytest.mark.parametrize("who", VICTIMS)
def test_whatever_is_killed_all_of_the_attempt_ends_and_the_cell_goes_on(sweep, alone, monkeypatch, who):
    monkeypatch.setenv("ATTNBENCH_CHECKPOINT_S", "1")
    sweep.train(**LONG)
    with sweep.running(sweep.request, seconds=120) as codes:
        before = sweep.until_it_trains()
        victims = VICTIMS[who](sweep)
        assert victims
        for process in victims:
            os.kill(process.pid, signal.SIGKILL)
        until(20, lambda: not any(process.is_running() for process in before if process not in victims), "all ended")
    assert codes == [0]
    (row,) = sweep.rows()
    assert (row["status"], row["result"], row["raw"]) == ("ok", alone["result"], alone["raw"])
    until(10, lambda: not sweep.processes(), "no process is left over")
    assert len(sweep.attempts()) == 2
    assert not list(sweep.store.root.glob("cells/*/*/attempts/*.scratch"))


@pytest.mark.chaos
def test_on_a_node_that_slurm_has_lost_nothing_lives_on_and_the_cell_waits_for_another(sweep, monkeypatch):
    monkeypatch.setenv("ATTNBENCH_CHECKPOINT_S", "1")
    sweep.train(epochs=10**6)
    with sweep.running(sweep.request, seconds=120) as codes:
        before = sweep.until_it_trains()
        end(sweep.cluster.daemons["n2"])
        until(60, lambda: sweep.jobs()[0].state == "PENDING", "SLURM calls the node down and the job waits")
        until(20, lambda: not any(process.is_running() for process in before), "all ended")
        assert len(sweep.attempts()) == 1
        sweep.cluster.start_node("n2")
        until(60, lambda: len(sweep.attempts()) == 2, "the cell is tried again")
        until(60, lambda: len(sweep.processes(RANK)) == 2, "both nodes are at work")
        sweep.cluster.sh("scancel", sweep.jobs()[0].id)
    assert codes == [1]
    until(20, lambda: not sweep.processes(), "no process is left over")


def preempt(sweep: Training, how: str) -> None:
    """As SLURM does it: with a notice, or with TERM to the supervisor and to all tasks; or by a job that goes first."""
    (job,) = sweep.jobs()
    if how == "a notice":
        sweep.cluster.sh("scancel", "--signal=USR2", "--batch", job.id)
    elif how == "TERM":
        sweep.cluster.sh("scancel", "--signal=TERM", job.id)
        time.sleep(0.5)  # the supervisor of a busy node may hear of it later
        sweep.cluster.sh("scancel", "--signal=TERM", "--batch", job.id)
    else:
        asked = ["-N2", "--exclusive", "--partition=high", "--output=/dev/null", "--wrap=sleep 1"]
        sweep.cluster.sh("sbatch", *asked)
    until(30, lambda: sweep.state_of(job.id) == "PENDING", "the job waits again")


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["a notice", "TERM", "a job that goes first"])
def test_a_preempted_cell_goes_on_from_its_checkpoint_and_nothing_is_charged(sweep, alone, monkeypatch, how):
    monkeypatch.setenv("ATTNBENCH_CHECKPOINT_S", "1")
    sweep.train(**LONG)
    with sweep.running(sweep.request, seconds=120) as codes:
        before = sweep.until_it_trains()
        preempt(sweep, how)
        until(10, lambda: not any(process.is_running() for process in before), "all ended")
    assert codes == [0]
    (row,) = sweep.rows()
    assert (row["status"], row["result"], row["raw"]) == ("ok", alone["result"], alone["raw"])
    assert row["where"]["restart"] == 1
    until(
        10, lambda: all(attempt.end for attempt in sweep.attempts()), "the record is closed"
    )  # after the row is there
    assert [attempt.end and attempt.end["outcome"] for attempt in sweep.attempts()] == ["preempted", "ok"]
    log = max(sweep.store.root.glob("cells/*/*/attempts/*.log"), key=lambda file: file.stat().st_mtime)
    assert "Training goes on from a checkpoint" in log.read_text()


@pytest.mark.chaos
def test_nothing_listens_but_where_slurm_reaches_the_nodes_and_each_starts_python_as_the_site_does(sweep):
    sweep.train(epochs=10**6)
    site = SiteSettings(poll_s=0.25, python=f"env WORD=$HOME {sys.executable}")
    assert sweep.run(replace(sweep.request, site=site), wait=False) == 3
    sweep.until_it_trains()
    ranks = sweep.processes(RANK)
    assert [process.environ()["WORD"] for process in ranks] == [os.environ["HOME"]] * 2
    listening = [
        connection.laddr.ip
        for process in ranks
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 2  # the meeting, and what collectives need
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.chaos
def test_a_cell_that_fails_on_several_nodes_is_set_aside_with_its_traceback(sweep):
    sweep.train(start="nowhere.safetensors")
    assert sweep.run(sweep.request) == 4
    failed = sweep.store.failed(sweep.ids[0])
    assert failed is not None
    assert failed["tries"] == 2
    assert "nowhere.safetensors" in failed["message"]
    assert "Traceback" in failed["traceback"]


def test_too_much_memory_on_a_node_is_an_outcome_that_names_it(sweep):
    sweep.train(**LONG)
    assert sweep.run(replace(sweep.request, limits=Limits(memory_mib=60.0))) == 0
    (row,) = sweep.rows()
    assert row["status"] == "oom"
    assert "of 60 MiB on node n" in row["error"]["message"]
    assert len(sweep.attempts()) == 1
