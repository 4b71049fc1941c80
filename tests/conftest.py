"""Wiring of what several test files share: one real SLURM for the whole session, and ways to lie about it."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from attnbench.engine.store import Store
from tests import fault_table, invariants
from tests.fake_sweep import fake_store
from tests.slurm_cluster import Cluster, missing, until
from tests.slurm_sweep import Sweep
from tests.torch_settings import put_back

FAULTS: list[dict[str, Any]] = []  # lines of the table, of all tests so far


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults", type=Path, metavar="FOLDER", help="write the table of faults there: -m fault --faults=FOLDER"
    )


def pytest_runtest_setup() -> None:
    invariants.held.clear()
    invariants.happened.clear()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """The lines of a test travel in its report, for several processes may share the tests."""
    report = (yield).get_result()
    if call.when == "call":
        report.user_properties += [("fault", json.dumps(line)) for line in fault_table.entries(item, call)]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        FAULTS.extend(fault_table.kept(report))


def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = session.config.getoption("--faults")
    if folder and FAULTS and not hasattr(session.config, "workerinput"):
        fault_table.write(folder, FAULTS)


def pytest_configure() -> None:
    """Started in the background of a script, all that tests start would ignore the interrupts that tests send."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests, those on SLURM go to one of them: there is one cluster."""
    for item in items:
        if "slurm" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("slurm"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A training cell has one thread, so its numbers are the same whatever runs beside it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings_put_back() -> Iterator[None]:
    with put_back():
        yield


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """One whose cells are fake, see fake_sweep."""
    return fake_store(tmp_path, monkeypatch)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The file in which fake cells note each of their starts."""
    return tmp_path / "trace"


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """Two nodes on loopback; skips where they cannot be started, or fails where SLURM is required."""
    if reason := missing():
        if os.environ.get("ATTNBENCH_REQUIRE_SLURM"):
            pytest.fail(f"ATTNBENCH_REQUIRE_SLURM is set. {reason}")
        pytest.skip(reason)
    cluster = Cluster()
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def cluster(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The session's cluster with an empty queue, before and after, in the environment of this one test."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm.env[name])
    slurm.clear()
    yield slurm
    slurm.clear()


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Sweep:
    """One of fake cells on the session's cluster, whose nodes are idle."""
    until(90, cluster.idle, "the nodes are idle")
    return Sweep(tmp_path / "results")


@pytest.fixture
def lie(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a script in the way of one of SLURM's programs; the real one is `$real`."""
    folder = tmp_path / "lies"
    folder.mkdir()

    def put(name: str, script: str) -> None:
        real = shutil.which(name, path=cluster.env["PATH"])
        (folder / name).write_text(f'#!/bin/sh\nreal={real}\n{script}\nexec "$real" "$@"\n')
        (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{cluster.env['PATH']}")

    return put
