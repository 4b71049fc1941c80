"""Starts a sweep: checks it, writes down what is asked, makes the data, and hands the missing cells to a launcher."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from attnbench._starts import held_back
from attnbench._widths import Ask, Widths, missed
from attnbench.cell import Spec, canonical
from attnbench.check import Checked, check
from attnbench.engine import codes, local, slurm
from attnbench.engine._child import beside
from attnbench.engine._child import environment as child_environment
from attnbench.engine._places import Workers
from attnbench.engine._upkeep import tidy_up
from attnbench.engine.settings import SiteSettings
from attnbench.engine.shard import Limits
from attnbench.engine.store import Evidence, Store
from attnbench.host import shared
from attnbench.manifest import Cell, estimates
from attnbench.proofs import refuse_unproven
from attnbench.sweep import Plan, Planned

ASK_GPU_HOURS = 10.0  # above it a terminal is asked before anything is submitted
STALE = "stale"  # a word of `retry` that is no outcome
PREPARING = "preparing"  # opens a line of progress that a preparing child prints
Seen = Mapping[str, Evidence]  # by the id of a cell


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to launch.

    launcher: local or slurm. workers: training cells at once, locally, or `auto`. cell_s: seconds that a cell may take.
    retry: words of outcomes whose cells are opened again, such as failed or oom. wait: stay until jobs have ended.
    unproven: run mechanisms that break their contract too, and mark their rows.
    """

    launcher: str
    workers: Workers
    cell_s: float | None
    retry: Sequence[str]
    wait: bool
    quiet: bool
    max_gpu_hours: float | None
    site: SiteSettings
    unproven: bool = False


def look(store: Store, plan: Plan) -> dict[str, Evidence]:
    """What the store knows about every cell of a plan; a damaged row is moved away by whoever starts its cell."""
    return store.scan((cell.id for cell in plan.cells), cache=plan.name)


def expected(store: Store, plan: Plan, seen: Seen) -> dict[str, float]:
    """Seconds of the cells that have their row: as was expected when they were started, else as they took."""
    ended = {id: known.wall_s for id, known in seen.items() if known.wall_s is not None}
    listed = estimates(store.root / plan.name / "cells.json") if ended else {}
    return {id: listed.get(id, wall_s) for id, wall_s in ended.items()}


def launch(
    checked: Checked, store: Store, data: Path, options: Options, say: Callable[[str], None], seen: Seen | None = None
) -> int:
    """Runs what is missing and returns the exit code; a second call starts nothing. Raises ValueError for a refusal.

    seen: what is known about the cells, if somebody has just looked.
    Trainings that wait for trials start once those have ended; where the trials run on without this process, when the
    sweep is started again.
    """
    refuse_expensive(checked, options)
    if options.launcher == "local":
        refuse_absent(checked.plan.device)
    if (frame := checked.plan.frame).nodes > 1:
        refuse_one_machine(frame.nodes, options)
    if frame.gpus > 1:
        refuse_too_few(frame.gpus // frame.nodes, checked, options)
    checked = settled(checked, store)
    code = started(checked, store, data, options, say, seen)
    while (waiting := len(checked.plan.waiting)) and code in (codes.DONE, codes.SET_ASIDE):
        checked = settled(checked, store)
        if len(checked.plan.waiting) == waiting:
            break
        say(f"Trials have ended: {waiting - len(checked.plan.waiting)} trainings go on with what was best in them.")
        code = started(checked, store, data, replace(options, retry=()), say)
    if waiting:
        why = "some of them failed" if code in (codes.DONE, codes.SET_ASIDE) else "they have not ended"
        say(f"{waiting} trainings wait for their trials: {why}; `attnbench sweep` again goes on from there.")
    return code


def settled(checked: Checked, store: Store) -> Checked:
    """The same sweep with every choice that the rows allow by now."""
    if not checked.plan.waiting or checked.plan.again is None:
        return checked
    later = check(checked.plan.again(store.result), checked.works, checked.ended)
    return replace(later, manifest=replace(later.manifest, slurm=checked.manifest.slurm))


def started(
    checked: Checked, store: Store, data: Path, options: Options, say: Callable[[str], None], seen: Seen | None = None
) -> int:
    """Runs the cells that are known and missing; returns the exit code."""
    if seen is None or seen.keys() != {cell.id for cell in checked.plan.cells}:
        seen = look(store, checked.plan)
    to_run = {id for id, known in seen.items() if unfinished(known) or again(known, options.retry)}
    asked = [cell for cell in checked.plan.cells if cell.id in to_run]
    refuse_unproven(asked, say, anyway=options.unproven)
    for cell in asked:
        store.ask(cell.spec)
    checked.manifest.write(store.root / checked.plan.name / "cells.json")
    if options.retry:
        opened = reopen(store, seen, options.retry)
        say(f"{len(opened)} cells that are {' or '.join(options.retry)} are opened again.")
        seen = {**seen, **store.scan(opened)}
    missing = [cell for cell in checked.manifest.cells if unfinished(seen[cell.id])]
    if not missing:
        say(f"All {len(checked.manifest.cells)} cells have ended already; nothing is started.")
        tidy_up(store, seen)
        return codes.SET_ASIDE if any(known.failed for known in seen.values()) else codes.DONE
    ids = {cell.id for cell in missing if cell.kind == "train"}
    prepare(store, [cell for cell in checked.plan.cells if cell.id in ids], data, options.quiet)
    return in_order(checked, store, partial(run, checked, store, data, options), say)


def in_order(checked: Checked, store: Store, run: Callable[[Sequence[Cell]], int], say: Callable[[str], None]) -> int:
    """Runs cells, those that start from others' weights once these have ended; returns the exit code."""
    held = held_back(checked.plan.cells, store)
    code = run([cell for cell in checked.manifest.cells if cell.id not in held])
    while held and code in (codes.DONE, codes.SET_ASIDE):
        before, held = held, held_back(checked.plan.cells, store)
        if len(held) == len(before):
            break
        say(f"{len(before) - len(held)} trainings go on from the weights that were kept for them.")
        code = run([cell for cell in checked.manifest.cells if cell.id not in held])
    if held:
        cells = ", ".join(sorted(set(held.values())))
        say(f"{len(held)} trainings wait for weights of {cells}; `attnbench sweep` again goes on from there.")
    return codes.INCOMPLETE if held and code == codes.DONE else code


def run(checked: Checked, store: Store, data: Path, options: Options, cells: Sequence[Cell]) -> int:
    """Hands cells to the launcher; returns the exit code."""
    if options.launcher == "local":
        limits = Limits(cell_s=options.cell_s)
        return local.run_local(store, cells, workers=options.workers, data=data, limits=limits, quiet=options.quiet)
    request = slurm.Request(
        resources=slurm.Resources(**(checked.manifest.slurm or {}), nodes=checked.plan.frame.nodes),
        site=options.site,
        data=data,
        limits=Limits(cell_s=options.cell_s),
        expected={cell.id: cell.estimate_s for cell in cells},
    )
    return slurm.run_slurm(store, cells, request=request, wait=options.wait, quiet=options.quiet)


def refuse_expensive(checked: Checked, options: Options) -> None:
    """Raises ValueError above --max-gpu-hours, and when a terminal answers no above ten GPU-hours."""
    if checked.plan.device != "cuda":
        return
    limit, hours = options.max_gpu_hours, checked.hours * checked.plan.frame.gpus
    if limit is not None and hours > limit:
        raise ValueError(f"{checked.plan.name} is estimated at {hours:.1f} GPU-hours, above --max-gpu-hours {limit:g}.")
    asked = options.launcher == "slurm" and limit is None and hours > ASK_GPU_HOURS and sys.stdin.isatty()
    if asked and input(f"About {hours:.0f} GPU-hours. Submit? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ValueError("nothing was submitted.")


def refuse_absent(device: str) -> None:
    """Raises ValueError when cells are to run here on a GPU that is not here."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "torch finds no CUDA device here; --device cpu does without one, --launcher slurm goes to one."
        )


def refuse_one_machine(nodes: int, options: Options) -> None:
    """Raises ValueError when cells over several nodes are to run on one."""
    if options.launcher != "slurm":
        raise ValueError(f"nodes is {nodes}, and this is one machine; --launcher slurm goes to a cluster.")


def refuse_too_few(gpus: int, checked: Checked, options: Options) -> None:
    """Raises ValueError when cells of so many GPUs a node are to run on fewer."""
    import torch

    if options.launcher == "slurm":
        given = (checked.manifest.slurm or {}).get("gpus", 0)
        if given < gpus:
            frame = checked.plan.frame
            asked = f"gpus is {frame.gpus}" + (f" on {frame.nodes} nodes" if frame.nodes > 1 else "")
            raise ValueError(f"{asked}, and a job has {given}; give the file a section slurm with {gpus} gpus.")
    elif (found := torch.cuda.device_count()) < gpus:
        raise ValueError(f"gpus is {gpus}, and torch finds {found} here; --launcher slurm goes to more of them.")


def unfinished(known: Evidence) -> bool:
    return known.status is None and known.failed is None


def reopen(store: Store, seen: Seen, words: Sequence[str]) -> list[str]:
    """Opens the next generation of cells that ended with one of the words; returns their ids."""
    opened = [id for id, known in seen.items() if again(known, words)]
    for id in opened:
        store.retry(id, after=seen[id].generation)  # somebody may have opened it since then
    return opened


def again(known: Evidence, words: Sequence[str]) -> bool:
    """Whether a cell has ended with one of the words; `stale` are those whose row other code made than today's."""
    stale = STALE in words and known.code is not None and known.code != shared()
    return stale or (known.status or ("failed" if known.failed else "none")) in words


def prepare(store: Store, cells: Sequence[Planned], data: Path, quiet: bool) -> None:
    """Makes the data of every task once, before any cell starts. Raises ValueError with the child's words."""
    for cell in {canonical(cell.spec["task"]): cell for cell in cells}.values():
        prepare_one(store.spec(cell.id), data, quiet)


def prepare_one(spec: Spec, data: Path, quiet: bool) -> str:
    """The content hash of one task's data, made in a child process if they are not there yet."""
    name = spec["task"]["name"]
    asked = {**spec, "device": "cpu"}  # a login node makes them, and it may have no GPU
    environment = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = ["--data", str(data), "--prepare"]
    told = outcome("attnbench.run", asked, words, environment=environment, title=f"data of {name}", quiet=quiet)
    if told["error"]:
        raise ValueError(f"the data of {name} could not be made: {told['error']['message']}")
    return told["data"]["hash"]


def measure_widths(asks: Sequence[Ask], widths: Widths, data: Path, quiet: bool, say: Callable[[str], None]) -> None:
    """Measures widths of equal latency here, each in a child process, and writes them down.

    Raises ValueError for one that cannot be measured or misses the tolerance; what was measured before is kept.
    """
    for number, ask in enumerate(asks, 1):
        target = ask.target["mechanism"]["name"]
        say(f"[{number}/{len(asks)}] Measuring at which {ask.knob} {ask.label} takes as long as {target} ...")
        words = ["--data", str(data)]
        environment = child_environment(0)
        told = outcome("attnbench._latency", asdict(ask), words, environment=environment, title="widths", quiet=quiet)
        if told["error"]:
            raise ValueError(f"no {ask.knob} of equal latency for {ask.label}: {told['error']['message'].rstrip('.')}.")
        if why := missed(ask, told["found"]):
            raise ValueError(f"{why}.")
        found, at = told["found"], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        widths.keep(ask, {**found, "measured": at, "host": told["host"], "code": told["code"]})
        both = f"{found['variant']['step_ms']:.2f} ms a step against {found['target']['step_ms']:.2f} ms"
        noisy = ", noisy" if found["noisy"] else ""
        say(f"{ask.label}: {ask.knob} {found['width']}, {both} ({found['ratio']:.3f}{noisy}).")


def outcome(
    module: str, asked: Any, words: Sequence[str], *, environment: Mapping[str, str], title: str, quiet: bool
) -> dict[str, Any]:
    """What a child process writes that is asked for something; an error where it writes nothing."""
    with tempfile.TemporaryDirectory(prefix="attnbench-") as folder:
        question, answer = Path(folder, "spec.json"), Path(folder, "outcome.json")
        question.write_text(canonical(asked))
        command = [sys.executable, "-m", module, str(question), str(answer), *words]
        follow(command, dict(environment), title, quiet)
        return json.loads(answer.read_text()) if answer.is_file() else {"error": {"message": "the child died"}}


def follow(command: Sequence[str], environment: dict[str, str], title: str, quiet: bool) -> None:
    """Runs a preparing child and shows the progress that it prints; its other output goes to standard error."""
    from rich import console, progress

    with (
        beside(command, environment) as child,
        progress.Progress(console=console.Console(stderr=True), disable=quiet, transient=True) as bar,
    ):
        line = bar.add_task(title, total=None, start=False)
        for text in child:
            words = text.split()
            if len(words) == 3 and words[0] == PREPARING:
                bar.start_task(line)
                bar.update(line, completed=int(words[1]), total=int(words[2]))
            elif not quiet:
                print(text, end="", file=sys.stderr)
