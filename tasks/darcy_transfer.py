"""Darcy flow at another resolution: trained on one grid, tested on another without training.

Fields, training and source as in tasks/darcy.py; zero-shot super-resolution as in section 5.4 of Li et al., "Fourier
Neural Operator for Parametric Partial Differential Equations", ICLR 2021. https://arxiv.org/abs/2010.08895
A second model, made for test_side, takes all weights of the trained one; where a name or a shape differs, as for
mechanisms whose weights depend on the grid, nothing is trained and the task refuses.

All numbers are shares, without unit, at least 0, lower is better, means over test fields; predicting zero gives 1.
rel_l2, rel_mse, valid_rel_l2, valid_rel_mse, train_loss, best_epoch, epochs: see tasks/darcy.py, all at `side`.
rel_l2_transfer, rel_mse_transfer: as rel_l2 and rel_mse, at test_side.
rel_l2_interpolated: the trained model's answers at `side`, interpolated bilinearly to test_side: what transfer is to
beat. With `neuralop` it is not there, for its files do not say which of their fields belong together.
low_, mid_, high_rel_l2 and ..._transfer: |e| / |u| of a band of waves alone, of the error e and the truth u in sine
modes (orthonormal DST-I of the inner nodes; what lies on the boundary itself is in no band). A mode with k and l half
waves along the axes has r = sqrt(k^2 + l^2): low has r < 5, mid 5 <= r < 13, high r >= 13, whatever the grid, as
Takamoto et al., "PDEBench", 2022, part waves. https://arxiv.org/abs/2210.07182 The finer grid has more modes in high.
Curves: spectrum, spectrum_transfer: value i is the root of the mean over test fields of the error's energy in modes
with i <= r < i + 1, over that of the whole truth; 0 where there is no mode. Their squares sum to nearly rel_mse.

Test fields at test_side are those at `side` seen on another grid: with `fno` other points of the same solution;
with `generated` the same random field, solved on as many intervals as come nearest those of training, and the very
same solution where test_side - 1 divides them (with the default knobs else within 0.007); with `neuralop` fields of
another file, which may be others.
Departs from the paper: its example is the Navier-Stokes equation, and it asks for finer grids only.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.fft import dstn
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tasks import _darcy_files as files
from tasks import darcy
from tasks._checkpoint import Checkpoint
from tasks._registry import Make, Trained, register
from tasks.darcy import Darcy, Physical, mean_errors

BANDS = {"low": (0, 5), "mid": (5, 13), "high": (13, np.inf)}  # in half waves; from the first, below the second
SMALLEST = 12  # the fewest nodes an axis that hold a mode of the highest band


class Config(darcy.Config):
    side: Annotated[int, Field(ge=SMALLEST)] = 16
    """nodes on each axis of a training field, the boundary included"""
    test_side: Annotated[int, Field(ge=SMALLEST)] = 32
    """nodes on each axis of the grid to which the trained weights are taken"""

    @property
    def refine_there(self) -> int:
        """The knob refine of the test fields at test_side."""
        return max(1, round((self.side - 1) * self.refine / (self.test_side - 1)))

    @model_validator(mode="after")
    def fits_there(self) -> "Config":
        files.refuse(self.source, self.test_side, self.sizes)
        if self.source == "generated" and self.test_side - 1 > darcy.FINEST:
            raise ValueError(f"test_side is at most {darcy.FINEST + 1}; got {self.test_side}.")
        return self


@register(
    "darcy_transfer",
    Config,
    better={"rel_l2_transfer": "lower", "rel_mse_transfer": "lower", "rel_l2": "lower", "valid_rel_l2": "lower"},
)
class DarcyTransfer(Darcy):
    """The task at one setting of its knobs; its fields are in the data folder under darcy/, shared with that task."""

    config: Config

    def __init__(self, config: Config, data: Path):
        super().__init__(config, data)
        there = {"side": config.test_side, "refine": config.refine_there, "train": 0, "valid": 0}
        self.there = Darcy(config.model_copy(update=there), data)

    def prepare(self, progress: Callable[[int, int], None], workers: int) -> str:
        """Makes or finds the fields on both grids; returns the hash of both contents."""
        hashes = super().prepare(progress, workers), self.there.prepare(progress, workers)
        return f"sha256:{sha256(' '.join(hashes).encode()).hexdigest()}"

    def run(self, make: Make, *, seed: int, device: str, checkpoint: Checkpoint | None = None) -> Trained:
        """Trains at `side`, then tests there and at test_side.

        Raises ValueError for weights that do not transfer, before any training, and what the task darcy raises.
        """
        torch.manual_seed(seed)
        other = make(self.there.config.port)
        refuse_bound(make(self.config.port), other, (self.config.side, self.config.test_side))
        fitted = self.fit(make, seed, device, checkpoint)
        other.load_state_dict(fitted.model.model.state_dict(), strict=True)
        moved = Physical(other, fitted.scales).to(device)
        here, there = (fitted.scales.pair(one.read("test"), device) for one in (self, self.there))
        answer = fitted.predict(here[0])
        trained = fitted.trained(mean_errors(answer, here[1]))
        moved_answer = fitted.predict(there[0], moved)
        for numbers, curves in (told("", answer, here[1]), told("_transfer", moved_answer, there[1])):
            trained.result.update(numbers)
            trained.raw.update(curves)
        if self.config.source != "neuralop":
            trained.result["rel_l2_interpolated"] = mean_errors(resized(answer, self.config.test_side), there[1])[0]
        return trained


def told(name: str, answer: Tensor, truth: Tensor) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The numbers and curves of one grid; their names end in `name`."""
    spectra = energies(answer - truth), energies(truth)
    numbers = dict(zip(("rel_l2", "rel_mse"), mean_errors(answer, truth), strict=True))
    numbers |= {f"{band}_rel_l2": value for band, value in banded(*spectra).items()}
    return {f"{key}{name}": value for key, value in numbers.items()}, {f"spectrum{name}": spectrum(*spectra)}


def refuse_bound(model: nn.Module, other: nn.Module, sides: tuple[int, int]) -> None:
    """Raises ValueError when the weights of a model are not those of the other, made for another grid."""
    ours, theirs = ({name: tuple(value.shape) for name, value in one.state_dict().items()} for one in (model, other))
    bound = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if bound:
        here, there = (shapes.get(bound[0], "absent") for shapes in (ours, theirs))
        more = f" and {len(bound) - 1} more" if bound[1:] else ""
        raise ValueError(
            f"weights that depend on the grid do not transfer from side {sides[0]} to {sides[1]}: {bound[0]} is {here}"
            f" there and {there} here{more}."
        )


def resized(answer: Tensor, side: int) -> Tensor:
    """Fields [B, H, W, 1] on another grid of nodes of the unit square, bilinearly."""
    return interpolate(answer.movedim(-1, 1), (side, side), mode="bilinear", align_corners=True).movedim(1, -1)


def energies(fields: Tensor) -> np.ndarray:
    """Energy of each sine mode [B, k, l], k and l from 1, a mean over the square: the same on any grid."""
    inner = fields[:, 1:-1, 1:-1, 0].double().cpu().numpy()
    modes = np.asarray(dstn(inner, type=1, axes=(1, 2), norm="ortho"))
    return modes**2 / (fields.shape[1] - 1) ** 2


def radii(modes: int) -> np.ndarray:
    """r of each mode, in half waves."""
    k = np.arange(1, modes + 1)
    return np.hypot(k[:, None], k)


def banded(error: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Relative error of each band, from energies."""
    r, found = radii(error.shape[1]), {}
    for band, (first, end) in BANDS.items():
        inside = (r >= first) & (r < end)
        found[band] = float(np.sqrt(error[:, inside].sum(1) / truth[:, inside].sum(1)).mean())
    return found


def spectrum(error: np.ndarray, truth: np.ndarray) -> list[float]:
    """Error in modes of r from 0 to 1, 1 to 2 and so on, from energies."""
    shells = radii(error.shape[1]).astype(int)
    shares = (error / truth.sum((1, 2), keepdims=True)).mean(0)
    return np.sqrt(np.bincount(shells.ravel(), shares.ravel())).tolist()
