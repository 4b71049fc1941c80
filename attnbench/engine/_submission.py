"""One submission is one sbatch: its intent is written first, its jobs are held until their files lie in place.

    submissions/<nonce>/intent.json    the cells of each shard, and all that a job needs; durable before sbatch runs
    submissions/<nonce>/code/          the packages as they were then
    submissions/<nonce>/submitit/      sbatch text, pickles, logs
    submissions/<nonce>/jobs.json      the array's id once it is known and released

Jobs carry the nonce as name and comment, so that a submission whose controller died, or whose sbatch ended in an
error although the job was taken, is found in the queue and adopted. Job ids alone tell nothing: SLURM reuses them.
"""

import json
import math
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attnbench.engine import shard_job
from attnbench.engine._files import create, make_folder, read
from attnbench.engine._freeze import freeze
from attnbench.engine._queue import PREFIX, Job, QueueSnapshot, ask, look
from attnbench.engine._records import born, machine
from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits

if TYPE_CHECKING:
    from submitit import SlurmExecutor

SCHEMA = 1
MAKER = "maker.json"  # the process that writes the rest of a submission
NOTICE_S = 120  # how long before its end SLURM tells a job of ten minutes or more; shorter jobs get a fifth


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one job of a sweep asks for; `parallel` is how many may run at once.

    nodes: of a job that trains one cell on all of them; it has all else on each.
    """

    hours: float
    gpus: int
    cpus: int
    memory_gib: float
    parallel: int
    nodes: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for amounts that no job can have."""
        for name in ("hours", "cpus", "memory_gib", "parallel", "nodes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"A SLURM job needs {name} above 0; got {getattr(self, name)}.")
        if self.gpus < 0:
            raise ValueError(f"A SLURM job needs gpus of 0 or more; got {self.gpus}.")

    @property
    def minutes(self) -> int:
        """SLURM's unit of time limits, rounded up."""
        return math.ceil(self.hours * 60)

    @property
    def notice_s(self) -> int:
        """Seconds before the time limit at which the job is told to come to an end."""
        return min(NOTICE_S, 12 * self.minutes)

    @property
    def longest_s(self) -> float:
        """Longest a cell can run that starts with its job: what is left of the limit after start-up and notice.

        SLURM sends the notice up to a minute early, and a node may take as long to start Python.
        """
        limit_s = 60 * self.minutes
        return limit_s - self.notice_s - min(120, 0.4 * limit_s)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What all jobs of one call have in common.

    data: the data folder handed to every cell.
    child: program and first arguments that execute one cell, called with SPEC and OUTCOME; None: `attnbench.run`.
    expected: seconds that cells are expected to take, by their ids, as far as they are known.
    """

    resources: Resources
    site: SiteSettings = field(default_factory=SiteSettings)
    data: Path | None = None
    limits: Limits
    child: tuple[str, ...] | None = None
    expected: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Submission:
    """A folder submissions/<nonce>; everything about it is read from disk, so any controller may go on with it."""

    folder: Path

    @property
    def nonce(self) -> str:
        return self.folder.name

    @property
    def shards(self) -> list[list[str]]:
        """Cell ids of each shard."""
        return _shards(self.folder)

    def cells(self, job: Job) -> Sequence[str]:
        """The cells of one of its jobs, or of a whole array that squeue shows as one job.

        None where the intent is damaged, so that other jobs get them.
        """
        with suppress(OSError, ValueError, LookupError, TypeError):
            shards = self.shards if job.id == job.array else [self.shards[job.shard]]
            return [cell for shard in shards for cell in shard]
        return ()

    @property
    def released(self) -> bool:
        return (self.folder / "jobs.json").exists()

    @property
    def released_s(self) -> float:
        """Seconds since its jobs were let go; none where the file that says it is damaged."""
        with suppress(OSError, ValueError, LookupError, TypeError):
            return time.time() - json.loads(read(self.folder / "jobs.json"))["released"]
        return 0.0

    @property
    def pickles(self) -> list[Path]:
        """What its jobs need to start; none where somebody took them away."""
        return sorted((self.folder / "submitit").glob("*.pkl"))

    def started(self, job: Job) -> bool:
        """Whether SLURM ever started it: its log is there then."""
        return (self.folder / "submitit" / f"{job.id}_0_log.out").exists()

    def drop(self, job: Job) -> None:
        """Leaves a note that we cancel a job, so that other controllers do not take it for a person's wish."""
        with suppress(OSError):
            for id in (job.id, job.array):
                (self.folder / f"dropped.{id}").touch()

    def dropped(self, job: Job) -> bool:
        return (self.folder / f"dropped.{job.id}").exists()

    def complete(self, jobs: Sequence[Job]) -> bool:
        """Puts every pickle where its task looks for it, then lets the jobs go. False: the scheduler did not do it.

        All tasks run the same pickle (the task's index says which shard), so whichever was left is the right one.
        It is copied, never moved: another controller may be about to do the same.
        """
        from submitit.core.utils import JobPaths

        for job in jobs:
            place = JobPaths(self.folder / "submitit", job_id=job.id).submitted_pickle
            if not place.exists():
                copy = place.with_name(f".{uuid4().hex}")
                shutil.copyfile(self.pickles[0], copy)
                copy.rename(place)
        array = jobs[0].array
        if any(job.held for job in jobs) and ask("scontrol", "release", array) is None:
            return False
        self.write("jobs.json", {"schema": SCHEMA, "job": array, "released": time.time()})
        return True

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Writes one of its files, once and durably; what another controller wrote first stands."""
        try:
            create(self.folder / name, json.dumps(value, indent=1).encode(), owner=name, alike=True)
        except FileNotFoundError:  # the draft was swept away since the file was there
            if not (self.folder / name).exists():
                raise


@cache
def _shards(folder: Path) -> list[list[str]]:
    """Kept, since an intent never changes and every look at the queue asks for it."""
    return json.loads(read(folder / "intent.json"))["shards"]


def submissions(root: Path) -> dict[str, Submission]:
    """Every submission of a store whose intent was written, by nonce."""
    return {file.parent.name: Submission(file.parent) for file in sorted(root.glob("submissions/*/intent.json"))}


def snapshot(root: Path, *, timeout_s: float = 6) -> QueueSnapshot | None:
    """Every job of this store that SLURM knows; None when the scheduler does not answer in time, or is not there."""
    known = submissions(root)
    jobs = look(list(known), timeout_s=timeout_s) if known else ()
    if jobs is None:
        return None
    return QueueSnapshot(jobs, {job.id: known[job.nonce].cells(job) for job in jobs})


def prepare(root: Path, shards: Sequence[Sequence[str]], request: Request) -> Submission:
    """Writes down what is going to be submitted, and freezes the code; nothing reaches the scheduler yet."""
    folder = root.resolve() / "submissions" / uuid4().hex[:12]
    for sign, told in (("%", "SLURM reads '%' in a path as a pattern"), (":", "Python reads ':' as the end of a path")):
        if sign in str(folder):
            raise ValueError(f"{told}; choose a results folder without it, not {root}.")
    make_folder(folder / "submitit")
    submission = Submission(folder)
    try:
        (folder / MAKER).write_text(json.dumps({"machine": machine(), "pid": os.getpid(), "born": born(os.getpid())}))
        freeze(folder / "code")
        submission.write("intent.json", intent(submission, root, shards, request))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # a full disk is not to be filled by attempts at it
        raise
    return submission


def intent(submission: Submission, root: Path, shards: Sequence[Sequence[str]], request: Request) -> dict[str, Any]:
    """What is durable before anything is submitted: the cells of each job, and all that a job needs to know."""
    resources, limits = request.resources, request.limits
    return {
        "schema": SCHEMA,
        "nonce": submission.nonce,
        "host": socket.gethostname(),
        "written": time.time(),
        "store": str(root.resolve()),
        "data": str(request.data.resolve()) if request.data else None,
        "shards": [list(shard) for shard in shards],
        "cell_s": min(limits.cell_s or math.inf, resources.longest_s),
        "memory_mib": min(limits.memory_mib or math.inf, 1024 * resources.memory_gib),
        "limit_s": 60 * resources.minutes,
        "notice_s": resources.notice_s,
        "child": list(request.child) if request.child else None,
        "expected": {id: request.expected[id] for shard in shards for id in shard if id in request.expected},
        "resources": asdict(resources),
    }


def submit(submission: Submission, request: Request, *, alone: bool) -> None:
    """Runs sbatch, the jobs held. Raises submitit's error; the jobs may be in the queue all the same."""
    executor = executor_for(submission, request, alone=alone)
    executor.map_array(shard_job.run_shard, [str(submission.folder)] * len(submission.shards))


def executor_for(submission: Submission, request: Request, *, alone: bool) -> "SlurmExecutor":
    """submitit's writer of sbatch texts, set so that the batch shell becomes our supervisor and nobody else is told.

    There is no srun step: USR2 would reach every descendant through one. The shell ignores USR2 and so does what it
    executes, until `shard_job` listens; submitit's own handler goes to a signal that nobody sends.
    """
    from submitit import SlurmExecutor

    resources, site, nonce = request.resources, request.site, submission.nonce
    folder = str(submission.folder / "submitit")
    executor = SlurmExecutor(folder=folder, python=f"exec {site.python or shlex.quote(sys.executable)}")
    asked = {
        "job_name": PREFIX + nonce,
        "comment": nonce,
        "time": resources.minutes,
        "mem": f"{math.ceil(1024 * resources.memory_gib)}MB",
        "cpus_per_task": resources.cpus,
        "gpus_per_node": resources.gpus or None,
        **({"nodes": resources.nodes, "ntasks_per_node": 1} if resources.nodes > 1 else {}),
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "exclusive": True if alone else None,
    }
    told = {"signal": f"B:USR2@{resources.notice_s}", "hold": True}
    executor.update_parameters(
        **{name: value for name, value in asked.items() if value is not None},
        use_srun=False,
        array_parallelism=resources.parallel,
        setup=setup_lines(submission, site),
        additional_parameters=told | ({} if "no-requeue" in site.options else {"requeue": True}) | site.options,
    )
    return executor


def setup_lines(submission: Submission, site: SiteSettings) -> list[str]:
    """Shell lines between the sbatch options and the job's Python."""
    code = shlex.quote(str(submission.folder / "code"))
    # On the other nodes of a job, Python is started as on its first.
    python = [f"export ATTNBENCH_PYTHON={shlex.quote(site.python)}"] if site.python else []
    return [
        "trap '' USR2",
        *site.setup,
        f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
        "export SUBMITIT_PREEMPT_SIGNAL=URG",
        *python,
        *(["export ATTNBENCH_SHARED=1"] if site.shared_timing else []),
    ]
