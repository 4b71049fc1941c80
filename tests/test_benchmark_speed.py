"""The arithmetic behind the table of speed: aims, growth and crossing points, on times that are known."""

import json
from typing import Any

import pandas as pd
import pytest

from benchmarks._aims import AIMS, Aim, aims, grown, growth, held
from benchmarks._report import cell, crossing, exponent, mark, pairs, ratios, write
from benchmarks._rows import picked, read

SIZES = [4**n for n in range(6, 10)]  # 4,096 to 262,144


def row(label: str, tokens: int, ms: float, **others: Any) -> dict[str, Any]:
    given = {"group": "mano window 2", "gradients": False, "label": label, "tokens": tokens, "ms": ms, "mib": 1.0}
    rest = {"status": "ok", "foreign_cpu": 0.0, "ratios": {}, "rounds": 9, "device": "cpu", "commit": "abc"}
    return given | rest | others


def pair(tokens: int, mine: float, other: float, **others: Any) -> list[dict[str, Any]]:
    """A module and its rival, whose ratio in every round was that of their times."""
    told = {"layers alone": [mine / other, 0.9 * mine / other, 1.1 * mine / other]}
    return [row("mano", tokens, mine, ratios=told, **others), row("layers alone", tokens, other, **others)]


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


AIM = Aim("mano window 2", "mano", "layers alone", 1.3)


def test_an_aim_is_reached_only_at_sizes_within_its_bound():
    found = held(table(*pair(1024, 12.0, 10.0), *pair(4096, 14.0, 10.0)), AIM, gradients=False)
    assert found is not None
    assert found["measured"] == "1.20 at 1,024, 1.40 at 4,096"
    assert found["reached"] == "at 1 of 2"
    assert held(table(*pair(1024, 13.0, 10.0)), AIM, gradients=False)["reached"] == "yes"  # type: ignore[index]
    assert held(table(*pair(1024, 13.1, 10.0)), AIM, gradients=False)["reached"] == "no"  # type: ignore[index]


def test_an_aim_of_speed_counts_the_inverse_ratio():
    faster = Aim("mano window 2", "mano", "layers alone", 1.6, faster=True)
    assert held(table(*pair(1024, 5.0, 10.0)), faster, gradients=False)["reached"] == "yes"  # type: ignore[index]
    assert held(table(*pair(1024, 7.0, 10.0)), faster, gradients=False)["reached"] == "no"  # type: ignore[index]


def test_an_aim_of_memory_reads_memory_and_not_time():
    memory = Aim("mano window 2", "mano", "layers alone", 0.5, column="mib")
    rows = table(row("mano", 1024, 1.0, mib=40.0), row("layers alone", 1024, 100.0, mib=100.0))
    assert held(rows, memory, gradients=False)["measured"] == "0.40 at 1,024"  # type: ignore[index]


def test_disturbed_sizes_say_nothing_and_sizes_that_ran_over_miss():
    rows = [*pair(1024, 12.0, 10.0), *pair(4096, 99.0, 10.0, foreign_cpu=0.3)]
    rows += [row("mano", 16384, 0.0, status="over 10 s"), row("layers alone", 16384, 9.0)]
    found = held(table(*rows), AIM, gradients=False)
    assert found is not None
    assert found["measured"] == "1.20 at 1,024, over 10 s at 16,384"
    assert found["reached"] == "at 1 of 2"
    assert held(table(*pair(4096, 1.0, 1.0, foreign_cpu=0.3)), AIM, gradients=False) is None
    assert held(table(*pair(4096, 1.0, 1.0)), AIM, gradients=True) is None


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_growth_is_the_exponent_beside_a_constant_cost(power):
    own = table(*(row("linear", n, 3.0 + 1e-4 * n**power) for n in SIZES)).set_index("tokens")
    assert grown(own, "ms") == pytest.approx(power, abs=0.02)
    assert exponent(own.iloc[:3], "ms") == ""


def test_growth_reads_only_calm_sizes_from_4k_on():
    wrong = [row("linear", 1024, 1e6), row("linear", 8192, 1e6, foreign_cpu=0.5)]
    own = table(*wrong, *(row("linear", n, 1.0 + 1e-3 * n) for n in SIZES)).set_index("tokens")
    assert grown(own, "ms") == pytest.approx(1.0, abs=0.02)


def test_growth_aims_hold_both_time_and_memory_up_to_the_largest_size():
    def rows(time: float, memory: float, sizes: list[int]) -> pd.DataFrame:
        made = [row("linear", n, 1e-3 * n**time, mib=1e-3 * n**memory, group="catalogue grid") for n in sizes]
        return table(*made)

    assert [line["reached"] for line in growth(rows(1.0, 1.0, SIZES))] == ["yes"]
    assert [line["reached"] for line in growth(rows(1.0, 1.4, SIZES))] == ["at 1 of 2"]
    assert [line["reached"] for line in growth(rows(1.5, 1.4, SIZES))] == ["no"]
    assert [line["reached"] for line in growth(rows(1.0, 1.0, [2**k for k in range(12, 17)]))] == ["no"]


def test_a_growth_that_too_few_sizes_show_is_missed_and_not_left_out():
    made = [row("fma", n, 1e-3 * n, group="catalogue grid") for n in SIZES[:3]]
    (found,) = growth(table(*made, row("fma", SIZES[3], 0.0, group="catalogue grid", status="over memory")))
    assert found["measured"] == "over memory at 262,144, too few sizes for an exponent"
    assert found["reached"] == "no"


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ({1024: 2.0, 4096: 0.5}, "2,000"),  # halfway between the sizes, in logarithms
        ({1024: 2.0, 4096: 0.5, 16384: 2.0}, "above 16,384"),
        ({1024: 0.9, 4096: 0.5}, "below 1,024"),
        ({1024: 0.5, 4096: 2.0, 16384: 0.5}, "8,200"),
        ({1024: 2.0, 4096: 2.0, 16384: 0.5}, "8,200"),
        ({1024: 1.2, 4096: 0.5}, "1,400"),
        ({}, "unknown"),
    ],
)
def test_crossing_is_where_the_ratio_to_full_attention_falls_below_one_for_good(times, told):
    made = [row("linear", n, 1.0, ratios={"full": [value, value, value]}) for n, value in times.items()]
    own = table(*made, row("linear", 2**20, 0.0, status="over 10 s")).set_index("tokens")
    assert crossing(own) == told


def test_a_cell_tells_time_memory_rounds_ratio_and_disturbance():
    (mine, base) = pair(1024, 250.0, 200.0, mib=7.4)
    told = next(iter(table(mine).itertuples()))
    assert cell(told, "layers alone") == "250 ms, 7 MiB, n 9, 1.25 [1.12, 1.38]"
    assert cell(next(iter(table(base).itertuples())), "layers alone") == "200 ms, 7 MiB, n 9"
    disturbed = next(iter(table(row("mano", 1024, 0.1234, foreign_cpu=0.2)).itertuples()))
    assert mark(disturbed) == " ~"
    assert cell(disturbed, "full") == "0.123 ms ~, 1 MiB, n 9"
    assert (
        cell(next(iter(table(row("mano", 1024, 0.0, status="out of memory")).itertuples())), "full") == "out of memory"
    )


def test_a_report_is_written_from_rows_alone_and_holds_notes(tmp_path):
    rows = [*pair(1024, 12.0, 10.0), *pair(1024, 36.0, 30.0, gradients=True)]
    for n in SIZES:
        rows.append(row("full", n, 1e-6 * n**2, group="catalogue grid"))
        rows.append(row("linear", n, 1e-2 * n, group="catalogue grid", ratios={"full": [1e4 / n] * 3}))
    made = table(*rows)
    made.assign(ratios=[json.dumps(each) for each in made.ratios]).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "host.json").write_text('{"cpu": "a machine"}')
    (tmp_path / "notes.md").write_text("## Why\n\nBecause.")
    write(tmp_path)
    told = (tmp_path / "summary.md").read_text()
    assert "1.20 at 1,024" in told
    assert told.index("## Aims") < told.index("Because.") < told.index("## Pairs")
    assert "10,000" in told  # where linear crosses full attention
    assert (tmp_path / "time.png").stat().st_size > 10_000
    back = read(tmp_path / "rows.csv")
    assert back.ratios.iloc[0] == made.ratios.iloc[0]
    assert "12 ms" in pairs(back)
    assert ratios(picked(back, group="catalogue grid"))[1]["faster from"] == "10,000"


def test_every_aim_names_a_pair_and_no_two_are_the_same():
    assert len({str(aim) + aim.column for aim in AIMS}) == len(AIMS)
    assert aims(table(*pair(1024, 12.0, 10.0)))[0]["aim"] == "mano window 2: at most 1.3 x the time of layers alone"
