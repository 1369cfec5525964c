"""What a user would pick instead, behind one face: zero filling, and SigPy's CG-SENSE, l1-wavelet and total variation apps.

All take centred k-space (coil, y, x), zero where not acquired, with coil maps of the same shape (None: one coil that sees
everything alike), and return an image (y, x) in the same units. Weights are for images whose maximum is about 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BASELINES", "Baseline", "cg_sense", "l1_wavelet", "total_variation", "zero_filled"]

Kspace = NDArray[np.complex64]
Image = NDArray[np.complex64]
Mask = NDArray[np.bool_]


def zero_filled(kspace: Kspace, maps: Kspace | None = None) -> Image:
    """The inverse centred orthonormal FFT of what was acquired, combined with the maps: A^H y."""
    axes = (-2, -1)
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes)
    image: Image = np.sum(_maps(kspace, maps).conj() * coils, axis=0).astype(np.complex64)
    return image


def cg_sense(kspace: Kspace, mask: Mask, lam: float, max_iterations: int = 50, *, maps: Kspace | None = None) -> Image:
    """SigPy's ``SenseRecon``: argmin 1/2 |M F S x - y|^2 + lam/2 |x|^2, by conjugate gradients; parameters as `total_variation`."""
    from sigpy.mri.app import SenseRecon

    app = SenseRecon(
        kspace,
        _maps(kspace, maps),
        lamda=lam,
        weights=_weights(kspace, mask),
        max_iter=max_iterations,
        show_pbar=False,
    )
    image: Image = np.asarray(app.run(), dtype=np.complex64)
    return image


def total_variation(
    kspace: Kspace, mask: Mask, lam: float, max_iterations: int = 400, *, maps: Kspace | None = None
) -> Image:
    """SigPy's ``TotalVariationRecon``: argmin 1/2 |M F S x - y|^2 + lam |G x|_1, by the primal-dual hybrid gradient method.

    Parameters
    ----------
    kspace
        (coil, y, x) complex64.
    mask
        (x,) or (y, x), true where acquired. A given mask keeps SigPy from taking zeros for samples that were not acquired.
    lam
        Weight, for images whose maximum is about 1.
    max_iterations
        SigPy's default of 100 is far from converged at 8-fold acceleration.
    maps
        (coil, y, x) complex64.
    """
    from sigpy.mri.app import TotalVariationRecon

    app = TotalVariationRecon(
        kspace, _maps(kspace, maps), lam, weights=_weights(kspace, mask), max_iter=max_iterations, show_pbar=False
    )
    image: Image = np.asarray(app.run(), dtype=np.complex64)
    return image


def l1_wavelet(
    kspace: Kspace,
    mask: Mask,
    lam: float,
    max_iterations: int = 200,
    *,
    maps: Kspace | None = None,
    wavelet: str = "db4",
) -> Image:
    """SigPy's ``L1WaveletRecon``: argmin 1/2 |M F S x - y|^2 + lam |W x|_1, by FISTA; parameters as in `total_variation`."""
    from sigpy.mri.app import L1WaveletRecon

    app = L1WaveletRecon(
        kspace,
        _maps(kspace, maps),
        lam,
        weights=_weights(kspace, mask),
        wave_name=wavelet,
        max_iter=max_iterations,
        show_pbar=False,
    )
    image: Image = np.asarray(app.run(), dtype=np.complex64)
    return image


@dataclass(frozen=True)
class Baseline:
    """A method to be compared with.

    Parameters
    ----------
    name
        For tables.
    run
        (kspace, mask, weight, iterations, maps) -> image.
    n_iterations
        As many as it is given; 0 where it has none.
    start
        Weight at which a search for the best one begins. None: the method has no weight.
    for_coils
        Makes sense with several coils only.
    """

    name: str
    run: Callable[[Kspace, Mask, float, int, Kspace | None], Image]
    n_iterations: int = 0
    start: float | None = None
    for_coils: bool = False


BASELINES = (
    Baseline("zero-filled", lambda kspace, mask, lam, n, maps: zero_filled(kspace, maps)),
    # With a single coil it is zero filling times a number.
    Baseline("CG-SENSE", lambda y, mask, lam, n, maps: cg_sense(y, mask, lam, n, maps=maps), 50, 0.02, for_coils=True),
    Baseline("l1-wavelet", lambda y, mask, lam, n, maps: l1_wavelet(y, mask, lam, n, maps=maps), 200, 0.004),
    Baseline("TV", lambda y, mask, lam, n, maps: total_variation(y, mask, lam, n, maps=maps), 1000, 0.004),
)
"""In the order of tables."""


def _maps(kspace: Kspace, maps: Kspace | None) -> Kspace:
    return np.ones(kspace.shape, dtype=np.complex64) if maps is None else maps


def _weights(kspace: Kspace, mask: Mask) -> NDArray[np.float32]:
    return np.broadcast_to(mask, kspace.shape).astype(np.float32)
