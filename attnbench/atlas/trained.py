"""Weights and tokens of full attention in a model that was really trained: the house's common backbone on Darcy flow.

The model is trained once for each seed, for 10 epochs on 256 fields of 16 x 16 nodes, which takes about 15 s on one
core; its weights are kept in the data folder. What a block's attention receives is then read on any grid, from fields
that the model has not seen: full attention has no weights that depend on the grid. On a sequence the grid is read row
by row. A model of a causal task is another one, so causal sites have no trained inputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnbench.models import maker
from mechanisms import Site
from tasks import find
from tasks._data import content_key, keep, load

SIDE, DEPTH, BLOCK = 16, 2, 1  # of the training's grid; blocks of the model; the one that is read, its last
KNOBS = {"side": SIDE, "train": 256, "valid": 64, "test": 64, "epochs": 10, "batch": 8, "rate": 5e-3}
FINEST = 1024  # intervals an axis at which fields are solved
UNSEEN = 1000  # from here on seeds of fields are those of no training


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left.

    state: weights of the whole model by name. scales: mean and deviation of the coefficient over the training fields.
    content: hash of the folder. error: relative L2 error on validation fields, by which one sees that it has learnt.
    """

    state: dict[str, Tensor]
    scales: tuple[float, float]
    content: str
    error: float

    @property
    def weights(self) -> dict[str, Tensor]:
        """Those of the attention that is read, by the names that `full` has, in float64."""
        start = f"blocks.{BLOCK}.mechanism."
        return {name.removeprefix(start): one.double() for name, one in self.state.items() if name.startswith(start)}


def recipe(channels: int, heads: int, seed: int) -> dict[str, Any]:
    """All that determines a training."""
    model = {"channels": channels, "depth": DEPTH, "heads": heads}
    return {"atlas": 1, "task": "darcy", "knobs": KNOBS, "model": model, "seed": seed}


def trained(data: Path, *, channels: int, heads: int, seed: int) -> Trained:
    """The model of these sizes and this seed; trains it where the data folder does not have it.

    Raises ValueError for heads that do not divide the channels, or a damaged folder.
    """
    made = recipe(channels, heads, seed)
    folder = data / "atlas" / content_key(made)
    content = keep(folder, made, lambda: train(data, channels, heads, seed))
    numbers = load(folder, made, "numbers")
    names = str(load(folder, made, "names").item()).split()
    state = {name: torch.from_numpy(load(folder, made, name)) for name in names}
    scales = float(numbers[0]), float(numbers[1])
    return Trained(state=state, scales=scales, content=content, error=float(numbers[2]))


def train(data: Path, channels: int, heads: int, seed: int) -> dict[str, np.ndarray]:
    """The weights of a training as arrays, the coefficient's scales and the error on validation fields."""
    darcy = task(data, **KNOBS)
    darcy.prepare(lambda *_: None, 1)
    with one_thread():
        fitted = darcy.fit(model(channels, heads, seed), seed, "cpu", None)
    state = fitted.model.model.state_dict()
    arrays = {name: tensor.numpy().copy() for name, tensor in state.items()}
    numbers = np.array([fitted.scales.mean[0], fitted.scales.deviation[0], fitted.valid[0]])
    return {**arrays, "names": np.array(" ".join(arrays)), "numbers": numbers}


def task(data: Path, **knobs: Any) -> Any:
    entry = find("darcy")
    return entry.cls(entry.config(**knobs), data)


def model(channels: int, heads: int, seed: int) -> Any:
    """A function from a port to the common backbone with full attention inside."""
    return maker("isotropic", {"channels": channels, "depth": DEPTH}, ("full", {"heads": heads}), seed)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread and deterministic kernels, so that a training gives the same weights wherever it is asked for."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def tokens(found: Trained, site: Site, heads: int, data: Path, *, examples: int, seed: int) -> Tensor:
    """What the attention receives [examples, *shape, C] in float64, from fields on the site's grid.

    Raises ValueError for a causal site, a grid that is not square, and a sequence whose length is no square.
    """
    side = side_of(site)
    refine = max(1, min(8, FINEST // (side - 1)))
    knobs = {"side": side, "refine": refine, "train": 1, "valid": 1, "test": examples, "batch": 1}
    darcy = task(data, **knobs, data_seed=UNSEEN + seed)
    darcy.prepare(lambda *_: None, 1)
    fields = torch.from_numpy(darcy.read("test"))[:, 0].double()
    axis = torch.linspace(0, 1, side, dtype=torch.float64)
    places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).expand(examples, side, side, 2)
    inputs = torch.cat([((fields - found.scales[0]) / found.scales[1])[..., None], places], -1)
    whole = model(site.channels, heads, 0)(darcy.config.port)
    whole.load_state_dict(found.state)
    return received(whole.double().eval(), inputs).reshape(examples, *site.shape, site.channels)


def received(whole: nn.Module, inputs: Tensor) -> Tensor:
    """The tokens that come to the attention of the block that is read."""
    caught: list[Tensor] = []
    place = whole.get_submodule(f"blocks.{BLOCK}.mechanism")
    hook = place.register_forward_pre_hook(lambda _, given: caught.append(given[0].detach()))
    with torch.no_grad():
        whole(inputs)
    hook.remove()
    return caught[0]


def side_of(site: Site) -> int:
    """The side of the grid of which a site is the tokens. Raises ValueError as `tokens` says."""
    side = round(site.tokens**0.5)
    if site.causal or side < 4 or side * side != site.tokens or len(set(site.shape)) > 1:
        shape = " x ".join(map(str, site.shape))
        raise ValueError(
            "trained inputs are those of Darcy flow on a square grid of at least 4 x 4 nodes, or of its nodes row by "
            f"row as a sequence; got a {site.setting} of {shape}."
        )
    return side
