"""The command line: each verb parses, calls one module and prints. It imports what a verb needs only when it runs."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from attnbench import __version__, paths
from attnbench.engine.codes import DAMAGED, DONE, REFUSED

FileOption = click.Path(path_type=Path)
HOURS = click.FloatRange(min=0, max=24 * 365, min_open=True)  # the upper end also keeps out what is no number


class Workers(click.IntRange):
    """A number of 1 or more, or the word auto."""

    name = "workers"

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        del param, ctx
        return "auto|N"


class Verbs(click.Group):
    """Turns a refusal into one sentence and exit code 1, and keeps the verbs in the order of a first day."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in super().list_commands(ctx) if name] and list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            click.echo(f"attnbench: {error}", err=True)
            ctx.exit(REFUSED)
        except OSError as error:  # such as a full disk
            if error.errno is None or error.errno == errno.EPIPE:  # click knows what to do when nobody reads on
                raise
            place = f": {error.filename}" if error.filename else ""
            sweeps = ctx.invoked_subcommand in ("sweep", "run")
            hint = " Nothing that was finished is lost; the same command goes on." if sweeps else ""
            click.echo(f"attnbench: {error.strerror}{place}.{hint}", err=True)
            ctx.exit(REFUSED)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="attnbench")
def main() -> None:
    """For any attention mechanism: what accuracy it costs, what time and memory it saves, and how sure we are of it."""


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that mean the same on every verb."""
    for option in (
        click.option("--results", type=FileOption, help="Root of results; else ATTNBENCH_RESULTS, else ./results."),
        click.option("--data-dir", type=FileOption, help="Data folder; else ATTNBENCH_DATA, else the user's cache."),
        click.option("--quiet", "-q", is_flag=True, help="Print results and refusals only."),
    ):
        command = option(command)
    return command


def planning(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that change what a sweep file says."""
    for option in (
        click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Override, as task.epochs=2."),
        click.option("--only", multiple=True, metavar="NAME", help="Keep this mechanism or baseline; repeatable."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    ):
        command = option(command)
    return command


plugged = click.option(
    "--plugin",
    multiple=True,
    type=FileOption,
    metavar="FILE",
    help="A mechanism of your own, a .py file; repeatable.",
)
unproven = click.option("--unproven", is_flag=True, help="Run mechanisms that break their contract; their rows say so.")


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True, metavar="WHAT... [--KNOB VALUE]...", type=click.UNPROCESSED)
@planning
@plugged
@click.option("--results", type=FileOption, help="Root of results; else ATTNBENCH_RESULTS, else ./results.")
@click.option("--json", "as_json", is_flag=True, help="Print the cells, or the card, as JSON.")
def check(words: tuple[str, ...], plugin: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Does a mechanism keep its contract? Can every cell of a sweep be built? Nothing is trained.

    WHAT is a mechanism, by name, file.py, file.py:Class or package.module:Class, and knobs follow as in `attnbench
    check mano --levels 2`; or a sweep file, whose cells are built on the meta device, counted and estimated.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that measures memory writes to standard error
    from attnbench import checking, plugins

    plugins.name_them(plugin)
    sys.exit(checking.check(words, as_json=as_json, **given))


@main.command()
@click.argument("file")
@planning
@common
@click.option("--launcher", type=click.Choice(["auto", "local", "slurm"]), default="auto", show_default=True)
@click.option(
    "--workers", type=Workers(), default="auto", show_default=True, help="Training cells at once here; numbers stay."
)
@click.option("--dry-run", is_flag=True, help="Print the cells and the estimated cost; start nothing.")
@click.option("--widths", is_flag=True, help="Measure here what widths of equal latency need; start nothing else.")
@click.option(
    "--retry", is_flag=False, flag_value="failed", default="", help="Open cells again: failed, oom, stale ..."
)
@click.option("--cancel", is_flag=True, help="Cancel the sweep's jobs on SLURM.")
@click.option("--no-wait", is_flag=True, help="On SLURM, return after submission.")
@click.option("--cell-hours", type=HOURS, help="Longest a cell may run; beyond it is a row with status timeout.")
@click.option("--max-gpu-hours", type=HOURS, help="Refuse a sweep that is estimated to take more.")
@click.option(
    "--slurm", "site", multiple=True, metavar="NAME=VALUE", help="Site setting, as partition=gpu; repeatable."
)
@click.option("--mixed", is_flag=True, help="Report rows of different code or data side by side.")
@click.option("--tensorboard", is_flag=True, help="Write event files of the training curves while cells run.")
@click.option("--anonymous", is_flag=True, help="Leave names of hosts and users, and paths, out of the report.")
@unproven
@plugged
def sweep(file: str, plugin: tuple[Path, ...], **given: Any) -> None:
    """Start what is missing of a sweep FILE, then report. Saying it twice is saying it once."""
    from attnbench import boards, plugins, verbs

    if given["tensorboard"]:
        boards.needed()
    plugins.name_them(plugin)
    sys.exit(verbs.sweep(file, **given))


@main.command()
@click.argument("file")
@common
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(file: str, results: Path | None, data_dir: Path | None, quiet: bool, as_json: bool) -> None:
    """Cells of a sweep by state, why, and how long it will still take."""
    del data_dir
    from attnbench import reading

    sys.exit(reading.status(sweep_name(file), paths.results(results), quiet=quiet, as_json=as_json))


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="SWEEP...")
@common
@click.option("--mixed", is_flag=True, help="Put rows of different code or data side by side.")
@click.option("--tensorboard", is_flag=True, help="Write event files of the training curves, too.")
@click.option("--anonymous", is_flag=True, help="Leave names of hosts and users, and paths, out of every file.")
@click.option("--against", metavar="RESULTS", help="Say what changed beyond noise since these; a folder or a sweep.")
@plugged
def report(
    files: tuple[str, ...], plugin: tuple[Path, ...], results: Path | None, against: str | None, **given: Any
) -> None:
    """Rows of sweeps to tables, figures and a page, again, in seconds; or two sets of results compared.

    Of several sweeps each has its own, and results/report.html shows all of them. With --against SWEEP is one, and may
    be a folder of results, too: `attnbench report results/x --against elsewhere/x`.
    """
    from attnbench import plugins, reading

    plugins.name_them(plugin)
    root, quiet = paths.results(results), given["quiet"]
    first, *others = files
    if against and others:
        raise click.UsageError(f"--against compares one sweep with another; got {len(files)}.")
    if against:
        reading.against(first, against, root, quiet=quiet)
    else:
        names = [sweep_name(file) for file in files]
        reading.report(names, root, quiet=quiet, mixed=given["mixed"], anonymous=given["anonymous"])
    for name in map(sweep_name, files if given["tensorboard"] else ()):
        reading.events(name, root, quiet=quiet)


@main.command()
@common
def ledger(results: Path | None, data_dir: Path | None, quiet: bool) -> None:
    """Published claims beside what came out here: agrees, differs, cannot tell, not run."""
    del data_dir
    from attnbench import reading

    reading.ledger(paths.results(results), quiet=quiet)


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("task")
@click.argument("subject")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--model", help="Backbone for a mechanism; isotropic if not given.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@unproven
@plugged
@common
@click.pass_context
def run(ctx: click.Context, task: str, subject: str, plugin: tuple[Path, ...], **given: Any) -> None:
    """One cell, here and now: a TASK and a mechanism or whole model as SUBJECT, knobs as --NAME VALUE.

    A knob that only one of task, model and mechanism has needs no more than its name; else write --mechanism.levels 2.

    `attnbench run cost mano,full --sides 16,64,256` measures mechanisms alone, without a task and a model.
    """
    from attnbench import _bare, plugins, verbs

    plugins.name_them(plugin)
    if section := _bare.section_of(task):
        if given["model"] or given["seed"]:
            raise ValueError(f"attnbench run {task} looks at mechanisms alone: leave out --model and --seed.")
        sys.exit(_bare.run(section, subject, ctx.args, **given))
    sys.exit(verbs.run(task, subject, ctx.args, **given))


@main.command("list")
@click.argument("kind", type=click.Choice(["mechanisms", "models", "tasks", "sweeps"]))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@plugged
def list_(kind: str, as_json: bool, plugin: tuple[Path, ...]) -> None:
    """The catalogue, with every knob, its type and default."""
    from attnbench import catalogue, plugins, reading

    plugins.name_them(plugin)
    entries = catalogue.sweeps() if kind == "sweeps" else catalogue.catalogue()[kind]
    plugins.refuse_broken(entries, plugin)
    click.echo(json.dumps(entries, indent=1) if as_json else reading.shelf(entries))


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("task")
@click.option("--set", "settings", multiple=True, metavar="KNOB=VALUE", help="The same as --KNOB VALUE.")
@common
@click.pass_context
def data(
    ctx: click.Context, task: str, settings: tuple[str, ...], results: Path | None, data_dir: Path | None, quiet: bool
) -> None:
    """Make the data of a TASK, or find them, and print their hash; its knobs as --NAME VALUE."""
    del results
    from attnbench import verbs

    click.echo(verbs.data(task, (*settings, *ctx.args), paths.data(data_dir), quiet))


@main.command()
@common
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def doctor(results: Path | None, data_dir: Path | None, quiet: bool, as_json: bool) -> None:
    """What this machine can run, and what in the store is hurt."""
    from attnbench.doctor import findings
    from attnbench.engine.store import Store

    found = findings(Store(paths.results(results)), paths.data(data_dir))
    shown = [line for line in found if line[1] == "hurt" or not quiet]
    if as_json:
        click.echo(
            json.dumps([dict(zip(("subject", "state", "about"), line, strict=True)) for line in shown], indent=1)
        )
    else:
        click.echo("\n".join(f"{subject:20}{state:8}{about}" for subject, state, about in shown))
    sys.exit(DAMAGED if any(state == "hurt" for _, state, _ in found) else DONE)


@main.command()
@click.argument("file")
@click.argument("cell")
@click.option("--results", type=FileOption, help="Root of results.")
def logs(file: str, cell: str, results: Path | None) -> None:
    """What the latest attempt at a CELL (id or start of it) of a sweep printed, and its traceback if it failed."""
    from attnbench import reading

    click.echo(reading.logs(sweep_name(file), cell, paths.results(results)))


def sweep_name(word: str) -> str:
    """A sweep's name from its file or from the name itself; the file need not exist any more."""
    return Path(word).stem if word.endswith((".yaml", ".yml")) else word
