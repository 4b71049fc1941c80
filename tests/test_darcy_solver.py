"""Darcy's fields against closed forms, independent solvers of the same equations, and theory of the random field."""

import numpy as np
import pyamg
import pytest
from scipy.sparse import csr_array, lil_array
from scipy.sparse.linalg import spsolve

import tasks._darcy_solver as solver
from tasks._darcy_solver import Faces, gaussian_field, permeability, problem, solve
from tasks.darcy import Config

both_faces = pytest.mark.parametrize("faces", ["harmonic", "arithmetic"])


def assembled(a: np.ndarray, faces: Faces) -> csr_array:
    """The five-point matrix of -div(a grad u) on the inner nodes, one entry at a time."""
    intervals = len(a) - 1
    size = intervals - 1
    matrix = lil_array((size**2, size**2))
    for i in range(1, intervals):
        for j in range(1, intervals):
            row = (i - 1) * size + j - 1
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                face = (a[i, j] + a[k, m]) / 2 if faces == "arithmetic" else 2 / (1 / a[i, j] + 1 / a[k, m])
                matrix[row, row] += face * intervals**2
                if 0 < k < intervals and 0 < m < intervals:
                    matrix[row, (k - 1) * size + m - 1] = -face * intervals**2
    return matrix.tocsr()


def inner(u: np.ndarray) -> np.ndarray:
    return u[1:-1, 1:-1].ravel()


def share(error: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(error) / np.linalg.norm(truth))


@both_faces
def test_a_smooth_solution_is_met_to_second_order(faces):
    def error(intervals: int) -> float:
        x, y = np.meshgrid(*[np.linspace(0, 1, intervals + 1)] * 2, indexing="ij")
        pi, a = np.pi, 2 + np.cos(np.pi * x) + x * y
        u = np.sin(pi * x) * np.sin(2 * pi * y)
        slope_x = pi * np.cos(pi * x) * np.sin(2 * pi * y)
        slope_y = 2 * pi * np.sin(pi * x) * np.cos(2 * pi * y)
        source = -((y - pi * np.sin(pi * x)) * slope_x + x * slope_y - a * 5 * pi**2 * u)
        return share(solve(a, source, faces=faces) - u, u)

    errors = [error(intervals) for intervals in (20, 40, 80)]
    assert errors[-1] < 1e-3
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.05)


def test_the_middle_of_a_uniform_square_has_the_known_pressure():
    odd = np.arange(1, 200, 2)
    signs = np.where(odd % 4 == 1, 1.0, -1.0)
    series = (16 / np.pi**4 * np.outer(signs / odd, signs / odd) / np.add.outer(odd**2, odd**2)).sum()
    assert series == pytest.approx(0.07367, abs=5e-6)
    assert solve(np.ones((129, 129)))[64, 64] == pytest.approx(series, abs=1e-5)
    assert solve(np.full((129, 129), 4.0))[64, 64] == pytest.approx(series / 4, abs=1e-5)


@both_faces
@pytest.mark.parametrize("seed", [0, 1])
def test_conjugate_gradients_agree_with_a_sparse_direct_solver(faces, seed):
    a = permeability(np.random.default_rng(seed), 33)
    matrix = assembled(a, faces)
    truth = np.asarray(spsolve(matrix, np.ones((len(a) - 2) ** 2)))
    assert share(inner(solve(a, faces=faces)) - truth, truth) < 1e-9


def test_conjugate_gradients_agree_with_algebraic_multigrid():
    a = permeability(np.random.default_rng(2), 49)
    matrix = assembled(a, "harmonic")
    truth = np.asarray(pyamg.ruge_stuben_solver(matrix).solve(np.ones(47**2), tol=1e-13))
    assert share(inner(solve(a)) - truth, truth) < 1e-9


def test_the_discrete_equation_holds_to_round_off_on_the_default_grid():
    a = permeability(np.random.default_rng(3), (Config().side - 1) * Config().refine + 1)
    u = solve(a)
    right = np.ones(inner(u).size)
    assert share(assembled(a, "harmonic") @ inner(u) - right, right) < 1e-11
    assert not np.concatenate([u[0], u[-1], u[:, 0], u[:, -1]]).any()


def test_a_solver_that_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr(solver, "MOST_STEPS", 3)
    with pytest.raises(ArithmeticError, match=r"relative residual of .* after 3 steps"):
        solve(permeability(np.random.default_rng(0), 17))


@pytest.mark.parametrize("a", [np.zeros((9, 9)), np.ones((9, 8)), np.full((9, 9), np.nan), -np.ones((9, 9))])
def test_a_coefficient_that_is_no_material_is_refused(a):
    with pytest.raises(ValueError, match="positive"):
        solve(a)


def modes(fields: np.ndarray) -> np.ndarray:
    """Coefficients in the orthonormal cosine basis, each summed as it is defined."""
    nodes = fields.shape[-1]
    k, x = np.arange(nodes), (np.arange(nodes) + 0.5) / nodes
    basis = np.cos(np.pi * np.outer(k, x)) * np.where(k == 0, 1, np.sqrt(2))[:, None]
    return basis @ fields @ basis.T / nodes**2


def test_the_random_field_has_the_spectrum_of_theory_and_zero_mean():
    draws, nodes = 3000, 12
    rng = np.random.default_rng(0)
    found = modes(np.stack([gaussian_field(rng, nodes) for _ in range(draws)]))
    assert np.abs(found[:, 0, 0]).max() < 1e-14
    k = np.arange(nodes)
    theory = (np.pi**2 * (k[:, None] ** 2 + k**2) + 9.0) ** -2
    ratio = (found.var(0) / theory).ravel()[1:]
    assert np.abs(ratio - 1).max() < 5 * np.sqrt(2 / draws)
    assert ratio.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / draws / ratio.size))
    assert np.abs(found.mean(0) / np.sqrt(theory)).max() < 5 / np.sqrt(draws)


def test_a_finer_grid_keeps_the_modes_of_a_coarser_one():
    coarse, fine = (modes(gaussian_field(np.random.default_rng(5), nodes)) for nodes in (10, 20))
    np.testing.assert_allclose(fine[:10, :10], coarse, atol=1e-14)
    assert np.abs(fine[10:, 10:]).max() > 1e-6


def test_the_material_is_12_where_the_random_field_is_positive():
    field, a = (draw(np.random.default_rng(1), 40) for draw in (gaussian_field, permeability))
    assert set(np.unique(a)) == {3.0, 12.0}
    assert ((a == 12) == (field > 0)).all()


def test_fields_are_restricted_by_injection():
    seed = np.random.SeedSequence(0, spawn_key=(1, 2))
    a = permeability(np.random.default_rng(seed), 29)
    both = problem(seed, side=8, refine=4, faces="harmonic")
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both[0], a[::4, ::4])
    np.testing.assert_allclose(both[1], solve(a)[::4, ::4], rtol=1e-6)
