"""Transforms and centres of k-space arrays (coil, y, x), complex64; k-space is centred, its transforms orthonormal."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["calibration_shape", "centre", "low_resolution", "pad", "to_image", "to_kspace"]

Complex = NDArray[np.complex64]
Mask = NDArray[np.bool_]


def calibration_shape(mask: Mask) -> tuple[int, int]:
    """(y, x) of the fully sampled block around the centre of a mask (y, x); (0, 0) if the centre itself is missing.

    The block has the indices n // 2 - k to n // 2 + k - 1 along each axis (or all). It is grown as a square first, then
    along y, then along x.
    """

    def span(size: int, k: int) -> slice:
        return slice(max(size // 2 - k, 0), min(size // 2 + k, size))

    def full(k_y: int, k_x: int) -> bool:
        return bool(mask[span(mask.shape[0], k_y), span(mask.shape[1], k_x)].all())

    last_y, last_x = ((size + 1) // 2 for size in mask.shape)
    k_y = k_x = 0
    while min(k_y + 1, last_y) > k_y or min(k_x + 1, last_x) > k_x:
        larger = min(k_y + 1, last_y), min(k_x + 1, last_x)
        if not full(*larger):
            break
        k_y, k_x = larger
    while k_y < last_y and full(k_y + 1, k_x):
        k_y += 1
    while k_x < last_x and full(k_y, k_x + 1):
        k_x += 1
    if k_y == 0 or k_x == 0:
        return 0, 0
    height, width = (span(size, k) for size, k in zip(mask.shape, (k_y, k_x), strict=True))
    return height.stop - height.start, width.stop - width.start


def to_image(kspace: Complex, axes: tuple[int, ...] = (-2, -1)) -> Complex:
    """Inverse transform along some axes."""
    shifted = np.fft.ifftn(np.fft.ifftshift(kspace, axes=axes), axes=axes, norm="ortho")
    return np.fft.fftshift(shifted, axes=axes).astype(np.complex64)


def to_kspace(image: Complex, axes: tuple[int, ...] = (-2, -1)) -> Complex:
    """Transform along some axes."""
    shifted = np.fft.fftn(np.fft.ifftshift(image, axes=axes), axes=axes, norm="ortho")
    return np.fft.fftshift(shifted, axes=axes).astype(np.complex64)


def centre(array: Complex, size: tuple[int, int]) -> Complex:
    """The central (y, x) samples of (coil, y, x)."""
    first_y, first_x = (n // 2 - m // 2 for n, m in zip(array.shape[1:], size, strict=True))
    return array[:, first_y : first_y + size[0], first_x : first_x + size[1]]


def pad(region: Complex, shape: tuple[int, ...]) -> Complex:
    """Zeros around a centre (coil, y, x)."""
    padded = np.zeros((region.shape[0], *shape), dtype=np.complex64)
    first_y, first_x = (n // 2 - m // 2 for n, m in zip(shape, region.shape[1:], strict=True))
    padded[:, first_y : first_y + region.shape[1], first_x : first_x + region.shape[2]] = region
    return padded


def low_resolution(region: Complex, shape: tuple[int, ...]) -> tuple[Complex, float]:
    """Coil images of the centre of k-space under a Hann window, and the factor by which that reduces the noise's variance."""
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in region.shape[1:]))
    image = to_image(pad((region * window).astype(np.complex64), shape))
    return image, float(np.square(window).sum()) / (shape[0] * shape[1])
