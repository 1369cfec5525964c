"""Linear operators: what they are, and how they are combined.

Inner products are real, ``Re <a, b>``, as soon as one of the two spaces is real: a real image that is mapped to complex
k-space is an element of a real vector space, and the adjoint of that map ends with the real part.
"""

import abc
import copy
import functools
import math
from typing import Literal, Self

import torch

from mrisps.operators.algebra import Chain, back, check_factor, described, parts_of, through, transfer_function_of
from mrisps.operators.gradient import apply_linear
from mrisps.operators.norm import largest_eigenvalue
from mrisps.operators.sampled import SampledConvolution
from mrisps.operators.spaces import DOUBLE, SINGLE, check_dtype, check_shape, real_dtype

__all__ = ["LinearOperator"]

_NORM_ITERATIONS = 10_000
_Space = tuple[tuple[int, ...], torch.dtype, torch.device]


class LinearOperator(abc.ABC):
    """A linear map ``A`` between tensors of fixed shape, dtype and device.

    A subclass calls ``super().__init__`` and implements `_forward` and `_adjoint`; `_normal`, `_exact_norm` and
    `normal_transfer_function` are overridden where something better than the default is known. What these receive is
    already checked. Operators hold no state that a call could change.

    The gradient of `forward` is `adjoint` and the other way round, at any order: neither need be differentiable.

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
        If a shape is not made of positive integers, or the two dtypes are not of the same precision.
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
        check_shape("domain_shape", domain_shape)
        check_shape("range_shape", range_shape)
        check_dtype("domain_dtype", domain_dtype)
        check_dtype("range_dtype", range_dtype)
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
        """``A x``, shape ``(batch, *range_shape)``; ValueError if `x` is not ``(batch, *domain_shape)`` of the domain."""
        self._check("x", x, self._domain_shape, self._domain_dtype)
        return apply_linear(self._forward, self._adjoint, x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """``A^H y``, with ``Re <A x, y> = Re <x, A^H y>``; ValueError if `y` is not ``(batch, *range_shape)`` of the range."""
        self._check("y", y, self._range_shape, self._range_dtype)
        return apply_linear(self._adjoint, self._forward, y)

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """``A^H A x``, shape of `x`; ValueError as for `forward`."""
        self._check("x", x, self._domain_shape, self._domain_dtype)
        return apply_linear(self._normal, self._normal, x)

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
        for what, wanted, found in (("dtype", dtype, value.dtype), ("device", self._device, value.device)):
            if found != wanted:
                raise ValueError(f"{name}: expected {what} {wanted}, got {found}")

    def take(self, entries: torch.Tensor) -> "LinearOperator":
        """The operator for these entries of a batch, indices: the same one, unless it differs from entry to entry."""
        del entries
        return self

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
            Real, non-negative, shape ``domain_shape[-2:]``, in the order of `torch.fft.fft2` (zero frequency at
            ``[0, 0]``). Over real images ``h(f) = h(-f)``. None if ``A^H A`` is not known to be a convolution.
        """
        return None

    def sampled_convolution(self) -> SampledConvolution | None:
        """What ``A`` is if it keeps samples of a circular convolution: ``A^H A + c`` then has an inverse in closed form."""
        return None

    def normal_circulant(self) -> torch.Tensor | None:
        """Transfer function of the circulant nearest to ``A^H A``: the diagonal of ``F A^H A F^H``.

        A solver uses it to precondition ``A^H A + c``; one that is only nearly right costs iterations, not correctness.

        Returns
        -------
        torch.Tensor or None
            Real, non-negative, shape `domain_shape`, otherwise as `normal_transfer_function`. None if unknown.
        """
        return None

    def restricted(self, y: torch.Tensor, shape: tuple[int, int]) -> "tuple[LinearOperator, torch.Tensor] | None":
        """The same measurements seen by a coarser grid of ``(y, x)`` pixels, for solvers that go from coarse to fine.

        Returns
        -------
        tuple or None
            An operator on images of that size with the same intensities, and its measurements; None if there is none.
        """
        return None

    def _exact_norm(self) -> float | None:
        transfer_function = self.normal_transfer_function()
        return None if transfer_function is None else math.sqrt(float(transfer_function.max()))

    def norm(self, tolerance: float = 1e-6) -> float:
        """Spectral norm ``max |A x| / |x|``: exact where it is known, by power iteration on ``A^H A`` otherwise.

        The power iteration gives a norm that is too small by about `tolerance` (relative), or by the rounding of the
        operator's dtype if that is more. RuntimeError if 10,000 iterations are not enough, or a result is not finite.
        """
        if not tolerance > 0:
            raise ValueError(f"tolerance: expected a positive number, got {tolerance}")
        exact = self._exact_norm()
        if exact is not None:
            return exact
        space = (1, *self._domain_shape), self._domain_dtype, self._device
        try:
            return math.sqrt(largest_eigenvalue(self._normal, space, tolerance, _NORM_ITERATIONS))
        except RuntimeError as error:
            raise RuntimeError(f"norm of {self!r}: {error}") from error

    def to(
        self, device: torch.device | str | None = None, precision: Literal["single", "double"] | None = None
    ) -> Self:
        """Copy of the operator on another device or in another precision; None keeps the present one.

        The tensors that the operator holds are converted, not computed anew. The operator itself does not change.
        """
        if precision not in (None, "single", "double"):
            raise ValueError(f"precision: expected 'single', 'double' or None, got {precision!r}")
        new_dtype = {None: {}, "single": SINGLE, "double": DOUBLE}[precision]
        new_device = self._device if device is None else torch.empty(0, device=device).device

        def converted(value: object) -> object:
            if isinstance(value, torch.Tensor):
                return value.to(device=new_device, dtype=new_dtype.get(value.dtype, value.dtype))
            if isinstance(value, LinearOperator):
                return value.to(device, precision)
            return tuple(map(converted, value)) if isinstance(value, tuple) else value

        new = copy.copy(self)
        for name, value in vars(self).items():
            setattr(new, name, converted(value))
        new._device = new_device
        new._domain_dtype = new_dtype.get(self._domain_dtype, self._domain_dtype)
        new._range_dtype = new_dtype.get(self._range_dtype, self._range_dtype)
        return new

    # ------------------------------------------------------------------------------------------------ algebra

    @property
    def H(self) -> "LinearOperator":
        """The adjoint as an operator; ``A.H.H is A``."""
        return _Adjoint(self)

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        """``A @ B``: first ``B``, then ``A``; ValueError if the range of ``B`` is not the domain of ``A``."""
        if not isinstance(other, LinearOperator):
            return NotImplemented
        for name, inner, outer in zip(("shape", "dtype", "device"), other._range, self._domain, strict=True):
            if inner != outer:
                raise ValueError(f"A @ B: expected B with range {name} {outer}, the domain {name} of A, got {inner}")
        first, second = (one._terms[0] if len(one._terms) == 1 else (one,) for one in (other, self))
        return _combined(((*second, *first),), other, self)

    def __rmul__(self, factor: complex) -> "LinearOperator":
        """``c * A``: first ``A``, then times ``c``; ValueError if ``c`` is not finite, or complex and the range real."""
        if isinstance(factor, bool) or not isinstance(factor, int | float | complex):
            return NotImplemented
        check_factor(factor, "range", self._range_dtype)
        return _combined(tuple((factor, *chain) for chain in self._terms), self, self)

    def __mul__(self, factor: complex) -> "LinearOperator":
        """``A * c``: first times ``c``, then ``A``; ValueError if ``c`` is not finite, or complex and the domain real."""
        if isinstance(factor, bool) or not isinstance(factor, int | float | complex):
            return NotImplemented
        # Between a real and a complex space `A` is linear over the reals only: complex factors do not commute with it.
        check_factor(factor, "domain", self._domain_dtype)
        return _combined(tuple((*chain, factor) for chain in self._terms), self, self)

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        """``A + B``; ValueError if domain or range differ (shape, dtype, device)."""
        if not isinstance(other, LinearOperator):
            return NotImplemented
        for side, ours, theirs in (("domain", self._domain, other._domain), ("range", self._range, other._range)):
            for name, expected, found in zip(("shape", "dtype", "device"), ours, theirs, strict=True):
                if found != expected:
                    raise ValueError(f"A + B: expected B with {side} {name} {expected}, that of A, got {found}")
        return _combined((*self._terms, *other._terms), self, self)

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        """``A - B``; ValueError as for ``A + B``."""
        return self + -other if isinstance(other, LinearOperator) else NotImplemented

    def __neg__(self) -> "LinearOperator":
        """``-A``."""
        return -1 * self

    @property
    def _domain(self) -> _Space:
        return self._domain_shape, self._domain_dtype, self._device

    @property
    def _range(self) -> _Space:
        return self._range_shape, self._range_dtype, self._device

    @property
    def _terms(self) -> tuple[Chain, ...]:
        """The operator as a sum of chains."""
        return ((self,),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._maps()})"

    def _maps(self) -> str:
        """What is mapped to what, for `repr`."""
        domain, codomain = (
            f"{str(dtype).removeprefix('torch.')}{list(shape)}" for shape, dtype, _ in (self._domain, self._range)
        )
        return f"{domain} -> {codomain}, device='{self._device}'"


def _combined(terms: tuple[Chain, ...], inner: LinearOperator, outer: LinearOperator) -> LinearOperator:
    """The sum of the terms, from the domain of `inner` to the range of `outer`."""
    if len(terms) == 1 and len(terms[0]) <= 1:
        (only,) = terms[0] or (inner,)
        if isinstance(only, LinearOperator):
            return only
    return _Combination(terms, inner, outer)


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


class _Combination(LinearOperator):
    """A sum of chains: what ``@``, ``*``, ``+`` and ``-`` make."""

    def __init__(self, terms: tuple[Chain, ...], inner: LinearOperator, outer: LinearOperator) -> None:
        super().__init__(
            domain_shape=inner.domain_shape,
            range_shape=outer.range_shape,
            domain_dtype=inner.domain_dtype,
            range_dtype=outer.range_dtype,
            device=inner.device,
        )
        self._sum = terms

    @property
    def _terms(self) -> tuple[Chain, ...]:
        return self._sum

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return functools.reduce(torch.add, (through(chain, x) for chain in self._sum))

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return functools.reduce(torch.add, (back(chain, y) for chain in self._sum))

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        weight, operator, rest = parts_of(self._sum[0])
        if len(self._sum) > 1 or operator is None:
            return self._adjoint(self._forward(x))
        return weight * back(rest, operator._normal(through(rest, x)))

    @property
    def n_measurements(self) -> int:
        """Those of the outermost operator, which knows what it leaves zero; of a sum the most that a term has."""
        outermost = [parts_of(chain)[1] for chain in self._sum]
        every_number = super().n_measurements  # of a chain without an operator, a multiple of the identity
        return max(every_number if part is None else part.n_measurements for part in outermost)

    def normal_transfer_function(self) -> torch.Tensor | None:
        """Of a single chain, all of whose operators but the innermost are multiples of isometries."""
        if len(self._sum) > 1:
            return None
        return transfer_function_of(self._sum[0], self._domain_shape[-2:], real_dtype(self._domain_dtype), self._device)

    def _exact_norm(self) -> float | None:
        if len(self._sum) == 1:
            weight, operator, rest = parts_of(self._sum[0])
            if operator is not None and not rest:
                norm = operator._exact_norm()
                return None if norm is None else math.sqrt(weight) * norm
        return super()._exact_norm()

    def __repr__(self) -> str:
        return " + ".join(map(described, self._sum))
