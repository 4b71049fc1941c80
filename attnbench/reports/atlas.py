"""The atlas in tables: how far each variant is from full attention with the same weights, by input and size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from attnbench.reports.bounded import cut
from attnbench.reports.effects import Rows
from attnbench.reports.rows import counted
from attnbench.reports.sheets import NOTHING, Sheet, around, three
from attnbench.reports.stats import Interval, t_interval
from attnbench.reports.summary import number_first, split

ROUNDING = 1e-9  # errors below it are none
EXACT = "0"
ERRORS = {  # columns of errors, and how a table's head names them
    "output_error": "outputs",
    "output_error_scaled": "outputs, scaled",
    "row_error": "rows",
    "row_tv": "rows, variation",
    "row_missed": "mass missed",
    "spectrum_error": "spectrum",
    "gradient_error": "gradients, tokens",
    "gradient_error_weights": "gradients, weights",
}
WAYS = ("correlation", "sharpness")  # columns by which inputs of one kind may differ
MEAN = "(plain mean of all tokens)"
CAPTION = (
    "Relative to full attention with the same weights, 0 being full attention itself: means over seeds with 95 % t "
    "intervals, sorted by the error of outputs. Scaled: after the one factor of all outputs that comes nearest, which "
    "stands beside. Rows: how each token weighs all others, read off exactly, in Frobenius' norm; variation: half of "
    "what a row differs by in all, 1 for two rows without a common token; mass missed: where full attention looks and "
    "the mechanism looks less; sum of a row, 1 for full attention. Spectrum: singular values of the rows; rank: "
    "effective, with full attention's behind the stroke. Gradients: of a random combination of outputs. FLOP: of one "
    "forward pass, as a share of full attention's where that was asked too. Own weights: those that full attention "
    "does not have, as initialised and not trained to come near."
)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A variant on one kind of input at one site: its finite numbers by column and seed, without `result.`.

    asked: cells; trouble: what became of those that are not ok, in words. first: one of its rows.
    """

    variant: str
    mechanism: str
    input: str
    place: str
    tokens: int
    asked: int
    trouble: str
    numbers: dict[str, dict[int, float]]
    flops: float | None
    first: dict[str, Any]

    def mean(self, column: str) -> Interval:
        """Over seeds; errors are not below 0."""
        values = list(self.numbers.get(column, {}).values())
        found = t_interval(values)
        return cut(found, 0.0, inf) if column in ERRORS else found

    @property
    def comparable(self) -> bool:
        """Whether all projections are full attention's, so that a distance means something."""
        return self.first.get("result.shared") == "q k v out"


def spots(rows: Rows) -> list[Spot]:
    """Every variant at every place and input that was asked, by input, size and error of outputs."""
    found = [row for row in rows if row["kind"] == "atlas" and row.get("site.tokens") is not None]
    ways, wide = several(found), len({row["site.channels"] for row in found}) > 1
    keyed = [{**row, "in": input_of(row, ways), "at": place_of(row, wide=wide)} for row in found]
    made = [spot(own) for _, own in split(keyed, ["in", "site.tokens", "at", "variant"])]
    return sorted(made, key=lambda one: (order(one.input), one.tokens, one.place, *distance(one)))


def order(label: str) -> tuple[int, str]:
    kinds = ("random", "smooth", "trained")
    kind = label.partition(",")[0]
    return kinds.index(kind) if kind in kinds else len(kinds), label


def distance(one: Spot) -> tuple[bool, float, str]:
    """Those without a number last."""
    found = one.mean("output_error")
    return not found.n, found.mean if found.n else 0.0, one.variant


def several(rows: Rows) -> set[tuple[str, str]]:
    """Kinds of input and ways, such as the correlation, in which a kind of input differs among the rows."""
    held: dict[tuple[str, str], set[Any]] = {}
    for row in rows:
        for way in WAYS:
            held.setdefault((row["input"], way), set()).add(row.get(way))
    return {key for key, values in held.items() if len(values) > 1}


def input_of(row: dict[str, Any], ways: set[tuple[str, str]]) -> str:
    """The kind of input, and what it is made by where the table has several of it."""
    told = [f"{way} {row[way]:g}" for way in WAYS if (row["input"], way) in ways and row.get(way) is not None]
    return ", ".join([str(row["input"]), *told])


def place_of(row: dict[str, Any], *, wide: bool) -> str:
    """Such as 16x16; wide: the width too, because it varies."""
    told = f"{row['site.shape']}{' causal' if row.get('site.causal') else ''}"
    return f"{told}, {row['site.channels']} channels" if wide else told


def spot(rows: Rows) -> Spot:
    ok = [row for row in rows if row["status"] == "ok"]
    columns = {name.removeprefix("result."): name for row in ok for name in row if name.startswith("result.")}
    numbers = {
        short: {row["seed"]: float(row[name]) for row in ok if isinstance(row.get(name), int | float)}
        for short, name in columns.items()
    }
    flops = [row["cost.matmul_flops"] for row in ok if row.get("cost.matmul_flops") is not None]
    others = counted(row["status"] for row in rows if row["status"] != "ok")
    return Spot(
        variant=str(rows[0]["variant"]),
        mechanism=str(rows[0]["mechanism"]),
        input=rows[0]["in"],
        place=rows[0]["at"],
        tokens=int(rows[0]["site.tokens"]),
        asked=len(rows),
        trouble=", ".join(f"{count} {state}" for state, count in others),
        numbers=numbers,
        flops=float(flops[0]) if flops else None,
        first=(ok or rows)[0],
    )


def sheets_of(found: Sequence[Spot]) -> list[Sheet]:
    """A table for each input and size."""
    groups: dict[tuple[str, str], list[Spot]] = {}
    for one in found:
        groups.setdefault((one.input, one.place), []).append(one)
    return [sheet(own, first=i == 0) for i, own in enumerate(groups.values())]


def sheet(found: Sequence[Spot], *, first: bool) -> Sheet:
    """Variants in their order, and what the plain mean of all tokens would get."""
    full = next((one.flops for one in found if one.mechanism == "full"), None)
    known = [column for column in ERRORS if any(one.numbers.get(column) for one in found)]
    rows = [line(one, known, full) for one in found]
    rows += [mean_line(found, known)] if any(one.numbers.get("output_error_mean") for one in found) else []
    flat = [one.mean("row_entropy").mean for one in found if one.numbers.get("row_entropy")]
    told = f" Full attention's own rows have {max(flat):.2f} of the entropy of flat ones here." if flat else ""
    head = ["variant", "seeds", *(ERRORS[column] for column in known)]
    return Sheet(
        title=f"Distance from full attention: {found[0].input} inputs, {found[0].place} tokens",
        caption=f"{CAPTION if first else 'Columns as above.'}{told}",
        head=[*head, "best factor", "sum of a row", "rank", "FLOP", "own weights", "note"],
        rows=rows,
        starts=frozenset({len(found)}) if len(rows) > len(found) else frozenset(),
    )


def line(one: Spot, known: Iterable[str], full: float | None) -> list[str]:
    own = one.numbers.get("own_params", {})
    return [
        *(one.variant, f"{len(one.numbers.get('output_error', {}))} / {one.asked}"),
        *(shown(one.mean(column)) for column in known),
        *(three(one.mean("output_scale").mean), three(one.mean("row_sum").mean), ranks(one), work(one, full)),
        f"{max(own.values()):,.0f}" if own else NOTHING,
        "; ".join(filter(None, [one.trouble, *notes(one)])) or NOTHING,
    ]


def shown(found: Interval) -> str:
    """An error, or that there is none beyond rounding."""
    return EXACT if found.n and found.mean < ROUNDING else around(found)


def ranks(one: Spot) -> str:
    found, full = one.mean("rank"), one.mean("rank_full")
    return f"{three(found.mean)} / {three(full.mean)}" if found.n else NOTHING


def work(one: Spot, full: float | None) -> str:
    if one.flops is None:
        return NOTHING
    return f"{one.flops:,.0f}" + (f" ({one.flops / full:.2f})" if full else "")


def notes(one: Spot) -> list[str]:
    """Why rows are missing, or how much of the map they are."""
    share = one.mean("row_share")
    told = [f"no rows: {one.first['result.no_rows']}"] if one.first.get("result.no_rows") else []
    return told + ([f"rows are {share.mean:.2f} of its map"] if share.n and share.mean < 1 - ROUNDING else [])


def mean_line(found: Sequence[Spot], known: Sequence[str]) -> list[str]:
    """What a mechanism would get that reads all tokens alike: for outputs and rows, over the variants' full attention,
    which is one for all that have its heads."""
    picked = {"output_error": "output_error_mean", "row_error": "row_error_mean"}
    fields = []
    for column in known:
        own = [one for one in found if picked.get(column) in one.numbers]
        fields.append(around(own[0].mean(picked[column])) if own else NOTHING)
    return [MEAN, NOTHING, *fields, *[NOTHING] * 6]


def warnings(rows: Rows) -> list[str]:
    """What a reader must know of rows: trained weights that are not one and the same."""
    hashes: dict[tuple[Any, ...], set[str]] = {}
    for row in rows:
        if row["kind"] == "atlas" and row.get("data.weights_hash"):
            trained = (row["seed"], row["site.channels"], row.get("mechanism.heads") or 4)
            hashes.setdefault(trained, set()).add(row["data.weights_hash"])
    several = sorted((trained for trained, own in hashes.items() if len(own) > 1), key=number_firsts)
    if not several:
        return []
    seeds = ", ".join(dict.fromkeys(str(seed) for seed, *_ in several))
    return [f"Trained inputs of seed {seeds} come from different weights in different rows of the atlas."]


def number_firsts(words: tuple[Any, ...]) -> list[tuple[str, float, str]]:
    return [number_first(one) for one in words]
