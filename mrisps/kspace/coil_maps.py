"""Coil sensitivities from the fully sampled centre of k-space, and the transforms that the preparation needs.

Arrays are (coil, y, x), complex64; k-space is centred, its transforms orthonormal.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.atomic import atomic_path
from mrisps.errors import FileError
from mrisps.kspace.settings import CoilMaps

__all__ = ["calibration_shape", "estimate_maps"]

Complex = NDArray[np.complex64]
Mask = NDArray[np.bool_]


def calibration_shape(mask: Mask) -> tuple[int, int]:
    """(y, x) of the fully sampled block around the centre of a mask (y, x); (0, 0) if the centre itself is missing.

    The block has the indices n // 2 - k to n // 2 + k - 1 along each axis (or all). It is grown as a square first, then along y,
    then along x.
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


def estimate_maps(region: Complex, shape: tuple[int, ...], settings: CoilMaps) -> Complex:
    """Sensitivities on a grid (y, x) from the centre of k-space; sum |S|^2 is 1, or 0 where there are none."""
    return espirit(region, shape, settings) if settings.method == "espirit" else walsh(region, shape, settings)


def espirit(region: Complex, shape: tuple[int, ...], settings: CoilMaps) -> Complex:
    """SigPy's ESPIRiT."""
    from sigpy.mri.app import EspiritCalib

    padded = pad(region, shape)
    calibration: Complex = np.asarray(
        EspiritCalib(
            padded,
            calib_width=min(region.shape[1:]),
            thresh=settings.threshold,
            kernel_width=settings.kernel_width,
            crop=settings.crop,
            show_pbar=False,
        ).run(),
        dtype=np.complex64,
    )
    return calibration


def walsh(region: Complex, shape: tuple[int, ...], settings: CoilMaps, box: int = 7, n_iterations: int = 12) -> Complex:
    """The largest eigenvector of the covariance of the coils in a box around each pixel of a low-resolution image."""
    from scipy.ndimage import uniform_filter

    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in region.shape[1:]))
    low = to_image(pad((region * window).astype(np.complex64), shape))
    magnitude = np.sqrt(np.square(np.abs(low)).sum(axis=0))
    n_coils = len(low)
    covariance = np.empty((*shape, n_coils, n_coils), dtype=np.complex64)
    for i in range(n_coils):
        for j in range(i, n_coils):
            product = low[i] * low[j].conj()
            smooth = uniform_filter(product.real, box, mode="wrap") + 1j * uniform_filter(
                product.imag, box, mode="wrap"
            )
            covariance[..., i, j], covariance[..., j, i] = smooth, smooth.conj()
    vector = np.moveaxis(low, 0, -1)[..., None].copy()  # (y, x, coil, 1): near the answer already
    for _ in range(n_iterations):
        vector = covariance @ vector
        vector /= np.linalg.norm(vector, axis=-2, keepdims=True).clip(min=np.finfo(np.float32).tiny)
    maps = np.moveaxis(vector[..., 0], -1, 0)
    maps = maps * np.exp(-1j * np.angle(maps[:1]))  # the phase of the first coil, as ESPIRiT has it
    return np.asarray(maps * (magnitude >= settings.walsh_crop * magnitude.max()), dtype=np.complex64)


def read_maps(path: Path, shape: tuple[int, ...]) -> Complex | None:
    """Maps that were kept in this file; None if there is none.

    Raises
    ------
    FileError
        The file holds something else.
    """
    if not path.is_file():
        return None
    try:
        maps: Complex = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FileError(path, f"is no map that was kept: {error}") from error
    if maps.shape != shape or maps.dtype != np.complex64 or not np.isfinite(maps).all():
        raise FileError(path, f"expected finite complex64 maps {shape}, got {maps.dtype} {maps.shape}")
    return maps


def keep_maps(path: Path, maps: Complex) -> None:
    """Write maps for the next time; the folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, maps)


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
