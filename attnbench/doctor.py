"""What this machine can run, and what in the store is hurt: devices, kernels, SLURM, packages, data, rows."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from attnbench import plugins
from attnbench.engine import settings, slurm
from attnbench.engine.store import Store

PACKAGES = ("torch", "timm", "neuraloperator", "pandas", "seaborn", "submitit", "xformers")
Finding = tuple[str, str, str]  # subject, word (ok, absent, hurt), sentence


def findings(store: Store, data: Path) -> list[Finding]:
    """One line for each thing looked at; `hurt` is what needs a person."""
    return [*machine(), *packages(), *kernels(), *guests(), cluster(), *folders(store, data), *rows(store)]


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
            extra = f"; pip install attnbench[{name}] brings it" if name == "xformers" else ""
            yield name, "absent", f"not installed{extra}"


def kernels() -> Iterator[Finding]:
    """Which fused attention kernels torch and xformers offer here."""
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
    if importlib.util.find_spec("xformers") and not torch.cuda.is_available():
        yield "xformers kernels", "absent", "xformers is installed, but its kernels run on CUDA tensors only"


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


def cluster() -> Finding:
    try:
        site = settings.read()
    except ValueError as error:
        return "slurm", "hurt", str(error)
    there, why = slurm.available()
    if not there:
        return "slurm", "absent", why
    return "slurm", "ok", f"{why} Partition {site.partition or 'the default'}, account {site.account or 'the default'}."


def folders(store: Store, data: Path) -> Iterator[Finding]:
    for name, folder in (("results", store.root), ("data", data)):
        parent = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(parent).free / 2**30
        writable = os.access(parent, os.W_OK)
        yield name, "ok" if writable else "hurt", f"{folder}, {free:.0f} GiB free{'' if writable else ', not writable'}"


def rows(store: Store) -> Iterator[Finding]:
    """Reads every row of the store; a damaged one is moved aside and its cell runs again with the next sweep."""
    ids = sorted(path.name for path in (store.root / "cells").glob("??/*") if path.is_dir())
    whole = sum(store.result(id) is not None for id in ids)
    yield "rows", "ok", f"{whole} whole rows among {len(ids)} cells"
    damaged = sorted((store.root / "quarantine").glob("*.json"))
    if damaged:
        yield "quarantine", "hurt", f"{len(damaged)} damaged rows were moved to {store.root / 'quarantine'}"
