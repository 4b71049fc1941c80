"""The reference of the command line, from the very commands that parse it."""

import re
from collections.abc import Iterator

import click

from attnbench.cli import main
from maker.markdown import ROOT, escaped, table


def verbs(group: click.Group = main, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its words, those within commands too."""
    for name in group.commands:
        command = group.commands[name]
        yield f"{before}{name}", command
        if isinstance(command, click.Group):
            yield from verbs(command, f"{before}{name} ")


def reference() -> str:
    """A heading, the help and the options of each command."""
    return "\n".join(one(words, command) for words, command in verbs())


def one(words: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"attnbench {words}")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [
        (f"`{record[0]}`", escaped(record[1]))
        for option in command.params
        if isinstance(option, click.Option) and (record := option.get_help_record(context))
    ]
    told = "\n\n".join(escaped(" ".join(part.split())) for part in re.split(r"\n\s*\n", command.help or ""))
    options = f"{table(['option', 'what it does'], lines)}\n" if lines else ""
    return f"### attnbench {words}\n\n{told}\n\n```text\n{usage}\n```\n\n{options}"


def codes() -> str:
    """The exit codes, from the file that defines them and its comments."""
    text = (ROOT / "attnbench" / "engine" / "codes.py").read_text()
    found = {int(code): told for code, told in re.findall(r"^[A-Z_]+ = (\d)  # (.+)$", text, re.MULTILINE)}
    found[2] = "the command line cannot be read"
    return table(["code", "what it means"], [(f"`{code}`", found[code]) for code in sorted(found)])
