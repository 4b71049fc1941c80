"""A broken file of the catalogue is refused in one sentence that names the file, and harms no other file."""

import sys
from pathlib import Path

import pytest
from pydantic import BaseModel
from torch import nn

import mechanisms
from attnbench import catalogue
from mechanisms import Knobs, Registry, register

GOOD = "from shelf import shelf\nshelf.add('good', 'a good entry', __name__)\n"
BROKEN = {  # a file's name: what it holds, and the sentence
    "syntax": ("1 +\n", "shelf/syntax.py cannot be imported: invalid syntax (line 1)."),
    "package": (
        "import shelf\n\nimport no_such_package\n",
        "shelf/package.py cannot be imported: No module named 'no_such_package' (line 3).",
    ),
    "attribute": (
        "from shelf import shelves\n",
        "shelf/attribute.py cannot be imported: cannot import name 'shelves' from 'shelf'",
    ),
    "key": ("print()\n{}['heads']\n", "shelf/key.py cannot be imported: KeyError: 'heads' (line 2)."),
    "silent": ("raise RuntimeError\n", "shelf/silent.py cannot be imported: RuntimeError (line 1)."),
    "wordy": ("raise ValueError('two\\nlines.')", "shelf/wordy.py cannot be imported: ValueError: two (line 1)."),
    "helper": ("import shelf._helper\n", "shelf/helper.py cannot be imported: '(' was never closed (_helper.py, line"),
    "empty": ("x = 1\n", "shelf/empty.py registers nothing; a class under @register('empty', ...) is its entry."),
    "wrongname": (GOOD, "shelf/wrongname.py registers 'good'; name the file after it."),
    "late": (GOOD.replace("'good'", "'late'") + "1 / 0", "shelf/late.py cannot be imported: ZeroDivisionError"),
}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    """A package of one good file and many broken ones."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "__init__.py").write_text("from mechanisms import Registry\nshelf = Registry('shelf')\n")
    (folder / "_helper.py").write_text("x = (\n")
    (folder / "good.py").write_text(GOOD)
    for name, (text, _) in BROKEN.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for module in [module for module in sys.modules if module.partition(".")[0] == "shelf"]:
        monkeypatch.delitem(sys.modules, module)
    import shelf  # pyright: ignore[reportMissingImports]

    return shelf.shelf


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_in_one_sentence_as_often_as_it_is_asked_for(name: str, shelf: Registry[str]):
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^[^\n]+\.$") as caught:
            shelf.find(name)
        assert str(caught.value).startswith(BROKEN[name][1])


def test_a_broken_file_is_named_among_the_others_and_hides_none(shelf: Registry[str]):
    for name in BROKEN:
        with pytest.raises(ValueError, match=name):
            shelf.find(name)
    assert shelf.names() == sorted(["good", *BROKEN])
    assert shelf.find("good") == "a good entry"
    assert list(shelf.entries) == ["good"]


def test_a_file_is_imported_when_it_is_asked_for_and_no_other(shelf: Registry[str]):
    assert shelf.find("good") == "a good entry"
    assert {module for module in sys.modules if module.startswith("shelf.")} == {"shelf.good"}


def test_a_mechanism_that_is_named_unlike_its_file_is_refused():
    with pytest.raises(ValueError, match=r"^tests/test_registry\.py registers 'mean'; name the file after it\.$"):

        @mechanisms.register("mean", mechanisms.Knobs, fits=("grid",), order="N")
        class _(mechanisms.find("identity").module): ...

    assert "mean" not in mechanisms.names()


def test_a_broken_file_is_an_entry_of_the_catalogue_with_its_reason_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = catalogue.collected()
    (tmp_path / "broken.py").write_text("class Broken(:\n")
    (tmp_path / "nothing.py").write_text('"""Nothing."""\n')
    monkeypatch.setattr(mechanisms, "__path__", [*mechanisms.__path__, str(tmp_path)])
    found = catalogue.collected()
    told = {entry["name"]: entry["missing"] for entry in found["mechanisms"] if "missing" in entry}
    assert told["broken"] == "mechanisms/broken.py cannot be imported: invalid syntax (line 1)."
    assert told["nothing"].startswith("mechanisms/nothing.py registers nothing;")
    assert [entry for entry in found["mechanisms"] if entry["name"] not in told] == whole["mechanisms"]
    sys.modules.pop("mechanisms.nothing")  # not by monkeypatch, which would bring it back


class Strange(nn.Module):
    """Stands for what somebody declares."""


class Needy(Knobs):
    gain: float


class Model(BaseModel):
    gain: float = 1.0


@pytest.mark.parametrize(
    ("config", "words", "sentence"),
    [
        (Knobs, {"fits": "grid"}, "fits is a tuple of some of 'sequence', 'causal', 'grid'; got 'grid'."),
        (Knobs, {"fits": ()}, r"fits is a tuple of some of .*; got \(\)."),
        (Knobs, {"fits": ("sequences", "grid")}, r"fits is a tuple of .*; got \('sequences', 'grid'\)."),
        (Knobs, {"order": "N^3"}, r"order is one of '0', 'N', .*; got 'N\^3'."),
        (Knobs, {"reach": "far"}, "reach is one of 'token', 'local', 'global'; got 'far'."),
        (Knobs, {"devices": "cuda"}, "devices is a tuple of some of 'cpu', 'cuda'; got 'cuda'."),
        (Knobs, {"reference": "ful"}, r"reference is the name of another .*; got 'ful'\. Did you mean 'full'\?$"),
        (Knobs, {"reference": 3}, r"reference is the name of another mechanism; got 3\."),
        (Knobs, {"version": "one"}, "version is a whole number; got 'one'."),
        (Model, {}, "its Config should be a class of mechanisms.Knobs; got .*Model"),
        (3, {}, "its Config should be a class of mechanisms.Knobs; got 3"),
        (Needy, {}, "every knob needs a default; gain has none."),
    ],
)
def test_a_declaration_that_no_mechanism_can_make_is_refused_in_one_sentence(config, words, sentence):
    with pytest.raises(ValueError, match=f"^mechanism strange: {sentence}") as refusal:
        register("strange", config, **{"fits": ("grid",), "order": "N"} | words)(Strange)
    assert "\n" not in str(refusal.value)


def test_a_mechanism_is_no_reference_of_itself():
    with pytest.raises(ValueError, match=r"^mechanism full: reference is the name of another mechanism; got 'full'\."):
        register("full", Knobs, fits=("grid",), order="N", reference="full")


def drawn(site: object) -> None:
    """No class, and no module."""
    del site


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match=r"should be a class of torch\.nn\.Module; got <function"):
        register("test_registry", Knobs, fits=("grid",), order="N")(drawn)  # type: ignore[type-var]
