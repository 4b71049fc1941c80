"""The documentation is true: catalogue and reference are whole, links lead somewhere, what it shows can be typed."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from maker import columns, commands, entries, markdown, pages, sections, verify
from ruamel.yaml import YAML

import mechanisms
import tasks
from attnbench import _bare, catalogue, models
from attnbench._yaml import plain, value
from attnbench.cli import main
from attnbench.engine import codes
from attnbench.reports.columns import COLUMNS
from attnbench.sweep import LISTS, Frame, expand, expand_text
from attnbench.verbs import one_cell, pairs
from mechanisms import configure
from tasks import _labelled, _registry
from tasks._training import TrainingKnobs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
KINDS = {"mechanisms": mechanisms, "tasks": tasks, "models": models}
ENTRIES = [(kind, name) for kind, registry in KINDS.items() for name in registry.names()]
FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site() -> dict[str, str]:
    return pages.all_pages()


def blocks(text: str, word: str) -> list[str]:
    """The code of a page that is marked with a word."""
    return [code for _, info, code in FENCE.findall(text) if info.strip() == word]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_has_its_page_with_every_knob(kind, name, site):
    page, fields = site[f"{kind}/{name}"], KINDS[kind].find(name).config.model_fields
    shared = TrainingKnobs.training if kind == "tasks" else set()
    missing = [knob for knob in fields if f"| `{knob}` |" not in page and knob not in shared]
    assert not missing
    assert f"[`{name}`]({name}.md)" in site[f"{kind}/index"], "its index lacks it"
    assert all(f"| `{knob}` |" in site["tasks/index"] for knob in shared)


def test_every_sweep_that_ships_and_every_set_of_results_is_listed(site):
    assert all(f"| `{one['name']}` |" in site["reference/sweep-file"] for one in catalogue.sweeps())
    committed = {file.parent.name for file in (ROOT / "results").glob("*/summary.md")}
    assert committed
    assert committed == {name.partition("/")[2] for name in site if name.startswith("gallery/")} - {"index"}
    for name in committed:
        assert f"[{name}]({name}.md)" in site["gallery/index"]
        figures = [file.relative_to(ROOT).as_posix() for file in (ROOT / "results" / name).glob("**/*.png")]
        assert all(file in site[f"gallery/{name}"] for file in figures)


def test_every_section_and_word_of_a_sweep_file_is_explained(site):
    page = site["reference/sweep-file"]
    words = [*LISTS, *Frame.model_fields, *(word for found in sections.nested() for word in found.model_fields)]
    assert not [word for word in words if f"| `{word}` |" not in page]


def test_every_verb_option_and_exit_code_is_explained(site):
    page = site["reference/commands"]
    for words, command in commands.verbs():
        assert f"### attnbench {words}\n" in page
        own = page.split(f"### attnbench {words}\n")[1].split("\n### ")[0]
        options = [one for one in command.params if isinstance(one, click.Option)]
        assert not [one.opts[0] for one in options if one.opts[0] not in own]
    known = [number for name, number in vars(codes).items() if name.isupper()]
    assert {*known, 2} == {int(code) for code in re.findall(r"^\| `(\d)` \|", page, re.MULTILINE)}


def test_every_known_column_is_explained(site):
    made = columns.reference()
    assert made in site["reference/columns"]
    assert not [name for name in COLUMNS if f"| `{name}` |" not in made]


def test_every_mechanism_has_a_formula_and_no_stranger_has():
    own = {name for name in mechanisms.names() if mechanisms.find(name).reference is None}
    assert set(entries.formulas()) == own
    assert all({"formula", "where"} == set(told) for told in entries.formulas().values())


@pytest.mark.parametrize("name", entries.formulas())
def test_a_formula_names_only_knobs_and_choices_that_there_are(name):
    fields = mechanisms.find(name).config.model_fields
    choices = {word for field in fields.values() for word in get_args(field.annotation) if isinstance(word, str)}
    for words in re.findall(r"`([^`]+)`", entries.formulas()[name]["where"]):
        knob, colon, choice = words.partition(": ")
        if colon:
            assert choice in get_args(fields[knob].annotation), words
        else:
            assert knob in {*fields, *choices, "out"}, words


@pytest.mark.parametrize("name", [*entries.formulas(), "mechanisms/index", "measured"])
def test_every_formula_becomes_mathml(name):
    pytest.importorskip("docutils", reason="Sphinx brings the converter: pip install '.[docs]'")
    from maker.mathml import converted

    if name in entries.formulas():
        shown, text = [entries.formulas()[name]["formula"]], entries.formulas()[name]["where"]
    else:
        text = (DOCS / f"{name}.md").read_text()
        shown, text = blocks(text, "{math}"), FENCE.sub("", text)
    assert all("<math" in converted(one, block=True) for one in shown)
    assert "munderover" not in converted(r"\bar x_i + \hat{y}_j", block=True), "an index belongs beside its letter"
    assert all("<math" in converted(one, block=False) for one in re.findall(r"\$([^$\n]+(?:\n[^$\n]+)?)\$", text))


def test_every_link_and_anchor_on_a_page_leads_somewhere(site):
    anchors = {name: {slug(line) for line in headings(text)} for name, text in site.items()}
    for name, text in site.items():
        for _, target in markdown.LINK.findall(FENCE.sub("", text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            there = (DOCS / name).parent.joinpath(path).resolve() if path else DOCS / f"{name}.md"
            page = there.relative_to(DOCS).with_suffix("").as_posix() if there.is_relative_to(DOCS) else ""
            assert page in site or there.is_file(), f"{name}: {target}"
            if anchor:
                assert anchor in anchors[page], f"{name}: {target}"


SHOWN_ONLY = {"tasks/echo.py", "mechanisms/mean.py"}  # files that a reader writes


def test_every_file_of_the_house_that_a_page_names_is_there(site):
    named = re.compile(r"`((?:attnbench|mechanisms|tasks|tests|docs|sweeps|benchmarks)/[\w./-]*\w)`")
    found = {(name, path) for name, text in site.items() for path in named.findall(text)}
    assert len(found) > len(ENTRIES)
    assert not [(name, path) for name, path in found if path not in SHOWN_ONLY and not (ROOT / path).exists()]


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_no_page_names_a_path_of_this_machine(site):
    places = {str(ROOT), str(Path.home()), sys.prefix, "/tmp", "/root", "/home/"}
    assert not [(name, place) for name, text in site.items() for place in places if place in text]


def typed(text: str) -> Iterator[list[str]]:
    """The commands of a page, as words after `attnbench`; what stands behind two blanks explains them."""
    for code in blocks(text, ""):
        for line in code.splitlines():
            for part in line.split(" && "):
                command = re.split(r" {2,}|\s#\s", part.strip())[0]
                if command.startswith("attnbench "):
                    yield shlex.split(command)[1:]


def refuse(words: list[str]) -> None:
    """Raises what the program would raise, before anything runs."""
    command = main.commands[words[0]]
    context = command.make_context(words[0], words[1:])  # raises click's UsageError
    if words[0] == "run":
        given = context.params
        if given["plugin"]:
            return  # its knobs are tested where the file is
        if section := _bare.section_of(given["task"]):
            text = _bare.asked(section, given["subject"], context.args)
        else:
            text = one_cell(given["task"], given["subject"], given["model"], given["seed"], context.args)
        expand_text(Path("attnbench run"), text, device="cpu")
    elif words[0] == "data":
        knobs = {name: plain(value(written)) for name, written in pairs(context.args)}
        configure(tasks.find(context.params["task"]).config, knobs, of=context.params["task"])
    elif words[0] == "check" and words[1] in mechanisms.names():
        knobs = {name: plain(value(written)) for name, written in pairs(list(context.params["words"][1:]))}
        configure(mechanisms.find(words[1]).config, knobs, of=words[1])


SHIPPED_LATER = {"echo", "mean"}  # tasks and mechanisms that a page tells how to add


def test_every_command_on_a_page_can_be_typed(site):
    found = 0
    for name, text in site.items():
        for words in typed(text):
            if not SHIPPED_LATER.intersection(words):
                found += 1
                try:
                    refuse(words)
                except (click.ClickException, ValueError) as error:
                    pytest.fail(f"{name}: attnbench {shlex.join(words)}: {error}")
    assert found > len(ENTRIES)


WRONG = ("sweep quickstart --wrokers 2", "run darcy mano --levls 2", "run recall mano", "data darcy --sid 3")


@pytest.mark.parametrize("words", WRONG)
def test_a_command_that_cannot_be_typed_is_noticed(words):
    with pytest.raises((click.ClickException, ValueError)):
        refuse(words.split())


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: dict[str, str]) -> Iterator[list[str]]:
    """The mechanisms that pages show, in files of their own, joined to the registry for a while."""
    registry, found = mechanisms.mechanisms, []
    for name in registry.own():
        registry.find(name)
    monkeypatch.setattr(registry, "guests", {})
    monkeypatch.setattr(registry, "entries", dict(registry.entries))
    for code in blocks(site["add-mechanism"], "python"):
        if match := re.search(r'@register\("(\w+)"', code):
            (file := tmp_path / f"{match[1]}.py").write_text(code)
            found.append(registry.invite(file))
    yield found
    for name in found:
        sys.modules.pop(f"mechanisms.{name}", None)


def test_mechanisms_on_pages_import_and_sweep_files_expand(guests, site, tmp_path):
    assert {"my_attention", "mean"} <= set(guests)
    assert all(mechanisms.find(name).name == name for name in guests)
    whole = [(name, code) for name, text in site.items() for code in blocks(text, "yaml") if "question:" in code]
    assert {"tutorial", "cluster", "add-mechanism", "reference/sweep-file"} <= {name for name, _ in whole}
    for number, (name, code) in enumerate(whole):
        (file := tmp_path / f"shown{number}.yaml").write_text(code)
        assert expand(file, device="cpu").trainings, name


def test_the_task_on_its_page_makes_data_and_asks_what_it_says(site, tmp_path, monkeypatch):
    code = next(code for code in blocks(site["add-task"], "python") if "@register" in code)
    (folder := tmp_path / "more").mkdir()
    (folder / "echo.py").write_text(code)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(folder)])
    monkeypatch.setattr(_registry.tasks, "entries", dict(_registry.tasks.entries))
    try:
        found = tasks.find("echo")
        config: Any = configure(found.config, {"train": 40, "valid": 4, "test": 4, "length": 9}, of="echo")
        task: Any = found.cls(config, tmp_path)
        assert task.prepare(lambda *_: None, 1).startswith("sha256:")
        inputs, target = task.stored("train", "cpu")
        assert (target[:, : config.delay] == _labelled.UNASKED).all()
        assert (target[:, config.delay :] == inputs[:, : -config.delay]).all()
        with pytest.raises(ValueError, match="lower it"):
            configure(found.config, {"delay": 32}, of="echo")
    finally:
        sys.modules.pop("tasks.echo", None)


def test_the_built_site_is_looked_at_for_broken_links_and_loads_from_elsewhere(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="top"></h1><a href="b.html#here">1</a><a href="#top">2</a>')
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="https://example.org">far</a><img src="data:x">')
    assert verify.faults(tmp_path) == []
    (tmp_path / "b.html").write_text('<img src="gone.png"><script src="//cdn.example/x.js"></script>')
    assert [told.partition(" ")[0] for told in verify.faults(tmp_path)] == ["a.html:", "b.html", "b.html:"]


def test_a_marker_that_nobody_makes_and_a_heading_that_is_gone_are_refused():
    for marker in ("<!-- made: nothing -->", "<!-- made: readme No such heading -->"):
        with pytest.raises(ValueError, match=r"nothing is made|no heading"):
            pages.filled(f"a\n\n{marker}\n", "index")
    assert pages.filled("no marker", "index") == "no marker"


def test_the_citation_names_the_papers_of_all_mechanisms_and_no_other():
    cited = {one["url"] for one in YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())["references"]}
    told = [entries.docstring(f"mechanisms/{name}.py") for name in mechanisms.names()]
    sources = set(re.findall(r"https://arxiv\.org/abs/\d+\.\d+", " ".join(told)))
    assert sources
    assert cited == sources
