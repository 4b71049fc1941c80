"""Darcy flow by place: where the error lies, near jumps of the coefficient and near the boundary against elsewhere.

Fields, training and source as in tasks/darcy.py. https://arxiv.org/abs/2010.08895
At a jump of the coefficient the pressure has a kink, which a model that answers too smoothly misses. Distances are
Euclidean, in nodes: one is 1 / (side - 1) of the square. A jump lies on the face half-way between two nodes, neighbours
along an axis, whose coefficients differ as the model is given them; the boundary is the outermost nodes.

rel_l2, rel_mse, valid_rel_l2, valid_rel_mse, train_loss, best_epoch, epochs: see tasks/darcy.py.
For a set of nodes, a field's local error is the root mean square of the error over them, over the root mean square of
the truth over *all* nodes of the field; over all nodes it is the field's rel_l2. Means over test fields, without unit,
at least 0, lower is better; predicting zero gives what the truth has there, see the curves.
rel_l2_near, rel_l2_far: local error of nodes up to 1 from the nearest jump, and of those beyond; a field without such
nodes is left out of the mean, and one without jumps has none near.
rel_l2_boundary, rel_l2_interior: of nodes up to 1 from the boundary, itself included, and of those beyond.
near_over_far, boundary_over_interior: the quotients of these means, above 0; 1 where the error does not mind the place.
Curves: jump_error, jump_truth, jump_share: value i is for nodes whose distance from the nearest jump is above i and at
most i + 1; boundary_error, ...: for nodes i from the boundary. Error is the mean of the local error, truth the mean of
the same with the truth in place of the error, the floor of predicting zero there; share is that of all nodes.

Departs from the paper: it reports no error by place.
"""

from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.ndimage import distance_transform_edt

from tasks import darcy
from tasks._checkpoint import Checkpoint
from tasks._registry import Make, Trained, register
from tasks.darcy import Darcy

NEAR = 1  # nodes


class Config(darcy.Config):
    side: Annotated[int, Field(ge=5)] = 16
    """nodes on each axis of a field, the boundary included"""


@register(
    "darcy_interfaces",
    Config,
    better={
        "rel_l2": "lower",
        "rel_mse": "lower",
        "rel_l2_near": "lower",
        "rel_l2_far": "lower",
        "rel_l2_boundary": "lower",
        "rel_l2_interior": "lower",
        "valid_rel_l2": "lower",
    },
)
class DarcyInterfaces(Darcy):
    """The task at one setting of its knobs; its fields are those of the task darcy, in the same folder."""

    def run(self, make: Make, *, seed: int, device: str, checkpoint: Checkpoint | None = None) -> Trained:
        """Trains as the task darcy does, and looks where the error of the test fields lies.

        Raises what that task raises, and ValueError for test fields without a jump or without a node far from one.
        """
        fitted = self.fit(make, seed, device, checkpoint)
        fields = self.read("test")
        inputs, truth = fitted.scales.pair(fields, device)
        trained = fitted.trained(fitted.errors(inputs, truth))
        answer = fitted.predict(inputs)
        error, pressure = ((x[..., 0].double().cpu().numpy()) for x in (answer - truth, truth))
        scale = np.sqrt((pressure**2).mean((1, 2), keepdims=True))
        error, pressure = (error / scale) ** 2, (pressure / scale) ** 2
        edges = np.broadcast_to(to_boundary(self.config.side), error.shape)
        for distance, (near, far), name in (
            (np.stack([to_jump(one) for one in fields[:, 0]]), ("near", "far"), "jump"),
            (edges, ("boundary", "interior"), "boundary"),
        ):
            found = {near: local(error, distance <= NEAR, near), far: local(error, distance > NEAR, far)}
            trained.result.update({f"rel_l2_{word}": value for word, value in found.items()})
            trained.result[f"{near}_over_{far}"] = found[near] / found[far]
            trained.raw.update(curves(name, error, pressure, distance))
        return trained


def to_jump(coefficient: np.ndarray) -> np.ndarray:
    """Distance of each node [H, W] from the middle of the nearest face where the coefficient jumps; infinite without.

    On a grid of twice the density nodes lie at even places and faces between them.
    """
    height, width = coefficient.shape
    quiet = np.ones((2 * height - 1, 2 * width - 1), bool)
    quiet[1::2, ::2] = coefficient[1:] == coefficient[:-1]
    quiet[::2, 1::2] = coefficient[:, 1:] == coefficient[:, :-1]
    if quiet.all():
        return np.full(coefficient.shape, np.inf)
    return np.asarray(distance_transform_edt(quiet))[::2, ::2] / 2


def to_boundary(side: int) -> np.ndarray:
    """Distance of each node [side, side] from the nearest of the outermost nodes."""
    along = np.minimum(np.arange(side), np.arange(side)[::-1])
    return np.minimum(along[:, None], along).astype(float)


def local(squares: np.ndarray, chosen: np.ndarray, where: str) -> float:
    """Mean over the fields that have chosen nodes of the root mean square over these, from squares [B, H, W]."""
    counts = chosen.sum((1, 2))
    if not counts.any():
        raise ValueError(f"darcy_interfaces: no test field has a node that counts as {where}; take a larger side.")
    sums = np.where(chosen, squares, 0).sum((1, 2))
    return float(np.sqrt(sums[counts > 0] / counts[counts > 0]).mean())


def curves(name: str, error: np.ndarray, truth: np.ndarray, distance: np.ndarray) -> dict[str, list[float]]:
    """Local error, local truth and share of the nodes by distance: up to 1, 2 and so on from jumps, exactly 0, 1 and so
    on from the boundary."""
    step = np.ceil(distance) - (name == "jump")
    places = [step == number for number in range(1 + int(step[np.isfinite(step)].max(initial=0)))]
    return {
        f"{name}_error": [local(error, place, name) for place in places],
        f"{name}_truth": [local(truth, place, name) for place in places],
        f"{name}_share": [float(place.mean()) for place in places],
    }
