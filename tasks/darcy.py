"""Darcy flow: from a two-phase material on the unit square to the pressure of the flow through it.

-div(a grad u) = 1, u = 0 on the boundary; a is 12 or 3 by the sign of a Gaussian random field with covariance
(-Laplace + 9)^-2. Li et al., "Fourier Neural Operator for Parametric Partial Differential Equations", ICLR 2021.
https://arxiv.org/abs/2010.08895

All numbers are shares, without unit, at least 0, lower is better. For a field on all nodes, in physical units, e is the
error and u the truth; |.| is the root of the sum of squares over the nodes:
rel_l2: mean over test fields of |e| / |u|.
rel_mse: mean over test fields of |e|^2 / |u|^2, the *square* of the share: never the mean of squared errors itself.
valid_rel_l2, valid_rel_mse: the same on validation fields; valid_rel_l2 chooses the epoch, test fields are read once.
train_loss: mean over training fields of |e| / |u| during the best epoch, each taken before the step that it caused.
best_epoch: the epoch whose weights were kept, from 1; epochs: how many were trained.
Floors: predicting zero gives 1 for the first four; the mean training field gives rel_l2 0.26 and rel_mse 0.069.
The truth itself is solved on a finite grid: with the default knobs it lies within about 0.006 of one 60 times finer.

Sources: `generated` draws and solves; `fno` and `neuralop` read the paper's and the package neuraloperator's files in
the data folder's darcy/fno/ and darcy/neuralop/, see _darcy_files.py.

Departs from the paper: fields are drawn and solved by ourselves (_darcy_solver.py) on a grid `refine` times finer than
what the model is given, without the random field's constant mode, and faces take harmonic means; see `faces`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from tasks import _darcy_files as files
from tasks._checkpoint import Checkpoint
from tasks._darcy_solver import VERSION, Faces, problems
from tasks._data import content_key, keep, load
from tasks._port import Port
from tasks._registry import Make, Trained, register
from tasks._step import plain, predict
from tasks._train import History, train
from tasks._training import TrainingKnobs
from tasks._weights import started, weights_of

SPLITS = ("train", "valid", "test")  # the position is the split's stream of random numbers
FINEST = 1024  # intervals an axis; beyond, one field takes seconds

Values = Float[Tensor, "batch height width 1"]
Inputs = Float[Tensor, "batch height width 3"]


class Config(TrainingKnobs):
    neutral: ClassVar[Mapping[str, Any]] = {**TrainingKnobs.neutral, "source": "generated"}

    source: files.Source = "generated"
    """fields drawn and solved here, or those of the files of the FNO paper or of the package neuraloperator"""
    side: Annotated[int, Field(ge=4)] = 16
    """nodes on each axis of a field, the boundary included"""
    refine: PositiveInt = 8
    """fields are solved on (side - 1) x refine intervals an axis, of which every refine-th node is kept"""
    faces: Faces = "harmonic"
    """mean of two nodes' coefficients that the face between them takes"""
    train: PositiveInt = 512
    """training fields"""
    valid: PositiveInt = 128
    """validation fields, which choose the epoch"""
    test: PositiveInt = 128
    """test fields"""
    data_seed: NonNegativeInt = 0
    """seed of all fields; field i of a split is the same however many are made"""
    epochs: PositiveInt = 20
    """passes over the training fields"""
    batch: PositiveInt = 16
    """fields a training step"""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    """AdamW's, on all weights that learn"""

    cost_knobs: ClassVar[frozenset[str]] = frozenset({"side", "batch"})

    @property
    def port(self) -> Port:
        """Inputs: the coefficient with zero mean and unit deviation over the training fields, then the two coordinates
        of the node, 0 to 1. Output: the pressure."""
        return Port(inputs=3, outputs=1, shape=(self.side, self.side), places=True)

    @property
    def examples(self) -> int:
        """Examples that training passes forward and back, from which a run's time is estimated."""
        return self.epochs * self.train

    @property
    def sizes(self) -> dict[str, int]:
        """How many fields each split has."""
        return {split: getattr(self, split) for split in SPLITS}

    def idle(self) -> set[str]:
        return set() if self.source == "generated" else {"refine", "faces", "data_seed"}

    @model_validator(mode="after")
    def check(self) -> "Config":
        files.refuse(self.source, self.side, self.sizes)
        intervals = (self.side - 1) * self.refine
        if self.source == "generated" and intervals > FINEST:
            raise ValueError(
                f"side {self.side} with refine {self.refine} would be solved on {intervals} intervals an axis;"
                f" at most {FINEST} are, so lower refine."
            )
        if self.batch > self.train:
            raise ValueError(f"batch is {self.batch}, more than the {self.train} training fields; lower it.")
        return self


@register("darcy", Config, better={"rel_l2": "lower", "rel_mse": "lower", "valid_rel_l2": "lower"}, version=1)
class Darcy:
    """The task at one setting of its knobs; its fields are in the data folder under darcy/."""

    def __init__(self, config: Config, data: Path):
        self.config, self.data = config, data
        self.recipe = recipe(config)
        self.folder = data / "darcy" / content_key(self.recipe)

    def prepare(self, progress: Callable[[int, int], None], workers: int) -> str:
        """Makes or finds the fields; returns their content hash, the same whatever the number of workers."""
        if self.config.source == "generated":
            return keep(self.folder, self.recipe, lambda: self.generate(progress, workers))
        place = self.data / "darcy" / self.config.source
        sizes = self.config.sizes
        content = keep(
            self.folder, self.recipe, lambda: files.given(self.config.source, place, self.config.side, sizes)
        )
        files.refuse_changed(place, self.read(files.ORIGIN), self.folder)
        return content

    def generate(self, progress: Callable[[int, int], None], workers: int) -> dict[str, np.ndarray]:
        """All splits, each [fields, 2, side, side] in float32: coefficient and pressure."""
        sizes = self.config.sizes
        seeds = [
            np.random.SeedSequence(self.config.data_seed, spawn_key=(stream, field))
            for stream, split in enumerate(SPLITS)
            for field in range(sizes[split])
        ]
        config = self.config
        made = problems(
            seeds,
            side=config.side,
            refine=config.refine,
            faces=config.faces,
            workers=workers,
            done=lambda count: progress(count, len(seeds)),
        )
        return dict(zip(SPLITS, np.split(made, np.cumsum(list(sizes.values()))[:-1]), strict=True))

    def batch(self, seed: int, device: str) -> tuple[Inputs, Values]:
        """Made-up inputs and targets of a training batch; needs no data."""
        chance = torch.Generator().manual_seed(seed)
        fields = torch.rand(self.config.batch, 2, self.config.side, self.config.side, generator=chance)
        return as_inputs(fields[:, 0] - 0.5).to(device), fields[:, 1, :, :, None].to(device)

    def loss(self, prediction: Values, target: Values) -> Float[Tensor, ""]:
        """Mean relative L2 error."""
        return relative_errors(prediction, target).mean()

    def run(self, make: Make, *, seed: int, device: str, checkpoint: Checkpoint | None = None) -> Trained:
        """Trains a model with the seed, which also draws its weights; the same seed gives the same numbers on a CPU
        with one thread, also when a checkpoint brought it there in several attempts.

        Raises ValueError when the fields are not there, Diverged when a loss is not finite.
        """
        fitted = self.fit(make, seed, device, checkpoint)
        return fitted.trained(fitted.errors(*fitted.scales.pair(self.read("test"), device)))

    def fit(self, make: Make, seed: int, device: str, checkpoint: Checkpoint | None) -> "Fitted":
        """The training alone: test fields are not read. Raises what `run` says."""
        config, training = self.config, self.read("train")
        scales = Scales(training)
        data, valid = scales.pair(training, device), scales.pair(self.read("valid"), device)
        torch.manual_seed(seed)
        model = Physical(started(make(config.port), config.start), scales).to(device)
        history = train(
            model,
            data,
            loss=self.loss,
            validate=lambda model: mean_errors(predict(model, valid[0], config.batch, config.precision), valid[1])[0],
            schedule=config.schedule,
            seed=seed,
            checkpoint=checkpoint,
        )
        fitted = Fitted(model=model, scales=scales, history=history, config=config)
        fitted.valid = fitted.errors(*valid)
        return fitted

    def read(self, split: str) -> np.ndarray:
        return load(self.folder, self.recipe, split)


class Scales:
    """Mean and deviation of coefficient and pressure over all nodes of the training fields, [fields, 2, side, side]."""

    def __init__(self, training: np.ndarray):
        self.mean = training.mean((0, 2, 3), dtype=np.float64).tolist()
        self.deviation = training.std((0, 2, 3), dtype=np.float64).tolist()

    def pair(self, fields: np.ndarray, device: str) -> tuple[Inputs, Values]:
        """A split as the model's inputs and the true pressures."""
        a, u = torch.from_numpy(fields).unbind(1)
        return as_inputs((a - self.mean[0]) / self.deviation[0]).to(device), u[..., None].to(device)


@dataclass(kw_only=True)
class Fitted:
    """What a training leaves: the model with the weights of the best epoch, and how it came to them.

    valid: (rel_l2, rel_mse) of these weights.
    """

    model: "Physical"
    scales: Scales
    history: History
    config: Config
    valid: tuple[float, float] = (math.nan, math.nan)

    def predict(self, inputs: Inputs, model: "Physical | None" = None) -> Values:
        """The answers of this model, or of another in its place."""
        return predict(model or self.model, inputs, self.config.batch, self.config.precision)

    def errors(self, inputs: Inputs, truth: Values) -> tuple[float, float]:
        """(rel_l2, rel_mse) on other fields."""
        return mean_errors(self.predict(inputs), truth)

    def trained(self, test: tuple[float, float]) -> Trained:
        """The row's numbers and curves, with the (rel_l2, rel_mse) of the test fields."""
        result = {
            "rel_l2": test[0],
            "rel_mse": test[1],
            "valid_rel_l2": self.valid[0],
            "valid_rel_mse": self.valid[1],
            "train_loss": self.history.train_loss[self.history.best_epoch - 1],
            "best_epoch": float(self.history.best_epoch),
            "epochs": float(len(self.history.train_loss)),
        }
        curves = {"train_loss": self.history.train_loss, "valid_rel_l2": self.history.valid_score}
        weights = weights_of(self.model.model) if self.config.keep_weights else {}
        return Trained(result=result, raw=curves, weights=weights)


class Physical(nn.Module):
    """A model whose outputs are scaled to the mean and deviation of the training pressures."""

    def __init__(self, model: nn.Module, scales: Scales):
        super().__init__()
        self.model, self.mean, self.deviation = model, scales.mean[1], scales.deviation[1]

    def forward(self, x: Inputs) -> Values:
        return plain(self.model(x)) * self.deviation + self.mean


def recipe(config: Config) -> dict[str, Any]:
    """What determines the fields, whichever task on them asks."""
    if config.source == "generated":
        made: dict[str, Any] = {"task": "darcy", "generator": VERSION}
        knobs = ("side", "refine", "faces", "data_seed", *SPLITS)
    else:
        made = {"task": "darcy", "source": config.source, "files": files.VERSION}
        knobs = ("side", *SPLITS)
    return made | {knob: getattr(config, knob) for knob in knobs}


def as_inputs(coefficient: Float[Tensor, "batch height width"]) -> Inputs:
    """Sets the two coordinates of each node, 0 to 1, beside its coefficient."""
    axes = (torch.linspace(0, 1, size) for size in coefficient.shape[1:])
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    return torch.cat([coefficient[..., None], places.expand(*coefficient.shape, 2)], -1)


def relative_errors(prediction: Values, truth: Values) -> Float[Tensor, " batch"]:
    """Norm of the error over norm of the truth, for each field."""
    return (prediction - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


def mean_errors(answer: Values, truth: Values) -> tuple[float, float]:
    """rel_l2 and rel_mse: means over fields of the relative error and of its square."""
    each = relative_errors(answer.double(), truth.double())
    return each.mean().item(), each.square().mean().item()
