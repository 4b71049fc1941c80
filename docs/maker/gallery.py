"""A page for every committed set of results: question, how it was made, its figures, its tables."""

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from attnbench import catalogue
from maker.markdown import MADE, ROOT, escaped, facts, lower, moved, table

RESULTS = ROOT / "results"
SWEEPS = ROOT / "sweeps"
NOWHERE = "–"  # noqa: RUF001 - an en dash, for what no machine made
FIRST = ("error", "variants")  # of a page's figures
OF_EVERY = {  # figures that are drawn without being asked for
    "variants": "every variant: a point for each seed, and the mean with its interval",
    "speed": "error or score against training throughput, with the front and each variant's chance to be on it",
    "memory": "error or score against peak memory of training, with the front and each variant's chance to be on it",
    "profiles": "runs of all tasks, 0 being chance or the control and 1 full attention: the share that scores more",
}


def names() -> list[str]:
    """The committed sets of results, those with a table that people read."""
    return sorted(file.parent.name for file in RESULTS.glob("*/summary.md"))


@cache
def rows(name: str) -> pd.DataFrame:
    file = RESULTS / name / "rows.csv"
    return pd.read_csv(file, low_memory=False) if file.is_file() else pd.DataFrame()


@cache
def sweep(name: str) -> dict[str, Any]:
    file = SWEEPS / f"{name}.yaml"
    return YAML(typ="safe").load(file.read_text()) if file.is_file() else {}


def pictures(name: str) -> list[Path]:
    folder = RESULTS / name
    found = [*folder.glob("*.png"), *folder.glob("figures/*.png")]
    return sorted(found, key=lambda file: (not file.stem.startswith(FIRST), file.stem))


def made(name: str) -> list[str]:
    """Machine, day and command of a set of results, as results/README.md has them; three empty ones if it has not.

    What is `the same` there is the machine of the line that says none.
    """
    machine = ""
    for line in (RESULTS / "README.md").read_text().splitlines():
        parts = [part.strip() for part in line.strip("| ").split(" | ")]
        if not line.startswith("|") or len(parts) != 4 or set(line) <= set("|- "):
            continue
        if not parts[1].startswith("the same") and parts[1] not in ("machine", NOWHERE):
            machine = parts[1]
        if f"({name}/" in parts[0]:
            return [parts[1].replace("the same", machine, 1), parts[2], parts[3].replace("NAME", name)]
    return ["", "", ""]


def commits(name: str) -> str:
    """The commits of the rows, with how many rows each made where there are several."""
    frame = rows(name)
    if "code.commit" not in frame:
        return ""
    found = Counter(str(one)[:7] for one in frame["code.commit"].dropna())
    return ", ".join(f"`{one}`" + (f" ({count} rows)" if len(found) > 1 else "") for one, count in found.most_common())


def caption(name: str, file: Path) -> str:
    """What a figure shows: its title in the sweep file, or what is drawn of every sweep."""
    for figure in sweep(name).get("figures", []):
        if file.stem == figure["name"]:
            axes = f"`{figure['y']}`" + (f" over `{figure['x']}`" if "x" in figure else "")
            return f"{figure.get('title') or figure['name']}: {axes}"
    kind, _, task = file.stem.partition("-")
    told = OF_EVERY.get(kind, f"`{kind}`")
    return f"{told[0].upper()}{told[1:]}{f' ({task})' if task else ''}"


def question(name: str) -> str:
    return sweep(name).get("question") or (RESULTS / name / "summary.md").read_text().partition("\n")[0].strip("# ")


def provenance(name: str, known: dict[str, str]) -> str:
    machine, when, how = made(name)
    frame, ended = rows(name), ""
    if "status" in frame:
        ended = ", ".join(f"{count} {word}" for word, count in frame["status"].value_counts().items())
    file = f"`sweeps/{name}.yaml`" if sweep(name) else ""
    lines = [("sweep file", file), ("rows", ended), ("machine", machine), ("when", when)]
    lines += [("made by", moved(how, RESULTS, f"gallery/{name}", known)), ("code", commits(name))]
    return facts(lines)


def figures(name: str) -> str:
    parts = []
    for file in pictures(name):
        target = f"../../{file.relative_to(ROOT).as_posix()}"
        parts.append(f"```{{figure}} {target}\n:alt: {file.stem} of {name}\n\n{caption(name, file)}\n```\n")
    return "\n".join(parts)


def tables(name: str, known: dict[str, str]) -> str:
    """What summary.md says, without its title, its question and its pictures, which stand on the page already."""
    text = (RESULTS / name / "summary.md").read_text().partition("\n")[2]
    text = re.sub(r"^!\[[^\]]*\]\([^)]*\)\s*$", "", text, flags=re.MULTILINE).replace(f"\n{question(name)}\n", "\n")
    text = re.sub(r"^## Figures\s*\Z", "", text.strip(), flags=re.MULTILINE)
    return lower(moved(text, RESULTS / name, f"gallery/{name}", known))


def page(name: str, known: dict[str, str]) -> str:
    files = [file for file in ("rows.csv", "curves.csv", "summary.tex") if (RESULTS / name / file).is_file()]
    links = ", ".join(f"[{file}](../../results/{name}/{file})" for file in files)
    told = f"Files: {links}." if links else ""
    drawn = f"## Figures\n\n{figures(name)}\n" if pictures(name) else ""
    again = f"Again from its rows: `attnbench report {name}`. " if sweep(name) else ""
    return (
        f"{MADE}# {name}\n\n{question(name)}\n\n{provenance(name, known)}\n{again}{told}\n\n"
        f"{drawn}## Tables\n\n{tables(name, known)}"
    )


def shipped() -> str:
    """The sweeps that ship, with the page of those whose results are committed."""
    lines = []
    for one in catalogue.sweeps():
        results = f"[results](../gallery/{one['name']}.md)" if one["name"] in names() else "not run yet"
        lines.append((f"`{one['name']}`", escaped(one["question"]), one["runs"], results))
    return table(["name", "question", "trainings", ""], lines)


def cards() -> str:
    """The first figure of each, its name and its question; at the end those that have tables alone."""
    found, plain = [], []
    for name in names():
        told = f"[{name}]({name}.md): {question(name)}"
        if not (drawn := pictures(name)):
            plain.append(f"- {told}")
            continue
        first = drawn[0].relative_to(ROOT).as_posix()
        picture = f"```{{figure}} ../../{first}\n:alt: {name}\n:target: {name}.html\n:figclass: card\n\n"
        found.append(f"{picture}{told}\n```\n")
    return "\n".join([*found, *plain])


def contents() -> str:
    return "```{toctree}\n:hidden:\n\n" + "\n".join(names()) + "\n```\n"


def having(kind: str, name: str) -> str:
    """Links, from a page of the catalogue, to the results that have a mechanism, task or model."""
    found = [one for one in names() if kind in rows(one) and name in set(rows(one)[kind])]
    return ", ".join(f"[{one}](../gallery/{one}.md)" for one in found)
