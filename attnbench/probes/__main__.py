"""The child process of a probe's cell: carries out one spec and writes its outcome as a file, as attnbench.run does.

    python -m attnbench.probes SPEC.json OUTCOME.json [--data DIR] [--cell DIR]

It stands beside attnbench.run, and not in it, so that what is said here of bare mechanisms changes no code by which
trainings were made.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import mechanisms
from attnbench import host, plugins, probes
from attnbench.cell import Spec
from attnbench.models import counted
from attnbench.run import EARLY, out_of_memory, set_up, told, write

BLOCKS = ("result", "cost", "host", "data", "code", "raw")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attnbench.probes")
    parser.add_argument("spec", type=Path)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("--data", type=Path, help="folder of data, of those that need some")
    parser.add_argument("--cell", type=Path, help="is not needed")
    given = parser.parse_args()
    if given.data:
        os.environ["ATTNBENCH_DATA"] = str(given.data.absolute())
    write(given.outcome, execute(json.loads(given.spec.read_text()), given.outcome.with_name(EARLY)))


def execute(spec: Spec, early: Path) -> dict[str, Any]:
    """The outcome of a spec, also when it fails; running out of memory is a result, an error is told.

    early: a file for what is known before the work ends, for rows of cells that have to be killed.
    """
    outcome: dict[str, Any] = {block: {} for block in BLOCKS} | {"status": "ok", "error": None}
    start = perf_counter()

    def tell(blocks: Mapping[str, Any]) -> None:
        outcome.update({name: {**outcome[name], **block} for name, block in blocks.items()})
        write(early, {name: outcome[name] for name in ("cost", "host", "code")})

    try:
        prepare(spec)
        name = spec["mechanism"]["name"]
        probe = probes.find(spec["kind"])
        tell({"code": host.code(), "host": host.host(spec["device"]) | host.unproven(name)})
        found = probe.work(spec, tell)
        outcome |= {name: {**outcome[name], **block} for name, block in found.items()}
    except Exception as error:  # whatever it is, the supervisor records it and the other cells go on
        full = isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)
        outcome |= {"status": "oom" if full else "error", "error": told(error)}
    outcome["cost"] = outcome["cost"] | {"run_wall_s": perf_counter() - start}
    return outcome


def prepare(spec: Spec) -> None:
    """Threads and the device as the spec says, and the files of its mechanism, whose contents enter `code.entries`."""
    set_up(spec)
    deterministic: Any = torch.utils.deterministic  # whose attributes type checkers do not see
    deterministic.fill_uninitialized_memory = False  # it takes up to 5 % of a step, which is measured
    plugins.join()
    name = spec["mechanism"]["name"]
    mechanisms.find(name)
    counted((name, spec["mechanism"]["knobs"]))


if __name__ == "__main__":
    sys.exit(main())
