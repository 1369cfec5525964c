"""Gaussian blur and downsampling: the measurement of super-resolution."""

import math
from typing import Literal, Self

import torch

from mrisps.operators.linear import LinearOperator
from mrisps.operators.sampled import SampledConvolution
from mrisps.operators.spaces import image_shape

__all__ = ["BlurDownsample"]


class BlurDownsample(LinearOperator):
    """Gaussian blur and downsampling: what super-resolution measures.

    ``(A x)[i, j] = sum_{u, v} g[u] g[v] x[stride i + u, stride j + v]``, with
    ``g[u] ~ exp(-(u - (kernel_size - 1) / 2)^2 / (2 sigma^2))`` and ``sum g = 1``. Only samples whose kernel lies inside
    the image are kept ("valid"). Images are ``(batch, 1, y, x)``.

    The Gaussian is separable: ``A x = G_y x G_x^T`` with one small matrix for each direction. As matrix products the
    adjoint is exact for every image size, and the norm is the product of two matrix norms.

    Parameters
    ----------
    shape
        ``(y, x)`` of the high-resolution images ``(batch, 1, y, x)``, or ``(channel, y, x)``.
    kernel_size
        Samples of the kernel in each direction.
    sigma
        Standard deviation of the Gaussian, in pixels.
    stride
        Downsampling factor.
    dtype
        Data type of images and measurements, real or complex.
    device
        Device of the images.

    Raises
    ------
    ValueError
        If the kernel does not fit into the image, or a parameter is not positive.

    Source
    ------
    arXiv 2412.13070, super-resolution experiment: kernel 16 x 16, sigma 2, stride 4.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        kernel_size: int = 16,
        sigma: float = 2.0,
        stride: int = 4,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        full = image_shape(shape)
        for name, value in (("kernel_size", kernel_size), ("stride", stride)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value}")
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma: expected a positive number of pixels, got {sigma}")
        if min(full[1:]) < kernel_size:
            raise ValueError(f"shape: expected at least {kernel_size} pixels, the kernel_size, got (y, x) = {full[1:]}")
        n_y, n_x = ((size - kernel_size) // stride + 1 for size in full[1:])
        super().__init__(
            domain_shape=full, range_shape=(full[0], n_y, n_x), domain_dtype=dtype, range_dtype=dtype, device=device
        )
        self._kernel_size = kernel_size
        self._sigma = float(sigma)
        self._stride = stride
        rows, columns = (_blur_matrix(size, kernel_size, sigma, stride) for size in full[1:])
        self._norm = float(torch.linalg.matrix_norm(rows, 2) * torch.linalg.matrix_norm(columns, 2))
        self._rows = rows.to(dtype=dtype, device=self._device)  # (n_y, y)
        self._columns = columns.to(dtype=dtype, device=self._device)  # (n_x, x)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._rows @ x @ self._columns.mT  # (batch, channel, n_y, n_x)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._rows.mT @ y @ self._columns  # (batch, channel, y, x)

    def sampled_convolution(self) -> SampledConvolution | None:
        """The same with a periodic image, and which of its samples see no pixels from two sides; None if y or x is no multiple of
        the stride."""
        stride, (n_y, n_x) = self._stride, self._range_shape[1:]
        shape = self._domain_shape[-2:]
        if any(size % stride for size in shape):
            return None
        along_y, along_x = (_periodic_spectrum(size, self._kernel_size, self._sigma) for size in shape)
        kept = torch.zeros(shape[0] // stride, shape[1] // stride, dtype=torch.bool)
        kept[:n_y, :n_x] = True
        transfer = along_y[:, None] * along_x[None, :]
        return SampledConvolution(transfer.to(self._device), stride, kept.to(self._device))

    def _exact_norm(self) -> float:
        return self._norm

    def to(
        self, device: torch.device | str | None = None, precision: Literal["single", "double"] | None = None
    ) -> Self:
        """Copy on another device or in another precision, for which the kernel is computed anew."""
        new = super().to(device, precision)
        return type(self)(
            self._domain_shape, self._kernel_size, self._sigma, self._stride, new.domain_dtype, new.device
        )

    def __repr__(self) -> str:
        parameters = f"kernel_size={self._kernel_size}, sigma={self._sigma:g}, stride={self._stride}"
        return f"{type(self).__name__}({self._maps()}, {parameters})"


def _gaussian(size: int, sigma: float) -> torch.Tensor:
    """Gaussian profile of `size` samples about their centre, double precision, sum 1."""
    distance = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    profile = torch.exp(-(distance**2) / (2 * sigma**2))
    return profile / profile.sum()


def _periodic_spectrum(size: int, kernel_size: int, sigma: float) -> torch.Tensor:
    """Transfer function of the correlation with the profile, in the order of `torch.fft.fft`; complex128."""
    spectrum: torch.Tensor = torch.fft.fft(_gaussian(kernel_size, sigma), n=size)
    return spectrum.conj()


def _blur_matrix(size: int, kernel_size: int, sigma: float, stride: int) -> torch.Tensor:
    """One row for each output sample, with the profile where it looks; double precision."""
    n_out = (size - kernel_size) // stride + 1
    matrix = torch.zeros(n_out, size, dtype=torch.float64)
    profile = _gaussian(kernel_size, sigma)
    for row in range(n_out):
        matrix[row, row * stride : row * stride + kernel_size] = profile
    return matrix
