"""Cartesian sampling of k-space: Fourier transform and mask."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from mrisps.operators.fourier import fft2c, ifft2c
from mrisps.operators.linear import LinearOperator
from mrisps.operators.spaces import complex_dtype, image_shape, real_dtype

__all__ = ["FourierSubsampling", "Mask"]


class KnowsMask(Protocol):
    """An object that knows the mask of a k-space, as `mrisps.SamplingMask` does."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(y, x)`` of the k-space."""

    def tensor(self, device: torch.device | str | None = None) -> torch.Tensor:
        """The pattern, bool: ``(x,)`` for columns or ``(y, x)``; centred, True where acquired."""


Mask = torch.Tensor | npt.NDArray[np.bool_] | KnowsMask
"""What operators take as a mask."""


class FourierSubsampling(LinearOperator):
    """``A x = M F x``: centred orthonormal k-space of an image, zero where it is not acquired.

    Over complex images ``A^H A`` is the convolution with transfer function ``m``. Over real images the adjoint is
    ``Re F^H M``, and the transfer function is the symmetrised mask ``(m(f) + m(-f)) / 2``.

    Parameters
    ----------
    mask
        `mrisps.SamplingMask`; or a bool tensor or array, ``(x,)`` for columns or ``(y, x)``. The zero frequency is at
        index ``size // 2``, and True means acquired.
    shape
        ``(y, x)`` of the images ``(batch, 1, y, x)``, or ``(coil, y, x)``. None takes ``(y, x)`` from the mask.
    domain_dtype
        Data type of the images: ``complex64``, ``complex128``, or ``float32``, ``float64`` for real images.
    device
        Device of images and k-space; None takes that of the mask.

    Raises
    ------
    TypeError
        If the mask is of another kind.
    ValueError
        If the mask has another shape than the images, is not bool, or acquires nothing.
    """

    def __init__(
        self,
        mask: Mask,
        shape: tuple[int, ...] | None = None,
        domain_dtype: torch.dtype = torch.complex64,
        device: torch.device | str | None = None,
    ) -> None:
        pattern = _mask_tensor(mask, device)
        known = tuple(mask.shape)
        if shape is None:
            if len(known) != 2:
                raise ValueError(f"shape: needed with a mask that is not (y, x), got mask {known}")
            shape = known
        elif not isinstance(mask, torch.Tensor | np.ndarray) and known != tuple(shape[-2:]):
            raise ValueError(f"mask: expected (y, x) = {tuple(shape[-2:])}, got {known}")
        full = image_shape(shape)
        n_y, n_x = full[1:]
        if tuple(pattern.shape) not in ((n_y, n_x), (n_x,)):
            raise ValueError(
                f"mask: expected (y, x) = {(n_y, n_x)}, or ({n_x},) for columns, got {tuple(pattern.shape)}"
            )
        if not bool(pattern.any()):
            raise ValueError("mask: expected at least one acquired sample, got none")
        super().__init__(
            domain_shape=full,
            range_shape=full,
            domain_dtype=domain_dtype,
            range_dtype=complex_dtype(domain_dtype),
            device=pattern.device,
        )
        precision = real_dtype(domain_dtype)
        transfer_function: torch.Tensor = torch.fft.ifftshift(pattern.to(precision).expand(n_y, n_x))
        if not domain_dtype.is_complex:
            mirrored = torch.roll(transfer_function.flip(-2, -1), (1, 1), (-2, -1))  # m(-f), also for even sizes
            transfer_function = (transfer_function + mirrored) / 2
        self._mask = pattern.to(device=self._device, dtype=precision, copy=True)  # (x,) or (y, x), centred
        self._transfer_function = transfer_function.to(self._device)  # (y, x), zero frequency at [0, 0]

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._mask * fft2c(x)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        image = ifft2c(self._mask * y)
        if self._domain_dtype.is_complex:
            return image
        return torch.real(image).clone()

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        if self._domain_dtype.is_complex:
            image: torch.Tensor = torch.fft.ifft2(self._transfer_function * torch.fft.fft2(x))
        else:
            half = self._transfer_function[:, : x.shape[-1] // 2 + 1]
            image = torch.fft.irfft2(half * torch.fft.rfft2(x), s=x.shape[-2:])
        return image

    def with_mask(self, mask: Mask) -> "FourierSubsampling":
        """The same operator with another mask; errors as of the constructor."""
        return FourierSubsampling(mask, self._domain_shape, self._domain_dtype, self._device)

    @property
    def mask(self) -> torch.Tensor:
        """Bool, ``(y, x)``: true where acquired; centred."""
        return self._mask.expand(self._domain_shape[-2:]) != 0

    @property
    def n_measurements(self) -> int:
        """Twice the number of acquired samples: the zeros elsewhere are no measurements."""
        return 2 * self._domain_shape[0] * int(self._mask.expand(self._domain_shape[-2:]).sum())

    def normal_transfer_function(self) -> torch.Tensor:
        """The mask in the order of `torch.fft.fft2`, shape ``(y, x)``; symmetrised over real images."""
        return self._transfer_function.clone()

    def __repr__(self) -> str:
        acquired = self._mask.expand(self._domain_shape[-2:])
        return f"{type(self).__name__}({self._maps()}, acceleration={acquired.numel() / float(acquired.sum()):.3g})"


def _mask_tensor(mask: Mask, device: torch.device | str | None) -> torch.Tensor:
    """The pattern as a bool tensor on the device, or on the mask's own."""
    if isinstance(mask, np.ndarray):
        if mask.dtype != np.bool_:
            raise ValueError(f"mask: expected dtype bool, got {mask.dtype}")
        return torch.tensor(mask, device=device)
    if isinstance(mask, torch.Tensor):
        pattern = mask.detach()
    elif hasattr(mask, "tensor"):
        pattern = mask.tensor(device)
    else:
        raise TypeError(f"mask: expected a SamplingMask, a tensor or an array, got {type(mask).__name__}")
    if pattern.dtype != torch.bool:
        raise ValueError(f"mask: expected dtype torch.bool, got {pattern.dtype}")
    return pattern if device is None else pattern.to(device)
