"""Centred orthonormal Fourier transform of images."""

import torch

from mrisps.operators.linear import LinearOperator
from mrisps.operators.spaces import image_shape, real_dtype

__all__ = ["Fourier", "fft2c", "ifft2c"]

_AXES = (-2, -1)


def fft2c(image: torch.Tensor) -> torch.Tensor:
    """Centred orthonormal 2D Fourier transform of the last two axes.

    The origin of both the image and the k-space is at index ``(y // 2, x // 2)``.

    Parameters
    ----------
    image
        Shape ``(..., y, x)``, real or complex.

    Returns
    -------
    torch.Tensor
        k-space, shape of `image`, complex.
    """
    kspace: torch.Tensor = torch.fft.fft2(torch.fft.ifftshift(image, dim=_AXES), norm="ortho")
    shifted: torch.Tensor = torch.fft.fftshift(kspace, dim=_AXES)
    return shifted


def ifft2c(kspace: torch.Tensor) -> torch.Tensor:
    """Inverse (and adjoint) of `fft2c`.

    Parameters
    ----------
    kspace
        Shape ``(..., y, x)``, complex, zero frequency at index ``(y // 2, x // 2)``.

    Returns
    -------
    torch.Tensor
        Image, shape of `kspace`, complex.
    """
    image: torch.Tensor = torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=_AXES), norm="ortho")
    shifted: torch.Tensor = torch.fft.fftshift(image, dim=_AXES)
    return shifted


class Fourier(LinearOperator):
    """Centred orthonormal Fourier transform, ``A x = F x``; unitary.

    Parameters
    ----------
    shape
        ``(y, x)`` for images ``(batch, 1, y, x)``, or ``(coil, y, x)``.
    dtype
        ``complex64`` or ``complex128``. For real images see `FourierSubsampling`.
    device
        Device of the images.

    Raises
    ------
    ValueError
        If `dtype` is not complex.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype = torch.complex64, device: torch.device | str = "cpu"
    ) -> None:
        if not dtype.is_complex:
            raise ValueError(f"dtype: expected torch.complex64 or torch.complex128, got {dtype}")
        full = image_shape(shape)
        super().__init__(domain_shape=full, range_shape=full, domain_dtype=dtype, range_dtype=dtype, device=device)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return fft2c(x)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return ifft2c(y)

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    def normal_transfer_function(self) -> torch.Tensor:
        """One at every frequency, shape ``(y, x)``: ``F^H F`` is the identity."""
        return torch.ones(self._domain_shape[-2:], dtype=real_dtype(self._domain_dtype), device=self._device)
