"""Pages from rows that nobody measured: with hostile names, failures, costs over tokens; and one of ten thousand."""

import random
from pathlib import Path
from typing import Any

from attnbench.manifest import Manifest
from attnbench.reports.anonymous import OPEN
from attnbench.reports.page import write
from attnbench.reports.page.part import Part, beside
from attnbench.reports.places import Kept
from attnbench.reports.report import sheets_of
from attnbench.reports.rows import table
from attnbench.reports.summary import tables
from tests.made_rows import FakeStore, ablation, fail, training

HOSTILE = "<script>alert(1)</script>"
TRACEBACK = 'File "x.py", line 1\n</script><img src=http://attacker.example/a onerror=alert(2)>\nValueError: <b>no</b>'


def store_with_failures() -> tuple[FakeStore, Manifest]:
    """An ablation in which three cells did not end well, one of them with a hostile traceback, and one raised."""
    store, manifest = ablation(3)
    for seed, status in enumerate(("oom", "timeout", "diverged")):
        fail(store, training(manifest, "linear", seed), status)
    gone = training(manifest, "fma", 0)
    store.rows.pop(gone)
    store.set_aside[gone] = {"type": "ValueError", "message": HOSTILE, "traceback": TRACEBACK, "tries": 2}
    for id, row in store.rows.items():
        if row["spec"]["kind"] == "train":
            row["raw"] = {"train_loss": [1 / (1 + epoch) for epoch in range(12)], "valid_rel_l2": [0.5, 0.3, 0.2]}
        row["code"]["commit"] = f"{int(id[:8], 16):08x}"
    return store, manifest


def part_of(rows: list[dict[str, Any]], sweep: str = "made", notes: tuple[str, ...] = ()) -> Part:
    """A part of a page from rows alone."""
    frame = table(rows)
    known = tables(frame) if any(row["kind"] == "train" for row in rows) else []
    manifest = Manifest(sweep=sweep, question="What is made up?", device="cpu", cells=())
    own = {"pages": sheets_of(frame, known) if known else [], "curves": {}, "veil": OPEN}
    return Part(manifest=manifest, frame=frame, notes=notes, known=known, beside={}, **own)


def row(kind: str, variant: str, mechanism: str, seed: int | None, **more: Any) -> dict[str, Any]:
    """One row with the columns that all have."""
    id = f"{random.Random(repr((kind, variant, seed, sorted(more.items())))).getrandbits(80):020x}"
    return {
        **{"id": id, "sweep": "made", "kind": kind, "status": "ok", "task": "darcy", "model": "isotropic"},
        **{"mechanism": mechanism, "variant": variant, "label": f"{variant}, seed {seed}", "seed": seed},
        **{"device": "cpu", "dtype": "float32", "cost_id": None, "error": None, "wall_s": 12.25},
        **{"host.name": "node7", "host.device": "made up", "host.torch": "2.13.0", "host.driver": "570.86"},
        **{"code.fingerprint": "f1", "code.entries": "e1", "code.commit": "0123456789abcdef", "code.dirty": False},
        **{"data.hash": "sha256:aa", "started": 1.7e9, "finished": 1.7e9 + 12.25, "task.side": 16},
        **more,
    }


def priced(variant: str, mechanism: str, seeds: int, middle: float, chance: random.Random) -> list[dict[str, Any]]:
    """The rows of one variant: its cost and its trainings."""
    speed = 1000 / (0.3 + middle)
    cost = {
        **{"cost.params": 10_000 + round(1e5 * middle), "cost.matmul_flops": round(1e7 * middle)},
        **{"cost.train_samples_per_s": speed, "cost.memory_train_mib": 100 * chance.random()},
        **{"cost.train_samples_per_s_q25": 0.95 * speed, "cost.train_samples_per_s_q75": 1.04 * speed},
        **{f"cost.extra_{i}": chance.random() for i in range(30)},
    }
    price = row("cost", variant, mechanism, None, **cost)
    found = [price]
    for seed in range(seeds):
        value = middle * (1 + 0.05 * chance.gauss(0, 1))
        results = {"result.rel_l2": value, "result.rel_mse": value**2, "result.train_loss": chance.random()}
        results |= {f"result.valid_{i}": chance.random() for i in range(8)}
        made = row("train", variant, mechanism, seed, **results, **cost)
        found.append(made | {"cost_id": price["id"], "cost.status": "ok", "host.load": round(chance.random(), 2)})
    return found


def ten_thousand() -> list[dict[str, Any]]:
    """10,200 rows: 600 variants of 12 mechanisms with sixteen seeds each, in ten settings."""
    chance, found = random.Random(0), []
    for side in range(10):
        for number in range(60):
            mechanism = f"mechanism{number % 12}"
            variant = f"{mechanism} window {number // 12}, side {side}"
            rows = priced(variant, mechanism, 16, 0.05 + 0.5 * chance.random(), chance)
            found += [{**one, "task.side": 8 * (1 + side), "mechanism.window": number // 12} for one in rows]
    return found


def over_tokens() -> list[dict[str, Any]]:
    """Rows of the kinds efficiency and atlas: two mechanisms of known order that are equal at 640 tokens, the
    first of which runs out of memory."""
    found = []
    for mechanism, power in (("full", 2), ("linear", 1)):
        for tokens in (256, 1024, 4096, 16384):
            site = {"site.tokens": tokens, "site.channels": 64, "site.shape": str(tokens), "site.causal": False}
            lost = mechanism == "full" and tokens == 16384
            for number in (0, 1):
                ms = (1e-3 * (tokens / 16) ** power * (40 if power == 1 else 1) + 0.1) * (1 + 0.02 * (number - 0.5))
                cost = {"cost.step_ms": ms, "cost.step_ms_low": 0.97 * ms, "cost.step_ms_high": 1.03 * ms}
                cost = {} if lost else cost | {"cost.memory_mib": tokens**power / 1e4, "cost.peak_share": 0.3}
                state = {"status": "oom" if lost else "ok", "pass": "forward", "batch": 1, "round": number}
                found.append(row("efficiency", mechanism, mechanism, None, **site, **cost) | state)
            for given in ("random", "smooth"):
                error = {"result.output_error": 1e-15 if power == 2 else 0.2, "result.row_error": 0.1}
                error |= {"cost.matmul_flops": tokens}
                found.append(row("atlas", mechanism, mechanism, None, **site, **error, input=given))
    return found


def written(folder: Path, *parts: Part) -> Path:
    return write.write(list(parts), folder / "report.html")


def failing_part(veil: Any = OPEN) -> Part:
    """The part of `store_with_failures`, with what only its store knows."""
    from attnbench.reports.collect import gather

    store, manifest = store_with_failures()
    gathered = gather(store, manifest, Path("nowhere"))
    known = tables(gathered.frame)
    own = {"pages": sheets_of(gathered.frame, known), "curves": {}, "veil": veil, "known": known}
    own |= {"beside": beside(Kept(store), manifest, veil), "notes": gathered.notes}
    return Part(manifest=manifest, frame=gathered.frame, **own)
