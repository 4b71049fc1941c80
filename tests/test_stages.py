"""Knobs with a value for each stage of a model: strictly read, one id a meaning, each stage built with its own."""

import json
import re

import pytest

import mechanisms
from attnbench.check import check
from attnbench.labels import variants
from attnbench.models import maker
from attnbench.proofs import claims
from attnbench.reports.knobs import fill_knobs
from attnbench.sweep import expand
from mechanisms._stages import spread, staged
from tasks import Port
from tests.asked import ids, plan, written

TEXT = """\
question: Does it work?
runs: RUNS
tasks:
  - {name: images, side: 16, train: 32, valid: 8, test: 8, epochs: 1, batch: 8}
models:
  - {name: swinv2, size: custom, channels: 8, blocks: "1 1", patch: 2}
mechanisms:
  - name: mano
    window: 2
    levels: LEVELS
seeds: [0]
"""


def asked(tmp_path, levels, runs=1, *more, **given):
    text = TEXT.replace("LEVELS", levels).replace("RUNS", str(runs))
    for old, new in more:
        text = text.replace(old, new)
    return plan(tmp_path, text, **given)


def knobs(found):
    return [cell.spec["mechanism"]["knobs"] for cell in found.trainings if cell.spec["mechanism"]]


def test_a_map_gives_every_stage_its_value(tmp_path, monkeypatch):
    built = []
    build = mechanisms.build
    monkeypatch.setattr(
        mechanisms, "build", lambda name, site, **own: (built.append((site.stage, own)), build(name, site, **own))[1]
    )
    (cell,) = asked(tmp_path, "{1: 2, 2: 1}").trainings
    assert cell.mechanism is not None
    maker(cell.model.name, cell.model.values, ("mano", cell.spec["mechanism"]["knobs"]), 0)(cell.task.config.port)
    assert [(stage, own["levels"], own["window"]) for stage, own in built] == [(1, 2, 2), (2, 1, 2)]
    assert "downsample" in built[0][1]
    model = maker(cell.model.name, cell.model.values, ("mano", cell.mechanism.values), 0)(cell.task.config.port)
    plain = {
        n: maker(cell.model.name, cell.model.values, ("mano", {"window": 2, "levels": n}), 0)(cell.task.config.port)
        for n in (1, 2)
    }
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    expected = {
        name: w.shape
        for n, stage in ((2, 0), (1, 1))
        for name, w in plain[n].state_dict().items()
        if f"layers.{stage}." in name
    }
    assert {name: shape for name, shape in shapes.items() if "layers." in name} == expected


def test_a_map_of_equal_values_is_the_plain_value(tmp_path):
    assert ids(asked(tmp_path, "{1: 2, 2: 2}")) == ids(asked(tmp_path, "2"))
    assert ids(asked(tmp_path, '{2: 2, "1": 2}')) == ids(asked(tmp_path, "2"))
    assert len(asked(tmp_path, "[2, {1: 2, 2: 2}, {1: 3, 2: 1}]", 2).trainings) == 2


def test_a_map_enters_the_id_with_words_for_its_stages_in_any_order(tmp_path):
    found = asked(tmp_path, "{2: 1, 1: 3}")
    assert knobs(found)[0]["levels"] == {"1": 3, "2": 1}
    assert json.loads(json.dumps(found.trainings[0].spec)) == found.trainings[0].spec
    assert ids(found) == ids(asked(tmp_path, '{"1": 3, "2": 1}'))
    others = [ids(asked(tmp_path, levels)) for levels in ("{1: 1, 2: 3}", "3", "1")]
    assert len({str(one) for one in [*others, ids(found)]}) == 4


def test_what_is_idle_in_a_stage_has_no_part_in_the_id(tmp_path):
    downsample = ("    window: 2\n", "    window: 2\n    downsample: {1: conv, 2: average}\n")
    found = asked(tmp_path, "{1: 3, 2: 1}", 1, downsample)
    assert knobs(found)[0]["downsample"] == "conv"
    assert ids(found) == ids(asked(tmp_path, "{1: 3, 2: 1}", 1, ("window: 2\n", "window: 2\n    downsample: conv\n")))
    both = asked(tmp_path, "{1: 3, 2: 2}", 1, downsample)
    assert knobs(both)[0]["downsample"] == {"1": "conv", "2": "average"}


def test_a_value_that_means_as_before_is_written_where_another_stage_has_another(tmp_path):
    found = asked(tmp_path, "{1: 3, 2: 2}", 1, ("window: 2\n", "window: 2\n    position: {1: plain, 2: swin_v2}\n"))
    assert mechanisms.find("mano").config.neutral["position"] == "plain"
    assert knobs(found)[0]["position"] == {"1": "plain", "2": "swin_v2"}


def test_labels_and_columns_of_a_map_are_short(tmp_path):
    found = asked(tmp_path, "[2, {1: 3, 2: 1}]", 2)
    labels = {variants(found)[cell.id] for cell in found.trainings}
    assert labels == {"mano levels 2", "mano levels 3/1"}
    rows = [
        {"mechanism": "mano", "task": "images"} | {f"mechanism.{knob}": value for knob, value in own.items()}
        for own in knobs(found)
    ]
    fill_knobs(rows)
    assert [row["mechanism.levels"] for row in rows] == [2, "3/1"]
    assert [row["mechanism.downsample"] for row in rows] == ["conv", "conv"]
    assert "downsample" not in rows[1]["idle"].split()
    assert spread({"1": 3, "3": 0.5}) == "3/-/0.5"
    assert staged({"a": {"10": 1, "2": 1}, "b": 3}) == ["2", "10"]


def test_an_override_may_be_a_map(tmp_path):
    found = asked(tmp_path, "2", 1, settings=["mechanism.mano.levels={1: 3, 2: 1}"])
    assert knobs(found)[0]["levels"] == {"1": 3, "2": 1}


def test_every_stage_is_proved_by_itself(tmp_path):
    found = claims(asked(tmp_path, "{1: 2, 2: 1}").trainings)
    assert [claim.knobs.get("levels") for claim in found] == [None, 2, 1]


REFUSED = {
    "an unknown stage": ("{1: 2, 2: 1, 3: 1}", 10, ["mano.levels", "swinv2 has the stages 1 to 2", "got 3"]),
    "a missing stage": ("{1: 2}", 10, ["mano.levels", "swinv2 has the stages 1 to 2", "2 is missing"]),
    "an empty map": ("{}", 10, ["1 is missing"]),
    "a stage that is a word": ("{one: 2, 2: 1}", 10, ["got 'one'"]),
    "a stage that is a fraction": ("{1.0: 2, 2: 1}", 10, ["got 1.0"]),
    "a stage that is a switch": ("{true: 2, 2: 1}", 10, ["got True"]),
    "stage zero": ("{0: 2, 1: 2, 2: 1}", 10, ["got 0"]),
    "a stage written twice": ('{1: 2, "1": 3, 2: 1}', 10, ["stage 1 is written twice"]),
    "a wrong value": ('{1: 2, 2: "1"}', 10, ["stage 2: mano.levels should be", "'1' (str)"]),
    "a map inside a map": ("{1: 2, 2: {1: 2, 2: 1}}", 10, ["stage 2: mano.levels should be"]),
    "a list inside a map": ("{1: 2, 2: [1]}", 10, ["stage 2: mano.levels should be", "[1]"]),
    "a stage on a line of its own": ("\n      1: 2\n      5: 1", 12, ["got 5"]),
    "a map of several on an axis": ("\n      - 2\n      - {1: 2, 2: 1}\n      - {1: 2, 4: 1}", 13, ["got 4"]),
    "a stage whose grid does not do": ("{1: 1, 2: 4}", 8, ["stage 2: ", "mano"]),
}


@pytest.mark.parametrize(("levels", "line", "words"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_map_is_refused_with_its_line_before_anything_runs(levels, line, words, tmp_path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared below
        check(asked(tmp_path, levels))
    told = str(caught.value)
    assert re.match(rf".*asked\.yaml, line {line}: [^\n]+[.?]$", told), told
    for word in words:
        assert word in told, told


def test_a_model_without_stages_takes_a_map_of_one_and_no_more(tmp_path):
    text = TEXT.replace("images, side: 16", "darcy, side: 8, refine: 2").replace("RUNS", "1")
    text = text.replace(
        '{name: swinv2, size: custom, channels: 8, blocks: "1 1", patch: 2}', "{name: isotropic, channels: 8, depth: 1}"
    )
    assert knobs(expand(written(tmp_path, text.replace("LEVELS", "{1: 2}")), device="cpu"))[0]["levels"] == 2
    with pytest.raises(ValueError, match=r"line 10: mano.levels: .* isotropic has one stage, 1; got 2."):
        expand(written(tmp_path, text.replace("LEVELS", "{1: 2, 2: 1}")), device="cpu")


def test_a_model_with_more_stages_than_a_map_is_refused():
    port = Port(inputs=1, outputs=2, shape=(16, 16), once=True)
    own = {"size": "custom", "channels": 8, "blocks": "1 1", "patch": 2}
    with pytest.raises(ValueError, match=r"stage 2: mano.levels has values for the stages 1 and none for stage 2."):
        maker("swinv2", own, ("mano", {"window": 2, "levels": {"1": 2}}), 0)(port)
