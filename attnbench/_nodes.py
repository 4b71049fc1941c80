"""The processes that train one cell together on several nodes of a SLURM job, and the one outcome of them all.

    python -m attnbench._nodes SPEC OUTCOME --data DIR --cell DIR [--memory-mib N]     beside the job's supervisor
    the same with --node                                                               under srun, once on every node

The child process of such a cell trains nothing: it starts srun, which starts this program on every node, and that
starts the node's processes (_node_rank.py), watches them and the memory they hold, and ends with them. OUTCOME lies in
a folder that all nodes see. How SLURM 22.05 behaves, all of it seen on a real one, and what follows from it here:

- USR2, by `--signal=B:` or before a preemption, reaches the batch shell alone, which is the supervisor. TERM, of
  scancel, a preemption or a time limit, reaches it and all tasks at once: nobody is charged before it has had its say.
- When a task ends badly, the others get TERM at once with `--kill-on-bad-exit` and would run on without; KILL follows
  after KillWait. Processes that train ignore TERM, so that the one that failed first is the one that is heard.
- When srun is killed, its twin ends all tasks at once. When both are, the tasks run on while the job lives, and so they
  do on a node that is cut off. Hence a pulse: srun hands its standard input on to all tasks (`--input=all`), and a node
  on which it ends, or is silent for a while, ends its processes. It ends at once with whoever writes it.
- When the supervisor is killed, the job ends, and with it everything on all nodes. When the slurmd of another node is,
  its tasks run on; the job is requeued once SLURM calls the node down.
- A step waits for the tasks of the one before it, so that two attempts do not share their nodes; but for ever where
  slurmstepd was killed, whose end nobody notices. So it waits for longer than those can live, and then overlaps.
"""

import argparse
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from attnbench import _ranks
from attnbench.engine._child import memory_mib, preparation, session
from attnbench.engine._verdict import FULL, PARTIAL

PULSE_S = 1.0  # between two beats of the pulse, and two looks at memory
SILENCE_S = 10.0  # without a beat, after which a node ends its processes
SAY_S = 1.0  # for the supervisor to be told too of what has ended all processes at once
PYTHON = "ATTNBENCH_PYTHON"  # variable with shell words that start Python on a node
STDIN = 0

Outcome = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attnbench._nodes")
    parser.add_argument("spec", type=Path)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cell", type=Path)
    parser.add_argument("--memory-mib", type=float, help="of each node; the node's processes are killed before it")
    parser.add_argument("--node", action="store_true")
    given = parser.parse_args()
    spec = json.loads(given.spec.read_text())
    if given.node:
        on_a_node(given, spec)
    code = over_nodes(sys.argv[1:], given.outcome, spec["nodes"])
    found = outcome_of(given.outcome, spec, code)
    part = given.outcome.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(given.outcome)


def size(spec: dict[str, Any]) -> int:
    """How many processes train the cell: one for each GPU, or one a node where there is none."""
    return max(spec["gpus"], spec["nodes"])


# --- beside the supervisor


def over_nodes(words: list[str], outcome: Path, nodes: int) -> int:
    """Runs this program on every node of the job until all have ended; returns srun's exit code."""
    code = followed(words, outcome, nodes, f"--immediate={math.ceil(2 * SILENCE_S)}")
    if code and not any(reports(outcome, nodes)):
        return followed(words, outcome, nodes, "--overlap")
    return code


def followed(words: list[str], outcome: Path, nodes: int, how: str) -> int:
    """One start of srun, with an option that says how it does with what still runs there."""
    # In a session of its own: who kills this process and its group leaves srun's twin alive, and that ends all tasks.
    srun = subprocess.Popen(
        [*step(nodes), how, *python(), "-m", "attnbench._nodes", *words, "--node"],
        stdin=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=preparation(),
    )
    assert srun.stdin is not None
    os.set_blocking(srun.stdin.fileno(), False)
    until = float("inf")
    while time.monotonic() < until:
        with suppress(OSError):  # it has ended, or has more than it can hand on
            os.write(srun.stdin.fileno(), b".")
        with suppress(subprocess.TimeoutExpired):
            return srun.wait(PULSE_S)
        if any(report and report["codes"] for report in reports(outcome, nodes)):
            until = min(until, time.monotonic() + _ranks.GRACE_S)
    srun.terminate()  # it does not notice the end of a node whose slurmstepd has been killed
    with suppress(subprocess.TimeoutExpired):
        srun.wait(_ranks.GRACE_S)
    return 0


def step(nodes: int) -> list[str]:
    """srun and its options: one task a node, each with all that the job has there."""
    cpus = os.environ.get("SLURM_CPUS_PER_TASK", "")  # which srun has not taken over since 22.05
    more = [f"--cpus-per-task={cpus}"] if cpus else []
    tasks = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", *more]
    return ["srun", *tasks, "--input=all", "--label", "--kill-on-bad-exit=1", "--wait=0", "--mpi=none", "--export=ALL"]


def python() -> list[str]:
    """What starts Python on a node: this interpreter, or the shell words of the site, for containers."""
    site = os.environ.get(PYTHON)
    return ["sh", "-c", f'exec {site} "$@"', "sh"] if site else [sys.executable]


def outcome_of(outcome: Path, spec: dict[str, Any], code: int) -> Outcome:
    """The outcome of the cell. Ends this process, as one that trains alone would have ended, where there is none."""
    told = reports(outcome, spec["nodes"])
    if told[0] and told[0]["codes"] and told[0]["codes"][0] == 0:
        return _ranks.settled([0], [read(_ranks.left_by(outcome, 0)) or {}])
    time.sleep(SAY_S)
    for report in filter(None, told):
        if report["memory"]:
            return out_of_memory(outcome, report["memory"])
    codes: list[int | None] = []
    for report in told:
        codes += [None] if report is None else report["codes"] or [-signal.SIGKILL]  # it began, and told no end
    first = read(outcome.with_name(_ranks.FIRST))
    if first is None:
        codes.append(128 - code if code > 128 else code)  # srun says so of a task that a signal has ended
    return _ranks.settled(codes, [first] if first else [])


def out_of_memory(outcome: Path, memory: dict[str, Any]) -> Outcome:
    """What the supervisor says of a cell on its own node."""
    message = "Held {peak_mib:.0f} MiB of {limit_mib:.0f} MiB on node {node} when it was killed.".format(**memory)
    early = read(outcome.with_name(PARTIAL)) or {}
    paid = {"memory_limit_mib": memory["limit_mib"], "peak_rss_mib": round(memory["peak_mib"], 1)}
    error = {"type": "OutOfMemory", "message": message, "frame": "", "traceback": ""}
    return {**early, "status": "oom", "cost": paid, "error": error}


def reports(outcome: Path, nodes: int) -> list[dict[str, Any] | None]:
    """What each node has told: nothing, that it has begun (no codes yet), or how its processes have ended."""
    there = names(outcome.parent)
    files = [report_of(outcome, number) for number in range(nodes)]
    return [json.loads(file.read_text()) if file.name in there else None for file in files]


def report_of(outcome: Path, number: int) -> Path:
    return outcome.with_name(f"node{number}.json")


def read(file: Path) -> dict[str, Any] | None:
    """A file that another node writes whole, if it is there."""
    return json.loads(file.read_text()) if file.name in names(file.parent) else None


def names(folder: Path) -> set[str]:
    """What lies in a folder; listing it makes a network file system look again."""
    return {file.name for file in folder.iterdir()}


# --- on every node


class Leash:
    """Whether to go on: not after TERM, nor without the pulse."""

    def __init__(self) -> None:
        self.ended = False  # by SLURM: another node has failed, or the job has to stop
        self._heard = time.monotonic()
        os.set_blocking(STDIN, False)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, *_: object) -> None:
        self.ended = True

    def lost(self) -> bool:
        """Whether nobody is there any more who would take an outcome."""
        with suppress(BlockingIOError):
            if not os.read(STDIN, 4096):
                return True
            self._heard = time.monotonic()
        return time.monotonic() - self._heard > SILENCE_S


class Memory:
    """What the processes of this node hold together, against the limit of a job; the supervisor sees its own alone."""

    def __init__(self, limit_mib: float | None) -> None:
        self.limit_mib = limit_mib
        self.peak_mib = 0.0
        self._next = 0.0

    def full(self) -> bool:
        """Looks now and then; whether they held too much at any time."""
        if self.limit_mib is None:
            return False
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PULSE_S
            self.peak_mib = max(self.peak_mib, memory_mib(session(os.getsid(0))))
        return self.peak_mib >= FULL * self.limit_mib

    def told(self) -> dict[str, Any]:
        return {"peak_mib": self.peak_mib, "limit_mib": self.limit_mib, "node": node_name()}


def on_a_node(given: argparse.Namespace, spec: dict[str, Any]) -> NoReturn:
    """Starts this node's processes and ends with them; what became of them lies beside the outcome."""
    leash, memory, number = Leash(), Memory(given.memory_mib), int(os.environ["SLURM_NODEID"])
    tell(given.outcome, number, None)
    places = [("--data", given.data), ("--cell", given.cell)]
    words = [str(given.spec), str(given.outcome), *(part for pair in places if pair[1] for part in map(str, pair))]
    share = size(spec) // spec["nodes"]
    ranks = [start(words, rank) for rank in range(number * share, (number + 1) * share)]
    lost: list[bool] = []

    def stop() -> bool:
        lost.append(leash.lost())
        return lost[-1] or leash.ended or memory.full()

    codes = _ranks.watch(ranks, leader=number == 0, stop=stop)
    for rank in ranks:
        rank.kill()
        rank.wait()
    if any(lost):
        os._exit(1)  # without a word, as a node that was cut off
    full = memory.full() and (None in codes or -signal.SIGKILL in codes)
    tell(given.outcome, number, codes, memory.told() if full else None)
    for rank, code in enumerate(codes, number * share):
        if code is not None and code < 0:
            print(f"Process {rank} of {size(spec)} on {node_name()} was ended by signal {-code}.", file=sys.stderr)
    if leash.ended:
        sys.exit(128 + signal.SIGTERM)  # so that srun tells of it, where none has failed
    sys.exit(int(codes[0] != 0 or (number > 0 and any(code != 0 for code in codes))))


def start(words: list[str], rank: int) -> "subprocess.Popen[bytes]":
    """One process that trains; it ends with this one, and not by a TERM that is meant for all."""
    bound = preparation()

    def prepare() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        bound()

    command = [sys.executable, "-m", "attnbench._node_rank", *words, "--rank", str(rank)]
    environment = os.environ | {_ranks.STARTER: str(os.getpid())}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, preexec_fn=prepare)


def tell(outcome: Path, number: int, codes: list[int | None] | None, memory: dict[str, Any] | None = None) -> None:
    """Says what became of this node's processes, at first that they have begun."""
    file = report_of(outcome, number)
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"codes": codes, "memory": memory}))
    part.replace(file)


def node_name() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


if __name__ == "__main__":
    main()
