"""LinearOperator itself, Identity, and the algebra of operators."""

import copy
import math
import pickle
from operator import add, sub

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrisps.operators import BlurDownsample, Fourier, FourierSubsampling, Identity, LinearOperator, Sense

from .helpers import check_gradients_by_differences, check_operator, dense_matrix, random_tensor

COMPLEX = torch.complex128
REAL = torch.float64


class Matrix(LinearOperator):
    """Any matrix on flattened images, as a user would write an operator: no transfer function, no known norm."""

    def __init__(self, matrix: torch.Tensor, shape: tuple[int, ...]) -> None:
        super().__init__(
            domain_shape=shape,
            range_shape=(matrix.shape[0],),
            domain_dtype=matrix.dtype,
            range_dtype=matrix.dtype,
            device=matrix.device,
        )
        self._matrix = matrix

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self._matrix.mT

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return (y @ self._matrix.conj()).reshape(-1, *self.domain_shape)


def matrix_operator(
    n_rows: int = 7, shape: tuple[int, ...] = (1, 3, 4), dtype: torch.dtype = COMPLEX, seed: int = 11
) -> Matrix:
    return Matrix(random_tensor((n_rows, math.prod(shape)), dtype, seed=seed), shape)


def column_mask(n_columns: int) -> torch.Tensor:
    mask = torch.arange(n_columns) % 3 == 0
    mask[n_columns // 2] = True
    return mask


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (3, 4, 5), (1, 1)])
@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_identity(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    operator = Identity(shape, dtype)
    check_operator(operator)
    x = random_tensor((2, *operator.domain_shape), dtype)
    assert torch.equal(operator(x), x)
    assert operator.norm() == 1
    assert operator.H is operator


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_users_own_operator_needs_only_forward_and_adjoint(dtype: torch.dtype) -> None:
    operator = matrix_operator(dtype=dtype)
    check_operator(operator, exact_norm=False)
    assert operator.normal_transfer_function() is None


@pytest.mark.parametrize(
    "operator",
    [
        Identity((2, 2), REAL),
        matrix_operator(2, (1, 2, 2)),
        (1 + 2j) * FourierSubsampling(column_mask(3), (2, 3), REAL),
        FourierSubsampling(column_mask(3), (2, 3), REAL).H,
        matrix_operator(2, (1, 2, 3)) @ FourierSubsampling(column_mask(3), (2, 3), REAL),
        BlurDownsample((3, 4), 2, 1.0, 2, REAL) - 2 * BlurDownsample((3, 4), 2, 1.0, 2, REAL),
        Sense(column_mask(3), random_tensor((2, 2, 2, 3), COMPLEX), REAL),
    ],
    ids=["identity", "matrix", "scaled", "adjoint", "product", "difference", "sense"],
)
def test_derivatives_against_finite_differences(operator: LinearOperator) -> None:
    check_gradients_by_differences(operator)


# ---------------------------------------------------------------------------------------------------- algebra


@pytest.mark.parametrize(("shape", "factor"), [((4, 6), 3), ((5, 7), -0.5), ((4, 6), 2 - 1j), ((5, 7), 0.25j)])
def test_scaled(shape: tuple[int, int], factor: complex) -> None:
    for inner in (Fourier(shape, COMPLEX), FourierSubsampling(column_mask(shape[1]), shape, REAL)):
        scaled = factor * inner
        check_operator(scaled)
        x = random_tensor((2, *inner.domain_shape), inner.domain_dtype)
        torch.testing.assert_close(scaled(x), factor * inner(x))
        assert scaled.norm() == pytest.approx(abs(factor) * inner.norm(), rel=1e-14)
        transfer_function, expected = scaled.normal_transfer_function(), inner.normal_transfer_function()
        assert transfer_function is not None
        torch.testing.assert_close(transfer_function, abs(factor) ** 2 * expected)


def test_scaled_without_transfer_function() -> None:
    scaled = 2 * matrix_operator()
    check_operator(scaled, exact_norm=False)
    assert scaled.normal_transfer_function() is None
    check_operator(-3 * BlurDownsample((9, 8), 4, 1.0, 2, REAL))


def test_scaled_from_the_right() -> None:
    inner = FourierSubsampling(column_mask(5), (4, 5), COMPLEX)
    x = random_tensor((1, 1, 4, 5), COMPLEX)
    for factor in (2.0, 1 - 2j):
        operator = inner * factor
        check_operator(operator)
        torch.testing.assert_close(operator(x), inner(factor * x))
        transfer_function = operator.normal_transfer_function()
        assert transfer_function is not None
        torch.testing.assert_close(transfer_function, abs(factor) ** 2 * inner.normal_transfer_function())


def test_complex_factor_does_not_commute_with_a_map_that_is_only_linear_over_the_reals() -> None:
    subsampling = FourierSubsampling(column_mask(5), (4, 5), REAL)
    real_linear = subsampling @ subsampling.H  # complex to complex, with a real part between
    check_operator(real_linear, exact_norm=False)
    left, right = 1j * real_linear, real_linear * 1j
    check_operator(left, exact_norm=False)
    check_operator(right, exact_norm=False)
    x = random_tensor((1, 1, 4, 5), COMPLEX)
    torch.testing.assert_close(left(x), 1j * real_linear(x))
    torch.testing.assert_close(right(x), real_linear(1j * x))
    assert not torch.allclose(left(x), right(x))


def test_numpy_scalar_as_factor() -> None:
    operator = np.float64(2.0) * Identity((2, 3), REAL)
    assert isinstance(operator, LinearOperator)
    assert operator.norm() == 2


@pytest.mark.parametrize("factor", [math.nan, math.inf, complex(0, math.nan)])
def test_factor_must_be_finite(factor: complex) -> None:
    with pytest.raises(ValueError, match="factor: expected a finite number"):
        factor * Fourier((2, 3))


def test_factor_must_be_real_where_the_space_is() -> None:
    with pytest.raises(ValueError, match="factor: expected a real number"):
        1j * Identity((2, 3), REAL)
    with pytest.raises(ValueError, match="factor: expected a real number"):
        FourierSubsampling(column_mask(5), (4, 5), REAL) * 1j


@pytest.mark.parametrize("factor", ["2", None, True, torch.ones(2)])
def test_factor_must_be_a_number(factor: object) -> None:
    with pytest.raises(TypeError):
        factor * Identity((2, 3))  # type: ignore[operator]  # wrong on purpose
    with pytest.raises(TypeError):
        Identity((2, 3)) * factor  # type: ignore[operator]  # wrong on purpose


@pytest.mark.parametrize("shape", [(4, 6), (5, 7)])
def test_composition(shape: tuple[int, int]) -> None:
    inner = FourierSubsampling(column_mask(shape[1]), shape, REAL)
    outer = matrix_operator(6, (1, *shape))
    composition = outer @ inner
    check_operator(composition, exact_norm=False)
    assert composition.normal_transfer_function() is None
    torch.testing.assert_close(
        dense_matrix(composition), dense_matrix(outer) @ dense_matrix(inner), rtol=1e-12, atol=1e-12
    )


def test_composition_with_identity_is_the_operator_itself() -> None:
    operator = matrix_operator(7, (1, 3, 4))
    assert operator @ Identity((3, 4), COMPLEX) is operator
    fourier = Fourier((3, 4), COMPLEX)
    assert Identity((3, 4), COMPLEX) @ fourier is fourier


def test_transfer_function_of_compositions() -> None:
    shape = (4, 6)
    fourier = Fourier(shape, COMPLEX)
    subsampling = FourierSubsampling(column_mask(6), shape, COMPLEX)
    # The outer operator is a multiple of an isometry: exact.
    for outer in (fourier, 3 * fourier):
        composition = outer @ subsampling
        check_operator(composition)
        assert composition.normal_transfer_function() is not None
    # The inner one is not a convolution of the image, though the outer normal operator is: not a convolution.
    composition = subsampling @ fourier
    assert composition.normal_transfer_function() is None
    check_operator(composition, exact_norm=False)


def test_associativity() -> None:
    a, b, c = matrix_operator(5, (1, 3, 4)), 2 * Fourier((3, 4), COMPLEX), Fourier((3, 4), COMPLEX).H
    x = random_tensor((2, 1, 3, 4), COMPLEX)
    torch.testing.assert_close(((a @ b) @ c)(x), (a @ (b @ c))(x))
    torch.testing.assert_close((a @ b).H(a(x)), b.H(a.H(a(x))))


def test_composition_checks_what_meets() -> None:
    fourier = Fourier((3, 4), COMPLEX)
    with pytest.raises(ValueError, match=r"A @ B: expected B with range shape \(1, 3, 4\), .* got \(1, 4, 3\)"):
        fourier @ Fourier((4, 3), COMPLEX)
    with pytest.raises(ValueError, match=r"range dtype torch.complex128, .* got torch.complex64"):
        fourier @ Fourier((3, 4))
    with pytest.raises(ValueError, match=r"range device cpu, .* got meta"):
        fourier @ Identity((3, 4), COMPLEX, "meta")
    with pytest.raises(TypeError):
        fourier @ torch.ones(4)  # type: ignore[operator]  # wrong on purpose


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_sum_and_difference(dtype: torch.dtype) -> None:
    a, b = matrix_operator(dtype=dtype), 3 * matrix_operator(dtype=dtype, seed=12)
    for combined, expected in (
        (a + b, dense_matrix(a) + dense_matrix(b)),
        (a - b, dense_matrix(a) - dense_matrix(b)),
        (-a, -dense_matrix(a)),
        (a - 2 * (b + a), -dense_matrix(a) - 2 * dense_matrix(b)),
    ):
        check_operator(combined, exact_norm=False)
        torch.testing.assert_close(dense_matrix(combined), expected, rtol=1e-12, atol=1e-12)
        assert combined.normal_transfer_function() is None


def test_sums_within_products() -> None:
    fourier, mask = Fourier((4, 5), COMPLEX), FourierSubsampling(column_mask(5), (4, 5), COMPLEX)
    shifted = fourier + 1j * mask
    product = shifted.H @ (2j * shifted - fourier)
    check_operator(product, exact_norm=False)
    x = random_tensor((2, 1, 4, 5), COMPLEX)
    inner = 2j * shifted(x) - fourier(x)
    torch.testing.assert_close(product(x), fourier.adjoint(inner) - 1j * mask.adjoint(inner))
    check_operator(Identity((4, 5), REAL) + 0.5 * Identity((4, 5), REAL), exact_norm=False)
    real = FourierSubsampling(column_mask(5), (4, 5), REAL)
    check_operator((1 + 2j) * real - real, exact_norm=False)
    assert (real - 2 * real).n_measurements == real.n_measurements


def test_sum_checks_both_sides() -> None:
    fourier = Fourier((3, 4), COMPLEX)
    for other, message in (
        (Fourier((4, 3), COMPLEX), r"domain shape \(1, 3, 4\), that of A, got \(1, 4, 3\)"),
        (matrix_operator(), r"range shape \(1, 3, 4\), that of A, got \(7,\)"),
        (Fourier((3, 4)), "domain dtype torch.complex128, that of A, got torch.complex64"),
        (FourierSubsampling(column_mask(4), (3, 4), REAL), "domain dtype torch.complex128, .* got torch.float64"),
        (fourier.to("meta"), "domain device cpu, that of A, got meta"),
    ):
        for combine in (add, sub):
            with pytest.raises(ValueError, match=r"A \+ B: expected B with " + message):
                combine(fourier, other)
    for combine in (add, sub):
        with pytest.raises(TypeError):
            combine(fourier, 1.0)


# ---------------------------------------------------------------------------------------------------- norm


@settings(max_examples=25, deadline=None)
@given(n_rows=st.integers(1, 8), n_y=st.integers(1, 4), n_x=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_power_iteration_finds_the_norm_of_any_matrix(n_rows: int, n_y: int, n_x: int, seed: int) -> None:
    matrix = random_tensor((n_rows, n_y * n_x), REAL, seed=seed)
    expected = float(torch.linalg.matrix_norm(matrix, 2))
    found = Matrix(matrix, (1, n_y, n_x)).norm(tolerance=1e-8)
    assert expected * (1 - 1e-6) <= found <= expected * (1 + 1e-12)


@pytest.mark.parametrize("gap", [0.0, 1e-8, 1e-4, 1e-2, 0.5])
def test_power_iteration_with_close_singular_values(gap: float) -> None:
    singular_values = torch.linspace(0, 1, 40, dtype=REAL) * (1 - gap)
    singular_values[0] = 1.0
    found = Matrix(torch.diag(singular_values), (1, 5, 8)).norm(tolerance=1e-6)
    assert found == pytest.approx(1.0, rel=1e-5)


def test_norm_of_zero() -> None:
    assert Matrix(torch.zeros(3, 6), (1, 2, 3)).norm() == 0
    assert (0 * Fourier((2, 3))).norm() == 0


def test_norm_says_when_it_was_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrisps.operators.linear._NORM_ITERATIONS", 3)
    with pytest.raises(RuntimeError, match=r"norm of Matrix\(.*: tolerance 1e-06 not reached in 3 iterations"):
        matrix_operator().norm()
    with pytest.raises(RuntimeError, match="not finite"):
        Matrix(torch.full((2, 6), math.nan), (1, 2, 3)).norm()
    with pytest.raises(ValueError, match="tolerance: expected a positive number, got nan"):
        Identity((2, 3)).norm(math.nan)


def test_norm_is_reproducible() -> None:
    operator = matrix_operator()
    state = torch.get_rng_state()
    assert operator.norm() == operator.norm()
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


def test_norm_in_single_precision() -> None:
    operator = matrix_operator(dtype=torch.float32)
    assert operator.norm() == pytest.approx(float(torch.linalg.matrix_norm(operator._matrix, 2)), rel=3e-6)


# ---------------------------------------------------------------------------------------------------- construction


def test_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        LinearOperator(  # type: ignore[abstract]  # wrong on purpose
            domain_shape=(1,), range_shape=(1,), domain_dtype=REAL, range_dtype=REAL
        )


def test_attributes_cannot_be_changed() -> None:
    operator = Fourier((3, 4))
    for name in ("domain_shape", "range_shape", "domain_dtype", "range_dtype", "device", "H"):
        with pytest.raises(AttributeError):
            setattr(operator, name, None)


@pytest.mark.parametrize("shape", [(0, 3), (3, -1), (2.0, 3), (True, 3)])
def test_shape_must_be_positive_integers(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shape: expected positive integers"):
        Identity(shape)


@pytest.mark.parametrize("shape", [(), (3,), (1, 1, 2, 3)])
def test_shape_must_be_an_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape: expected \(y, x\) or \(channel, y, x\)"):
        Fourier(shape)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.bool])
def test_dtype_must_be_floating_point(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"dtype: expected one of torch\.float32"):
        Identity((2, 3), dtype)


def test_precisions_must_agree() -> None:
    class Mixed(Matrix):
        def __init__(self) -> None:
            LinearOperator.__init__(
                self, domain_shape=(1,), range_shape=(1,), domain_dtype=REAL, range_dtype=torch.complex64
            )

    with pytest.raises(ValueError, match="range_dtype: expected the precision of domain_dtype"):
        Mixed()


def test_argument_must_be_a_tensor() -> None:
    with pytest.raises(TypeError, match=r"x: expected a torch.Tensor, got ndarray"):
        Identity((2, 3))(np.zeros((1, 1, 2, 3)))  # type: ignore[arg-type]  # wrong on purpose


def test_to_makes_a_new_operator_and_leaves_the_old_one() -> None:
    operator = (2 * Fourier((3, 4), COMPLEX)) @ FourierSubsampling(column_mask(4), (3, 4), COMPLEX)
    single = operator.to(precision="single")
    assert (single.domain_dtype, single.range_dtype) == (torch.complex64, torch.complex64)
    assert (operator.domain_dtype, operator.range_dtype) == (COMPLEX, COMPLEX)
    x = random_tensor((1, 1, 3, 4), COMPLEX)
    torch.testing.assert_close(single(x.to(torch.complex64)), operator(x).to(torch.complex64))
    back = single.to(precision="double")
    torch.testing.assert_close(back(x), operator(x))
    moved = operator.to("meta")
    assert moved.device.type == "meta"
    assert moved(x.to("meta")).shape == x.shape
    assert operator.device.type == "cpu"
    assert operator.to().domain_dtype == COMPLEX
    with pytest.raises(ValueError, match="precision: expected 'single', 'double' or None, got 'half'"):
        operator.to(precision="half")  # type: ignore[arg-type]  # wrong on purpose


def test_copies_and_pickles() -> None:
    operator = 2 * FourierSubsampling(column_mask(4), (3, 4), REAL)
    x = random_tensor((1, 1, 3, 4), REAL)
    for other in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert torch.equal(other(x), operator(x))


def test_repr_says_what_is_mapped_to_what() -> None:
    inner = FourierSubsampling(column_mask(6), (4, 6), REAL)
    assert repr(Identity((4, 6))) == "Identity(float32[1, 4, 6] -> float32[1, 4, 6], device='cpu')"
    assert "FourierSubsampling(float64[1, 4, 6] -> complex128[1, 4, 6]" in repr(inner)
    assert repr(inner.H) == f"{inner!r}.H"
    assert repr(2 * inner) == f"2 * {inner!r}"
    assert repr(inner @ inner.H) == f"{inner!r} @ {inner!r}.H"
    assert repr(inner.H @ (inner - inner)) == f"{inner!r}.H @ ({inner!r} + -1 * {inner!r})"


def test_batch_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, 1, 3, 4\), got \(0, 1, 3, 4\)"):
        Fourier((3, 4))(torch.zeros(0, 1, 3, 4, dtype=torch.complex64))
