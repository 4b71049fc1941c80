"""What the suite aims at in speed, each aim beside what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

PASSES = {False: "forward", True: "forward and backward"}


@dataclass(frozen=True)
class Aim:
    """In some groups, a column of one label over that of another is at most so much; `faster`: its inverse at least."""

    groups: str
    label: str
    base: str
    bound: float
    column: str = "ms"
    faster: bool = False


AIMS = (
    Aim("full", "full", "bare attention", 1.02),
    Aim("swin v1", "swin", "timm", 1.0),
    Aim("swin v2", "swin", "timm", 1.0),
    *(Aim(f"mano window {w}", "mano", "layers alone", 1.3) for w in (2, 4, 8)),
    *(Aim(f"mano window {w} compiled", "mano", "layers alone", 1.3) for w in (2, 4, 8)),
    *(Aim(f"mano window {w}", "mano", "unfolded", 1.6, faster=True) for w in (2, 4, 8)),
    *(Aim(f"mano window {w} stride {s}", "mano", "unfolded", 4.0, faster=True) for w, s in ((2, 1), (4, 2))),
    *(Aim(f"mano window {w} stride {s}", "mano", "unfolded", 0.5, column="mib") for w, s in ((2, 1), (4, 2))),
)
GROWTH = {"linear": 1.1, "mano": 1.1, "fma pooled": 1.1, "fma": 1.2}


def aims(rows: pd.DataFrame) -> list[dict[str, Any]]:
    found = [line for aim in AIMS for line in held(rows, aim)]
    return found + list(growth(rows))


def held(rows: pd.DataFrame, aim: Aim) -> Iterator[dict[str, Any]]:
    """One line a pass: the ratio at every size, and whether all of them reach the aim."""
    compiled = aim.groups.endswith("compiled")
    for gradients, name in PASSES.items():
        mine = rows.group.str.startswith(aim.groups) & (rows.gradients == gradients)
        mine &= rows.group.str.endswith("compiled") == compiled
        if not aim.groups.startswith("swin"):
            mine &= rows.group == aim.groups
        told, good = [], []
        for _, case in rows[mine].groupby(["group", "tokens"]):
            case = case.set_index("label")
            if not {aim.label, aim.base} <= set(case.index) or case.loc[[aim.label, aim.base], aim.column].isna().any():
                continue
            ratio = case.loc[aim.label, aim.column] / case.loc[aim.base, aim.column]
            ratio = 1 / ratio if aim.faster else ratio
            told.append(f"{ratio:.2f}")
            good.append(ratio >= aim.bound if aim.faster else ratio <= aim.bound)
        if told:
            sign, what = ("at least", "as fast as") if aim.faster else ("at most", "the memory of")
            what = "the time of" if aim.column == "ms" and not aim.faster else what
            aimed = f"{aim.groups}: {sign} {aim.bound:g} x {what} {aim.base}"
            yield line(aimed, name, told, good)


def growth(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    from benchmarks._report import grown

    for label, bound in GROWTH.items():
        for gradients, name in PASSES.items():
            case = rows[(rows.group == "catalogue grid") & (rows.gradients == gradients) & (rows.label == label)]
            both = {column: grown(case.set_index("tokens"), column) for column in ("ms", "mib")}
            if None not in both.values():
                told = [f"time {both['ms']:.2f}", f"memory {both['mib']:.2f}"]
                aimed = f"{label}: exponent at most {bound:g} from 4,096 to 262,144 tokens"
                yield line(aimed, name, told, [value <= bound for value in both.values() if value is not None])


def line(aimed: str, name: str, told: list[str], good: list[bool]) -> dict[str, Any]:
    reached = "yes" if all(good) else "no" if not any(good) else f"at {sum(good)} of {len(good)}"
    return {"aim": aimed, "pass": name, "measured, by size": ", ".join(told), "reached": reached}
