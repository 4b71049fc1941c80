"""Verbs that plan and start: check, sweep, run and data. They need the catalogue, and so torch."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

import mechanisms
import tasks
from attnbench import boards, launch, models, paths, planning, plugins
from attnbench._starts import refuse_starts
from attnbench._tables import refresh
from attnbench._yaml import plain, value
from attnbench.cell import PROTOCOL, SCHEMA
from attnbench.check import Checked, check, table
from attnbench.engine import codes, settings, slurm
from attnbench.engine.progress import span
from attnbench.engine.shard import Limits, Supervisor
from attnbench.engine.store import Store
from attnbench.proofs import refuse_unproven
from attnbench.sweep import Plan, expand_text
from mechanisms import configure, known, nearest, resolved

RETRIABLE = ("failed", "oom", "timeout", "diverged", launch.STALE)


def overview(checked: Checked) -> str:
    """What a sweep is, a line for each variant."""
    plan = checked.plan
    lines = [
        f"{plan.name}: {plan.frame.question}",
        f"{' and '.join(counted_kinds(checked))} on {plan.device}; "
        f"about {span(3600 * checked.hours)} one after the other, a rough guess until cells have been measured.",
    ]
    if plan.waiting and plan.frame.choose:
        trials = sum(cell.trial for cell in plan.trainings)
        chosen = plan.frame.choose.knob
        lines.append(f"{len(plan.waiting)} further trainings wait until {trials} trials have chosen {chosen}.")
    if plan.left_out:
        named = ", ".join(f"{mechanism} on {task}" for mechanism, task in plan.left_out)
        lines.append(f"Left out, for they do not fit: {named}.")
    if plan.folded:
        lines.append(f"{plan.folded} further cells are the same as others, since knobs were idle, and run once.")
    lined = list(table(checked))
    width = max(len("variant"), *(len(line[0]) for line in lined))
    lines.append(f"{'variant':{width}}  {'cells':>7}  {'weights':>9}  {'MFLOP/example':>13}  {'about':>7}")
    for variant, count, params, flops, seconds in lined:
        lines.append(f"{variant:{width}}  {count:>7}  {params:>9,}  {flops / 1e6:>13.2f}  {span(seconds):>7}")
    return "\n".join(lines)


def counted_kinds(checked: Checked) -> list[str]:
    """How many cells of each kind there are, in words."""
    numbers = Counter(cell.kind for cell in checked.manifest.cells)
    named = [f"{numbers.pop('train', 0)} trainings", f"{numbers.pop('cost', 0)} cost measurements"]
    return [
        *(named if checked.plan.trainings else []),
        *(f"{count} cells of {kind}" for kind, count in numbers.items()),
    ]


def each_cell(checked: Checked, store: Store) -> str:
    """A line for each cell: its id, whether it has to run, what it is, and its expected time."""
    seen = store.scan((cell.id for cell in checked.manifest.cells), cache=checked.plan.name)
    states = {id: "to run" if launch.unfinished(known) else "ended" for id, known in seen.items()}
    lines = [f"{cell.id}  {states[cell.id]}  {cell.label}, {span(cell.estimate_s)}" for cell in checked.manifest.cells]
    left_s = sum(cell.estimate_s for cell in checked.manifest.cells if states[cell.id] == "to run")
    return "\n".join([*lines, f"About {span(left_s)} to run."])


def listing(checked: Checked) -> str:
    works = {id: asdict(work) for id, work in checked.works.items()}
    return json.dumps(
        {"sweep": checked.plan.name, "cells": [asdict(c) for c in checked.manifest.cells], "works": works}
    )


def sweep(word: str, **given: Any) -> int:
    """Checks, launches what is missing, reports; returns the exit code."""
    site = settings.read(words=given["site"])
    words = outcomes(given["retry"])
    launcher, why = chosen_launcher(given["launcher"])
    asked = measured(word, given, launcher)
    if given["widths"]:
        return codes.DONE
    root = paths.results(given["results"])
    store = Store(root)
    seen = {} if given["dry_run"] or given["cancel"] else launch.look(store, asked)
    plan = planning.checked(asked, word, given, launcher=launcher, ended=launch.expected(store, asked, seen))
    if launcher == "slurm" and plan.manifest.slurm is None:
        click.echo(f"The file asks for no resources; each job gets {default_resources()}.", err=True)
        plan = replace(plan, manifest=replace(plan.manifest, slurm=default_resources()))
    plan = launch.settled(plan, store)
    if given["dry_run"]:
        click.echo(overview(plan) + "\n\n" + each_cell(plan, store))
        return codes.DONE
    if given["cancel"]:
        return cancel(store, plan)
    if given["launcher"] == "slurm" and why and not any((root / "submissions").glob("*/intent.json")):
        raise ValueError(f"--launcher slurm cannot be used: {why}")
    paths.writable(root)
    say = (lambda _: None) if given["quiet"] else click.echo
    if why and given["launcher"] == "auto":
        say(why)
    options = launch.Options(
        launcher=launcher,
        workers=given["workers"],
        cell_s=3600 * given["cell_hours"] if given["cell_hours"] is not None else None,
        retry=words,
        wait=not given["no_wait"],
        quiet=given["quiet"],
        max_gpu_hours=given["max_gpu_hours"],
        site=site,
        unproven=given["unproven"],
    )
    with boards.watching(root, plan.manifest.sweep, asked=given["tensorboard"]):
        code = launch.launch(plan, store, paths.writable(paths.data(given["data_dir"])), options, say, seen)
    if code in (codes.DONE, codes.SET_ASIDE):
        hide = bool(given.get("anonymous"))
        refresh(store, plan.manifest, say, quiet=given["quiet"], mixed=given["mixed"], anonymous=hide)
    return code


def outcomes(text: str) -> list[str]:
    """The outcomes whose cells are to be opened again. Raises ValueError for one that is none."""
    words = [part.strip() for part in text.split(",") if part.strip()]
    for part in words:
        known("outcome to retry", part, RETRIABLE, of="attnbench sweep")
    return words


def measured(word: str, given: Mapping[str, Any], launcher: str) -> Plan:
    """The sweep's plan, once widths of equal latency are measured: here, where cells are to run, or where asked to."""

    def plan() -> Plan:
        words = (given["device"], given["settings"], given["only"])
        return planning.planned(word, *words, launcher=launcher, results=given["results"])

    found = plan()
    if given["widths"] and not (found.frame.equal and found.frame.equal.what == "latency"):
        raise ValueError(f"{found.file} makes no latencies equal, so that --widths has nothing to measure.")
    only_here = launcher == "local" and not (given["dry_run"] or given["cancel"])
    if not found.unmeasured or not (given["widths"] or only_here):
        return found
    launch.refuse_absent(found.device)
    say = (lambda _: None) if given["quiet"] else click.echo
    paths.writable(paths.results(given["results"]))
    records = planning.widths(found.file, given["results"])
    launch.measure_widths(found.unmeasured, records, paths.data(given["data_dir"]), given["quiet"], say)
    return plan()


def chosen_launcher(word: str) -> tuple[str, str]:
    """local or slurm; for auto the sentence that says why, for slurm what stands against it, if anything does."""
    if word == "local":
        return word, ""
    there, why = slurm.available()
    if word == "auto":
        return ("slurm" if there else "local"), why
    against = "" if there or "already inside" in why else why.removeprefix("Running on this machine").lstrip(",: ")
    return word, against.removeprefix("since ")


def cancel(store: Store, plan: Checked) -> int:
    """Cancels the jobs of a sweep that were submitted from this root of results."""
    jobs = slurm.cancel(store, {cell.id for cell in plan.manifest.cells})
    click.echo(f"Cancelled {len(jobs)} jobs: {', '.join(jobs)}." if jobs else "No job of this sweep is in the queue.")
    return codes.DONE


def default_resources() -> dict[str, Any]:
    from attnbench._sections import Slurm

    return Slurm().model_dump()


def run(task: str, subject: str, words: Sequence[str], **given: Any) -> int:
    """One cell: builds its one-cell sweep, runs it under the same supervisor, prints its numbers."""
    plugins.join()
    text = one_cell(task, subject, given["model"], given["seed"], words)
    plan = expand_text(Path("attnbench run"), text, device=planning.device_class(given["device"], "local", 0))
    check(plan)
    launch.refuse_absent(plan.device)
    cell, root = plan.trainings[0], paths.results(given["results"])
    refuse_starts(plan, Store(root), now=True)
    if Store(root).done(cell.id) is None:
        say = (lambda _: None) if given["quiet"] else partial(click.echo, err=True)
        refuse_unproven([cell], say, anyway=given["unproven"])
    store = Store(paths.writable(root))
    data = paths.writable(paths.data(given["data_dir"]))
    store.ask(cell.spec)
    if store.done(cell.id) is None:
        launch.prepare(store, [cell], data, given["quiet"])
        where = {"launcher": "run"}
        Supervisor(store, data=data, limits=Limits(), watch=lambda _: None, where=where).run([cell.id])
    row = store.result(cell.id)
    if row is None:
        return not_done(store, cell.id)
    told = {"id": cell.id, "status": row["status"], **row["result"], "wall_s": row["wall_s"]}
    lines = "\n".join(
        f"{name:16}{number:.6g}" if isinstance(number, float) else f"{name:16}{number}" for name, number in told.items()
    )
    click.echo(json.dumps(row) if given["as_json"] else lines)
    return codes.DONE if row["status"] == "ok" else codes.SET_ASIDE


def not_done(store: Store, id: str) -> int:
    """Says why a cell has no row, and where its logs lie."""
    logs = store.spec_path(id).parent / "attempts"
    if error := store.failed(id):
        told = f"{error.get('type') or error.get('signature')}: {error.get('message')}".rstrip(".")
        click.echo(f"attnbench: cell {id} failed twice alike and is set aside: {told}. Logs: {logs}", err=True)
        return codes.SET_ASIDE
    click.echo(f"attnbench: cell {id} was stopped before its end; the same command goes on. Logs: {logs}", err=True)
    return codes.REFUSED


def one_cell(task: str, subject: str, model: str | None, seed: int, words: Sequence[str]) -> dict[str, Any]:
    """The text of a sweep with one training cell; knobs go to their one owner."""
    names = [*mechanisms.names(), *(name for name in models.names() if not models.find(name).socket)]
    if subject in models.names() and subject not in names:
        raise ValueError(f"{subject} is a backbone: name a mechanism to put into it, and --model {subject}.")
    known("mechanism or whole model", subject, names, of="attnbench")
    whole = subject not in mechanisms.names()
    if whole and model:
        raise ValueError(f"{subject} is a whole model and goes into no other; leave out --model {model}.")
    owners: dict[str, dict[str, Any]] = {"task": {"name": task}}
    owners["model"] = {"name": subject if whole else model or "isotropic"}
    configs: dict[str, Any] = {"task": tasks.find(task).config, "model": models.find(owners["model"]["name"]).config}
    if not whole:
        owners["mechanism"], configs["mechanism"] = {"name": subject}, mechanisms.find(subject).config
    for knob, written in pairs(words):
        owner, name = owner_of(knob, configs)
        if name in owners[owner]:
            raise ValueError(f"--{knob} is given twice; keep one.")
        owners[owner][name] = value(written)
        if isinstance(owners[owner][name], list):
            raise ValueError(f"--{knob} takes one value here, for a run is one cell; lists are for sweep files.")
    base = {"question": "one cell", "runs": 1, "seeds": [seed], "tasks": [owners["task"]]}
    if whole:
        return base | {"baselines": [owners["model"]]}
    return base | {"models": [owners["model"]], "mechanisms": [owners["mechanism"]]}


def pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """`--levels 2` and `--levels=2` as (levels, 2). Raises ValueError for anything else."""
    found, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        name, equals, written = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            raise ValueError(f"knobs are written --name value; got {word!r}.")
        if not (equals or rest):
            raise ValueError(f"{word} needs a value after it.")
        found.append((name.replace("-", "_"), written if equals else rest.pop(0)))
    return found


def owner_of(knob: str, configs: Mapping[str, Any]) -> tuple[str, str]:
    """(owner, knob) of `levels` or `mechanism.levels`. Raises ValueError when nobody has it, or several do."""
    owner, dot, name = knob.partition(".")
    if dot:
        known("owner of knobs", owner, configs, of="attnbench run")
        return owner, name
    having = [owner for owner, config in configs.items() if knob in config.model_fields]
    if len(having) == 1:
        return having[0], knob
    if having:
        raise ValueError(f"--{knob} is a knob of {' and '.join(having)}; write --{having[0]}.{knob}.")
    knobs = [name for config in configs.values() for name in config.model_fields]
    raise ValueError(f"nobody has a knob {knob!r}.{nearest(knob, knobs)} There are {', '.join(knobs)}.")


def data(task: str, words: Sequence[str], folder: Path, quiet: bool) -> str:
    """Makes the data of a task, knobs as in `run` or without the dashes as side=32; returns their hash."""
    found = tasks.find(task)
    options = [word if word.startswith("--") or "=" not in word else f"--{word}" for word in words]
    knobs = {name.removeprefix("task."): plain(value(written)) for name, written in pairs(options)}
    config = configure(found.config, knobs, of=task)
    spec = {"schema": SCHEMA, "protocol": PROTOCOL, "kind": "train", "device": "cpu", "threads": 1}
    spec["task"] = {"name": task, "version": found.version, "knobs": resolved(config)}
    return launch.prepare_one(spec, paths.writable(folder), quiet)
