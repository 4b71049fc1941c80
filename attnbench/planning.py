"""A sweep file, expanded for a device and looked over: what verbs go by before anything of it runs."""

import shlex
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from attnbench import paths, plugins
from attnbench._sections import Slurm
from attnbench._starts import refuse_starts
from attnbench._widths import Widths
from attnbench._yaml import SweepError, line, load
from attnbench.check import ENDED, Checked, check
from attnbench.engine import settings
from attnbench.engine.store import Store
from attnbench.sweep import Plan, expand, frame_of


def device_class(device: str, launcher: str, gpus: int) -> str:
    """cpu or cuda: as asked; on SLURM what the file's resources say; here what torch finds."""
    if device != "auto":
        return device
    if launcher == "slurm":
        return "cuda" if gpus else "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def planned(
    word: str, device: str, given: Sequence[str], only: Sequence[str], *, launcher: str, results: Path | None
) -> Plan:
    """A sweep file, expanded by what is known under a root of results. Raises ValueError for what is wrong with it."""
    plugins.join()
    file = paths.sweep_file(word)
    frame = frame_of(file, given)
    wanted = device if device != "auto" else frame.device
    wanted = device_class(wanted, launcher, frame.slurm.gpus if frame.slurm else 0)
    against = [f"device={wanted}"] if frame.device not in ("auto", wanted) else []  # --device says otherwise
    return expand(file, device=wanted, settings=[*given, *against], only=only, widths=widths(file, results))


def widths(file: Path, results: Path | None) -> Widths:
    """The records of a sweep file's widths: those of the whole file, whatever part of it is asked for."""
    return Widths(paths.results(results) / file.stem / "widths")


def checked(
    plan: Plan, word: str, given: Mapping[str, Any], *, launcher: str, ended: Mapping[str, float] = ENDED
) -> Checked:
    """The plan with every cell built on the meta device. Raises ValueError for whatever is wrong with it.

    ended: as in `check`.
    word, given: what was typed, for results in which weights are looked for, and for commands that are told.
    """
    if count := len(plan.unmeasured):
        told = f"{count} widths of equal latency are" if count > 1 else "a width of equal latency is"
        sentence = f"equal: {told} not measured yet; {measuring(plan, word, given, launcher)}."
        raise SweepError(plan.file, line(load(plan.file), "equal"), sentence)
    refuse_starts(plan, Store(paths.results(given["results"])))
    return check(plan, ended=ended)


def measuring(plan: Plan, word: str, given: Mapping[str, Any], launcher: str) -> str:
    """What to type for widths of equal latency; on SLURM with the resources of a job, since they are to be the same."""
    command = ["attnbench", "sweep", *typed(word, given), "--device", plan.device, "--widths"]
    if launcher != "slurm":
        return f"`{shlex.join(command)}` does that and starts nothing else"
    asked, site = plan.frame.slurm or Slurm(), settings.read(words=given["site"])
    amounts = {
        "ntasks": 1,
        "cpus-per-task": asked.cpus,
        "mem": f"{ceil(1024 * asked.memory_gib)}M",
        "time": ceil(60 * asked.hours),
        "gpus": asked.gpus,
        **{name: getattr(site, name) for name in ("partition", "account", "qos", "constraint")},
    }
    options = [f"--{name}={amount}" for name, amount in amounts.items() if amount]
    command = shlex.join(["srun", "--exclusive", *options, *command])
    return f"`{command}` does that on a node of the cluster, where its cells run"


def typed(word: str, given: Mapping[str, Any]) -> list[str]:
    """The words of a command that say which sweep it is, and where its results lie."""
    words = [word, *(part for setting in given["settings"] for part in ("--set", setting))]
    words += [part for name in given["only"] for part in ("--only", name)]
    words += [part for file in plugins.named() for part in ("--plugin", str(file))]
    return [*words, *(["--results", str(given["results"])] if given["results"] else [])]
