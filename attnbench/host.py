"""Where a run ran and with what code: machine, libraries, commit, and a fingerprint of what decides numbers."""

import hashlib
import importlib.util
import os
import platform
import socket
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from attnbench import _freeze

LIBRARIES = ("torch", "numpy", "scipy", "neuraloperator", "timm")
DECIDING = ("mechanisms", "tasks", "attnbench/models")  # folders whose files can change a number; and these files:
DECIDING_FILES = ("attnbench/run.py", "attnbench/measure.py", "attnbench/memory.py", "attnbench/flops.py")


def host(device: str) -> dict[str, Any]:
    """Columns that say where a run ran."""
    found = {
        "name": socket.gethostname(),
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
    }
    found |= {library: version(library) for library in LIBRARIES}
    if device == "cuda":
        found |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "capability": ".".join(map(str, torch.cuda.get_device_capability())),
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        }
    return found


def version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"


def processor() -> str:
    """The CPU's model, as the kernel or Python names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def code() -> dict[str, Any]:
    """Fingerprint of the deciding files, commit of the checkout they lie in, and whether that has changes."""
    return {"fingerprint": fingerprint(), **_freeze.commit(package_root())}


@cache
def fingerprint() -> str:
    """12 hex digits over names and contents of every file that can change a number."""
    root, digest = package_root(), hashlib.sha256()
    files = [file for folder in DECIDING for file in (root / folder).rglob("*.py")]
    for file in sorted([*files, *(root / name for name in DECIDING_FILES)]):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def package_root() -> Path:
    """The folder in which the packages attnbench, mechanisms and tasks lie."""
    spec = importlib.util.find_spec("attnbench")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent
