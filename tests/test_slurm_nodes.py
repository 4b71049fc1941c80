"""A cell over two nodes of a real SLURM: it has the numbers of as many processes on one, and ends whole or not at all.

The cells are real ones, tiny; whatever is killed, the cell is tried again, and nothing of the killed attempt lives on.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from attnbench.engine import shard_job
from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits
from attnbench.engine.slurm import Request, Resources
from attnbench.manifest import Cell
from tests import tiny
from tests.slurm_cluster import Cluster, until
from tests.slurm_sweep import Sweep

pytestmark = pytest.mark.slurm

RESOURCES = Resources(hours=1 / 6, gpus=0, cpus=1, memory_gib=1.5, parallel=1, nodes=2)
LONG = 10**6  # epochs
RANK, NODE, HEAD = "attnbench._node_rank", "--node", "attnbench._nodes"


class Training(Sweep):
    """One cell that two nodes train, and its processes."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        super().__init__(folder / "results")
        self.folder, self.cluster = folder, cluster
        tiny.data(folder / "data")

    def train(self, **knobs: Any) -> None:
        spec = tiny.spec(nodes=2, task={**tiny.spec()["task"], "knobs": tiny.TASK | knobs})
        names = {"label": "cell", "variant": "mano", "mechanism": "mano", "model": "isotropic"}
        self.cells.append(Cell(id=self.store.ask(spec), kind="train", seed=0, estimate_s=1.0, **names))

    @property
    def request(self) -> Request:
        site = SiteSettings(poll_s=0.25)
        return Request(resources=RESOURCES, site=site, data=self.folder / "data", limits=Limits())

    def processes(self, word: str = "attnbench._node") -> list[psutil.Process]:
        """Those of the cell, by a word of their command: srun, what watches on every node, and what trains."""
        found = []
        for pid in self.cluster.left_over():
            try:
                process = psutil.Process(pid)
                words = process.cmdline()
            except psutil.NoSuchProcess:
                continue
            if word in words or any(part.startswith("attnbench._node") and word == "attnbench._node" for part in words):
                found.append(process)
        return found

    def trains(self) -> bool:
        """Whether a checkpoint is there, so that both have made steps."""
        return bool(list(self.store.root.glob("cells/*/*/checkpoint/*")))


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
