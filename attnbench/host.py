"""Where a run ran and with what code: machine, libraries, commit, and a fingerprint of what decides numbers."""

import hashlib
import importlib.util
import os
import platform
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from attnbench.engine import _freeze

LIBRARIES = ("torch", "numpy", "scipy", "neuraloperator", "timm")
CATALOGUES = ("mechanisms", "tasks", "attnbench/models")  # their plumbing can change every number, an entry its own
UNPROVEN = "ATTNBENCH_UNPROVEN"  # variable with the names of mechanisms that run without proof
PROBES = "attnbench.probes.", "attnbench.atlas."  # of their cells all that is imported of it counts as their own
DECIDING = ("attnbench/run.py", "attnbench/measure.py", "attnbench/memory.py", "attnbench/flops.py")


def host(device: str) -> dict[str, Any]:
    """Columns that say where a run ran."""
    import torch  # here, for the rest of this file answers without it

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


def unproven(mechanism: str | None) -> dict[str, bool]:
    """The mark of a row whose mechanism ran although its proof had failed, or had not been made; else nothing."""
    return {"unproven": True} if mechanism in os.environ.get(UNPROVEN, "").split(",") and mechanism else {}


def processor() -> str:
    """The CPU's model, as the kernel or Python names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def code() -> dict[str, Any]:
    """Two fingerprints, the commit of the checkout, and whether that has changes.

    fingerprint: of the files that can change every cell's numbers. entries: of the task, model and mechanism that this
    process has imported, so that a file added beside them changes nothing.
    """
    return {
        "fingerprint": shared(),
        "entries": fingerprint(imported_entries()),
        **_freeze.commit(package_root()),
    }


def shared() -> str:
    """Today's fingerprint of the files that can change every cell's numbers."""
    root = package_root()
    plumbing = [file for folder in CATALOGUES for file in (root / folder).glob("_*.py")]
    return fingerprint([*plumbing, *(root / name for name in DECIDING)])


def imported_entries() -> list[Path]:
    """Files of the catalogues' entries that are imported, and of probes."""
    packages = tuple(f"{folder.replace('/', '.')}." for folder in CATALOGUES)
    files = [sys.modules[name].__file__ for name in sys.modules if name.startswith(packages)]
    own = [sys.modules[name].__file__ for name in sys.modules if name.startswith(PROBES)]
    entries = [path for path in map(Path, filter(None, files)) if not path.name.startswith("_")]
    return [*entries, *map(Path, filter(None, own))]


def fingerprint(files: Iterable[Path]) -> str:
    """12 hex digits over the names and contents of files."""
    root, digest = package_root(), hashlib.sha256()
    for name, file in sorted((Path(named(file, root)), file) for file in set(files)):
        digest.update(str(name).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def named(file: Path, root: Path) -> str:
    """A file's path from the root; a plugin's as if it lay among the mechanisms, where a frozen copy has it."""
    inside = file.relative_to(root).as_posix() if file.is_relative_to(root) else ""
    return inside if inside.startswith(("attnbench/", "mechanisms/", "tasks/")) else f"mechanisms/{file.name}"


def package_root() -> Path:
    """The folder in which the packages attnbench, mechanisms and tasks lie."""
    spec = importlib.util.find_spec("attnbench")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


@dataclass(frozen=True)
class Usage:
    """Seconds that passed, that all cores were busy, and that this process was; busy_s is None where nobody tells."""

    wall_s: float
    busy_s: float | None
    own_s: float

    @classmethod
    def now(cls) -> "Usage":
        stat = Path("/proc/stat")
        if not stat.is_file():
            return cls(time.perf_counter(), None, time.process_time())
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
        ticks = user + nice + system + irq + softirq + steal
        return cls(time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())

    def foreign_until(self, later: "Usage") -> float | None:
        """Share of the machine's cores, 0 to 1, that others used in between: a steady neighbour shows no spread."""
        if self.busy_s is None or later.busy_s is None:
            return None
        foreign_s = (later.busy_s - self.busy_s) - (later.own_s - self.own_s)
        return max(0.0, foreign_s) / ((later.wall_s - self.wall_s) * (os.cpu_count() or 1))
