"""Linear operators: what they are, how they are composed, and the gradients that go through them.

Inner products are real, ``Re <a, b>``, as soon as one of the two spaces is real: a real image that is mapped to complex
k-space is an element of a real vector space, and the adjoint of that map ends with the real part.
"""

import abc
import copy
import math
from typing import Literal, Self, cast

import torch

__all__ = ["Identity", "LinearOperator"]

_DOUBLE = {
    torch.float32: torch.float64,
    torch.float64: torch.float64,
    torch.complex64: torch.complex128,
    torch.complex128: torch.complex128,
}
_SINGLE = {double: single for single, double in _DOUBLE.items() if single != double}
_SINGLE |= {single: single for single in tuple(_SINGLE.values())}

# The power iteration looks at its growth over this many steps: over one step it would be rounding, or a transient.
_NORM_BLOCK = 10


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape without batch axis: ``(y, x)`` is one image ``(1, y, x)``, ``(channel, y, x)`` stays.

    Raises
    ------
    ValueError
        If there are fewer than two or more than three sizes, or a size is not a positive integer.
    """
    if len(shape) not in (2, 3):
        raise ValueError(f"shape: expected (y, x) or (channel, y, x), got {tuple(shape)}")
    _check_shape("shape", shape)
    channels = int(shape[0]) if len(shape) == 3 else 1
    return channels, int(shape[-2]), int(shape[-1])


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """Complex dtype of the same precision; ValueError for what is not single or double precision."""
    _check_dtype("dtype", dtype)
    return torch.complex64 if _DOUBLE[dtype] != dtype else torch.complex128


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Real dtype of the same precision; ValueError for what is not single or double precision."""
    _check_dtype("dtype", dtype)
    return torch.float32 if _DOUBLE[dtype] != dtype else torch.float64


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if not shape or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in shape):
        raise ValueError(f"{name}: expected positive integers, got {tuple(shape)}")


def _check_dtype(name: str, dtype: torch.dtype) -> None:
    if dtype not in _DOUBLE:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, _DOUBLE))}, got {dtype}")


class LinearOperator(abc.ABC):
    """A linear map ``A`` between tensors of fixed shape, dtype and device.

    A subclass calls ``super().__init__`` and implements `_forward` and `_adjoint`; `_normal`, `_exact_norm` and
    `normal_transfer_function` are overridden where something better than the default is known. What these receive is
    already checked. Operators hold no state that a call could change.

    The gradient of `forward` is `adjoint` and the other way round, at any order: an implementation need not be
    differentiable itself.

    Parameters
    ----------
    domain_shape
        Shape of one input without its batch axis, for images ``(1, y, x)``.
    range_shape
        Shape of one output without its batch axis, for k-space ``(coil, y, x)``.
    domain_dtype, range_dtype
        ``float32`` or ``complex64``, or both of double precision.
    device
        Where inputs, outputs and the operator's own tensors are.

    Raises
    ------
    ValueError
        If a shape is not made of positive integers, or the two dtypes are not floating-point numbers of the same
        precision.
    """

    __array_ufunc__ = None  # so that numpy scalars leave `c * A` to the operator

    def __init__(
        self,
        *,
        domain_shape: tuple[int, ...],
        range_shape: tuple[int, ...],
        domain_dtype: torch.dtype,
        range_dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        _check_shape("domain_shape", domain_shape)
        _check_shape("range_shape", range_shape)
        _check_dtype("domain_dtype", domain_dtype)
        _check_dtype("range_dtype", range_dtype)
        if real_dtype(domain_dtype) != real_dtype(range_dtype):
            raise ValueError(f"range_dtype: expected the precision of domain_dtype, {domain_dtype}, got {range_dtype}")
        self._domain_shape = tuple(domain_shape)
        self._range_shape = tuple(range_shape)
        self._domain_dtype = domain_dtype
        self._range_dtype = range_dtype
        self._device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0", as tensors have it

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return self._domain_shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of one output, without the batch axis."""
        return self._range_shape

    @property
    def domain_dtype(self) -> torch.dtype:
        """Data type of inputs."""
        return self._domain_dtype

    @property
    def range_dtype(self) -> torch.dtype:
        """Data type of outputs."""
        return self._range_dtype

    @property
    def device(self) -> torch.device:
        """Device of inputs and outputs."""
        return self._device

    # ------------------------------------------------------------------------------------------------ application

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``A x``.

        Parameters
        ----------
        x
            Shape ``(batch, *domain_shape)``, dtype `domain_dtype`.

        Returns
        -------
        torch.Tensor
            Shape ``(batch, *range_shape)``, dtype `range_dtype`.

        Raises
        ------
        ValueError
            If shape, dtype or device of `x` are not those of the domain.
        """
        self._check("x", x, self._domain_shape, self._domain_dtype)
        return _apply(self, "forward", x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """``A^H y``, with ``Re <A x, y> = Re <x, A^H y>``.

        Parameters
        ----------
        y
            Shape ``(batch, *range_shape)``, dtype `range_dtype`.

        Returns
        -------
        torch.Tensor
            Shape ``(batch, *domain_shape)``, dtype `domain_dtype`.

        Raises
        ------
        ValueError
            If shape, dtype or device of `y` are not those of the range.
        """
        self._check("y", y, self._range_shape, self._range_dtype)
        return _apply(self, "adjoint", y)

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """``A^H A x``.

        Parameters
        ----------
        x
            Shape ``(batch, *domain_shape)``, dtype `domain_dtype`.

        Returns
        -------
        torch.Tensor
            Shape and dtype of `x`.

        Raises
        ------
        ValueError
            If shape, dtype or device of `x` are not those of the domain.
        """
        self._check("x", x, self._domain_shape, self._domain_dtype)
        return _apply(self, "normal", x)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``A x``, the same as `forward`."""
        return self.forward(x)

    @abc.abstractmethod
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        """``A x`` for a checked input; must not return `x` itself nor change it."""

    @abc.abstractmethod
    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """``A^H y`` for a checked input; must not return `y` itself nor change it."""

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return self._adjoint(self._forward(x))

    def _check(self, name: str, value: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
        if tuple(value.shape[1:]) != shape or value.ndim != len(shape) + 1 or value.shape[0] == 0:
            expected = ", ".join(["batch", *(str(size) for size in shape)])
            raise ValueError(f"{name}: expected shape ({expected}), got {tuple(value.shape)}")
        if value.dtype != dtype:
            raise ValueError(f"{name}: expected dtype {dtype}, got {value.dtype}")
        if value.device != self._device:
            raise ValueError(f"{name}: expected device {self._device}, got {value.device}")

    # ------------------------------------------------------------------------------------------------ what is known

    @property
    def n_measurements(self) -> int:
        """How many real numbers one measurement vector has: what |A x - y|^2 sums noise over."""
        return math.prod(self._range_shape) * (2 if self._range_dtype.is_complex else 1)

    def normal_transfer_function(self) -> torch.Tensor | None:
        """Transfer function ``h`` of ``A^H A`` where that is a circular convolution.

        Then ``A.normal(x) = ifft2(h * fft2(x))`` exactly, channel by channel, and a solver can invert ``A^H A + c`` in
        closed form.

        Returns
        -------
        torch.Tensor or None
            Real, non-negative, shape ``domain_shape[-2:]``, the real dtype of the operator's precision, in the order of
            `torch.fft.fft2` (zero frequency at ``[0, 0]``). Over real images ``h(f) = h(-f)``. None where ``A^H A`` is
            not known to be a convolution.
        """
        return None

    def normal_circulant(self) -> torch.Tensor | None:
        """Transfer function of the circulant nearest to ``A^H A``, the diagonal of ``F A^H A F^H``, where that is known.

        A solver uses it to precondition ``A^H A + c``; one that is only nearly right costs iterations, not correctness.

        Returns
        -------
        torch.Tensor or None
            Real, non-negative, shape `domain_shape`, otherwise as `normal_transfer_function`. None where it is not known.
        """
        return None

    def restricted(self, y: torch.Tensor, shape: tuple[int, int]) -> "tuple[LinearOperator, torch.Tensor] | None":
        """The same measurements seen by a coarser grid of ``(y, x)`` pixels, for solvers that go from coarse to fine.

        Returns
        -------
        tuple or None
            An operator on images of that size with the same intensities, and its measurements; None where there is no such
            thing.
        """
        del y, shape
        return None

    def _exact_norm(self) -> float | None:
        transfer_function = self.normal_transfer_function()
        return None if transfer_function is None else math.sqrt(float(transfer_function.max()))

    def norm(
        self, tolerance: float = 1e-6, max_iterations: int = 10_000, generator: torch.Generator | None = None
    ) -> float:
        """Spectral norm ``max |A x| / |x|``: exact where it is known, by power iteration on ``A^H A`` otherwise.

        The Rayleigh quotients of the power iteration grow towards the largest eigenvalue. The iteration stops when the
        rest of that growth, extrapolated as a geometric series over blocks of ten steps, is below the tolerance. So the
        result is never too large (but for rounding), and too small by about `tolerance`, or by the rounding of the
        operator's dtype where that is more.

        Parameters
        ----------
        tolerance
            Relative accuracy of the power iteration.
        max_iterations
            Most applications of ``A^H A``.
        generator
            Source of the random start; by default a new one, seeded with 0.

        Returns
        -------
        float
            The norm.

        Raises
        ------
        ValueError
            If `tolerance` or `max_iterations` is not positive.
        RuntimeError
            If `max_iterations` are not enough, or the operator returns something that is not finite.
        """
        if not tolerance > 0:
            raise ValueError(f"tolerance: expected a positive number, got {tolerance}")
        if max_iterations < 1:
            raise ValueError(f"max_iterations: expected at least 1, got {max_iterations}")
        exact = self._exact_norm()
        return self._power_iteration(tolerance, max_iterations, generator) if exact is None else exact

    def _power_iteration(self, tolerance: float, max_iterations: int, generator: torch.Generator | None) -> float:
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        rounding = torch.finfo(self._domain_dtype).eps
        start = torch.randn(
            (1, *self._domain_shape), generator=generator, device=generator.device, dtype=_DOUBLE[self._domain_dtype]
        )
        vector = start.to(self._device)
        vector = vector / torch.linalg.vector_norm(vector)
        eigenvalue, growth = 0.0, math.inf
        with torch.no_grad():
            for iteration in range(1, max_iterations + 1):
                # Sums in double precision: the growth is the small difference of two of them.
                image = self.normal(vector.to(self._domain_dtype)).to(vector.dtype)
                length = float(torch.linalg.vector_norm(image))
                if not math.isfinite(length):
                    raise RuntimeError(f"norm: {self!r} returned values that are not finite")
                if length == 0:
                    return 0.0
                vector, previous_vector = image / length, vector
                if iteration % _NORM_BLOCK != 0:
                    continue
                previous_eigenvalue, previous_growth = eigenvalue, growth
                eigenvalue = float(torch.linalg.vecdot(previous_vector.flatten(), image.flatten()).real)
                growth = eigenvalue - previous_eigenvalue
                ratio = growth / previous_growth if previous_growth > 0 else 0.0
                # The norm is a square root, with half the relative error of the eigenvalue: that half is for safety.
                rest = growth * ratio / (1 - ratio) if 0 <= ratio < 1 else math.inf
                if iteration > 2 * _NORM_BLOCK and (rest <= tolerance * eigenvalue or growth <= rounding * eigenvalue):
                    return math.sqrt(eigenvalue)
        raise RuntimeError(f"norm: tolerance {tolerance:g} not reached in {max_iterations} iterations of {self!r}")

    # ------------------------------------------------------------------------------------------------ algebra

    @property
    def H(self) -> "LinearOperator":
        """The adjoint as an operator; ``A.H.H is A``."""
        return _Adjoint(self)

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        """``A @ B``: first ``B``, then ``A``.

        Raises
        ------
        ValueError
            If the range of ``B`` is not the domain of ``A`` (shape, dtype, device).
        """
        if not isinstance(other, LinearOperator):
            return NotImplemented
        for name, inner, outer in (
            ("shape", other.range_shape, self.domain_shape),
            ("dtype", other.range_dtype, self.domain_dtype),
            ("device", other.device, self.device),
        ):
            if inner != outer:
                raise ValueError(f"A @ B: expected B with range {name} {outer}, the domain {name} of A, got {inner}")
        if isinstance(other, Identity):
            return self
        if isinstance(self, Identity):
            return other
        return _Composition(self, other)

    def __rmul__(self, factor: complex) -> "LinearOperator":
        """``c * A``: first ``A``, then times ``c``.

        Raises
        ------
        ValueError
            If ``c`` is not finite, or complex where the range is real.
        """
        if isinstance(factor, bool) or not isinstance(factor, int | float | complex):
            return NotImplemented
        return _Scaled(factor, self)

    def __mul__(self, factor: complex) -> "LinearOperator":
        """``A * c``: first times ``c``, then ``A``.

        Raises
        ------
        ValueError
            If ``c`` is not finite, or complex where the domain is real.
        """
        if isinstance(factor, bool) or not isinstance(factor, int | float | complex):
            return NotImplemented
        if not isinstance(factor, complex):
            return _Scaled(factor, self)
        # Between a real and a complex space `A` is linear over the reals only: a complex factor does not commute with
        # it.
        return self @ _Scaled(factor, Identity(self._domain_shape, self._domain_dtype, self._device))

    # ------------------------------------------------------------------------------------------------ rest

    def to(
        self, device: torch.device | str | None = None, precision: Literal["single", "double"] | None = None
    ) -> Self:
        """Copy of the operator on another device or in another precision; the operator itself does not change.

        The tensors it holds are converted: their values are not computed anew.

        Parameters
        ----------
        device
            New device; None keeps the present one.
        precision
            New precision; None keeps the present one.
        """
        if precision not in (None, "single", "double"):
            raise ValueError(f"precision: expected 'single', 'double' or None, got {precision!r}")
        new_dtype = {None: {dtype: dtype for dtype in _DOUBLE}, "single": _SINGLE, "double": _DOUBLE}[precision]
        new_device = self._device if device is None else torch.empty(0, device=device).device
        new = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(new, name, value.to(device=new_device, dtype=new_dtype.get(value.dtype, value.dtype)))
            elif isinstance(value, LinearOperator):
                setattr(new, name, value.to(device, precision))
        new._device = new_device
        new._domain_dtype = new_dtype[self._domain_dtype]
        new._range_dtype = new_dtype[self._range_dtype]
        return new

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._maps()})"

    def _maps(self) -> str:
        """What is mapped to what, for `repr`."""

        def space(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
            return f"{str(dtype).removeprefix('torch.')}[{', '.join(map(str, shape))}]"

        domain = space(self._domain_dtype, self._domain_shape)
        return f"{domain} -> {space(self._range_dtype, self._range_shape)}, device='{self._device}'"


_Mode = Literal["forward", "adjoint", "normal"]
_TRANSPOSED: dict[_Mode, _Mode] = {"forward": "adjoint", "adjoint": "forward", "normal": "normal"}


class _Apply(torch.autograd.Function):
    """One application of an operator, whose gradient is the application of its adjoint."""

    @staticmethod
    def forward(operator: LinearOperator, mode: _Mode, value: torch.Tensor) -> torch.Tensor:
        if mode == "forward":
            return operator._forward(value)
        if mode == "adjoint":
            return operator._adjoint(value)
        return operator._normal(value)

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx,
        inputs: tuple[LinearOperator, _Mode, torch.Tensor],
        output: torch.Tensor,
    ) -> None:
        ctx.operator, ctx.mode, _ = inputs  # type: ignore[attr-defined]  # set in setup_context

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        return None, None, _apply(ctx.operator, _TRANSPOSED[ctx.mode], gradients[0])  # type: ignore[attr-defined]  # set in setup_context

    @staticmethod
    def jvp(ctx: torch.autograd.function.FunctionCtx, *tangents: torch.Tensor) -> torch.Tensor:
        return _apply(ctx.operator, ctx.mode, tangents[-1])  # type: ignore[attr-defined]  # set in setup_context


def _apply(operator: LinearOperator, mode: _Mode, value: torch.Tensor) -> torch.Tensor:
    return cast(torch.Tensor, _Apply.apply(operator, mode, value))  # type: ignore[no-untyped-call]  # torch: untyped


class Identity(LinearOperator):
    """``A x = x``: denoising.

    Parameters
    ----------
    shape
        ``(y, x)`` for images ``(batch, 1, y, x)``, or ``(channel, y, x)``.
    dtype
        Data type of the images.
    device
        Device of the images.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        full = image_shape(shape)
        super().__init__(domain_shape=full, range_shape=full, domain_dtype=dtype, range_dtype=dtype, device=device)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y.clone()

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    def normal_transfer_function(self) -> torch.Tensor:
        """One at every frequency, shape ``(y, x)``."""
        return torch.ones(self._domain_shape[-2:], dtype=real_dtype(self._domain_dtype), device=self._device)

    @property
    def H(self) -> "LinearOperator":
        """The identity is its own adjoint."""
        return self


class _Adjoint(LinearOperator):
    """``A.H``."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            domain_shape=operator.range_shape,
            range_shape=operator.domain_shape,
            domain_dtype=operator.range_dtype,
            range_dtype=operator.domain_dtype,
            device=operator.device,
        )
        self._operator = operator

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._operator._adjoint(x)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._operator._forward(y)

    def _exact_norm(self) -> float | None:
        return self._operator._exact_norm()

    @property
    def H(self) -> LinearOperator:
        return self._operator

    def __repr__(self) -> str:
        return f"{self._operator!r}.H"


class _Scaled(LinearOperator):
    """``c * A``."""

    def __init__(self, factor: complex, operator: LinearOperator) -> None:
        if not (math.isfinite(complex(factor).real) and math.isfinite(complex(factor).imag)):
            raise ValueError(f"factor: expected a finite number, got {factor}")
        if isinstance(factor, complex) and not operator.range_dtype.is_complex:
            raise ValueError(f"factor: expected a real number for an operator with real range, got {factor}")
        super().__init__(
            domain_shape=operator.domain_shape,
            range_shape=operator.range_shape,
            domain_dtype=operator.domain_dtype,
            range_dtype=operator.range_dtype,
            device=operator.device,
        )
        self._factor = factor
        self._operator = operator

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._factor * self._operator._forward(x)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        # The factor before the operator: over a real domain the adjoint ends with a real part, with which it does not
        # commute.
        return self._operator._adjoint(self._factor.conjugate() * y)

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return abs(self._factor) ** 2 * self._operator._normal(x)

    @property
    def n_measurements(self) -> int:
        """As many as without the factor."""
        return self._operator.n_measurements

    def normal_transfer_function(self) -> torch.Tensor | None:
        transfer_function = self._operator.normal_transfer_function()
        return None if transfer_function is None else abs(self._factor) ** 2 * transfer_function

    def _exact_norm(self) -> float | None:
        norm = self._operator._exact_norm()
        return None if norm is None else abs(self._factor) * norm

    def __repr__(self) -> str:
        return f"{self._factor} * {self._operator!r}"


class _Composition(LinearOperator):
    """``A @ B``."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        super().__init__(
            domain_shape=inner.domain_shape,
            range_shape=outer.range_shape,
            domain_dtype=inner.domain_dtype,
            range_dtype=outer.range_dtype,
            device=outer.device,
        )
        self._outer = outer
        self._inner = inner

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._outer._forward(self._inner._forward(x))

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._inner._adjoint(self._outer._adjoint(y))

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return self._inner._adjoint(self._outer._normal(self._inner._forward(x)))

    @property
    def n_measurements(self) -> int:
        """Those of the last operator, which knows what it leaves zero; a factor leaves zero what was."""
        factor = isinstance(self._outer, _Scaled) and isinstance(self._outer._operator, Identity)
        return self._inner.n_measurements if factor else self._outer.n_measurements

    def normal_transfer_function(self) -> torch.Tensor | None:
        outer = self._outer.normal_transfer_function()
        if outer is None:
            return None
        if isinstance(self._inner, _Scaled) and isinstance(self._inner._operator, Identity):
            return abs(self._inner._factor) ** 2 * outer
        # A^H A = c: then B^H A^H A B = c B^H B. In general two convolutions need not make one: B lies between them.
        inner = self._inner.normal_transfer_function()
        if inner is None or not bool((outer == outer.flatten()[0]).all()):
            return None
        return outer.flatten()[0] * inner

    def __repr__(self) -> str:
        return f"{self._outer!r} @ {self._inner!r}"
