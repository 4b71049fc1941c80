"""Makes Darcy problems: draws a two-phase material from a random field and solves for the pressure of the flow in it.

The equation is -div(a grad u) = 1 on the unit square with u = 0 on its boundary. The material a is 12 where a Gaussian
random field is positive and 3 elsewhere; the field is drawn from N(0, (-Laplace + 9)^-2) with Neumann boundary
conditions and without its constant mode. Everything is in float64 and one field at a time: a batched solver was not
faster at these sizes, and alone no field can depend on which others are made beside it, nor on the number of workers.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.fft import dstn, idctn, idstn

Faces = Literal["harmonic", "arithmetic"]
Grid = Float[ndarray, "rows columns"]

VERSION = 1  # raised whenever the same seed would give other fields
HIGH, LOW = 12.0, 3.0
TOLERANCE = 1e-12  # of the residual, relative to the right-hand side
MOST_STEPS = 200  # a contrast of 4 takes about 30, whatever the grid

MEANS: dict[Faces, Callable[[ndarray, ndarray], ndarray]] = {
    "harmonic": lambda a, b: 2 * a * b / (a + b),
    "arithmetic": lambda a, b: (a + b) / 2,
}


def gaussian_field(rng: np.random.Generator, nodes: int) -> Grid:
    """One draw of the random field, shape (nodes, nodes), zero mean over the grid.

    The mode cos(pi k x) cos(pi l y), of unit norm, has standard deviation 1 / (pi^2 (k^2 + l^2) + 9). Modes take their
    normal numbers in the order of max(k, l), so that a finer grid adds modes and keeps those that a coarser one has.
    A value belongs to the middle of its cell of the unit square and is laid on the node of the same index.
    """
    k = np.arange(nodes)
    deviation = 1 / (np.pi**2 * (k[:, None] ** 2 + k**2) + 9)
    deviation[0, 0] = 0
    by_shell = np.argsort(np.maximum(k[:, None], k), axis=None, kind="stable")
    normal = np.empty(nodes**2)
    normal[by_shell] = rng.standard_normal(nodes**2)
    return np.asarray(idctn(nodes * deviation * normal.reshape(nodes, nodes), norm="ortho"))


def permeability(rng: np.random.Generator, nodes: int) -> Grid:
    """One draw of the material, shape (nodes, nodes): 12 where the random field is positive, 3 elsewhere."""
    return np.where(gaussian_field(rng, nodes) > 0, HIGH, LOW)


def solve(a: Grid, source: Grid | float = 1.0, *, faces: Faces = "harmonic") -> Grid:
    """The pressure u on the nodes of a, boundary included: -div(a grad u) = source, u = 0 on the boundary.

    Five-point finite volumes on a square grid over the unit square; a face between two nodes takes the mean of their
    coefficients. Conjugate gradients, preconditioned by the Laplacian of constant coefficient.
    Raises ValueError for a coefficient that is no positive square grid, ArithmeticError when it does not converge.
    """
    if a.shape[0] != a.shape[1] or a.shape[0] < 3 or not (np.isfinite(a) & (a > 0)).all():
        raise ValueError(f"A coefficient is a square grid of at least 3 x 3 positive numbers; got {a.shape}.")
    intervals = len(a) - 1
    mean = MEANS[faces]
    down = mean(a[:-1, 1:-1], a[1:, 1:-1])
    across = mean(a[1:-1, :-1], a[1:-1, 1:])

    def flux_balance(u: ndarray) -> ndarray:
        """h^2 times -div(a grad u) on the inner nodes, for u on all nodes."""
        return -np.diff(down * np.diff(u[:, 1:-1], axis=0), axis=0) - np.diff(across * np.diff(u[1:-1], axis=1), axis=1)

    right = np.broadcast_to(np.asarray(source, float), a.shape)[1:-1, 1:-1] / intervals**2
    return conjugate_gradients(flux_balance, right, inverse_laplacian(intervals))


def inverse_laplacian(intervals: int) -> Callable[[ndarray], ndarray]:
    """Solves the five-point Laplacian of unit coefficient, times h^2, on the inner nodes by sine transforms."""
    wave = 2 - 2 * np.cos(np.pi * np.arange(1, intervals) / intervals)
    inverse = 1 / (wave[:, None] + wave)
    return lambda right: np.asarray(idstn(inverse * np.asarray(dstn(right, type=1)), type=1))


def conjugate_gradients(
    apply: Callable[[ndarray], ndarray], right: ndarray, precondition: Callable[[ndarray], ndarray]
) -> ndarray:
    """Solves apply(u) = right for u on all nodes, zero on the boundary; right holds the inner nodes.

    Raises ArithmeticError when the residual is not down to TOLERANCE after MOST_STEPS steps.
    """
    u = np.zeros([size + 2 for size in right.shape])
    direction = np.zeros_like(u)
    inner_u, inner_direction = u[1:-1, 1:-1], direction[1:-1, 1:-1]
    residual, size, previous = right.copy(), np.sqrt(np.sum(right**2)), np.inf
    for _ in range(MOST_STEPS):
        if np.sqrt(np.sum(residual**2)) <= TOLERANCE * size:
            return u
        upright = precondition(residual)
        now = np.sum(residual * upright)
        inner_direction[:] = upright + (now / previous) * inner_direction
        image = apply(direction)
        step = now / np.sum(inner_direction * image)
        inner_u += step * inner_direction
        residual -= step * image
        previous = now
    left = np.sqrt(np.sum(residual**2)) / size
    raise ArithmeticError(f"Conjugate gradients left a relative residual of {left:.1e} after {MOST_STEPS} steps.")


def problem(seed: np.random.SeedSequence, *, side: int, refine: int, faces: Faces) -> Float[ndarray, "2 side side"]:
    """One coefficient and its pressure on side x side nodes, float32.

    Both live on (side - 1) * refine + 1 nodes an axis; every refine-th node of both is kept, none is averaged.
    """
    a = permeability(np.random.default_rng(seed), (side - 1) * refine + 1)
    u = solve(a, faces=faces)
    return np.stack([a, u])[:, ::refine, ::refine].astype(np.float32)


def problems(
    seeds: list[np.random.SeedSequence],
    *,
    side: int,
    refine: int,
    faces: Faces,
    workers: int,
    done: Callable[[int], None],
) -> Float[ndarray, "fields 2 side side"]:
    """A problem for each seed; done(n) is called after the n-th.

    The workers are threads: transforms and array arithmetic release the interpreter, and a thread cannot outlive a
    killed run.
    """
    made = []
    with ThreadPoolExecutor(workers) as pool:
        for one in pool.map(lambda seed: problem(seed, side=side, refine=refine, faces=faces), seeds):
            made.append(one)
            done(len(made))
    return np.stack(made)
