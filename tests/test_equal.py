"""Widths solved so that variants are equally large or costly: within the tolerance, told in the row, else refused."""

import re
from typing import Any

import pytest

from attnbench import flops
from attnbench._equal import crossing
from attnbench.check import check
from attnbench.labels import variants
from attnbench.models import maker
from attnbench.reports.collect import collect
from attnbench.reports.effects import varying
from attnbench.reports.report import write_report
from attnbench.sweep import Plan
from tests.asked import TEXT, changed, ids, plan
from tests.made_rows import FakeStore, add

WIDE = TEXT.replace("channels: 8", "channels: 64").replace(
    "levels: 2", "levels: 2\n    upsample: [transposed, nearest]"
)
WIDE = WIDE.replace("runs: 4", "runs: 6")
EQUAL = WIDE + "equal: {what: params, to: full, within: 0.1}\n"


def trained(found: Plan) -> list[Any]:
    """The trainings, each with a mechanism inside."""
    assert all(cell.mechanism for cell in found.trainings)
    return found.trainings


def work(cell):
    inside = (cell.mechanism.name, cell.mechanism.values) if cell.mechanism else None
    return flops.count(maker(cell.model.name, cell.model.values, inside, 0), cell.task.config.port)


@pytest.mark.parametrize("what", ["params", "flops"])
def test_every_variant_is_as_large_or_costly_as_the_target(tmp_path, what):
    found = plan(tmp_path, EQUAL.replace("params", what).replace("side: 8", "side: 16"))

    def amount(cell):
        own = work(cell)
        return own.params if what == "params" else own.matmul_flops + own.fft_flops

    (target,) = {amount(cell) for cell in trained(found) if cell.mechanism.name == "full"}
    for cell in trained(found):
        assert amount(cell) / target == pytest.approx(cell.ratio)
        assert abs(cell.ratio - 1) <= 0.1
        assert cell.model.values["channels"] % cell.mechanism.values["heads"] == 0
    widths = {
        (cell.mechanism.name, cell.mechanism.values.get("upsample")): cell.model.values for cell in trained(found)
    }
    assert {who: values["channels"] for who, values in widths.items()} == {
        ("full", None): 64,
        ("mano", "transposed"): {"params": 44, "flops": 76}[what],  # its samplings weigh more, and windows cost less
        ("mano", "nearest"): {"params": 52, "flops": 80}[what],
    }


def test_no_other_width_comes_nearer(tmp_path):
    found = plan(tmp_path, EQUAL)
    target = next(work(cell).params for cell in trained(found) if cell.mechanism.name == "full")
    for cell in trained(found):
        heads = cell.mechanism.values["heads"]
        if cell.mechanism.name == "full":
            continue
        inside = (cell.mechanism.name, cell.mechanism.values)
        others = {
            width: flops.count(
                maker("isotropic", {**cell.model.values, "channels": width}, inside, 0), cell.task.config.port
            ).params
            for width in range(heads, 72, heads)
        }
        assert cell.model.values["channels"] == min(others, key=lambda width: abs(others[width] - target))


def test_widths_are_whole_heads_however_many_there_are(tmp_path):
    text = EQUAL.replace("    window: 2\n", "    window: 2\n    heads: 16\n").replace("0.1", "0.3")
    widths = {cell.mechanism.name: cell.model.values["channels"] for cell in trained(plan(tmp_path, text))}
    assert widths == {"full": 64, "mano": 48}


def test_a_solved_cell_is_the_cell_of_a_plain_file_with_that_width(tmp_path):
    found = plan(tmp_path, EQUAL)
    assert len(found.trainings) == 6
    for cell in found.trainings:
        width = cell.model.values["channels"]
        plain = plan(tmp_path, WIDE.replace("channels: 64", f"channels: {width}"))
        assert cell.id in ids(plain)
        assert cell.cost_id in ids(plain)


def test_a_solved_width_is_in_no_variants_name_and_a_report_tells_it(tmp_path):
    found = check(plan(tmp_path, EQUAL))
    assert set(variants(found.plan).values()) == {"full", "mano transposed", "mano nearest"}
    store = FakeStore()
    for cell in found.plan.cells:
        result = {"rel_l2": 0.1 + 0.01 * (cell.spec["seed"] or 0)} if cell.spec["kind"] == "train" else {}
        add(store, cell.spec, {"result": result, "cost": {}})
    frame = collect(store, found.manifest)
    rows = [row for row in frame.to_dict("records") if row["kind"] == "train"]
    assert len({row["model.channels"] for row in rows}) > 1
    assert "model.channels" not in varying(rows, ("model.",))
    assert {row["equal.params_ratio"] for row in rows} == {cell.ratio for cell in found.plan.trainings}
    text = write_report(store, found.manifest, tmp_path / "report").read_text()
    assert "| darcy | full | channels 64 | 1.000 |" in text


REFUSED = {
    "an unknown target": ("to: full", "to: ful", 14, ["one variant of 'ful'", "Did you mean 'full'?"]),
    "a target of several variants": ("to: full", "to: mano", 14, ["one variant of 'mano'", "it has 2 variants"]),
    "an unknown width": (
        "to: full",
        "to: full, knob: chanels",
        14,
        ["isotropic has no width 'chanels'", "'channels'?"],
    ),
    "a width that is a word": ("to: full", "to: full, knob: position", 14, ["isotropic has no width 'position'"]),
    "an unknown amount": ("what: params", "what: time", 14, ["equal.what is one of"]),
    "an exactness that whole heads do not reach": (
        "0.1",
        "1e-6",
        9,
        ["mano cannot have full's", "within 1e-06: channels"],
    ),
    "a width that is an axis": ("channels: 64", "channels: [64, 32]", 6, ["channels is solved for", "one value"]),
}


@pytest.mark.parametrize(("old", "new", "line", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_made_equal_is_refused(old, new, line, words, tmp_path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared below
        plan(tmp_path, changed(old, new, EQUAL))
    told = str(caught.value)
    assert re.match(rf".*asked\.yaml, line {line}: [^\n]+[.?]$", told), told
    for word in words:
        assert word in told, told


def test_bisection_finds_where_a_rising_function_with_holes_reaches_its_target():
    for hole in range(1, 40):
        for target in range(1, 60):
            found = crossing(lambda number, hole=hole: None if number == hole else number, target, 100)
            assert abs(found - target) <= 1
    assert crossing(lambda _: 1, 5, 8) >= 8
