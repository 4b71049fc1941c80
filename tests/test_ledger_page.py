"""The ledger as it ships: counts from the code against closed forms, every place's rows, the page and the verb."""

import csv
import json
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from attnbench.cli import main
from attnbench.ledger import evidence, page
from attnbench.ledger.counts import agrees, all_counted, counted
from attnbench.ledger.judge import Ledger, judged, tables_of
from attnbench.ledger.published import Claim, published
from attnbench.ledger.reruns import Built, Plan, Rerun, reruns

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def swin_block(c: int, heads: int) -> int:
    """Swin V2: projections, MLP of 4 C, norms, one scale a head, and the small network of positions."""
    return 12 * c * c + 12 * c + 513 * heads + 1536


STAGES = ((96, 3, 2), (192, 6, 2), (384, 12, 6), (768, 24, 2))  # channels, heads, blocks of Swin V2 tiny
STEM = 4 * 4 * 3 * 96 + 96 + 2 * 96
MERGES = sum(4 * c * 2 * c + 2 * 2 * c for c in (96, 192, 384))
TINY = STEM + MERGES + sum(blocks * swin_block(c, heads) for c, heads, blocks in STAGES) + 2 * 768
SAMPLERS = sum(2 * 2 * 4 * c * c for c in (96, 192))  # a pair of 2 x 2 samplers for each of two blocks in two stages


def filters(n: int, m: int, p: int, d: int, *, dense: bool) -> int:
    """FMA's summaries of keys and values: on each level p filters of its width and a bias, for each channel."""
    levels = (n // m).bit_length() - 2
    return 2 * p * d * (d if dense else 1) * (n // 2 - m) + 2 * p * d * levels


def mano_net(d: int, depth: int, mlp: int, *, conv: bool) -> int:
    """MANO's published network with heads as wide as a token together, one number in and one out, sampling by 2."""
    attention = 4 * d + 3 * d * d + d * d + d
    block = attention + (2 * 4 * d * d if conv else 0) + 2 * d + 2 * d * mlp + mlp + d
    return depth * block + 2 * d + 2 * d + d * d + d + d + 1


CLOSED = {
    "swinv2-tiny-params-headless": TINY,
    "swinv2-tiny-params-1000": TINY + 769 * 1000,
    "mano-added-params": SAMPLERS,
    "mano-tiny-params-headless": TINY + SAMPLERS,
    "mano-net-params-conv": mano_net(128, 8, 128, conv=True),
    "mano-net-params-average": mano_net(128, 8, 128, conv=False),
} | {
    f"fma-params-n{n}-m{m}-{basis}": filters(n, m, 4, 64, dense=basis == "dense")
    for n, m in ((512, 32), (1024, 32), (1024, 64), (2048, 64), (4096, 64))
    for basis in ("grouped", "dense")
}


@pytest.fixture(scope="module")
def claims() -> dict[str, Claim]:
    return published()


@pytest.fixture(scope="module")
def plan(claims: dict[str, Claim]) -> Plan:
    return reruns(claims)


@pytest.fixture(scope="module")
def found(claims: dict[str, Claim], plan: Plan) -> Ledger:
    return judged(claims, plan, tables_of(plan, RESULTS), all_counted(claims, plan))


def test_closed_forms_are_those_of_the_sources():
    assert (TINY, SAMPLERS) == (27_578_154, 737_280)
    assert CLOSED["fma-params-n512-m32-grouped"] == 116_224
    assert CLOSED["fma-params-n4096-m64-dense"] == 65_014_272
    assert (CLOSED["mano-net-params-conv"], CLOSED["mano-net-params-average"]) == (1_861_377, 812_801)


@pytest.mark.parametrize("id", CLOSED)
def test_a_count_of_the_code_is_its_closed_form_and_what_was_published(id: str, claims: dict[str, Claim], plan: Plan):
    ours = counted(claims[id], plan.reruns[id])
    assert ours == CLOSED[id] == int(claims[id].value)


@pytest.mark.parametrize(("size", "weights"), [("t", 28_596_781), ("s", 50_199_157), ("b", 88_577_188)])
def test_sizes_of_l2vit_are_those_printed(size: str, weights: int, claims: dict[str, Claim], plan: Plan):
    id = f"l2vit-{size}-224-params"
    ours = counted(claims[id], plan.reruns[id])
    assert ours == Decimal(weights) / 10**6
    assert agrees(claims[id], ours)


def test_a_count_that_is_one_off_differs(claims: dict[str, Claim], plan: Plan):
    id = "mano-added-params"
    wrong = {name: getattr(claims[id], name) for name in claims[id].__dataclass_fields__} | {"value": "737281"}
    ours = counted(claims[id], plan.reruns[id])
    assert agrees(claims[id], ours)
    assert not agrees(Claim(**wrong), ours)


@pytest.mark.parametrize(
    ("ours", "printed", "same"), [("28.6", "29", True), ("28.4", "29", False), ("9.04", "9.0", True)]
)
def test_counts_are_compared_in_the_printed_digits(ours: str, printed: str, same: bool, claims: dict[str, Claim]):
    fields = {name: getattr(claims["l2vit-t-224-params"], name) for name in Claim.__dataclass_fields__}
    assert agrees(Claim(**fields | {"value": printed}), Decimal(ours)) == same


def test_what_cannot_be_counted_is_refused(claims: dict[str, Claim]):
    site = {"channels": 8, "shape": [4]}
    bare = Rerun(kind="count", differences="", of=Built(mechanism={"name": "full"}))
    with pytest.raises(ValueError, match="a model with a port, or of a mechanism with a site"):
        counted(claims["mano-added-params"], bare)
    part = Rerun(kind="count", differences="", of=Built(mechanism={"name": "full"}, without="head", site=site))
    with pytest.raises(ValueError, match="no weight's name starts with 'head'"):
        counted(claims["mano-added-params"], part)
    whole = Rerun(kind="count", differences="", of=Built(mechanism={"name": "full"}, site=site))
    with pytest.raises(ValueError, match="a count has the unit"):
        counted(claims["mano-darcy16-relmse"], whole)


def test_every_place_has_pairs_in_the_committed_rows(found: Ledger):
    """A filter with a value that no row has would make a claim not run in silence."""
    bare = [
        (line.claim.id, site.place.name, one.about)
        for line in found.lines
        for site in line.sites
        for one in site.findings
        if not one.sample.pairs
    ]
    assert [line.claim.id for line in found.lines if line.rerun and line.verdict == "not run"] == []
    assert bare == []


def test_the_committed_ledger_is_what_the_committed_rows_say(found: Ledger):
    with (RESULTS / "claims.csv").open(newline="") as text:
        kept = {row["id"]: (row["verdict"], row["commits"]) for row in csv.DictReader(text)}
    now = {row["id"]: (row["verdict"], row["commits"]) for row in csv.DictReader(page.table(found).splitlines())}
    assert kept == now, "the rows have changed; run `attnbench ledger`"


def test_every_claim_is_a_line_of_the_page_and_of_the_table(found: Ledger):
    text, rows = page.markdown(found), list(csv.DictReader(page.table(found).splitlines()))
    assert [row["id"] for row in rows] == [line.claim.id for line in found.lines]
    assert all(f"| {line.claim.id} |" in text or f"### {line.claim.id}\n" in text for line in found.lines)
    assert {row["verdict"] for row in rows} <= {"agrees", "differs", "cannot tell", "not run"}
    assert all(bool(row["why"]) == (row["verdict"] == "not run") for row in rows)
    assert all(row["differences"] for row in rows if row["kind"])
    widths = {len(line.replace("\\|", "").split("|")) for line in text.split("### ")[1].splitlines() if line[:1] == "|"}
    assert len(widths) == 1


def test_the_table_holds_the_numbers(found: Ledger):
    rows = {row["id"]: row for row in csv.DictReader(page.table(found).splitlines())}
    loss = rows["muse-books-loss"]
    assert float(loss["low"]) < float(loss["ours"]) < float(loss["high"])
    assert (loss["n"], loss["rests_on"]) == ("3", "language_causal/summary.md")
    assert len(json.loads(rows["mano-order-levels"]["evidence"])) == 9
    assert rows["mano-added-params"]["ours"] == "737280"


def test_links_of_the_page_lead_to_files(found: Ledger):
    sweeps = {site.place.sweep for line in found.lines for site in line.sites}
    assert sweeps
    assert all((RESULTS / sweep / "summary.md").is_file() for sweep in sweeps)


def test_the_benchmark_of_speed_is_read_as_costs():
    own = evidence.table(RESULTS, "mechanism_speed")
    assert own is not None
    assert {row["kind"] for row in own.rows} == {"cost"}
    assert {row["seed"] for row in own.rows} == {None}
    assert any(row["status"] != "ok" and row["cost.ms"] is None for row in own.rows)


def test_the_verb_writes_both_files_where_there_are_no_rows(tmp_path: Path):
    done = CliRunner().invoke(main, ["ledger", "--results", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert "230 claims: 22 agrees, 0 differs, 5 cannot tell, 203 not run." in done.output
    assert "22 counts made from the code: mano-added-params-percent" in done.output
    text = (tmp_path / "new" / "claims.md").read_text()
    assert "no rows of ablation_downsample" in text
    assert len((tmp_path / "new" / "claims.csv").read_text().splitlines()) == 231
    quiet = CliRunner().invoke(main, ["ledger", "--quiet", "--results", str(tmp_path / "new")])
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_the_same_rows_give_the_same_bytes(found: Ledger, claims: dict[str, Claim], plan: Plan):
    again = judged(claims, plan, tables_of(plan, RESULTS), all_counted(claims, plan))
    assert (page.markdown(again), page.table(again)) == (page.markdown(found), page.table(found))
