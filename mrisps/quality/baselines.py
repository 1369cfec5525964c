"""What a user would pick instead, behind one face: zero filling, and SigPy's CG-SENSE, l1-wavelet and total variation apps.

All take centred k-space (coil, y, x), zero where not acquired, a mask (x,) or (y, x) that is true where it was
acquired, and coil maps of the shape of k-space (None: one coil that sees everything alike). They return an image (y, x)
in the same units. Weights are for images whose maximum is about 1. A mask keeps SigPy from taking zeros for samples
that were not acquired.
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


def cg_sense(kspace: Kspace, mask: Mask, lam: float, max_iterations: int = 50, maps: Kspace | None = None) -> Image:
    """SigPy's ``SenseRecon``: argmin 1/2 |M F S x - y|^2 + lam/2 |x|^2, by conjugate gradients."""
    return _solved("SenseRecon", kspace, mask, lam, max_iterations, maps)


def total_variation(
    kspace: Kspace, mask: Mask, lam: float, max_iterations: int = 400, maps: Kspace | None = None
) -> Image:
    """SigPy's ``TotalVariationRecon``: argmin 1/2 |M F S x - y|^2 + lam |G x|_1, by the primal-dual hybrid gradient method.

    SigPy's default of 100 iterations is far from converged at 8-fold acceleration.
    """
    return _solved("TotalVariationRecon", kspace, mask, lam, max_iterations, maps)


def l1_wavelet(kspace: Kspace, mask: Mask, lam: float, max_iterations: int = 200, maps: Kspace | None = None) -> Image:
    """SigPy's ``L1WaveletRecon``: argmin 1/2 |M F S x - y|^2 + lam |W x|_1 with the wavelet db4, by FISTA."""
    return _solved("L1WaveletRecon", kspace, mask, lam, max_iterations, maps)


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
    Baseline("CG-SENSE", cg_sense, 50, 0.02, for_coils=True),
    Baseline("l1-wavelet", l1_wavelet, 200, 0.004),
    Baseline("TV", total_variation, 1000, 0.004),
)
"""In the order of tables."""


def _maps(kspace: Kspace, maps: Kspace | None) -> Kspace:
    return np.ones(kspace.shape, dtype=np.complex64) if maps is None else maps


def _solved(app: str, kspace: Kspace, mask: Mask, lam: float, max_iterations: int, maps: Kspace | None) -> Image:
    import sigpy.mri.app

    weights = np.broadcast_to(mask, kspace.shape).astype(np.float32)
    options = {"weights": weights, "max_iter": max_iterations, "show_pbar": False}
    image: Image = np.asarray(
        getattr(sigpy.mri.app, app)(kspace, _maps(kspace, maps), lam, **options).run(), np.complex64
    )
    return image
