"""Conjugate gradients against a direct solve."""

import pytest
import torch
from model.helpers import random_tensor
from torch import Tensor

from mrisps.solvers import CGResult, conjugate_gradients


def positive_matrices(batch: int, n: int, dtype: torch.dtype, condition: float = 1e3) -> Tensor:
    vectors = torch.linalg.qr(random_tensor(batch, n, n, dtype=dtype))[0]
    values = torch.logspace(0, torch.log10(torch.tensor(condition)).item(), n, dtype=torch.float64).to(dtype)
    return vectors @ torch.diag(values) @ vectors.mH


def solve(matrices: Tensor, b: Tensor, **options: float) -> CGResult:
    diagonal = torch.diagonal(matrices, dim1=1, dim2=2).real
    arguments = {"tolerance": 1e-12, "max_iterations": 500, **options}
    return conjugate_gradients(
        lambda x: torch.einsum("bij,bj->bi", matrices, x),
        b,
        start=torch.zeros_like(b),
        precondition=lambda r: r / diagonal,
        tolerance=arguments["tolerance"],
        max_iterations=int(arguments["max_iterations"]),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("batch", [1, 4])
def test_against_a_direct_solve(dtype: torch.dtype, batch: int) -> None:
    matrices = positive_matrices(batch, 20, dtype)
    b = random_tensor(batch, 20, dtype=dtype, seed=1) * torch.logspace(-3, 3, batch, dtype=torch.float64)[:, None]
    result = solve(matrices, b)
    expected = torch.linalg.solve(matrices, b)
    assert result.converged
    for i in range(batch):
        torch.testing.assert_close(result.solution[i], expected[i], rtol=0, atol=1e-8 * float(expected[i].abs().max()))
        true_residual = torch.linalg.vector_norm(b[i] - matrices[i] @ result.solution[i]) / b[i].norm()
        assert float(true_residual) < 1e-11
    assert result.relative_residual.shape == (batch,)
    assert float(result.relative_residual.max()) <= 1e-12


def test_exact_arithmetic_needs_as_many_steps_as_there_are_eigenvalues() -> None:
    values = torch.tensor([1.0, 1.0, 1.0, 5.0, 5.0, 9.0, 9.0, 9.0], dtype=torch.float64)
    b = random_tensor(1, 8)
    result = conjugate_gradients(
        lambda x: values * x,
        b,
        start=torch.zeros_like(b),
        precondition=lambda r: r.clone(),
        tolerance=1e-10,
        max_iterations=100,
    )
    assert result.converged
    assert result.n_iterations == 3
    torch.testing.assert_close(result.solution, b / values, rtol=1e-9, atol=1e-9)


def test_a_perfect_preconditioner_needs_one_step() -> None:
    matrices = positive_matrices(1, 20, torch.float64)
    b = random_tensor(1, 20)
    inverse = torch.linalg.inv(matrices)
    result = conjugate_gradients(
        lambda x: torch.einsum("bij,bj->bi", matrices, x),
        b,
        start=torch.zeros_like(b),
        precondition=lambda r: torch.einsum("bij,bj->bi", inverse, r),
        tolerance=1e-8,
        max_iterations=100,
    )
    assert result.converged
    assert result.n_iterations == 1


def test_images_and_a_good_start() -> None:
    b = random_tensor(2, 1, 3, 4, dtype=torch.complex128)
    weights = torch.linspace(1, 4, 12, dtype=torch.float64).reshape(3, 4)

    def run(start: Tensor) -> CGResult:
        return conjugate_gradients(
            lambda x: weights * x, b, start=start, precondition=lambda r: r, tolerance=1e-10, max_iterations=50
        )

    far, near = run(torch.zeros_like(b)), run(b / weights * (1 + 1e-8))
    torch.testing.assert_close(far.solution, b / weights, rtol=1e-8, atol=1e-8)
    assert near.n_iterations < far.n_iterations
    exact = run(b / weights)
    assert exact.n_iterations == 0
    assert exact.converged


def test_the_entries_of_a_batch_do_not_touch_each_other() -> None:
    matrices, b = positive_matrices(3, 12, torch.float64), random_tensor(3, 12, seed=1)
    together = solve(matrices, b)
    for i in range(3):
        alone = solve(matrices[i : i + 1], b[i : i + 1])
        torch.testing.assert_close(together.solution[i], alone.solution[0], rtol=1e-9, atol=1e-9)


def test_zero_right_side() -> None:
    matrices = positive_matrices(2, 10, torch.float64)
    b = random_tensor(2, 10)
    b[0] = 0
    result = solve(matrices, b)
    assert result.converged
    assert torch.equal(result.solution[0], torch.zeros(10, dtype=torch.float64))
    assert float(result.relative_residual[0]) == 0
    torch.testing.assert_close(result.solution[1], torch.linalg.solve(matrices[1], b[1]), rtol=1e-7, atol=1e-9)


def test_the_cap_is_told() -> None:
    result = solve(positive_matrices(1, 30, torch.float64, condition=1e8), random_tensor(1, 30), max_iterations=4)
    assert result.n_iterations == 4
    assert not result.converged
    assert float(result.relative_residual[0]) > 1e-12


@pytest.mark.parametrize("diagonal", [[-1.0, -2.0, -3.0], [0.0, 0.0, 0.0]])
def test_no_positive_curvature_is_told(diagonal: list[float]) -> None:
    values = torch.tensor(diagonal, dtype=torch.float64)
    b = random_tensor(1, 3)
    result = conjugate_gradients(
        lambda x: values * x, b, start=torch.zeros_like(b), precondition=lambda r: r, tolerance=1e-8, max_iterations=50
    )
    assert not result.converged
    assert result.n_iterations == 0
    assert bool(result.solution.isfinite().all())


def test_an_indefinite_matrix_is_never_a_success_without_a_small_residual() -> None:
    for seed in range(20):
        values = random_tensor(8, seed=seed)
        b = random_tensor(1, 8, seed=seed + 100)
        result = conjugate_gradients(
            lambda x, values=values: values * x,
            b,
            start=torch.zeros_like(b),
            precondition=lambda r: r,
            tolerance=1e-6,
            max_iterations=30,
        )
        residual = float((b - values * result.solution).norm() / b.norm())
        assert result.converged == (residual <= 1.01e-6)
        assert float(result.relative_residual[0]) == pytest.approx(residual, rel=1e-3, abs=1e-8)


def test_a_singular_but_consistent_system() -> None:
    values = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    b = torch.tensor([[0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    result = conjugate_gradients(
        lambda x: values * x, b, start=torch.zeros_like(b), precondition=lambda r: r, tolerance=1e-10, max_iterations=50
    )
    assert result.converged
    torch.testing.assert_close(result.solution, torch.tensor([[0.0, 1.0, 0.5, 0.2]], dtype=torch.float64))


def test_nan_is_not_converged() -> None:
    b = random_tensor(2, 3)
    result = conjugate_gradients(
        lambda x: torch.where(torch.arange(2)[:, None] == 0, torch.nan, x),
        b,
        start=torch.zeros_like(b),
        precondition=lambda r: r,
        tolerance=1e-8,
        max_iterations=50,
    )
    assert not result.converged


def test_single_precision() -> None:
    matrices, b = positive_matrices(2, 20, torch.float32, condition=30.0), random_tensor(2, 20, dtype=torch.float32)
    result = solve(matrices, b, tolerance=1e-5)
    assert result.solution.dtype == torch.float32
    assert result.converged
    torch.testing.assert_close(result.solution, torch.linalg.solve(matrices, b), rtol=1e-3, atol=1e-3)


def test_least_number_of_steps() -> None:
    """A start within the tolerance is improved all the same; where nothing is left to improve, nothing happens."""
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    b = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    settings = {"precondition": lambda r: r, "tolerance": 0.5, "max_iterations": 5}
    close = torch.full((1, 3), 0.9, dtype=torch.float64)
    assert conjugate_gradients(lambda x: x @ matrix, b, start=close, **settings).n_iterations == 0  # type: ignore[arg-type]  # by name
    better = conjugate_gradients(lambda x: x @ matrix, b, start=close, min_iterations=1, **settings)  # type: ignore[arg-type]  # by name
    assert better.n_iterations == 1
    assert float((better.solution - 1).abs().max()) < 0.1 - 1e-3
    exact = torch.ones(1, 3, dtype=torch.float64)
    done = conjugate_gradients(lambda x: x @ matrix, b, start=exact, min_iterations=1, **settings)  # type: ignore[arg-type]  # by name
    assert torch.equal(done.solution, exact)
