"""A sweep file, expanded for a device and looked over: what verbs go by before anything of it runs."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from attnbench import paths, plugins
from attnbench._starts import refuse_starts
from attnbench._widths import Widths
from attnbench._yaml import SweepError, line, load
from attnbench.check import Checked, check
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


def checked(plan: Plan, root: Path, *, launcher: str, typed: Sequence[str] = ()) -> Checked:
    """The plan with every cell built on the meta device. Raises ValueError for whatever is wrong with it.

    root: of the results in which weights to start from are looked for.
    """
    refuse_unmeasured(plan, launcher=launcher, typed=typed)
    refuse_starts(plan, Store(root))
    return check(plan)


def refuse_unmeasured(plan: Plan, *, launcher: str, typed: Sequence[str]) -> None:
    """Raises SweepError, naming the command that measures them, where widths of equal latency are not known yet."""
    if not (count := len(plan.unmeasured)):
        return
    command = ["attnbench", "sweep", *typed, "--device", plan.device, "--widths"]
    if launcher == "slurm":
        slurm = plan.frame.slurm
        gpus = [f"--gpus={slurm.gpus}"] if slurm and slurm.gpus else []
        command = ["srun", "--exclusive", *([f"--cpus-per-task={slurm.cpus}"] if slurm else []), *gpus, *command]
    where = "on a node of the cluster, where its cells run" if launcher == "slurm" else "and starts nothing else"
    told = f"{count} widths of equal latency are" if count > 1 else "a width of equal latency is"
    sentence = f"equal: {told} not measured yet; `{shlex.join(command)}` does that {where}."
    raise SweepError(plan.file, line(load(plan.file), "equal"), sentence)
