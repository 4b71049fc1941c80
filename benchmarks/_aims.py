"""What the suite aims at in speed, each aim beside what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attnbench.contract.growth import fit
from benchmarks._rows import PASSES, calm, picked, ratio


@dataclass(frozen=True)
class Aim:
    """In a group, a column of one label over that of another is at most so much; `faster`: its inverse at least."""

    group: str
    label: str
    base: str
    bound: float
    column: str = "ms"
    faster: bool = False

    def value(self, mine: Any, other: Any) -> float | None:
        """Of times the median over rounds; of memory what one pass took."""
        if self.column != "ms":
            return mine.mib / other.mib
        found = ratio(mine, self.base)
        return None if found is None else 1 / found[0] if self.faster else found[0]

    def __str__(self) -> str:
        sign, what = ("at least", "as fast as") if self.faster else ("at most", "the memory of")
        what = "the time of" if self.column == "ms" and not self.faster else what
        return f"{self.group}: {sign} {self.bound:g} x {what} {self.base}"


AIMS = (
    Aim("full", "full", "bare attention", 1.02),
    *(Aim(f"swin {version} window {w}", "swin", "timm", 1.0) for version in ("v1", "v2") for w in (4, 8)),
    *(Aim(f"mano window {w}{how}", "mano", "layers alone", 1.3) for how in ("", " compiled") for w in (2, 4, 8)),
    *(Aim(f"mano window {w}", "mano", "unfolded", 1.6, faster=True) for w in (2, 4, 8)),
    *(Aim(f"mano window {w} stride {s}", "mano", "unfolded", 4.0, faster=True) for w, s in ((2, 1), (4, 2))),
    *(Aim(f"mano window {w} stride {s}", "mano", "unfolded", 0.5, column="mib") for w, s in ((2, 1), (4, 2))),
)
GROWTH = {"linear": 1.1, "mano": 1.1, "fma pooled": 1.1, "fma": 1.2}
GROWN = (2**12, 2**18)  # sizes over which exponents are fitted
FEWEST = 4  # sizes of a fit of three numbers


def aims(rows: pd.DataFrame) -> list[dict[str, Any]]:
    found = [held(rows, aim, gradients) for aim in AIMS for gradients in PASSES]
    return [line for line in found if line] + list(growth(rows))


def held(rows: pd.DataFrame, aim: Aim, gradients: bool) -> dict[str, Any] | None:
    """The ratio at every size; None where nothing was run."""
    told, good = [], []
    own = picked(rows, group=aim.group, gradients=gradients)
    for tokens in sorted(own.tokens.unique()):
        here: list[Any] = list(picked(own, tokens=tokens).itertuples())
        case = {row.label: row for row in here}
        if not {aim.label, aim.base} <= case.keys():
            continue
        mine, other = case[aim.label], case[aim.base]
        if mine.status != "ok" and other.status == "ok":
            told.append(f"{mine.status} at {tokens:,}")
            good.append(False)
        elif calm(mine) and calm(other) and (value := aim.value(mine, other)) is not None:
            told.append(f"{value:.2f} at {tokens:,}")
            good.append(value >= aim.bound if aim.faster else value <= aim.bound)
    return line(str(aim), gradients, told, good) if told else None


def growth(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for label, bound in GROWTH.items():
        for gradients in PASSES:
            own = picked(rows, group="catalogue grid", gradients=gradients, label=label).set_index("tokens")
            both = {name: grown(own, column) for name, column in (("time", "ms"), ("memory", "mib"))}
            aimed = f"{label}: exponent at most {bound:g} from {GROWN[0]:,} to {GROWN[1]:,} tokens"
            if not len(own):
                continue
            if not all(both.values()):
                cases: list[Any] = list(own.itertuples())
                missing = [f"{row.status} at {row.Index:,}" for row in cases if row.status != "ok"]
                yield line(aimed, gradients, [*missing, "too few sizes for an exponent"], [False])
                continue
            last = sizes(own)[-1].Index
            told = [f"{name} {value:.2f} up to {last:,}" for name, value in both.items()]
            good = [value is not None and value <= bound and last == GROWN[1] for value in both.values()]
            yield line(aimed, gradients, told, good)


def grown(own: pd.DataFrame, column: str) -> float | None:
    """The exponent over the calm sizes of GROWN; None where there are too few."""
    rows = [row for row in sizes(own) if GROWN[0] <= row.Index <= GROWN[1]]
    return fit([row.Index for row in rows], [getattr(row, column) for row in rows]) if len(rows) >= FEWEST else None


def sizes(own: pd.DataFrame) -> list[Any]:
    """The calm rows of one module, by number of tokens."""
    rows: list[Any] = list(own.itertuples())
    return sorted((row for row in rows if calm(row)), key=lambda row: row.Index)


def line(aimed: str, gradients: bool, told: list[str], good: list[bool]) -> dict[str, Any]:
    reached = "yes" if all(good) else "no" if not any(good) else f"at {sum(good)} of {len(good)}"
    return {"aim": aimed, "pass": PASSES[gradients], "measured": ", ".join(told), "reached": reached}
