"""What tests of the atlas share: planted mechanisms whose rows are known, and dense attention in numpy."""

import numpy as np
import torch
from torch import nn

from attnbench.atlas.compare import Place, compare
from attnbench.atlas.pairs import PARTS, Pair, fresh
from mechanisms import Site, build

CHANNELS, HEADS = 8, 2
SEQUENCE, CAUSAL = Site(channels=CHANNELS, shape=(6,)), Site(channels=CHANNELS, shape=(6,), causal=True)


def grid(*shape):
    return Site(channels=CHANNELS, shape=shape)


def point(name, site, tmp_path, **knobs):
    place = Place(site=site, input="random", seed=0, sharpness=4.0)
    return compare(name, {"heads": HEADS} | knobs, place, tmp_path).result


class Planted(nn.Module):
    """out(A v(x)) for rows A that a test knows; of q and k it has the weights and no use."""

    def __init__(self, weights):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(CHANNELS, CHANNELS) for _ in range(4))
        self.weights = weights

    def forward(self, x):
        return self.out(torch.einsum("ij,bjc->bic", self.weights, self.v(x)))


class Mixed(Planted):
    """The same with weights [N, C, N, C], over tokens and channels."""

    def forward(self, x):
        return self.out(torch.einsum("icjd,bjd->bic", self.weights, self.v(x)))


class Unscaled(Planted):
    """Softmax attention whose author forgot to divide by the root of a head's width."""

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


def planted(module, *, sharpness=4.0):
    """A pair of a planted module and full attention, with the same four projections."""
    full = build("full", SEQUENCE, heads=HEADS).double()
    full.load_state_dict(fresh(SEQUENCE, HEADS, seed=0, sharpness=sharpness))
    module = module.double()
    module.load_state_dict(full.state_dict())
    return Pair(site=SEQUENCE, heads=HEADS, mechanism=module.eval(), full=full.eval(), shared=PARTS, own=0)


def dense(weights, x, allowed=None, scale=None):
    """Softmax rows [heads, N, N] in numpy, from weights by name and tokens [N, C]."""
    parts = {name: tensor.numpy() for name, tensor in weights.items()}
    x = x.reshape(-1, x.shape[-1]).numpy()
    q, k = (x @ parts[f"{part}.weight"].T + parts[f"{part}.bias"] for part in "qk")
    width, found = CHANNELS // HEADS, []
    for head in range(HEADS):
        mine = slice(head * width, (head + 1) * width)
        scores = q[:, mine] @ k[:, mine].T * (width**-0.5 if scale is None else scale)
        scores = scores if allowed is None else np.where(allowed, scores, -np.inf)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        found.append(shares / shares.sum(1, keepdims=True))
    return np.stack(found)


def errors(found, truth):
    """Frobenius, total variation and missed mass, in numpy, head by head."""
    frobenius = [np.sqrt(((a - b) ** 2).sum()) / np.sqrt((b**2).sum()) for a, b in zip(found, truth, strict=True)]
    missed = np.where(truth > found, truth - found, 0).sum(2)
    return np.mean(frobenius), 0.5 * np.abs(found - truth).sum(2).mean(), missed.mean()
