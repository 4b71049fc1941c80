"""List operations: worth what Python says they are, drawn by the arena's rule, read from the arena's format."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from attnbench.models import maker
from mechanisms import configure
from mechanisms._knobs import resolved
from tasks._listops import DIGITS, END, OPERATORS, PAD, tree, uniform, value
from tasks.listops import Config, ListOps
from tests.splits import read

SMALL = {"train": 60, "valid": 20, "test": 20, "batch": 20, "length": 40, "min_length": 8}
SPELLED = dict(zip([*DIGITS, *OPERATORS, END], [*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]"], strict=True))
PYTHON = {"[MIN": "min([", "[MAX": "max([", "[MED": "middle([", "[SM": "ones([", "]": "]),"}

# as the arena writes them: every pair of its tree in parentheses, which mean nothing
TRUE = {
    "train": [
        ("( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )", 9),
        ("( ( ( ( [MED 1 ) 4 ) ( ( ( [SM 9 ) 8 ) ] ) ) ] )", 4),
        ("( ( ( [SM 5 ) 6 ) ] )", 1),
    ],
    "val": [("( ( ( ( ( [MED 1 ) 8 ) 4 ) 7 ) ] )", 5), ("( ( ( [MIN 3 ) 2 ) ] )", 2)],
    "test": [("( ( ( [MAX 0 ) 0 ) ] )", 0), ("( ( ( [SM 9 ) 9 ) ] )", 8)],
}
ARENA = {"source": "lra", "train": 3, "valid": 2, "test": 2, "batch": 2, "length": 12}


def made(tmp_path: Path, **knobs: object) -> ListOps:
    task = ListOps(configure(Config, {**SMALL, **knobs}, of="listops"), tmp_path)
    task.prepare(lambda *_: None, 1)
    return task


def words(row: torch.Tensor) -> list[str]:
    """The symbols of an example, spelled; padding may only follow them."""
    symbols = row.tolist()
    length = len(symbols) - symbols.count(PAD)
    assert PAD not in symbols[:length]
    return [SPELLED[symbol] for symbol in symbols[:length]]


def worth(spelled: list[str]) -> int:
    """What Python makes of an expression that is written in Python."""
    source = "".join(PYTHON.get(word, f"{word},") for word in spelled)
    names = {"min": min, "max": max, "middle": lambda of: int(median(of)), "ones": lambda of: int(str(sum(of))[-1])}
    (found,) = eval(f"({source})", {"__builtins__": {}}, names)
    return found


def levels(spelled: list[str]) -> int:
    """Levels of an expression, digits too."""
    deep = np.cumsum([word.startswith("[") - (word == "]") for word in spelled])
    return int(deep.max()) + 1


def widths(spelled: list[str]) -> list[int]:
    """How many arguments every operator has."""
    found, still = [], [0]
    for word in spelled:
        if word == "]":
            found.append(still.pop())
        else:
            still[-1] += 1
            still += [0] if word.startswith("[") else []
    return found


def arena(folder: Path, end: str = "\r\n") -> Path:
    """Long Range Arena's three files, made by hand, where the task looks for them."""
    where = folder / "listops" / "lra"
    where.mkdir(parents=True)
    for name, rows in TRUE.items():
        lines = ["Source\tTarget", *(f"{source}\t{target}" for source, target in rows)]
        (where / f"basic_{name}.tsv").write_bytes("".join(line + end for line in lines).encode())
    return where


# --- what is drawn


def test_every_answer_is_what_python_makes_of_the_expression(tmp_path):
    task = made(tmp_path, length=200, min_length=1, train=400)
    seen = set()
    for split in ("train", "valid", "test"):
        for row, answer in zip(*read(task, split), strict=True):
            assert worth(words(row)) == answer
            seen |= {*words(row)}
    assert seen == set(SPELLED.values())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]", 5),  # the arena's own example
        ("[MED 1 8 4 7 ]", 5),
        ("[MED 3 4 ]", 3),
        ("[SM 9 9 9 ]", 7),
        ("7", 7),
    ],
)
def test_known_expressions_have_their_values(text, answer):
    symbol = {word: number for number, word in SPELLED.items()}
    assert value([symbol[word] for word in text.split()]) == answer == worth(text.split())


def test_expressions_keep_to_the_knobs_and_reach_them(tmp_path):
    task = made(tmp_path, length=30, min_length=9, depth=4, arguments=3, nesting=0.6, train=800)
    drawn = [words(row) for row in read(task, "train")[0]]
    assert (min(map(len, drawn)), max(map(len, drawn))) == (10, 29)
    assert max(map(levels, drawn)) == 4
    assert {width for one in drawn for width in widths(one)} == {2, 3}


def test_trees_grow_by_the_arenas_rule():
    shape = Config(length=10**6, min_length=1, depth=3, arguments=10, nesting=0.25)
    numbers = uniform(np.random.default_rng(0))
    drawn = [words(torch.tensor(tree(numbers, shape))) for _ in range(3000)]
    roots, below = [len_of_root(one) for one in drawn], [one.count("]") - 1 for one in drawn]
    assert abs(sum(below) / sum(roots) - 0.25) < 0.015  # an argument of the root is an operator with that chance
    counts: list[tuple[Counter[object], Sequence[object]]] = [
        (Counter(roots), range(2, 11)),
        (Counter(word for one in drawn for word in one if word.isdigit()), "0123456789"),
        (Counter(word for one in drawn for word in one if word.startswith("[")), ["[MIN", "[MAX", "[MED", "[SM"]),
    ]
    for counted, kinds in counts:
        shares = np.array([counted[kind] for kind in kinds]) / counted.total()
        assert np.abs(shares * len(kinds) - 1).max() < 0.25
        assert set(counted) == set(kinds)


def len_of_root(spelled: list[str]) -> int:
    return widths(spelled)[-1]


def test_no_expression_is_in_two_splits_even_where_there_are_few(tmp_path):
    few = {"length": 7, "min_length": 1, "depth": 2, "arguments": 2, "train": 600, "valid": 200, "test": 200}
    task = made(tmp_path, **few)
    train, valid, test = ({tuple(row) for row in read(task, split)[0].tolist()} for split in TRUE_SPLITS)
    assert not train & valid | train & test | valid & test
    assert len(train | valid | test) > 300  # of 400 that there are


TRUE_SPLITS = ("train", "valid", "test")


def test_the_seed_decides_every_example_and_the_number_of_examples_none(tmp_path):
    one, again, more = made(tmp_path / "a"), made(tmp_path / "b"), made(tmp_path / "c", train=70)
    hashes = [task.prepare(lambda *_: None, workers) for task, workers in ((one, 1), (again, 3))]
    assert hashes[0] == hashes[1] != made(tmp_path / "d", data_seed=1).prepare(lambda *_: None, 1)
    for part in (0, 1):
        assert torch.equal(read(one, "train")[part], read(more, "train")[part][:60])


def test_progress_counts_every_example(tmp_path):
    arena(tmp_path)
    for knobs, total in ((SMALL, 100), (ARENA, 7)):
        seen: list[tuple[int, int]] = []
        config = configure(Config, knobs, of="listops")
        ListOps(config, tmp_path).prepare(lambda done, total, seen=seen: seen.append((done, total)), 1)
        assert seen == [(number, total) for number in range(1, total + 1)]


def test_a_model_learns_more_than_the_commonest_answer(tmp_path):
    easy = {"length": 8, "min_length": 1, "depth": 2, "arguments": 4, "train": 1600, "test": 400, "epochs": 8}
    task = made(tmp_path, **easy, batch=32, rate=4e-3)
    found = task.run(maker("isotropic", {"channels": 32, "depth": 1}, ("full", {}), 0), seed=0, device="cpu").result
    assert found["chance"] < 0.25
    assert found["accuracy"] > found["chance"] + 0.1


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"min_length": 39}, "more than min_length 39 and fewer than length 40 symbols"),
        ({"depth": 2, "arguments": 3}, "depth 2 with 3 arguments has 5 symbols; min_length 8 asks for more"),
        ({"length": 4}, "listops.length should be greater than 4"),
        ({"nesting": 1.0}, "listops.nesting should be less than 1"),
        ({"source": "arena"}, "listops.source is one of 'generated' or 'lra'"),
        ({"batch": 64}, "batch is 64, more than the 60 training examples"),
        ({"argument": 3}, "Did you mean 'arguments'"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_sentence(knobs, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        configure(Config, {**SMALL, **knobs}, of="listops")
    assert "\n" not in str(refusal.value)


def test_lengths_that_hardly_ever_come_are_refused_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks._listops.DRAWS", 50)
    with pytest.raises(ValueError, match="none of 50 drawn expressions had more than 1997 and fewer than 2000"):
        made(tmp_path, length=2000, min_length=1997)
    assert not list(tmp_path.rglob("*.npy"))


# --- Long Range Arena's files


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_the_arenas_files_are_read_without_parentheses(tmp_path, end):
    arena(tmp_path, end)
    task = made(tmp_path, **ARENA)
    for split, name in zip(TRUE_SPLITS, TRUE, strict=True):
        inputs, target = read(task, split)
        plain = [source.replace("( ", "").replace(" )", "").split() for source, _ in TRUE[name]]
        assert [words(row) for row in inputs] == plain
        assert target.tolist() == [answer for _, answer in TRUE[name]]
        assert inputs.shape == (len(plain), 12)


def test_of_the_arenas_files_the_first_examples_are_taken(tmp_path):
    arena(tmp_path)
    task = made(tmp_path, **{**ARENA, "train": 2, "test": 1})
    assert read(task, "train")[1].tolist() == [9, 4]
    assert read(task, "test")[1].tolist() == [0]


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("train", b"Source\tTarget", b"Source,Target", "columns Source and Target; found 'Source,Target'"),
        ("train", b" ] )\t1", b" ] )\t2", r"basic_train.tsv, line 4 .* is worth 1; found target '2'"),
        ("train", b"[SM 5", b"[SM 4", "line 4 .* is worth 0; found target '1'"),
        ("val", b"[MIN", b"[MOD", r"basic_val.tsv, line 3 .*'\[MOD' is no symbol"),
        ("test", b" 9 ) ] )\t8\r\n", b" 9 ) ", "basic_test.tsv, line 3 .* two columns; found 1"),
        ("test", b" 9 ) ] )\t8", b" 9 )\t8", "line 3 is damaged: it is not one whole expression"),
        ("test", b"\t8\r\n", b"\t", "line 3 .* is worth 8; found target ''"),
        ("val", b"( ( ( [MIN 3 ) 2 ) ] )\t2\r\n", b"", "basic_val.tsv has 1 examples; valid asks for 2"),
        ("val", b"( ( ( [MIN 3 ) 2 ) ] )", b"]", "line 3 is damaged: a bracket closes nothing"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_written(tmp_path, name, old, new, sentence):
    file = arena(tmp_path) / f"basic_{name}.tsv"
    content = file.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=sentence) as refusal:
        made(tmp_path, **ARENA)
    assert str(file) in str(refusal.value)
    assert file.read_bytes() == content.replace(old, new)
    assert sorted(one.name for one in (tmp_path / "listops").iterdir()) == ["lra"]


def test_a_missing_file_says_where_it_should_be_where_it_comes_from_and_its_size(tmp_path):
    with pytest.raises(ValueError, match=r"basic_train.tsv; .*listops-1000 of https://.*lra_release.gz.* 0.7 GB"):
        made(tmp_path, **ARENA)
    file = arena(tmp_path) / "basic_val.tsv"
    file.unlink()
    with pytest.raises(ValueError, match=f"There is no file {file}"):
        made(tmp_path, **ARENA)


def test_an_expression_that_is_too_long_is_refused_not_cut(tmp_path):
    arena(tmp_path)
    with pytest.raises(ValueError, match=r"line 2 has 9 symbols, more than length 8; the arena's is 2000"):
        made(tmp_path, **{**ARENA, "length": 8})


def test_knobs_of_the_other_source_stay_out_of_an_id(tmp_path):
    given, drawn = (set(resolved(Config(source=source))) for source in ("lra", "generated"))
    assert drawn - given == {"min_length", "depth", "arguments", "nesting", "data_seed"}
    arena(tmp_path)
    assert made(tmp_path, **ARENA, data_seed=3).prepare(lambda *_: None, 1) == made(tmp_path, **ARENA).prepare(
        lambda *_: None, 1
    )
