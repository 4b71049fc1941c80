"""What runs inside a SLURM job: a supervisor over the cells of one shard, stopped by signals and by the clock.

It starts where submitit's launcher calls `run_shard`. No result goes back that way: rows are in the store, and the
process exits before submitit could pickle anything.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import FrameType

from attnbench.engine._packed import kinds, run_packed
from attnbench.engine._question import Question
from attnbench.engine.shard import Event, Limits, Supervisor
from attnbench.engine.store import Store

REFRESH_S = 300  # how old the answer to "when does this job end?" may be; an administrator can extend it
ANSWER_S = 10  # how long squeue may take to answer
GRACE_S = 15  # before the time limit: to kill the children, write their records and ask for a requeue
ALONE, NODES = "attnbench.run", "attnbench._nodes"  # what a cell's child runs, on one node and over several
TIME_LIMIT, PREEMPTED = "time limit", "preempted"  # the first is the supervisor's own word too


class End:
    """When SLURM will end this job, by asking it: SLURM 22.05 sets no variable for it.

    A signal can be lost (USR2 is ignored while Python starts), so the supervisor also goes by this clock.
    """

    def __init__(self, limit_s: float) -> None:
        self.last = time.time() + limit_s  # the newest answer; until there is one, as if the job had just begun
        self._question = Question(question("%e"), every_s=REFRESH_S, answer_s=ANSWER_S)

    def __call__(self) -> float:
        """Unix time. Asks again every few minutes, and takes the answer in a later call."""
        if (said := self._question.look()) is not None:
            with suppress(ValueError):  # nobody answered, or SLURM knows no end
                self.last = datetime.fromisoformat(said.strip()).timestamp()
        return self.last

    def stop(self) -> None:
        """No question outlives the job."""
        self._question.close()


class Notice:
    """Takes USR2 and TERM: remembers why the job has to stop, and drains the supervisor once there is one."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.supervisor: Supervisor | None = None
        self.end: End | None = None
        self.notice_s = 0.0
        signal.signal(signal.SIGCONT, signal.SIG_IGN)
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self)

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.reason is None:
            # SLURM's notice of a time limit comes up to a minute early; any other time it is a preemption.
            near = self.end is not None and time.time() > self.end.last - self.notice_s - 60
            self.reason = TIME_LIMIT if near else PREEMPTED
        if self.supervisor is not None:
            self.supervisor.drain(self.reason)

    def watch(self, supervisor: Supervisor) -> None:
        """Hands over what comes from now on, and what came before."""
        self.supervisor = supervisor
        if self.reason is not None:
            supervisor.drain(self.reason)


def run_shard(folder: str) -> None:
    """Runs this job's shard of the submission in `folder`, asks to be queued again if cells remain, and exits."""
    notice = Notice()  # first of all: from here on a signal drains
    intent = json.loads((Path(folder) / "intent.json").read_text())
    shard = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    ids: list[str] = intent["shards"][shard]
    store, end = Store(Path(intent["store"])), End(intent["limit_s"])
    notice.end, notice.notice_s = end, intent["notice_s"]
    before = unfinished(store, ids)
    limits = Limits(cell_s=intent["cell_s"], memory_mib=intent["memory_mib"], until=lambda: end() - GRACE_S)
    supervisor = Supervisor(
        store,
        data=Path(intent["data"]) if intent["data"] else None,
        limits=limits,
        watch=say,
        where=where(intent["nonce"], shard),
    )
    if child := intent["child"]:
        supervisor.command = lambda spec_path, out_path: [*child, str(spec_path), str(out_path)]
    if intent["resources"].get("nodes", 1) > 1:
        alone, limit_mib = supervisor.command, intent["memory_mib"]
        supervisor.command = lambda spec_path, out_path: over_nodes(alone(spec_path, out_path), limit_mib)
    notice.watch(supervisor)
    expected = intent.get("expected")
    try:
        outcomes = run_packed(supervisor, store, kinds(store, ids), workers="auto", limits=limits, expected=expected)
    finally:
        end.stop()
    left = unfinished(store, ids)
    reason = notice.reason or (TIME_LIMIT if TIME_LIMIT in outcomes else None)
    log(f"Shard {shard}: {len(before)} cells to do, {len(left)} left; {reason or 'not interrupted'}.")
    if left and (reason == PREEMPTED or (reason == TIME_LIMIT and len(left) < len(before))):
        requeue()
    sys.exit(0)  # not caught by submitit, which would pickle a result that nobody reads


def over_nodes(command: Sequence[str], memory_mib: float) -> list[str]:
    """What the child of a cell runs that trains on all nodes of its job: see attnbench/_nodes.py."""
    if ALONE not in command:
        return list(command)
    return [*(NODES if word == ALONE else word for word in command), "--memory-mib", str(memory_mib)]


def unfinished(store: Store, ids: Sequence[str]) -> list[str]:
    """Cells with neither a row nor two failures of one kind."""
    return [id for id, known in store.scan(ids).items() if not (known.status or known.failed)]


def requeue() -> None:
    """Asks SLURM to run this job again; the last thing a job does, since SLURM kills it a few seconds later.

    Only while the job counts as running: one that was cancelled would come back from the dead. Refused or not
    answered, the job ends, and whoever controls the sweep submits the rest.
    """
    if (word := state()) != "RUNNING":
        log(f"Not queued again: SLURM calls this job {word or 'nothing'}.")
        return
    log("Asking to be queued again.")
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["scontrol", "requeue", this_job()], timeout=20, check=False)


def this_job() -> str:
    """The one id that names this task alone: SLURM_JOB_ID of an array's last task is also the id of the array."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def question(field: str) -> list[str]:
    """The command that asks for one field of squeue about this job."""
    return ["squeue", "-h", "-a", "-j", this_job(), "-o", field]


def state() -> str:
    """SLURM's word for the state of this job; empty when it does not answer."""
    try:
        done = subprocess.run(question("%T"), capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def where(nonce: str, shard: int) -> dict[str, str | int]:
    """What an attempt's record says about the place it runs in."""
    several = {"nodes": os.environ["SLURM_JOB_NODELIST"]} if os.environ.get("SLURM_NNODES", "1") != "1" else {}
    return {
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "job": this_job(),
        "nonce": nonce,
        "shard": shard,
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        **several,
    }


def say(event: Event) -> None:
    """One line in the job's log per event."""
    told = [event.kind, event.id, event.outcome, f"{event.wall_s:.1f} s" if event.wall_s else None, event.message]
    log(datetime.now().isoformat(timespec="seconds"), *(str(word) for word in told if word))


def log(*words: str) -> None:
    """A line in the job's log; a full disk takes none, and the cells matter more."""
    with suppress(OSError):
        print(*words, flush=True)
