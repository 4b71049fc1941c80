"""Broken sweep files: each is refused with one sentence that names file, line and remedy, and nothing is written."""

import re
from pathlib import Path

import pytest

from attnbench.check import check
from attnbench.sweep import expand
from tests.asked import FIGURE, TEXT, changed, written

WHOLE = TEXT.replace("runs: 4", "runs: 6").replace("seeds:", "baselines: [WHOLE]\nseeds:")
SLURM = TEXT + "slurm: {hours: 1}\n"

# What is broken: what is written, what instead, the line, and words of the sentence.
REFUSED = {
    "an unknown section": ("seeds:", "sedes:", 12, ["no section 'sedes'", "Did you mean 'seeds'?"]),
    "a section that is a number": ("seeds:", "7:", 12, ["no section 7"]),
    "an unknown task": ("darcy", "darcie", 4, ["no task 'darcie'", "Did you mean 'darcy'?"]),
    "an unknown model": ("isotropic", "isotrop", 6, ["no model 'isotrop'", "Did you mean 'isotropic'?"]),
    "an unknown mechanism": ("name: mano", "name: manoo", 9, ["no mechanism 'manoo'", "Did you mean 'mano'?"]),
    "an unknown knob": ("levels: 2", "levles: 2", 11, ["mano has no knob 'levles'", "Did you mean 'levels'?"]),
    "an unknown knob of a task": ("epochs: 1", "epoch: 1", 4, ["darcy has no knob 'epoch'", "'epochs'?"]),
    "a knob whose name is a number": ("levels: 2", "2: 2", 9, ["mano has no knob '2'"]),
    "a key written twice": ("window: 2", "levels: 1", 11, ["'levels' is written twice"]),
    "a section written twice": ("seeds: [0, 1]", "runs: 4", 12, ["'runs' is written twice"]),
    "text for a number": ("levels: 2", 'levels: "2"', 11, ["mano.levels should be", "'2' (str)"]),
    "true for a number": ("levels: 2", "levels: true", 11, ["mano.levels should be", "True (bool)"]),
    "a fraction for a count": ("levels: 2", "levels: 2.0", 11, ["mano.levels should be", "2.0 (float)"]),
    "nothing for a number": ("levels: 2", "levels:", 11, ["mano.levels should be", "None"]),
    "a map for a number": ("levels: 2", "levels: {one: 2}", 11, ["mano.levels: a map gives each stage", "got 'one'"]),
    "a map for a knob of a task": ("epochs: 1", "epochs: {1: 2}", 4, ["darcy.epochs should be", "{1: 2}"]),
    "a list inside an axis": ("levels: 2", "levels: [[2]]", 11, ["mano.levels should be", "[2]"]),
    "a negative number": ("levels: 2", "levels: -2", 11, ["mano.levels should be greater than 0", "-2 (int)"]),
    "zero of something": ("levels: 2", "levels: 0", 11, ["mano.levels should be greater than 0"]),
    "a number out of bounds": ("epochs: 1", "rate: 2", 4, ["darcy.rate should be less than or equal to 1"]),
    "an infinite number": ("epochs: 1", "rate: 1e400", 4, ["darcy.rate should be", "finite", "inf"]),
    "no number": ("epochs: 1", "rate: .nan", 4, ["darcy.rate should be", "nan"]),
    "a wrong choice": ("levels: 2", "downsample: convv", 11, ["one of", "Did you mean 'conv'?"]),
    "YAML 1.1's no": ("levels: 2", "downsample: no", 11, ["one of 'conv' or 'average'", "'no'"]),
    "an axis without values": ("levels: 2", "levels: []", 11, ["mano.levels is an axis without values"]),
    "no seeds": ("[0, 1]", "[]", 12, ["seeds should be", "at least one", "[]"]),
    "a seed written twice": ("[0, 1]", "[0, 1, 0]", 12, ["seeds should be", "different numbers", "[0, 1, 0]"]),
    "a negative seed": ("[0, 1]", "[0, -1]", 12, ["seeds", "greater than or equal to 0", "-1"]),
    "a seed that is text": ("[0, 1]", "[0, one]", 12, ["seeds", "'one'"]),
    "a seed that is a switch": ("[0, 1]", "true", 12, ["seeds", "True"]),
    "knobs that contradict each other": ("window: 2", "stride: 4", 9, ["stride 4 is more than window 2"]),
    "tabs": ("    window: 2", "\twindow: 2", 10, ["no YAML"]),
    "a bracket left open": ("[0, 1]", "[0, 1", 13, ["no YAML"]),
    "entries that are no list": ("  - {name: isotropic,", "  {name: isotropic,", 5, ["models is a list of entries"]),
    "an entry without a name": ("  - name: full", "  - heads: 4", 8, ["an entry of mechanisms is a map with a name"]),
    "an entry that is a word": ("  - name: full", "  - full", 8, ["an entry of mechanisms is a map with a name"]),
    "a name that is a list": ("name: full", "name: [full]", 8, ["an entry of mechanisms is a map with a name"]),
    "too many runs": ("runs: 4", "runs: 5", 2, ["runs announces 5", "describes 4 distinct"]),
    "too few runs": ("runs: 4", "runs: 3", 2, ["runs announces 3", "describes 4 distinct"]),
    "runs that are no count": ("runs: 4", "runs: many", 2, ["runs should be", "'many'"]),
    "a question that is a list": ("Does it work?", "[why]", 1, ["question should be", "['why']"]),
    "a device that nobody has": ("runs: 4", "runs: 4\ndevice: gpu", 3, ["one of 'auto', 'cpu' or 'cuda'", "'gpu'"]),
    "kernels for another device": ("name: full", "name: full_xformers", 8, ["full_xformers runs on cuda only"]),
    "a whole model among models": ("isotropic, channels: 8", "fno", 6, ["fno belongs under baselines"]),
    "a backbone among baselines": (
        "seeds:",
        "baselines:\n  - name: isotropic\nseeds:",
        13,
        ["isotropic belongs under models"],
    ),
    "heads that do not divide": (
        "name: full",
        "name: full\n    heads: 3",
        8,
        ["full.heads must divide the 8 channels"],
    ),
    "a window that does not divide": ("window: 2", "window: 3", 9, ["windows of side 3"]),
    "more levels than fit": ("levels: 2", "levels: 4", 9, ["at most 3 fit"]),
    "a cell that is no power of two": ("name: full", "{name: fma, cell: 3}", 8, ["fma takes a square grid"]),
    "fields too fine to solve": ("refine: 2", "refine: 999", 4, ["at most 1024"]),
}
REFUSED_SECTIONS = {
    "a baseline that does not fit": ("WHOLE", "{name: fno, modes: 9}", 12, ["fno.modes is at most 8"], WHOLE),
    "an unknown resource": ("hours: 1", "hour: 1", 13, ["slurm has no knob 'hour'", "'hours'?"], SLURM),
    "hours below zero": ("hours: 1", "hours: -1", 13, ["slurm.hours should be greater than 0", "-1"], SLURM),
    "infinite hours": ("hours: 1", "hours: 1e400", 13, ["slurm.hours should be", "finite"], SLURM),
    "half a GPU": ("hours: 1", "gpus: 0.5", 13, ["slurm.gpus should be", "0.5"], SLURM),
    "resources that are no map": ("{hours: 1}", "[1]", 13, ["slurm is a map of knobs", "[1]"], SLURM),
    "the user's own settings": ("hours: 1", "partition: a", 13, ["slurm has no knob 'partition'"], SLURM),
    "a kind of figure that nobody draws": ("variants", "scater", 15, ["figure.kind", "'scatter'?"], FIGURE),
    "a figure without a column": ("    y: result.rel_l2\n", "", 14, ["figure needs 'y'"], FIGURE),
    "an unknown word of a figure": ("y: result", "yy: result", 16, ["figure has no knob 'yy'"], FIGURE),
    "a figure that is a word": ("name: error\n    kind: variants\n    y:", "result: &x", 14, ["figure"], FIGURE),
    "figures that are no list": (FIGURE[len(TEXT) :], "figures: error\n", 13, ["figures should be", "'error'"], FIGURE),
}
REFUSED_WITHOUT_LINE = {
    "an empty file": ("", ["a map with sections", "NoneType"]),
    "a list": ("- 1\n- 2\n", ["a map with sections", "list"]),
    "a word": ("hello\n", ["a map with sections", "str"]),
    "no tasks": (changed("tasks:\n", "", TEXT).replace(TEXT.splitlines()[3] + "\n", ""), ["'tasks' is missing"]),
    "models without mechanisms": (
        re.sub(r"mechanisms:\n(  .*\n)+", "", TEXT),
        ["models and mechanisms belong together"],
    ),
    "mechanisms without models": (re.sub(r"models:\n(  .*\n)+", "", TEXT), ["models and mechanisms belong together"]),
    "bytes that are no text": ("question: \x00\n", ["no YAML"]),
}
CASES = [
    pytest.param(*(case if len(case) == 5 else (*case, TEXT)), id=name)
    for name, case in (REFUSED | REFUSED_SECTIONS).items()
]


def refusal(folder: Path, text: str) -> str:
    """The sentence with which a file is refused: one line, which names the file first. Nothing is written."""
    file = written(folder, text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared by the tests
        check(expand(file, device="cpu"))
    message = str(caught.value)
    assert re.fullmatch(rf"{re.escape(str(file))}(, line \d+)?: [^\n]+[^.?][.?]", message), message
    assert "validation error" not in message
    assert list(folder.iterdir()) == [file]
    return message


@pytest.mark.parametrize(("old", "new", "line", "words", "text"), CASES)
def test_a_broken_file_is_refused_with_its_line_and_the_remedy(old, new, line, words, text, tmp_path):
    message = refusal(tmp_path, changed(old, new, text))
    assert f"asked.yaml, line {line}: " in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(("text", "words"), REFUSED_WITHOUT_LINE.values(), ids=list(REFUSED_WITHOUT_LINE))
def test_what_is_wrong_with_a_file_as_a_whole_is_said_too(text, words, tmp_path):
    message = refusal(tmp_path, text)
    for word in words:
        assert word in message


@pytest.mark.parametrize("section", ["question", "runs", "seeds"])
def test_a_section_that_is_not_there_is_named(section, tmp_path):
    assert f"sweep needs {section!r}" in refusal(tmp_path, re.sub(rf"{section}:.*\n", "", TEXT))


def test_a_mechanism_that_does_not_serve_the_task_is_refused_where_it_stands(tmp_path, monkeypatch):
    from mechanisms import Mechanism, find

    full = find("full")
    words = {name: getattr(full, name) for name in ("name", "module", "config", "order", "bound_to_shape", "version")}
    monkeypatch.setattr("attnbench.sweep.find_mechanism", lambda _: Mechanism(fits=frozenset({"causal"}), **words))
    message = refusal(tmp_path, changed("    window: 2\n    levels: 2\n", ""))
    assert "line 8: full does not fit darcy, a grid task: it serves causal." in message


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.yaml: there is no such file\."):
        expand(tmp_path / "absent.yaml", device="cpu")
