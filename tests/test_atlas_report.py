"""The report of the atlas: planted distances come out in their tables, planted relations to the loss are found."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from attnbench.manifest import Manifest
from attnbench.reports import atlas, foretells
from attnbench.reports.atlas_figures import over_tokens, over_work
from attnbench.reports.collect import collect
from attnbench.reports.mixtures import mixtures
from attnbench.reports.report import screen, write_report
from attnbench.reports.rows import records, table
from attnbench.reports.stats import t_interval
from attnbench.reports.summary import tables
from tests.made_rows import FakeStore, add, cell

SEEDS = (0, 1, 2)
HUE = {"pooled": "blue"}


def site(side):
    return {"channels": 32, "shape": [side, side], "causal": False}


def asked(mechanism, knobs, kind, seed, side):
    spec = {"schema": 1, "protocol": 1, "kind": "atlas", "mechanism": {"name": mechanism, "version": 1, "knobs": knobs}}
    spec |= {"site": site(side), "input": kind, "seed": seed, "dtype": "float64", "examples": 2, "device": "cpu"}
    return spec | {"threads": 1, "gpus": 0, **({"correlation": 0.2} if kind == "smooth" else {})}


def trained(mechanism, knobs, seed):
    spec = {"schema": 1, "protocol": 1, "kind": "train", "task": {"name": "darcy", "version": 1, "knobs": {"side": 16}}}
    spec |= {"model": {"name": "isotropic", "version": 1, "knobs": {"channels": 32}}, "seed": seed, "device": "cpu"}
    spec |= {"mechanism": {"name": mechanism, "version": 1, "knobs": knobs}, "dtype": "float32", "threads": 1}
    return spec


def errors(error, seed, **more):
    """Seeds 0, 1, 2 scatter by -1, 0 and 1 %, or as they are where the error is none."""
    found = dict.fromkeys(("output_error", "row_error", "row_tv", "gradient_error"), error * (1 + 0.01 * (seed - 1)))
    return found | {"output_error_mean": 0.7, "output_scale": 1.0, "shared": "q k v out", "own_params": 0, **more}


def made(distances, losses=None, *, inputs=("random",), sides=(16,)):
    """A store and manifest of variants `pooled block i` at these distances, of full attention, and of their losses."""
    store, cells = FakeStore(), []
    names = [("full", {}, 0.0), *(("pooled", {"block": i + 1}, one) for i, one in enumerate(distances))]
    for i, (mechanism, knobs, error) in enumerate(names):
        variant = f"pooled block {i}" if knobs else mechanism
        for kind in inputs:
            for side in sides:
                for seed in SEEDS:
                    block = {"result": errors(error, seed), "cost": {"matmul_flops": 1000 * (i + 1) * side}}
                    id = add(store, asked(mechanism, knobs, kind, seed, side), block)
                    cells.append(cell(id, "atlas", variant, mechanism, seed, None))
        for seed in SEEDS if losses is not None else ():
            loss = losses[i - 1] if knobs and losses else 0.01
            id = add(store, trained(mechanism, knobs, seed), {"result": {"rel_l2": loss * (1 + 0.001 * seed)}})
            cells.append(cell(id, "train", variant, mechanism, seed, None))
    return store, Manifest(sweep="atlas", question="How far?", device="cpu", cells=tuple(cells))


def found(store, manifest):
    frame = collect(store, manifest, mixed=True)
    rows = records(frame)
    spots = atlas.spots(rows)
    return spots, foretells.pairings(tables(frame), spots, rows)


def test_a_table_says_the_planted_distances_with_their_intervals_nearest_first():
    spots, _ = found(*made([0.5, 0.02]))
    assert [one.variant for one in spots] == ["full", "pooled block 2", "pooled block 1"]
    interval = t_interval([0.5 * (1 + step) for step in (-0.01, 0, 0.01)])
    mean = spots[2].mean("output_error")
    assert (mean.mean, mean.low, mean.high, mean.n) == (interval.mean, interval.low, interval.high, 3)
    page = atlas.sheets_of(spots)[0]
    assert page.title == "Distance from full attention: random inputs, 16x16 tokens"
    full, near, far, plain = (dict(zip(page.head, row, strict=True)) for row in page.rows)
    assert full["outputs"] == "0"
    assert near["outputs"] == "0.02000 [0.01950, 0.02050]"
    assert far["seeds"] == "3 / 3"
    assert far["FLOP"] == "32,000 (2.00)"
    assert plain["variant"] == atlas.MEAN
    assert plain["outputs"].startswith("0.7")


def test_rounding_is_no_error_and_a_small_error_is_one():
    spots, _ = found(*made([3e-15, 1e-6]))
    fields = {row[0]: row[2] for row in atlas.sheets_of(spots)[0].rows}
    assert fields["pooled block 1"] == "0"
    assert fields["pooled block 2"].startswith("0.000001")


def test_every_input_and_size_has_its_table_in_order():
    spots, _ = found(*made([0.5], inputs=("trained", "smooth", "random"), sides=(16, 8)))
    titles = [page.title.partition(": ")[2] for page in atlas.sheets_of(spots)]
    kinds = ("random", "smooth", "trained")
    assert titles == [f"{kind} inputs, {side}x{side} tokens" for kind in kinds for side in (8, 16)]


def test_what_failed_is_named_and_stays_in_the_table():
    store, manifest = made([0.5])
    last = manifest.cells[-1].id
    store.rows[last] |= {"status": "oom", "result": {}}
    spots, _ = found(store, manifest)
    page = atlas.sheets_of(spots)[0]
    lost = next(row for row in page.rows if row[0] == "pooled block 1")
    assert lost[1] == "2 / 3"
    assert "1 oom" in lost[-1]


def test_losses_that_follow_the_distance_are_found_and_others_are_not():
    distances = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0]
    _, [alike] = found(*made(distances, [0.1 + d for d in distances]))
    assert alike.rho.mean == pytest.approx(1)
    assert alike.rho.n == 10
    assert "the smaller the loss" in alike.sentence
    assert "n = 10 variants" in alike.sentence
    _, [opposite] = found(*made(distances, [3 - d for d in distances]))
    assert opposite.rho.mean == pytest.approx(-1)
    assert "the larger the loss" in opposite.sentence
    mixed = [0.5, 0.2, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4]
    _, [neither] = found(*made(distances, mixed))
    assert "whether the distance foretells the loss cannot be told" in neither.sentence
    assert neither.rho.mean == pytest.approx(pd.Series(distances).corr(pd.Series(mixed), method="spearman"))


def test_of_few_variants_nothing_is_said_and_why():
    _, [one] = found(*made([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]))
    assert not one.enough
    assert "3 variants have both, and 8 are needed" in one.sentence
    assert foretells.sheet([one]).rows[0][4] == "too few variants"


def test_the_site_is_that_of_the_trained_model():
    _, [one] = found(*made([0.1] * 8, [0.1] * 8, sides=(8, 16, 32)))
    assert one.place == "16x16"
    assert np.isnan(one.rho.mean), "where all tie there is no order"
    assert "all tie" in one.sentence


def test_variants_that_share_less_than_all_projections_are_left_out_and_named():
    store, manifest = made([0.1 * i for i in range(1, 10)], [0.1 * i for i in range(1, 10)])
    for row in store.rows.values():
        if row["spec"]["mechanism"]["knobs"].get("block") == 9 and row["spec"]["kind"] == "atlas":
            row["result"]["shared"] = "out"
    _, [one] = found(store, manifest)
    assert one.left_out == ("pooled block 9",)
    assert len(one.points) == 8


def test_intervals_of_rho_hold_nothing_about_as_often_as_they_say():
    """Where distance and loss have nothing to do with one another, about 5 in 100 intervals may leave out zero."""
    chance = np.random.default_rng(3)
    wrong = {8: 0, 16: 0}
    for n in wrong:
        for _ in range(150):
            rho = foretells.correlation(*chance.normal(size=(2, n)))
            wrong[n] += rho.low > 0 or rho.high < 0
    assert all(count / 150 <= 0.13 for count in wrong.values()), wrong


def test_trained_weights_that_differ_under_one_seed_are_told():
    row = {"kind": "atlas", "seed": 0, "site.channels": 32, "mechanism.heads": 4, "data.weights_hash": "sha256:a"}
    assert not atlas.warnings([row, row])
    assert "seed 0" in atlas.warnings([row, row | {"data.weights_hash": "sha256:b"}])[0]


def test_a_report_of_nothing_but_the_atlas_is_written(tmp_path):
    store, manifest = made([0.5, 0.02], inputs=("random", "smooth"), sides=(8, 16))
    text = write_report(store, manifest, tmp_path).read_text()
    assert "Distance from full attention: smooth inputs, 8x8 tokens" in text
    drawn = {file.stem for file in (tmp_path / "figures").iterdir()}
    assert drawn == {"atlas_tokens", "atlas_budget"}
    assert "atlas_tokens.png" in text
    assert "Distance from full attention" in (tmp_path / "summary.tex").read_text()


def test_a_report_with_trainings_sets_the_atlas_against_their_loss(tmp_path):
    distances = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2]
    store, manifest = made(distances, [0.1 + d for d in distances], sides=(8, 16))
    text = write_report(store, manifest, tmp_path).read_text()
    assert "Does the distance from full attention foretell the loss?" in text
    assert "the nearer to full attention, the smaller the loss" in text
    assert (tmp_path / "figures/atlas_loss.png").is_file()


def test_two_sections_of_one_sweep_are_no_mixture_of_code_and_two_versions_are():
    """Each kind of bare cells has files of its own, so that the same mechanism's rows differ in what they imported."""
    row = {"mechanism": "full", "model": None, "task": None, "data.hash": None, "code.fingerprint": "f"}
    own = {"id": "1", "kind": "atlas", "code.entries": "a"}
    other = {"id": "2", "kind": "efficiency", "code.entries": "b"}
    assert mixtures(table([row | own, row | other])) == []
    assert "2 versions of its files" in mixtures(table([row | own, row | other | {"kind": "atlas"}]))[0]


def test_pictures_show_what_was_planted():
    spots, _ = found(*made([0.5, 0.02], inputs=("random",), sides=(8, 16)))
    lines = [np.array(line.get_xydata()) for line in over_tokens(spots, HUE).axes[0].lines]
    heights = sorted(float(line[0, 1]) for line in lines if list(line[:, 0]) == [64, 256])
    assert heights == pytest.approx([0.02, 0.5, 0.7])
    points = [np.array(line.get_xydata()) for line in over_work(spots, HUE).axes[0].lines]
    placed = sorted((float(x), round(float(y), 6)) for [[x, y], *more] in points if not more)
    assert placed == [(32000, 0.5), (48000, 0.02)]


def test_a_sweep_of_the_atlas_alone_ends_with_distances_on_the_screen():
    store, manifest = made([0.5, 0.02], inputs=("random", "smooth"))
    store.rows.pop(next(one.id for one in manifest.cells if one.variant == "pooled block 2"))
    written = StringIO()
    Console(file=written, width=120).print(screen(collect(store, manifest), 120))
    told = " ".join(written.getvalue().split())
    assert "pooled block 1 0.500 [0.488, 0.512] 0.500 [0.488, 0.512]" in told
    assert "random, 16x16 smooth, 16x16" in told
    assert "17 of 18 cells ok" in told


def test_a_variant_is_known_by_its_knobs_and_not_by_idle_ones():
    row = {"mechanism": "pooled", "mechanism.block": 2, "mechanism.side": 7, "mechanism.heads": 4, "idle": "side"}
    assert foretells.knobs(row) == foretells.knobs(row | {"mechanism.side": 9})
    assert foretells.knobs(row) != foretells.knobs(row | {"mechanism.block": 3})
