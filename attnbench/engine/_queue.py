"""What SLURM says about our jobs: one question with an end to its patience, and None when nobody answers.

"The scheduler did not answer" is an answer of its own and never means that a job is gone: every function here
returns None then, and its callers wait. Accounting (`sacct`) is not asked, since many clusters have none.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

PREFIX = "an-"  # of a job's name; the nonce of its submission follows
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
STUCK = re.compile(r"requeued.(in.)?held")  # a reason to wait that only a person or scancel ends
FIELDS = "%F|%K|%j|%T|%k|%N|%r"  # array id, array index, name, state, comment, nodes, reason
NAMES = 500  # in one question: a command line has an end


@dataclass(frozen=True)
class Job:
    """One array task, or one job without an array, as squeue shows it."""

    id: str  # "123_4", or "123" without an array
    nonce: str  # of the submission it belongs to
    shard: int  # index into the submission's list of shards
    state: str  # SLURM's word: PENDING, RUNNING, COMPLETED, ...
    reason: str  # why it waits
    node: str

    @property
    def array(self) -> str:
        """The id of its array; of an array that was cancelled whole while it waited, squeue shows no more than this."""
        return self.id.partition("_")[0]

    @property
    def live(self) -> bool:
        """True until the job has ended for good; a word of SLURM's that we do not know counts as live."""
        return self.state not in ENDED

    @property
    def held(self) -> bool:
        return self.state == "PENDING" and self.reason.startswith("JobHeld")

    @property
    def stuck(self) -> bool:
        """SLURM has given up starting it and holds it for ever."""
        return self.state in {"REQUEUE_HOLD", "SPECIAL_EXIT"} or (
            self.state == "PENDING" and bool(STUCK.search(self.reason))
        )

    @property
    def detail(self) -> str:
        """For people: where it runs, or why it waits."""
        told = f"on {self.node}" if self.node else f"({self.reason})" if self.reason not in ("", "None") else ""
        return f"job {self.id} {told}".rstrip()


@dataclass(frozen=True)
class QueueSnapshot:
    """Every job of a store that SLURM still knows, and the cells of each."""

    jobs: tuple[Job, ...]
    shards: Mapping[str, Sequence[str]]  # cells by the id of a job

    @property
    def cells(self) -> Mapping[str, Job]:
        """For each cell that is waiting or running in the queue, its job; a running one rather than a waiting one."""
        return self._cells

    @cached_property
    def _cells(self) -> dict[str, Job]:
        live = sorted((job for job in self.jobs if job.live), key=lambda job: job.state == "RUNNING")
        return {cell: job for job in live for cell in self.shards[job.id]}


def ask(*argv: str, timeout_s: float = 20) -> str | None:
    """Output of a SLURM command; None when it is missing, fails, or says nothing within `timeout_s`."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def look(nonces: Sequence[str], *, timeout_s: float = 20) -> tuple[Job, ...] | None:
    """Jobs of these submissions, found by name, those that ended a short while ago included; None: no answer."""
    jobs: list[Job] = []
    for start in range(0, len(nonces), NAMES):
        names = ",".join(PREFIX + nonce for nonce in nonces[start : start + NAMES])
        said = ask("squeue", "-h", "-a", "-r", "-t", "all", "--name", names, "-o", FIELDS, timeout_s=timeout_s)
        if said is None:
            return None
        jobs += parse(said)
    return tuple(jobs)


def parse(text: str) -> list[Job]:
    """Reads the lines of `squeue -h -r -o FIELDS`; left out are other people's jobs of the same name, and other words.

    Some sites have their programs say more than was asked.
    """
    jobs = []
    for line in text.splitlines():
        parts = line.split("|", FIELDS.count("|"))
        if len(parts) <= FIELDS.count("|"):
            continue
        array, index, name, state, comment, node, reason = parts
        nonce = name.removeprefix(PREFIX)
        if nonce != comment:
            continue
        alone = not index.isdigit()
        job = array if alone else f"{array}_{index}"
        jobs.append(Job(job, nonce, 0 if alone else int(index), state, reason, node))
    return jobs


def largest_array() -> int | None:
    """How many tasks one array may have here: MaxArraySize, which bounds the index. None: no answer."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config") or "", re.MULTILINE)
    return int(found[1]) if found else None


def available() -> tuple[bool, str]:
    """Whether jobs should go to SLURM from here, and the sentence that says why."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        return False, "Running on this machine, since there is no sbatch."
    if "SLURM_JOB_ID" in os.environ:
        return False, f"Running on this machine, since this is already inside SLURM job {os.environ['SLURM_JOB_ID']}."
    said = ask("scontrol", "ping", timeout_s=15)
    if said is None or " is UP" not in said:
        return False, "Running on this machine: sbatch is there, but SLURM's controller does not answer."
    return True, "Running on SLURM: sbatch is there and its controller answers."
