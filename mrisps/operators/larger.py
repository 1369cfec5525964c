"""An operator on a grid with further rows and columns, which it does not see."""

import math

import torch
from torch.nn import functional

from mrisps.operators.linear import LinearOperator

__all__ = ["OnLargerGrid"]


class OnLargerGrid(LinearOperator):
    """``A x = A_0 x[..., :y, :x]``: the operator A_0 of the first rows and columns of a larger image.

    A solver that can only work on some sizes works on the next larger one. What is in the other rows and columns is up to its
    prior.

    Parameters
    ----------
    operator
        A_0, of images (set, y, x).
    shape
        (y, x) of the larger images.

    Raises
    ------
    ValueError
        If the shape is smaller than that of the operator's images.
    """

    def __init__(self, operator: LinearOperator, shape: tuple[int, int]) -> None:
        n_sets, height, width = operator.domain_shape
        if shape[0] < height or shape[1] < width:
            raise ValueError(f"shape: expected at least (y, x) = {(height, width)}, got {shape}")
        super().__init__(
            domain_shape=(n_sets, *shape),
            range_shape=operator.range_shape,
            domain_dtype=operator.domain_dtype,
            range_dtype=operator.range_dtype,
            device=operator.device,
        )
        self._operator = operator

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._operator._forward(self._seen(x))

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._with_zeros(self._operator._adjoint(y))

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return self._with_zeros(self._operator._normal(self._seen(x)))

    def _seen(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self._operator.domain_shape[-2:]
        return x[..., :height, :width].contiguous()

    def _with_zeros(self, image: torch.Tensor) -> torch.Tensor:
        further = [large - small for large, small in zip(self._domain_shape[-2:], image.shape[-2:], strict=True)]
        return functional.pad(image, (0, further[1], 0, further[0]))

    def take(self, entries: torch.Tensor) -> "OnLargerGrid":
        """The operators of these entries."""
        return OnLargerGrid(self._operator.take(entries), (self._domain_shape[-2], self._domain_shape[-1]))

    @property
    def n_measurements(self) -> int:
        """Those of A_0."""
        return self._operator.n_measurements

    def normal_circulant(self) -> torch.Tensor | None:
        """A circulant near to ``A^H A``: the convolution kernel of that of A_0, on the larger grid, times the share of pixels that
        A_0 sees. None if A_0 has none."""
        known = self._operator.normal_circulant()
        if known is None:
            return None
        axes = (-2, -1)
        kernel = torch.fft.fftshift(torch.fft.ifft2(known), axes)
        before = [
            large // 2 - small // 2 for large, small in zip(self._domain_shape[-2:], known.shape[-2:], strict=True)
        ]
        larger = kernel.new_zeros(*known.shape[:-2], *self._domain_shape[-2:])
        larger[..., before[0] : before[0] + known.shape[-2], before[1] : before[1] + known.shape[-1]] = kernel
        spectrum: torch.Tensor = torch.fft.fft2(torch.fft.ifftshift(larger, axes)).real
        return spectrum.clamp_(min=0).mul_(math.prod(known.shape[-2:]) / math.prod(larger.shape[-2:]))

    def norm(self, tolerance: float = 1e-6) -> float:
        """That of A_0."""
        return self._operator.norm(tolerance)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._operator!r}, {tuple(self._domain_shape[-2:])})"
