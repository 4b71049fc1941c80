"""Where and with what code a benchmark ran."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attnbench.host import host

KEPT = ("device", "cores", "python", "torch", "timm", "cuda", "cudnn", "capability")


def here(device: str) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {key: value for key, value in host(device).items() if key in KEPT}
    return found | {"commit": commit.stdout.strip() or "unknown", "when": datetime.now(UTC).strftime("%Y-%m-%d")}
