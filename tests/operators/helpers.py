"""One checker for all operators: an operator's test makes it, and calls `check_operator`."""

import warnings
from collections.abc import Iterator

import torch

from mrisps.operators import LinearOperator
from mrisps.operators.norm import largest_eigenvalue

DOUBLE = (torch.float64, torch.complex128)


def random_tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def image_of(operator: LinearOperator, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return random_tensor((batch, *operator.domain_shape), operator.domain_dtype, seed).to(operator.device)


def data_of(operator: LinearOperator, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return random_tensor((batch, *operator.range_shape), operator.range_dtype, seed).to(operator.device)


def real_inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``Re <a, b>``, differentiable."""
    product = a.conj() * b
    return (product.real if product.is_complex() else product).sum()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


def dense_matrix(operator: LinearOperator) -> torch.Tensor:
    """The operator as a real matrix; a complex number is a pair of real ones."""
    size = torch.Size(operator.domain_shape).numel()
    basis = torch.eye(size, dtype=operator.domain_dtype, device=operator.device)
    if operator.domain_dtype.is_complex:
        basis = torch.cat((basis, 1j * basis))
    columns = operator.forward(basis.reshape(-1, *operator.domain_shape)).flatten(1)
    if columns.is_complex():
        columns = torch.cat((columns.real, columns.imag), dim=1)
    return columns.mT


def tensors_of(operator: LinearOperator) -> list[torch.Tensor]:
    """Copies of all tensors that the operator and the operators inside it hold."""

    def held_by(value: object) -> Iterator[torch.Tensor]:
        if isinstance(value, torch.Tensor):
            yield value.clone()
        for part in (
            vars(value).values() if isinstance(value, LinearOperator) else value if isinstance(value, tuple) else ()
        ):
            yield from held_by(part)

    return list(held_by(operator))


def check_operator(operator: LinearOperator, *, exact_norm: bool = True) -> None:
    """Assert all that is promised of an operator, of double precision and small enough for its dense matrix."""
    assert operator.domain_dtype in DOUBLE
    assert operator.range_dtype in DOUBLE
    before = tensors_of(operator)
    for batch in (1, 3):
        x, y = image_of(operator, batch, seed=1), data_of(operator, batch, seed=2)
        _check_shapes(operator, x, y)
        _check_adjoint(operator, x, y)
        _check_normal(operator, x)
        _check_gradients(operator, x, y)
        _check_batch(operator, x, y)
    _check_adjoint_operator(operator)
    _check_single_precision(operator)
    _check_bad_input(operator)
    _check_norm(operator, exact_norm)
    after = tensors_of(operator)
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "the operator changed when it was used"


def check_gradients_by_differences(operator: LinearOperator) -> None:
    """First and second derivatives against finite differences, in both modes of differentiation; for tiny operators."""
    x, y = image_of(operator, 1, seed=3).requires_grad_(), data_of(operator, 1, seed=4).requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "`torch.jit.script` is deprecated", DeprecationWarning
        )  # torch's own use of it
        for function, value in ((operator.forward, x), (operator.adjoint, y), (operator.normal, x)):
            assert torch.autograd.gradcheck(function, value, check_forward_ad=True, atol=1e-7)
            # The square makes the second derivative different from zero.
            assert torch.autograd.gradgradcheck(lambda v, f=function: f(v).abs() ** 2, value, atol=1e-6)


def _check_shapes(operator: LinearOperator, x: torch.Tensor, y: torch.Tensor) -> None:
    x_before, y_before = x.clone(), y.clone()
    for image in (operator.adjoint(y), operator.normal(x)):
        assert image.shape == x.shape
        assert (image.dtype, image.device) == (operator.domain_dtype, operator.device)
        assert image.data_ptr() not in (x.data_ptr(), y.data_ptr()), "the result shares memory with the argument"
    data = operator.forward(x)
    assert data.shape == y.shape
    assert (data.dtype, data.device) == (operator.range_dtype, operator.device)
    assert data.data_ptr() != x.data_ptr()
    assert torch.equal(data, operator(x)), "two calls differ"
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)


def _check_adjoint(operator: LinearOperator, x: torch.Tensor, y: torch.Tensor) -> None:
    data, image = operator.forward(x), operator.adjoint(y)
    left, right = real_inner(data, y), real_inner(x, image)
    scale = torch.linalg.vector_norm(data) * torch.linalg.vector_norm(y)
    assert abs(left - right) <= 1e-10 * scale
    if operator.domain_dtype.is_complex and operator.range_dtype.is_complex and _is_complex_linear(operator):
        assert abs(torch.vdot(data.flatten(), y.flatten()) - torch.vdot(x.flatten(), image.flatten())) <= 1e-10 * scale
    two = operator.forward(2.5 * x - x.flip(-1))
    torch.testing.assert_close(two, 2.5 * data - operator.forward(x.flip(-1)), rtol=0, atol=1e-11)


def _is_complex_linear(operator: LinearOperator) -> bool:
    x = image_of(operator, 1, seed=5)
    return torch.allclose(operator.forward(1j * x), 1j * operator.forward(x))


def _check_normal(operator: LinearOperator, x: torch.Tensor) -> None:
    expected = operator.adjoint(operator.forward(x))
    found = operator.normal(x)
    assert relative_error(found, expected) < 1e-12
    transfer_function = operator.normal_transfer_function()
    if transfer_function is None:
        return
    assert transfer_function.shape == operator.domain_shape[-2:]
    assert transfer_function.dtype == torch.float64
    assert transfer_function.device == operator.device
    assert bool((transfer_function >= 0).all())
    if not operator.domain_dtype.is_complex:
        mirrored = torch.roll(transfer_function.flip(0, 1), (1, 1), (0, 1))
        assert torch.equal(transfer_function, mirrored)
    convolved = torch.fft.ifft2(transfer_function * torch.fft.fft2(x))
    assert relative_error(convolved, expected.to(convolved.dtype)) < 1e-12
    transfer_function.zero_()  # it is the caller's
    assert torch.equal(operator.normal(x), found)


def _check_gradients(operator: LinearOperator, x: torch.Tensor, y: torch.Tensor) -> None:
    weights_of_image = image_of(operator, len(x), seed=6)
    for function, value, weights, expected in (
        (operator.forward, x, y, operator.adjoint(y)),
        (operator.adjoint, y, weights_of_image, operator.forward(weights_of_image)),
        (operator.normal, x, weights_of_image, operator.normal(weights_of_image)),
    ):
        variable = value.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(real_inner(function(variable), weights), variable)
        assert gradient.dtype == variable.dtype
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    # Second order: the Hessian of |A x|^2 / 2 is the normal operator.
    variable = x.clone().requires_grad_()
    data = operator.forward(variable)
    (gradient,) = torch.autograd.grad(real_inner(data, data) / 2, variable, create_graph=True)
    (product,) = torch.autograd.grad(real_inner(gradient, weights_of_image), variable)
    torch.testing.assert_close(product, operator.normal(weights_of_image), rtol=1e-11, atol=1e-11)


def _check_batch(operator: LinearOperator, x: torch.Tensor, y: torch.Tensor) -> None:
    for function, values in ((operator.forward, x), (operator.adjoint, y), (operator.normal, x)):
        single = torch.cat([function(value[None]) for value in values])
        torch.testing.assert_close(function(values), single, rtol=1e-13, atol=1e-13)


def _check_adjoint_operator(operator: LinearOperator) -> None:
    adjoint = operator.H
    assert adjoint.H is operator
    assert (adjoint.domain_shape, adjoint.range_shape) == (operator.range_shape, operator.domain_shape)
    assert (adjoint.domain_dtype, adjoint.range_dtype) == (operator.range_dtype, operator.domain_dtype)
    x, y = image_of(operator, seed=7), data_of(operator, seed=8)
    assert torch.equal(adjoint(y), operator.adjoint(y))
    assert torch.equal(adjoint.adjoint(x), operator(x))
    torch.testing.assert_close(adjoint.normal(y), operator(operator.adjoint(y)), rtol=1e-12, atol=1e-12)


def _check_single_precision(operator: LinearOperator) -> None:
    single = operator.to(precision="single")
    assert type(single) is type(operator)
    x = image_of(operator, seed=9)
    for found, expected in (
        (single(x.to(single.domain_dtype)), operator(x)),
        (single.normal(x.to(single.domain_dtype)), operator.normal(x)),
    ):
        assert found.dtype in (torch.float32, torch.complex64)
        assert relative_error(found.to(expected.dtype), expected) < 1e-5
    assert operator.to(precision="double").domain_dtype == operator.domain_dtype
    transfer_function = single.normal_transfer_function()
    if transfer_function is not None:
        assert transfer_function.dtype == torch.float32


def _check_bad_input(operator: LinearOperator) -> None:
    for name, function, shape, dtype in (
        ("x", operator.forward, operator.domain_shape, operator.domain_dtype),
        ("x", operator.normal, operator.domain_shape, operator.domain_dtype),
        ("y", operator.adjoint, operator.range_shape, operator.range_dtype),
    ):
        good = torch.zeros((1, *shape), dtype=dtype, device=operator.device)
        expected = ", ".join(["batch", *map(str, shape)])
        for bad in (good[0], good[None], good.new_zeros((1, *shape[:-1], shape[-1] + 1))):
            message = _error(function, bad)
            assert message == f"{name}: expected shape ({expected}), got {tuple(bad.shape)}"
        other = torch.float32 if dtype.is_complex else torch.complex128
        assert _error(function, good.real.to(other)) == f"{name}: expected dtype {dtype}, got {other}"
        assert _error(function, good.to("meta")) == f"{name}: expected device {operator.device}, got meta"


def _error(function: object, argument: torch.Tensor) -> str:
    assert callable(function)
    try:
        function(argument)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"no ValueError for {tuple(argument.shape)}, {argument.dtype}, {argument.device}")


def _check_norm(operator: LinearOperator, exact: bool) -> None:
    expected = float(torch.linalg.matrix_norm(dense_matrix(operator), 2))
    tolerance = 1e-12 if exact else 3e-6
    assert abs(operator.norm() - expected) <= tolerance * expected
    assert abs(operator.H.norm() - expected) <= tolerance * expected
    space = (1, *operator.domain_shape), operator.domain_dtype, operator.device
    iterated = largest_eigenvalue(operator.normal, space, 1e-6, 100_000) ** 0.5
    assert abs(iterated - expected) <= 3e-6 * expected
    assert iterated <= expected * (1 + 1e-12)
