"""What this machine can run, and what in the store is hurt: devices, kernels, SLURM, packages, data, rows."""

import getpass
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from attnbench import plugins
from attnbench.engine import settings, slurm
from attnbench.engine._queue import FIELDS, QueueSnapshot, ask, largest_array, parse
from attnbench.engine._records import left_scratch, memory
from attnbench.engine._submission import submissions
from attnbench.engine._upkeep import half_written, unneeded
from attnbench.engine.store import Store

PACKAGES = ("torch", "timm", "neuraloperator", "pandas", "seaborn", "submitit")
Finding = tuple[str, str, str]  # subject, word (ok, absent, left, hurt), sentence


def findings(store: Store, data: Path) -> list[Finding]:
    """One line for each thing looked at; `left` goes with the next sweep, `hurt` is what needs a person."""
    return [
        *machine(),
        *packages(),
        *kernels(),
        *missing(),
        *guests(),
        *cluster(),
        *folders(store, data),
        *rows(store),
        *leftovers(store),
    ]


def machine() -> Iterator[Finding]:
    import torch

    yield "python", "ok", f"{platform.python_version()} on {platform.platform()}"
    yield "cpu", "ok", f"{len(os.sched_getaffinity(0))} cores, torch uses {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(number).total_memory / 2**30
            yield f"cuda {number}", "ok", f"{torch.cuda.get_device_name(number)}, {memory:.0f} GiB"
    else:
        yield "cuda", "absent", "torch finds no CUDA device; cells run on the CPU"


def packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield name, "ok", metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "absent", "not installed"


def kernels() -> Iterator[Finding]:
    """Which fused attention kernels torch offers here."""
    import torch

    on = [
        name
        for name, enabled in (
            ("flash", torch.backends.cuda.flash_sdp_enabled()),
            ("memory-efficient", torch.backends.cuda.mem_efficient_sdp_enabled()),
            ("cuDNN", torch.backends.cuda.cudnn_sdp_enabled()),
        )
        if enabled and torch.cuda.is_available()
    ]
    yield "fused attention", "ok", f"on CUDA: {', '.join(on)}" if on else "torch's own kernel for the CPU"


def missing() -> Iterator[Finding]:
    """Mechanisms that cannot run here, and which package, kernel or device they lack."""
    import torch

    import mechanisms

    for name in mechanisms.names():
        try:
            entry = mechanisms.find(name)
        except ValueError as error:
            yield name, "absent", str(error)
            continue
        if entry.needs and importlib.util.find_spec(entry.needs) is None:
            yield name, "absent", f"needs the package {entry.needs}; pip install attnbench[{entry.needs}] brings it"
        elif "cpu" not in entry.devices and not torch.cuda.is_available():
            yield name, "absent", f"runs on {', '.join(entry.devices)} only"


def guests() -> Iterator[Finding]:
    """Mechanisms from elsewhere, and whether their files can be used."""
    import mechanisms

    broken = {file: why for file, why in plugins.announced().values() if why}
    for file in plugins.files():
        try:
            if why := broken.get(file):
                raise ValueError(why)
            mechanisms.find(mechanisms.mechanisms.invite(file))
            yield f"plugin {file.stem}", "ok", str(file)
        except ValueError as error:
            yield f"plugin {file.stem}", "hurt", str(error)


def cluster() -> Iterator[Finding]:
    """Whether jobs can go to SLURM from here, and its limits as far as it tells them."""
    try:
        site = settings.read()
    except ValueError as error:
        yield "slurm", "hurt", str(error)
        return
    there, why = slurm.available()
    if not there:
        yield "slurm", "absent", why
        return
    place = f"Partition {site.partition or 'the default'}, account {site.account or 'the default'}."
    yield "slurm", "ok", f"{why} {place}"
    yield "slurm limits", "ok", "; ".join(limits(site.partition))


def limits(partition: str | None) -> Iterator[str]:
    """Of arrays, of a job's time, and of how many jobs one may have; each says so where SLURM does not tell."""
    size = largest_array()
    yield f"arrays of at most {size} jobs" if size else "the size of arrays is not told"
    named = ["-p", partition] if partition else []
    times = (ask("sinfo", "-h", "-o", "%P %l", *named) or "").split("\n")
    wanted = [line.split() for line in times if line.split() and (partition or line.split()[0].endswith("*"))]
    yield f"jobs of at most {wanted[0][1]}" if wanted else "no default partition, so that a job needs one"
    user = getpass.getuser()
    said = ask("sacctmgr", "-n", "-P", "show", "assoc", f"user={user}", "format=MaxSubmitJobs", timeout_s=6)
    most = [int(word) for word in (said or "").split() if word.isdigit()]
    yield f"at most {min(most)} jobs of {user} at once" if most else "no limit of jobs is told (no accounting)"


def leftovers(store: Store) -> Iterator[Finding]:
    """What killed processes left: drafts, folders, attempts without a process, and jobs that nobody needs."""
    drafts = [path for path in store.root.glob("cells/??/*/*.tmp") if not _in_work(store, path)]
    found = {"drafts": drafts, "scratch folders": left_scratch(), "submissions": half_written(store.root)}
    for subject, paths in found.items():
        if paths:
            yield subject, "left", f"{len(paths)} of processes that were killed, as {paths[0]}"
    known, now = store.scan(ids(store)), time.time()
    silent = [info for one in known.values() for info in one.attempts if info.end is None and not info.alive(now)]
    if silent:
        last = max(silent, key=lambda info: info.heartbeat)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.heartbeat))
        yield "attempts", "left", f"{len(silent)} vanished, the last on {last.host} at {when}{memory(last)}"
    yield from orphans(store)


def orphans(store: Store) -> Iterator[Finding]:
    """Jobs in the queue that carry a name of ours and have nothing to do, or are of no submission of this store."""
    if not (said := ask("squeue", "-h", "-r", "--me", "-o", FIELDS, timeout_s=6)):
        return
    mine, jobs = submissions(store.root), [job for job in parse(said) if job.live]
    if strange := [job.id for job in jobs if job.nonce not in mine]:
        yield "jobs", "left", f"{len(strange)} belong to no submission under {store.root}, as {strange[0]}"
    shards = {job.id: mine[job.nonce].shards[job.shard] for job in jobs if job.nonce in mine}
    queue = QueueSnapshot(tuple(job for job in jobs if job.id in shards), shards)
    if idle := [job.id for job in unneeded(store, queue)]:
        yield "jobs", "hurt", f"the cells of {len(idle)} have all ended: scancel {' '.join(idle[:5])}"


def ids(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "cells").glob("??/*") if path.is_dir())


def _in_work(store: Store, draft: Path) -> bool:
    owner, now = draft.name.partition(".")[0], time.time()
    return any(info.uuid == owner and info.alive(now) for info in store.attempts(draft.parent.name))


def folders(store: Store, data: Path) -> Iterator[Finding]:
    for name, folder in (("results", store.root), ("data", data)):
        parent = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(parent).free / 2**30
        writable = os.access(parent, os.W_OK)
        yield name, "ok" if writable else "hurt", f"{folder}, {free:.0f} GiB free{'' if writable else ', not writable'}"


def rows(store: Store) -> Iterator[Finding]:
    """Reads every row of the store; a damaged one is moved aside and its cell runs again with the next sweep."""
    asked = ids(store)
    whole = sum(store.result(id) is not None for id in asked)
    yield "rows", "ok", f"{whole} whole rows among {len(asked)} cells"
    damaged = sorted((store.root / "quarantine").glob("*.json"))
    if damaged:
        yield "quarantine", "hurt", f"{len(damaged)} damaged rows were moved to {store.root / 'quarantine'}"
