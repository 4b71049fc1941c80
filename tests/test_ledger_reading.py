"""The ledger's two files are read strictly: what is not understood is refused with file, line and the nearest word."""

from pathlib import Path

import pytest

from attnbench.ledger.published import COLUMNS, PUBLISHED, published
from attnbench.ledger.reruns import Plan, reruns

HEAD = ",".join(COLUMNS)
LINES = [
    "a-order,P,1,T,t,d,s,m,ordering,,x > y,,read,",
    "a-count,P,1,T,t,d,s,m,parameters,parameters,12,lower,computed,",
    "a-value,P,1,T,t,d,s,m,error,,0.5,lower,second-hand,a note",
]
RERUNS = """\
reruns:
  a-order:
    kind: ordering
    differences: none
    places:
      - sweep: ablation_levels
        measure: result.rel_l2
        pairs:
          - {better: {mechanism: mano}, worse: {mechanism: full}}
  a-count:
    kind: count
    of: {mechanism: {name: full}, site: {channels: 8, shape: [4]}}
    differences: none
not_run:
  - claims: [a-val*]
    would: long_range
    why: because
"""


def claims(tmp_path: Path, *lines: str, head: str = HEAD) -> Path:
    file = tmp_path / "published.csv"
    file.write_text("\n".join([head, *(lines or LINES), ""]))
    return file


def plan(tmp_path: Path, text: str = RERUNS) -> Plan:
    file = tmp_path / "reruns.yaml"
    file.write_text(text)
    return reruns(published(claims(tmp_path)), file)


def test_what_is_right_is_read(tmp_path: Path):
    found = plan(tmp_path)
    assert (set(found.reruns), set(found.unrun)) == ({"a-order", "a-count"}, {"a-value"})
    assert found.lines["a-order"] == [6]
    assert found.reruns["a-order"].places[0].pairs[0].worse == {"mechanism": "full"}
    assert found.unrun["a-value"].would == "long_range"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("  a-order:", "  a-ordr:", r"line 2: there is no claim 'a-ordr'. Did you mean 'a-order'"),
        (
            "ablation_levels",
            "ablation_level",
            r"line 6: there is no sweep 'ablation_level'. Did you mean 'ablation_levels'",
        ),
        ("would: long_range", "would: longrange", r"line 16: there is no sweep 'longrange'. Did you mean 'long_range'"),
        ("kind: ordering", "kind: order", r"line 3: a-order.kind is one of .* Did you mean 'ordering'"),
        ("measure: result", "measur: result", r"line 7: a-order.places has no knob 'measur'. Did you mean 'measure'"),
        ("worse: {", "wors: {", r"line 9: a-order.places.pairs has no knob 'wors'. Did you mean 'worse'"),
        ("a-val*", "a-vul*", r"line 15: no claim is called 'a-vul\*'"),
        ("a-val*", "a-*", r"line 15: the claim 'a-order' is named twice"),
        ("reruns:", "rerun:", r"line 1: there is no section 'rerun'. Did you mean 'reruns'"),
        ("  a-count:", "  a-order:", r"line 10: the key 'a-order' is written twice"),
        ("claims: [a-val*]", "claims: [a-count]", "the claim 'a-count' is named twice"),
        ("kind: count", "kind: value", r"line 11: a-count is no count; `of`"),
        (
            "    of: {mechanism: {name: full}, site: {channels: 8, shape: [4]}}\n",
            "",
            r"line 11: a-count is a count and needs",
        ),
        ("kind: ordering", "kind: ratio", r"line 3: a-order has `claimed`"),
        ("kind: ordering", "kind: ordering\n    claimed: 0.5", r"line 3: a-order has `claimed`"),
        ("kind: ordering", "kind: value", r"line 3: a-order is a value; pairs belong"),
        (
            "kind: ordering",
            "kind: ordering\n    place: 3",
            r"line 4: a-order has no knob 'place'. Did you mean 'places'",
        ),
        ("    why: because\n", "", r"line 15: not_run needs 'why'"),
        ("worse: {mechanism: full}", "worse: full", r"line 9: a-order.places.pairs.worse"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(tmp_path: Path, old: str, new: str, sentence: str):
    assert old in RERUNS
    with pytest.raises(ValueError, match=sentence) as told:
        plan(tmp_path, RERUNS.replace(old, new, 1))
    assert str(tmp_path / "reruns.yaml") in str(told.value)


def test_a_claim_that_is_named_nowhere_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="1 claims are named nowhere, the first 'a-value'"):
        plan(tmp_path, RERUNS[: RERUNS.index("not_run")])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (LINES[0], r"line 3: the id 'a-order' is there twice"),
        (LINES[1].replace("a-count", "A count"), r"line 3: an id is lower-case words .* got 'A count'"),
        (LINES[1].replace("computed", "compute"), r"line 3: source_quality is one of .* Did you mean 'computed'"),
        (LINES[1].replace(",12,", ",a dozen,"), r"line 3: a-count .* its value is a number; got 'a dozen'"),
        (LINES[1].replace(",lower,", ",less,"), r"line 3: better is one of lower, higher; got 'less'"),
        ("b,c", r"line 3: a claim has 14 fields; got 2"),
    ],
)
def test_a_wrong_claim_is_refused_with_its_line(tmp_path: Path, line: str, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        published(claims(tmp_path, LINES[0], line))


def test_other_columns_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"line 1: the columns are id, paper"):
        published(claims(tmp_path, *LINES, head=HEAD.replace("id,", "name,")))


def test_the_shipped_files_hold_together():
    found = published()
    shipped = reruns(found)
    assert len(found) == 230
    assert len(shipped.reruns) + len(shipped.unrun) == 230
    assert PUBLISHED.parent.name == "ledger"


def test_a_claim_says_what_was_published():
    found = published()
    assert found["mano-order-levels"].stated == "more levels > fewer levels"
    assert found["mano-darcy16-relmse"].stated == "MANO: relative MSE 0.008 (Darcy flow, 16x16)"
    assert found["lra-listops-transformer"].stated == "Transformer: accuracy 36.37 % (ListOps)"
