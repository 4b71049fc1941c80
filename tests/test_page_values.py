"""What the page says of cells and variants, against the rows counted, sorted and compared anew."""

import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import Any

import pytest

from attnbench.reports.page import content as contents
from attnbench.reports.page import pack
from attnbench.reports.page.axes import axis
from attnbench.reports.page.content import content
from attnbench.reports.page.part import Beside, Part
from attnbench.reports.rows import records
from attnbench.reports.sheets import Sheet
from tests import made_page
from tests.made_page import part_of, row
from tests.test_page import values

Found = dict[str, Any]


def column_of(found: Found, name: str) -> list[Any]:
    """A column of a page's cells, by place; None in each where the page has none of this name."""
    n = found["cells"]["n"]
    return next((values(one, n) for one in found["cells"]["columns"] if one["name"] == name), [None] * n)


def variants(
    measure: str = "result.rel_l2", seeds: tuple[int, ...] = (3, 7, 12), sides: tuple[int, ...] = (16, 32)
) -> list[Found]:
    """Rows of six variants, the better the dearer but for two; the cost of v1 has failed, the timing of v2 is noisy."""
    chance, found = Random(1), []
    errors, speeds, sizes = (0.2, 0.3, 0.25, 0.4, 0.5, 0.45), (20, 40, 15, 60, 80, 30), (90, 10, 95, 50, 20, 60)
    for side in sides:
        for number in range(6):
            name = f"v{number}"
            speed, state = speeds[number] + chance.random(), "oom" if number == 1 else "ok"
            price = {"cost.train_samples_per_s": speed, "cost.memory_train_mib": sizes[number] + chance.random()}
            price |= {"cost.train_samples_per_s_q25": 0.9 * speed, "cost.train_samples_per_s_q75": 1.2 * speed}
            own = {"task.side": side, "cost.noisy": number == 2, **price}
            cell = row("cost", name, "m", None, **own)
            found.append(cell)
            for seed in seeds:
                value = errors[number] + 0.02 * chance.random()
                value = 1 - value if measure == "result.accuracy" else value
                more = own | {measure: value, "cost_id": cell["id"], "cost.status": state}
                found.append(row("train", name, "m", seed, **more))
    return found


def test_packed_columns_tell_apart_what_python_takes_for_equal():
    chance, pool = Random(0), [True, False, 1, 0, 1.5, "1", "True", "", None]
    for length in (1, 2, 3, 8, 40):
        for _ in range(60):
            given = [chance.choice(pool[: chance.randint(1, 9)]) for _ in range(length)]
            found = values(pack.column(given), length)
            assert [(type(one), one) for one in found] == [(type(one), one) for one in given], given


def test_times_are_of_utc_wherever_the_report_is_made(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as there:
        there.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        found = pack.moment(1.7e9)
    time.tzset()
    assert found == "2023-11-14 22:13:20 UTC"


def test_cells_are_in_the_order_of_variants_and_of_seeds_as_numbers():
    rows = [row("train", name, "m", seed) for name in ("b", "a") for seed in (10, 2, 1, 33)]
    found = content([replace(part_of(rows), known=())])
    told = list(zip(column_of(found, "variant"), column_of(found, "seed"), strict=True))
    assert told == [(name, seed) for name in ("a", "b") for seed in (1, 2, 10, 33)]


def test_cells_are_counted_by_kind_and_by_what_became_of_them():
    rows = [row("train", "a", "m", seed) for seed in range(12)] + [row("cost", "a", "m", None)]
    for at, status in ((0, "oom"), (3, "missing"), (4, "missing"), (7, "timeout"), (9, "failed")):
        rows[at]["status"] = status
    for at, device in enumerate("aaabbbbcdefgg"):
        rows[at]["host.device"] = device
    (report,) = content([replace(part_of(rows), known=())])["reports"]
    trained, price = report["counts"]
    assert trained == {
        **{"kind": "trainings", "asked": 12, "ok": 7},
        "others": "2 missing, 1 failed, 1 oom, 1 timeout",
    }
    assert price == {"kind": "cost measurements", "asked": 1, "ok": 1, "others": ""}
    assert report["scope"] == [{"count": n, "words": w} for n, w in ((1, "mechanism"), (1, "variant"), (12, "seeds"))]
    there = Counter(one["host.device"] for one in rows if one["status"] not in ("missing", "failed"))
    first = sorted(there, key=lambda name: (-there[name], name))
    told = ", ".join(f"{name} ({there[name]} cells)" for name in first[:4])
    facts = dict(report["facts"])
    assert len(first) == 6
    assert facts["processor"] == f"{told} and 2 more"
    assert facts["commit"] == "0123456789"
    for gone, more in (("f", " and 1 more"), ("d", "")):  # five kinds are left, then four
        rows = [one | {"host.device": "b"} if one["host.device"] == gone else one for one in rows]
        (report,) = content([replace(part_of(rows), known=())])["reports"]
        assert dict(report["facts"])["processor"].endswith(f" cells){more}")


def test_seeds_that_variants_share_are_counted_once():
    (report,) = content([part_of(variants())])["reports"]
    assert report["scope"] == [{"count": n, "words": w} for n, w in ((1, "mechanism"), (6, "variants"), (3, "seeds"))]


def failing() -> tuple[Part, Found]:
    part = made_page.failing_part()
    return part, content([part])


def test_attempts_tracebacks_and_mechanisms_stand_at_their_own_cells():
    part = made_page.failing_part()
    gone, again = made_page.training(part.manifest, "fma", 0), made_page.training(part.manifest, "full", 2)
    found = content([replace(part, beside={**part.beside, again: Beside(tries=5)})])
    ids = column_of(found, "id")
    assert found["cells"]["tries"] == {str(ids.index(gone)): 2, str(ids.index(again)): 5}
    assert found["cells"]["tracebacks"] == {str(ids.index(gone)): made_page.TRACEBACK}
    owners = dict(zip(ids, values(found["cells"]["owners"], len(ids)), strict=True))
    assert owners == {cell.id: cell.mechanism or cell.model for cell in part.manifest.cells}
    names = {group["name"] for group in found["groups"]}
    assert names == set(owners.values())


def test_of_a_long_traceback_the_end_is_kept_for_it_says_what_was_raised():
    text = "".join(f"line {i}\n" for i in range(2000)) + "ValueError: the reason"
    found = contents.traceback(Beside(traceback=text))
    assert found == "…" + text[len(text) - contents.TRACEBACK :]


def test_lines_of_a_table_belong_to_the_mechanism_of_their_variant():
    part, found = failing()
    owner = {cell.variant: cell.mechanism or cell.model for cell in part.manifest.cells}
    for sheet in found["reports"][0]["sheets"][:2]:
        assert sheet["owners"] == [owner[fields[0]] for fields in sheet["rows"]]


def test_a_mechanism_whose_name_begins_like_that_of_another_is_not_taken_for_it():
    one = Sheet(title="t", caption="c", head=("place", "error"), rows=[("fma_latent at 64", "0.1"), ("fma at 64", "0")])
    found = contents.sheet(one, "tab:1", {"fma": "fma", "fma_latent": "fma_latent"})
    assert found["owners"] == ["fma_latent", "fma"]


def test_a_figure_of_a_setting_shows_the_seeds_of_its_own_cells():
    rows = [one for one in variants() if (one["seed"], one["variant"], one["task.side"]) != (7, "v0", 32)]
    rows.append(row("train", "v0", "m", 7, **{"task.side": 32}) | {"status": "diverged"})
    found = content([part_of(rows)])
    settings = found["reports"][0]["settings"]
    told = list(
        zip(*(column_of(found, name) for name in ("kind", "variant", "task.side", "seed", "status")), strict=True)
    )
    for setting, side in zip(settings, (16, 32), strict=True):
        assert setting["name"].endswith(f"side {side}")
        for point in setting["points"]:
            own = {told[place] for place in point["cells"]}
            assert own == {one for one in told if one[:3] == ("train", point["variant"], side)}
            truth = {
                one["seed"]: one["result.rel_l2"]
                for one in rows
                if (one["kind"], one["variant"], one["task.side"], one["status"])
                == ("train", point["variant"], side, "ok")
            }
            lost = (point["variant"], side) == ("v0", 32)
            assert [seed for seed, _ in point["seeds"]] == ([3, 12] if lost else [3, 7, 12])
            assert dict(point["seeds"]) == pytest.approx(truth, rel=5e-6)
            assert point["y"][0] == pytest.approx(fmean(truth.values()), rel=5e-6)
            assert point["y"][1] < point["y"][0] < point["y"][2]
            assert (point["whole"], point["count"]) == (not lost, "2/3" if lost else "3/3")
            assert f"seeds: {'2' if lost else '3'} / 3" in point["hint"]


def attained(points: list[tuple[float, float]], x: float, *, dear: int, worse: int) -> float:
    """The best measure that is to be had at a cost, of those points that are as cheap."""
    return worse * min(worse * y for price, y in points if dear * price <= dear * x)


@pytest.mark.parametrize(("measure", "worse"), [("result.rel_l2", 1), ("result.accuracy", -1)])
def test_the_front_is_what_is_to_be_had_at_each_cost(measure: str, worse: int):
    rows = variants(measure, sides=(16,))
    (setting,) = content([part_of(rows)])["reports"][0]["settings"]
    kinds = {plot["x"]["column"]: plot for plot in setting["plots"] if plot["kind"] == "scatter"}
    assert set(kinds) == {"cost.train_samples_per_s", "cost.memory_train_mib"}
    for cost, plot in kinds.items():
        dear = -1 if cost.endswith("per_s") else 1
        prices = {one["variant"]: one for one in rows if one["kind"] == "cost" and one["variant"] != "v1"}
        shown = {setting["points"][one["at"]]["variant"]: one for one in plot["placed"]}
        assert set(shown) == set(prices)
        points = {}
        for name, price in prices.items():
            mean = fmean(one[measure] for one in rows if (one["kind"], one["variant"]) == ("train", name))
            points[name] = price[cost], mean
            told = [price.get(f"{cost}{end}") for end in ("", "_q25", "_q75")]
            assert shown[name]["x"] == [one and pytest.approx(one, rel=5e-6) for one in told]
            assert shown[name]["hollow"] == (name == "v2" and dear < 0)
        best = {
            name
            for name, (x, y) in points.items()
            if not any(dear * a <= dear * x and worse * b <= worse * y and (a, b) != (x, y) for a, b in points.values())
        }
        assert {name for name, one in shown.items() if one["chance"]} == best
        assert len(best) > 1
        path = plot["front"]
        ends = [end(points[name][0] for name in best) for end in (min, max)]
        assert [path[0][0], path[-1][0]] == pytest.approx(ends, rel=5e-6)
        for (left, y), (right, after) in pairwise(path):
            if left != right:
                middle = (left + right) / 2
                assert y == after
                assert y == pytest.approx(attained(list(points.values()), middle, dear=dear, worse=worse), rel=5e-6)


def test_levels_above_a_floor_are_told_as_they_are_and_drawn_above_it():
    chance, rows = Random(0), []
    for number in range(3):
        for seed in range(3):
            more = {"result.bits_per_byte": 1 + 0.5 * number + 0.01 * chance.random(), "result.floor": 0.85}
            rows.append(row("train", f"v{number}", "m", seed, **more, **{"result.forgetful": 2.1}))
    (setting,) = content([part_of(rows)])["reports"][0]["settings"]
    (plot,) = setting["plots"]
    assert plot["levels"] == [["best without memory", 2.1]]
    x = plot["x"]
    ends = [end - 0.85 for point in setting["points"] for end in point["y"]]
    assert x["low"] < min(ends)
    most = max(*ends, 2.1 - 0.85)
    assert most < x["high"] < 1.2 * most


def test_an_axis_has_room_for_intervals_and_no_logarithm_for_scores():
    made = axis("result.rel_l2", [0.4, 0.5], [0.3, 0.62])
    assert 0.25 < made["low"] < 0.3 < 0.62 < made["high"] < 0.67
    assert not made["log"]
    assert axis("result.rel_l2", [0.01, 0.5])["log"]
    assert not axis("result.accuracy", [0.01, 0.5])["log"]


def test_verdicts_of_the_page_are_those_of_the_tables():
    part, found = failing()
    told = [[table.setting, table.ranking.sentence] for table in part.known]
    assert all(sentence for _, sentence in told)
    assert found["reports"][0]["verdicts"] == told


def test_a_value_of_the_page_is_that_of_the_table_for_every_cell():
    part, found = failing()
    truth = {one["id"]: one for one in records(part.frame)}
    ids = column_of(found, "id")
    for name in ("seed", "status", "variant", "result.rel_l2", "wall_s", "cost_id"):
        wanted = [truth[id][name] for id in ids]
        told = column_of(found, name)
        exact = [(a, b) for a, b in zip(told, wanted, strict=True) if not isinstance(b, float)]
        assert all(a == b for a, b in exact), name
        near = [(a, b) for a, b in zip(told, wanted, strict=True) if isinstance(b, float)]
        assert [a for a, _ in near] == pytest.approx([b for _, b in near], rel=5e-6), name
