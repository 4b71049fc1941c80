"""The page's figures of lines: every point where its row says, every line through the numbers of the tables."""

from dataclasses import replace
from math import exp, log
from random import Random
from statistics import fmean, geometric_mean, median
from typing import Any

import pytest

from attnbench.reports.page import series
from attnbench.reports.page.content import content
from attnbench.reports.page.part import Beside, Part
from tests import made_page
from tests.made_page import part_of, row
from tests.test_page_values import column_of

Found = dict[str, Any]
TOKENS = (64, 256, 1024)


def trainings() -> list[Found]:
    return [row("train", name, "m", seed, **{"result.rel_l2": 0.1}) for name in ("a", "b") for seed in (4, 8, 15)]


def test_a_curve_over_places_begins_where_its_first_place_is_and_has_the_mean_over_seeds():
    chance, rows = Random(0), trainings()
    curves = {
        one["id"]: {name: [1 + chance.random() for _ in range(5)] for name in ("raw.jump_error", "raw.boundary_error")}
        for one in rows
    }
    found = content([replace(part_of(rows), curves=curves)])
    ids = column_of(found, "id")
    figures = found["reports"][0]["lines"]["curves"]
    first = {"jump error": ("raw.jump_error", 0.5), "boundary error": ("raw.boundary_error", 0.0)}
    assert len(figures) == 2
    for figure in figures:
        name, begin = first[figure["title"].rpartition(": ")[2]]
        for one in figure["series"]:
            own = [curves[row["id"]][name] for row in rows if row["variant"] == one["variant"]]
            assert one["x"] == [begin + i for i in range(5)]
            assert one["y"] == pytest.approx([fmean(values) for values in zip(*own, strict=True)], rel=5e-6)
            for low, y, high, text in zip(one["low"], one["y"], one["high"], one["text"], strict=True):
                assert low < y < high
                assert float(text.split(" ")[0]) == pytest.approx(y, rel=0.1)
                assert figure["y"]["low"] <= y <= figure["y"]["high"]
            assert {ids[place] for place in one["cells"]} == {r["id"] for r in rows if r["variant"] == one["variant"]}


def followed(epochs: int) -> tuple[Part, dict[str, list[float]]]:
    """A part with a training curve of its own for each cell."""
    chance, rows = Random(0), trainings()
    curves = {one["id"]: [chance.random() for _ in range(epochs)] for one in rows}
    beside = {id: Beside(histories={"train_loss": own}) for id, own in curves.items()}
    return replace(part_of(rows), beside=beside), curves


@pytest.mark.parametrize("epochs", [2, 60, 61, 150, 1001])
def test_a_training_curve_counts_epochs_from_one_and_ends_with_the_last(epochs: int):
    part, curves = followed(epochs)
    found = content([part])
    ids = column_of(found, "id")
    (figure,) = found["reports"][0]["lines"]["trainings"]
    assert len(figure["series"]) == len(curves)
    for one in figure["series"]:
        (place,) = one["cells"]
        truth = curves[ids[place]]
        assert one["y"] == pytest.approx([truth[x - 1] for x in one["x"]], rel=5e-6)
        assert (one["x"][0], one["x"][-1]) == (1, epochs)
        assert len(one["x"]) == epochs if epochs <= 60 else 30 <= len(one["x"]) <= 61
    assert {ids[one["cells"][0]] for one in figure["series"]} == set(curves)


def test_training_curves_that_are_left_out_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(series, "SERIES", 5)
    part, _ = followed(3)
    (figure,) = content([part])["reports"][0]["lines"]["trainings"]
    assert len(figure["series"]) == 2  # one seed of each variant
    assert figure["note"].endswith(" 4 of 6 are not drawn.")


def over_tokens() -> list[Found]:
    """Three processes and seeds at each number of tokens, with numbers by chance; `a` runs out of memory at 16384."""
    chance, found = Random(0), []
    for name in ("a", "b"):
        for tokens in (*TOKENS, 16384):
            for number in range(3):
                site = {"site.tokens": tokens, "site.shape": str(tokens), "site.channels": 8, "site.causal": False}
                cost = {name: tokens * (1 + 3 * chance.random()) for name in ("cost.step_ms", "cost.memory_mib")}
                cost |= {f"cost.step_ms_{end}": cost["cost.step_ms"] * by for end, by in (("low", 0.8), ("high", 1.1))}
                lost = name == "a" and tokens == 16384
                for way in ("forward", "both"):
                    more = {"pass": way, "batch": 1, "round": number, "status": "oom" if lost else "ok"}
                    more |= {} if lost else {one: value * (1 + (way == "both")) for one, value in cost.items()}
                    found.append(row("efficiency", name, name, None, **site, **more))
                if not lost:
                    error = {"result.output_error": 0.1 + chance.random(), "input": "random"}
                    found.append(row("atlas", name, name, number, **site, **error))
    return found


def test_points_over_tokens_are_rows_and_lines_go_through_what_tables_say():
    rows = over_tokens()
    found = content([part_of(rows)])
    truth = {one["id"]: one for one in rows}
    ids, lines = column_of(found, "id"), found["reports"][0]["lines"]
    middles = {"time of a step": geometric_mean, "peak memory": median, "error of outputs": fmean}
    columns = {"time of a step": "cost.step_ms", "peak memory": "cost.memory_mib"}
    figures = [*lines["efficiency"], *lines["atlas"]]
    assert [one["title"] for one in figures] == [
        *(f"{word}, pass {way}" for way in ("both", "forward") for word in ("time of a step", "peak memory")),
        "error of outputs",
    ]
    for figure in figures:
        word, _, way = figure["title"].partition(", pass ")
        column = columns.get(word, "result.output_error")
        for one in figure["series"]:
            own = [truth[ids[place]] for place in one["cells"]]
            assert {(point["variant"], point.get("pass", "")) for point in own} == {(one["variant"], way)}
            sizes = TOKENS if one["variant"] == "a" else (*TOKENS, 16384)
            assert one["x"] == [point["site.tokens"] for point in own] == [size for size in sizes for _ in range(3)]
            assert one["y"] == pytest.approx([point[column] for point in own], rel=5e-6)
            if column == "cost.step_ms":
                for end in ("low", "high"):
                    assert one[end] == pytest.approx([point[f"{column}_{end}"] for point in own], rel=5e-6)
            for (x, y), size in zip(one["path"], sizes, strict=True):
                wanted = middles[word]([point[column] for point in own if point["site.tokens"] == size])
                assert (x, y) == (size, pytest.approx(wanted, rel=5e-6))
            lost = [truth[ids[place]] for _, place in one["lost"]]
            assert all(point["status"] == "oom" and point["variant"] == one["variant"] for point in lost)
            assert [size for size, _ in one["lost"]] == ([16384] * 3 if one["variant"] == "a" and way else [])


def test_the_frame_holds_every_point_and_every_cross():
    rows = [one for one in over_tokens() if (one["kind"], one["variant"]) == ("efficiency", "a")]
    for figure in content([part_of(rows)])["reports"][0]["lines"]["efficiency"]:
        assert figure["x"]["low"] < 64 < 16384 < figure["x"]["high"]
        assert "out of memory" in figure["note"]


def test_a_ring_is_on_its_line_and_its_interval_within_what_was_measured():
    found = content([part_of(made_page.over_tokens())])
    figures = [figure for figure in found["reports"][0]["lines"]["efficiency"] if figure["rings"]]
    assert [figure["title"] for figure in figures] == ["time of a step"]  # memory is less at every size
    for figure in figures:
        (ring,) = figure["rings"]
        assert 256 <= ring["low"] <= ring["x"] <= ring["high"] <= 4096  # full attention has no more
        (path,) = (one["path"] for one in figure["series"] if one["variant"] == ring["name"])
        left = max((x, y) for x, y in path if x <= ring["x"])
        right = min((x, y) for x, y in path if x >= ring["x"])
        share = log(ring["x"] / left[0]) / log(right[0] / left[0])
        assert ring["y"] == pytest.approx(exp(log(left[1]) + share * log(right[1] / left[1])), rel=1e-4)


@pytest.mark.parametrize("error", [1e-15, 0.0])
def test_who_has_no_error_at_all_is_named_for_it_is_not_drawn(error: float):
    rows = [one for one in over_tokens() if one["kind"] == "atlas"]
    rows = [one | {"result.output_error": error} if one["variant"] == "a" else one for one in rows]
    (figure,) = content([part_of(rows)])["reports"][0]["lines"]["atlas"]
    assert [one["variant"] for one in figure["series"]] == ["b"]
    assert "Not drawn, for it is zero but for rounding: a." in figure["note"]
