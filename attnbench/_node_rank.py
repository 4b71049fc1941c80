"""One of the processes that train a cell on several nodes: meets the others, and carries out its part.

    python -m attnbench._node_rank SPEC OUTCOME --data DIR --cell DIR --rank N

They meet in the first process, at an address that SLURM itself has reached that node by, and at a port that was free.
The port is told by a file beside the outcome; nothing else listens but what torch's collectives open between them, on
the interface of that address and no other.
"""

import argparse
import json
import os
import socket
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from attnbench import _ranks, run
from attnbench._nodes import read, size
from tasks._parallel import PATIENCE

MEET_S = 300.0  # for all to come; a node may take long to read its libraries
LOOK_S = 0.1  # between two looks for a file of another node
ADDRESS, MEETING = "address.json", "meeting.json"  # beside the outcome: of the first node as others see it; with port

Outcome = dict[str, Any]
stores: Any = dist  # in which type checkers see none


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attnbench._node_rank")
    parser.add_argument("spec", type=Path)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cell", type=Path)
    parser.add_argument("--rank", type=int, required=True)
    given = parser.parse_args()
    _ranks.bound()
    spec = json.loads(given.spec.read_text())
    share = size(spec) // spec["nodes"]
    early = given.outcome.with_name(f"rank{given.rank}.{run.EARLY}" if given.rank else run.EARLY)

    def joined(_: dict[str, Any], data: Path) -> Outcome:
        join(given.outcome.parent, given.rank, spec)
        return run.train(spec, data, given.cell)

    own = spec | {"gpus": spec["gpus"] // spec["nodes"]}  # as a cell of this node alone has its device and threads
    found = run.execute(own, given.data, joined, tell=partial(run.write, early), rank=given.rank % share)
    _ranks.leave(found, _ranks.left_by(given.outcome, given.rank))


def join(folder: Path, rank: int, spec: dict[str, Any]) -> None:
    """Meets the others, once in the life of a process; see `join` in tasks/_parallel.py for its end.

    Raises TimeoutError when somebody does not come.
    """
    end, share, cuda = time.monotonic() + MEET_S, size(spec) // spec["nodes"], spec["device"] == "cuda"
    if rank == share:  # the first of the second node
        run.write(folder / ADDRESS, {"address": os.environ["SLURM_LAUNCH_NODE_IPADDR"]})
    store = opened(folder, end) if rank == 0 else found(folder, end)
    all_come(store, rank, size(spec), end)
    name = interface(awaited(folder / ADDRESS, end)["address"])
    os.environ.setdefault("GLOO_SOCKET_IFNAME", name)  # unless the site knows better
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=store,
        rank=rank,
        world_size=size(spec),
        timeout=PATIENCE,
        device_id=torch.device("cuda", rank % share) if cuda else None,
    )


def opened(folder: Path, end: float) -> Any:
    """The place where all meet, in this process. Raises OSError when that address is none of this node's."""
    address = awaited(folder / ADDRESS, end)["address"]
    listener = socket.socket(family(address))
    listener.bind((address, 0))
    listener.listen()
    port = listener.getsockname()[1]
    patience = timedelta(seconds=MEET_S)
    store = stores.TCPStore(
        address, port, is_master=True, timeout=patience, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    run.write(folder / MEETING, {"address": address, "port": port})
    return store


def found(folder: Path, end: float) -> Any:
    """The same in another process."""
    at = awaited(folder / MEETING, end)
    return stores.TCPStore(at["address"], at["port"], is_master=False, timeout=timedelta(seconds=MEET_S))


def all_come(store: Any, rank: int, size: int, end: float) -> None:
    """Waits for everybody. Raises TimeoutError that names who is missing."""
    keys = {number: f"here {number}" for number in range(size)}
    store.set(keys[rank], "")
    while missing := [number for number, key in keys.items() if not store.check([key])]:
        if time.monotonic() > end:
            raise TimeoutError(f"Of {size} processes, {missing} have not come within {MEET_S:g} s.")
        time.sleep(LOOK_S)


def awaited(file: Path, end: float) -> dict[str, Any]:
    """What a file holds that another process writes. Raises TimeoutError when it does not come."""
    while (told := read(file)) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"{file.name} is not there after {MEET_S:g} s; do all nodes see {file.parent}?")
        time.sleep(LOOK_S)
    return told


def interface(address: str) -> str:
    """The network interface of this node by which an address is reached."""
    with socket.socket(family(address), socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing
        own = probe.getsockname()[0]
    names = [
        name
        for name, known in psutil.net_if_addrs().items()
        if any(entry.address.partition("%")[0] == own for entry in known)
    ]
    return names[0]


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


if __name__ == "__main__":
    main()
