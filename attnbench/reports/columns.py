"""What a row's columns are called on an axis or in a table's head, in which unit, and which way is better."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal


@dataclass(frozen=True)
class Column:
    """label: words for an axis. unit: empty for pure numbers. better: for measures of quality alone.

    detail: a measure that rows and figures have, and summary tables only where its task ranks by it.
    """

    label: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    detail: bool = False

    @property
    def axis(self) -> str:
        return f"{self.label} [{self.unit}]" if self.unit else self.label


COLUMNS = {  # of the measures that a table has, the first ranks
    "result.rel_l2_transfer": Column("relative L2 error, other grid, test", better="lower"),
    "result.rel_l2": Column("relative L2 error, test", better="lower"),
    "result.miou": Column("mean IoU, test", better="higher"),
    "result.bits_per_byte": Column("bits per byte, test", "bit", better="lower"),
    "result.perplexity": Column("perplexity, test", better="lower"),
    "result.accuracy": Column("accuracy, test", better="higher"),
    "result.top5": Column("top-5 accuracy, test", better="higher"),
    "result.agreement": Column("agreement of verbs, test", better="higher"),
    "result.loss": Column("cross-entropy, test", "nat", better="lower"),
    "result.rel_mse_transfer": Column("relative MSE, other grid, test", better="lower"),
    "result.rel_mse": Column("relative MSE, test", better="lower"),
    "result.rel_l2_near": Column("local L2 error near jumps, test", better="lower"),
    "result.rel_l2_far": Column("local L2 error far from jumps, test", better="lower"),
    "result.rel_l2_boundary": Column("local L2 error at the boundary, test", better="lower"),
    "result.rel_l2_interior": Column("local L2 error in the interior, test", better="lower"),
    "result.rel_l2_interpolated": Column("relative L2 error, interpolated, test", better="lower", detail=True),
    "result.near_over_far": Column("error near jumps over far from them, test"),
    "result.boundary_over_interior": Column("error at the boundary over the interior, test"),
    **{
        f"result.{band}_rel_l2{where}": Column(f"L2 error of {band} waves{grid}, test", better="lower", detail=True)
        for band in ("low", "mid", "high")
        for where, grid in (("", ""), ("_transfer", ", other grid"))
    },
    "result.word_perplexity": Column("perplexity per word, test", better="lower", detail=True),
    "result.floor": Column("entropy floor", "bit"),
    "result.above_floor": Column("bits per byte above the entropy floor, test", "bit", better="lower", detail=True),
    "result.valid_accuracy": Column("accuracy, validation"),
    "result.valid_loss": Column("cross-entropy, validation", "nat"),
    "result.valid_bits_per_byte": Column("bits per byte, validation", "bit"),
    "result.valid_perplexity": Column("perplexity, validation"),
    "result.valid_rel_l2": Column("relative L2 error, validation"),
    "result.valid_rel_mse": Column("relative MSE, validation"),
    "result.train_loss": Column("training loss"),
    "result.best_epoch": Column("best epoch"),
    "result.output_error": Column("error of outputs against full attention"),
    "result.output_error_scaled": Column("error of outputs, best factor, against full attention"),
    "result.row_error": Column("error of rows against full attention"),
    "result.row_tv": Column("variation of rows against full attention"),
    "result.spectrum_error": Column("error of singular values against full attention"),
    "result.gradient_error": Column("error of gradients against full attention"),
    "cost.params": Column("parameters"),
    "cost.params_trained": Column("parameters trained"),
    "cost.params_pretrained": Column("parameters pretrained"),
    "cost.matmul_flops": Column("matrix products, forward, per sample", "FLOP"),
    "cost.fft_flops": Column("Fourier transforms, forward, per sample", "FLOP"),
    "cost.train_samples_per_s": Column("training throughput", "samples/s"),
    "cost.infer_samples_per_s": Column("inference throughput", "samples/s"),
    "cost.train_step_ms": Column("training step", "ms"),
    "cost.infer_step_ms": Column("inference step", "ms"),
    "cost.memory_train_mib": Column("peak memory, training", "MiB"),
    "cost.memory_infer_mib": Column("peak memory, inference", "MiB"),
    "cost.rss_train_mib": Column("resident memory, training", "MiB"),
    "cost.train_wall_s": Column("training, wall time", "s"),
    "cost.step_ms": Column("time of a step", "ms"),
    "cost.memory_mib": Column("peak memory of a step", "MiB"),
    "cost.tokens_per_s": Column("throughput", "tokens/s"),
    "cost.intensity": Column("intensity", "FLOP/B"),
    "cost.achieved_gflops": Column("achieved", "GFLOP/s"),
    "site.tokens": Column("tokens"),
    "wall_s": Column("whole cell, wall time", "s"),
    "raw.jump_error": Column("local L2 error, test"),
    "raw.boundary_error": Column("local L2 error, test"),
    "raw.spectrum": Column("L2 error of waves, test"),
    "raw.spectrum_transfer": Column("L2 error of waves, other grid, test"),
}


@dataclass(frozen=True)
class Places:
    """Where the values of a curve lie: words for the axis, and the place of the first; from one to the next it is 1."""

    axis: str
    first: float


PLACES = {  # of the columns that hold a curve for each training
    "raw.jump_error": Places("distance from the nearest jump [nodes]", 0.5),
    "raw.boundary_error": Places("distance from the boundary [nodes]", 0.0),
    "raw.spectrum": Places("half waves along a side, root of the sum of squares of both axes", 0.5),
    "raw.spectrum_transfer": Places("half waves along a side, root of the sum of squares of both axes", 0.5),
}

COLUMN_WORDS = ("x", "y", "color", "style", "panel")  # words of a figure that name columns
NEEDED = {  # what each kind of figure cannot do without
    "variants": ("y",),
    "scatter": ("x", "y"),
    "lines": ("x", "y"),
    "curves": ("y",),
}


def misplaced(kind: str, given: Mapping[str, str]) -> str:
    """Why a figure of this kind cannot draw one of its columns; empty if it can."""
    if kind == "curves":
        return "" if given["y"] in PLACES else f"kind curves draws one of {', '.join(PLACES)}; y is {given['y']!r}."
    held = [given[word] for word in COLUMN_WORDS if given.get(word) in PLACES]
    return f"{held[0]} is a curve for each training, which kind curves draws, not {kind}." if held else ""


def learn(better: Mapping[str, str]) -> None:
    """Makes a sweep's own measures known: which side of them is better, as their tasks say.

    Validation numbers choose epochs and rates; they rank nothing in a table.
    """
    for name, side in better.items():
        assert side in ("lower", "higher"), side
        known = described(name)
        valid = name.startswith("result.valid_")
        COLUMNS[name] = known if valid else replace(known, better=side, detail=False)


def described(name: str) -> Column:
    """A column's words; those of a knob or of an unknown column are its own name without the group."""
    return COLUMNS.get(name) or Column(name.partition(".")[2] or name)


def worth(name: str, value: float) -> float:
    """Smaller is better: a column's value, its sign turned where more is better."""
    return -value if described(name).better == "higher" else value


def measures(names: Iterable[str]) -> list[str]:
    """The measures of quality among these columns, the one that ranks first.

    Without any results there is nothing to rank, and the first known measure stands for its empty column.
    Raises ValueError if there are results and this file knows none of them.
    """
    results = [name for name in names if name.startswith("result.")]
    known = [name for name, column in COLUMNS.items() if column.better and not column.detail and name in results]
    if results and not known:
        raise ValueError(f"none of {', '.join(results)} is a measure whose better side its task declares.")
    return known or [next(name for name, column in COLUMNS.items() if column.better)]


def measured(rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """`measures` of the results that any of these rows has; of all columns where none has a result."""
    names, rows = list(names), list(rows)
    filled = [name for name in names if name.startswith("result.") and any(row.get(name) is not None for row in rows)]
    return measures(filled or names)


def known_column(name: str, names: Iterable[str], *, of: str) -> str:
    """The name, if it is a column. Raises ValueError that names the nearest one."""
    names = list(names)
    if name in names:
        return name
    ending = [other for other in names if other.rpartition(".")[2] == name.rpartition(".")[2]]
    near = ending[:1] or get_close_matches(name, names, n=1, cutoff=0.5)
    raise ValueError(
        f"{of}: the rows have no column {name!r}." + "".join(f" Did you mean {match!r}?" for match in near)
    )
